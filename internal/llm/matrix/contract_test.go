package matrix_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// What lies in the buffers of a connection that is reset may be lost.
func TestReset(t *testing.T) {
	each(t, func(t *testing.T, _ string, _ *llmtest.Server, p chat.Provider) {
		got, err := llmtest.Ask(t.Context(), t, p, llmtest.Question("reset-after-5"))
		if !errors.Is(err, chat.NewError(chat.CodeLLMUnavailable, "")) || !strings.HasPrefix(llmtest.Text(5), got.Text) {
			t.Errorf("got %q, %v", got.Text, err)
		}
	})
}

func TestAfterAFailureTheNextRequestIsAnswered(t *testing.T) {
	each(t, func(t *testing.T, _ string, _ *llmtest.Server, p chat.Provider) {
		for _, model := range []string{"flaky-1-0-5", "flaky-1-529-5"} {
			if _, err := llmtest.Ask(t.Context(), t, p, llmtest.Question(model)); err == nil {
				t.Errorf("%s: no error", model)
			}
			got, err := llmtest.Ask(t.Context(), t, p, llmtest.Question(model))
			if err != nil || got.Text != llmtest.Text(5) {
				t.Errorf("%s: got %+v, %v", model, got, err)
			}
		}
	})
}

// waiting are scripts that wait for something, with the text that comes before.
var waiting = []struct{ model, text string }{
	{"hang", ""},
	{"gate-3", ""},
	{"stall-after-3", llmtest.Text(3)},
	{"pings-after-3-1s", llmtest.Text(3)},
}

func TestTheEndOfTheContextIsTheLastPair(t *testing.T) {
	each(t, func(t *testing.T, _ string, fake *llmtest.Server, p chat.Provider) {
		for i, test := range waiting {
			ctx, cancel := context.WithCancelCause(t.Context())
			// Where there is no text to wait for, the request is what is waited for.
			stopped := make(chan struct{})
			go func() {
				defer close(stopped)
				if test.text == "" && fake.Await(ctx, llmtest.Counts{Requests: i + 1}) == nil {
					cancel(errors.New("stopped by the user"))
				}
			}()
			var text string
			var last error
			for chunk, err := range p.Stream(ctx, llmtest.Question(test.model)) {
				if last != nil {
					t.Errorf("%s: a pair after the error", test.model)
				}
				if text += chunk.Text; text == test.text && text != "" {
					cancel(errors.New("stopped by the user"))
				}
				last = err
			}
			cancel(nil)
			<-stopped
			if last != context.Canceled || text != test.text { // as it is, neither wrapped nor its cause
				t.Errorf("%s: got %q, %v; want %q, %v", test.model, text, last, test.text, context.Canceled)
			}
			if err := fake.Await(t.Context(), llmtest.Counts{Finished: i + 1}); err != nil {
				t.Errorf("%s: the request goes on: %v", test.model, err)
			}
		}
	})
}

func TestADeadlineEndsWhatHangs(t *testing.T) {
	for _, kind := range types {
		for _, test := range waiting {
			t.Run(kind.name+"/"+test.model, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := openInMemory(t, kind.open)
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					start := time.Now()
					got, err := llmtest.Ask(ctx, t, p, llmtest.Question(test.model))
					if err != context.DeadlineExceeded || got.Text != test.text || time.Since(start) != time.Minute {
						t.Errorf("got %q, %v after %s", got.Text, err, time.Since(start))
					}
					if err := p.Await(t.Context(), llmtest.Counts{Finished: 1}); err != nil {
						t.Errorf("the request goes on: %v", err)
					}
				})
			})
		}
	}
}

func TestAContextThatHasEnded(t *testing.T) {
	each(t, func(t *testing.T, _ string, fake *llmtest.Server, p chat.Provider) {
		ctx, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
		defer cancel()
		if _, err := llmtest.Ask(ctx, t, p, llmtest.Question("words-1")); err != context.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		if requests := fake.Requests(); len(requests) > 0 {
			t.Errorf("got the requests %+v", requests)
		}
	})
}

func TestLeavingTheLoopEndsTheRequest(t *testing.T) {
	each(t, func(t *testing.T, _ string, fake *llmtest.Server, p chat.Provider) {
		for chunk, err := range p.Stream(t.Context(), llmtest.Question("stall-after-1")) {
			if err != nil {
				t.Fatal(err)
			}
			if chunk.Text != "" {
				break
			}
		}
		if err := fake.Await(t.Context(), llmtest.Counts{Finished: 1}); err != nil {
			t.Error(err)
		}
	})
}

// After the finish there is no more to wait for than usage, and not for long.
func TestAnUpstreamThatLingersAfterTheFinish(t *testing.T) {
	for _, kind := range types {
		t.Run(kind.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := openInMemory(t, kind.open)
				start := time.Now()
				got, err := llmtest.Ask(t.Context(), t, p, llmtest.Question("linger-3"))
				if err != nil || got.Text != llmtest.Text(3) || got.FinishReason != chat.FinishStop {
					t.Errorf("got %+v, %v; want a whole answer", got, err)
				}
				want := 2 * time.Second
				if kind.name == difyAI {
					want = 100 * time.Millisecond // its finish has the usage, and is the end
				}
				if waited := time.Since(start); waited != want {
					t.Errorf("waited %s", waited)
				}
			})
		})
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	for _, kind := range types {
		t.Run(kind.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := openInMemory(t, kind.open)
				for range 10 {
					if _, err := llmtest.Ask(t.Context(), t, p, llmtest.Question("words-10")); err != nil {
						t.Fatal(err)
					}
				}
				if p.dialled != 1 {
					t.Errorf("%d connections for 10 answers", p.dialled)
				}
			})
		})
	}
}
