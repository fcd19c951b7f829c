package openai_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/llm/openai"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func codeOf(err error) chat.Code {
	if shown, ok := errors.AsType[*chat.Error](err); ok {
		return shown.Code
	}
	return ""
}

// usage is what an upstream of llmtest reports for n words to the question of ask.
func usage(n int) *chat.Usage { return &chat.Usage{InputTokens: 3, OutputTokens: n} }

func TestAnswers(t *testing.T) {
	fake := llmtest.NewServer(t)
	p := newProvider(t, fake.BaseURL)
	tests := []struct {
		model string
		want  answer
	}{
		{"words-200", answer{Text: llmtest.Text(200), FinishReason: chat.FinishStop, Usage: usage(200)}},
		{"words-0", answer{FinishReason: chat.FinishStop, Usage: usage(0)}},
		{"echo", answer{Text: "How are you?", FinishReason: chat.FinishStop, Usage: usage(3)}},
		{"length-3", answer{Text: llmtest.Text(3), FinishReason: chat.FinishLength, Usage: usage(3)}},
		{"filter-3", answer{Text: llmtest.Text(3), FinishReason: chat.FinishContentFilter, Usage: usage(3)}},
		{"reasoning-4", answer{
			Text: llmtest.Text(4), Reasoning: llmtest.Text(4), FinishReason: chat.FinishStop, Usage: usage(4),
		}},
		{"crlf-8", answer{Text: llmtest.Text(8), FinishReason: chat.FinishStop, Usage: usage(8)}},
		{"cr-8", answer{Text: llmtest.Text(8), FinishReason: chat.FinishStop, Usage: usage(8)}},
		{"comments-8", answer{Text: llmtest.Text(8), FinishReason: chat.FinishStop, Usage: usage(8)}},
		{"bytes-8", answer{Text: llmtest.Text(8), FinishReason: chat.FinishStop, Usage: usage(8)}},
		{"bare-8", answer{Text: llmtest.Text(8), FinishReason: chat.FinishStop}},
		{"unfinished-8", answer{Text: llmtest.Text(8), FinishReason: chat.FinishStop}},
	}
	for _, test := range tests {
		t.Run(test.model, func(t *testing.T) {
			if got, err := ask(t, p, test.model); err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	fake := llmtest.NewServer(t)
	p := newProvider(t, fake.BaseURL)
	tests := []struct {
		model string
		text  string // what came before the fault
		code  chat.Code
		retry time.Duration
	}{
		{"end-after-5", llmtest.Text(5), chat.CodeLLMUnavailable, 0},
		{"cut-after-5", llmtest.Text(5), chat.CodeLLMUnavailable, 0},
		{"error-after-5", llmtest.Text(5), chat.CodeLLMUnavailable, 0},
		{"garbage-after-5", llmtest.Text(5), chat.CodeLLMUnavailable, 0},
		{"huge-line", "", chat.CodeLLMUnavailable, 0},
		{"tools", "", chat.CodeLLMRejected, 0},
		{"flood", strings.Repeat("x", 8<<20), chat.CodeLLMRejected, 0},
		{"html", "", chat.CodeLLMUnavailable, 0},
		{"json", "", chat.CodeLLMUnavailable, 0},
		{"redirect", "", chat.CodeLLMUnavailable, 0},
		{"refused", "", chat.CodeContentFiltered, 0},
		{"status-204", "", chat.CodeLLMUnavailable, 0},
		{"status-400", "", chat.CodeLLMRejected, 0},
		{"status-401", "", chat.CodeLLMRejected, 0},
		{"status-403", "", chat.CodeLLMRejected, 0},
		{"no-such-model", "", chat.CodeLLMRejected, 0},
		{"status-408", "", chat.CodeLLMUnavailable, 0},
		{"status-413", "", chat.CodeLLMRejected, 0},
		{"status-422", "", chat.CodeLLMRejected, 0},
		{"status-429", "", chat.CodeLLMUnavailable, 7 * time.Second},
		{"status-500", "", chat.CodeLLMUnavailable, 0},
		{"status-502", "", chat.CodeLLMUnavailable, 0},
		{"status-503", "", chat.CodeLLMUnavailable, 7 * time.Second},
		{"status-529", "", chat.CodeLLMUnavailable, 0},
	}
	for _, test := range tests {
		t.Run(test.model, func(t *testing.T) {
			got, err := ask(t, p, test.model)
			if got.Text != test.text {
				t.Errorf("got the text %.200q, want %.200q", got.Text, test.text)
			}
			shown, ok := errors.AsType[*chat.Error](err)
			if !ok || shown.Code != test.code || shown.RetryAfter != test.retry {
				t.Fatalf("got %v; want %s, to be retried after %s", err, test.code, test.retry)
			}
			if strings.Contains(shown.Message, llmtest.Detail) || strings.Contains(err.Error(), key) {
				t.Errorf("%q or its cause says too much", err)
			}
		})
	}
}

// What lies in the buffers of a connection that is reset may be lost.
func TestReset(t *testing.T) {
	p := newProvider(t, llmtest.NewServer(t).BaseURL)
	got, err := ask(t, p, "reset-after-5")
	if codeOf(err) != chat.CodeLLMUnavailable || !strings.HasPrefix(llmtest.Text(5), got.Text) {
		t.Errorf("got %q, %v", got.Text, err)
	}
}

func TestTheCauseSaysWhatTheUpstreamSaid(t *testing.T) {
	p := newProvider(t, llmtest.NewServer(t).BaseURL)
	for _, model := range []string{"status-401", "status-500", "error-after-1", "json", "no-such-model"} {
		_, err := ask(t, p, model)
		shown := chat.AsError(err)
		want := llmtest.Detail
		if model == "no-such-model" {
			want = "404"
		}
		if shown.Cause == nil || !strings.Contains(shown.Cause.Error(), want) ||
			!strings.Contains(shown.Cause.Error(), "provider upstream") {
			t.Errorf("%s: the cause is %v", model, shown.Cause)
		}
	}
}

func TestTheCauseIsBounded(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		w.Write([]byte(strings.Repeat("é", 1<<20)))
	}))
	t.Cleanup(server.Close)
	_, err := ask(t, newProvider(t, server.URL), "any")
	if n := len(chat.AsError(err).Cause.Error()); n < 2000 || n > 2200 {
		t.Errorf("a cause of %d bytes", n)
	}
}

func TestRequest(t *testing.T) {
	fake := llmtest.NewServer(t)
	p := newProvider(t, fake.BaseURL+"/")
	request := chat.Request{Model: "words-1", Messages: []chat.PromptMessage{
		{Role: chat.RoleSystem, Text: "Be brief."},
		{Role: chat.RoleUser, Text: "Hi <b>&\u2028"},
		{Role: chat.RoleAssistant, Text: "Hello."},
		{Role: chat.RoleUser, Text: "Bye"},
	}}
	for _, err := range p.Stream(t.Context(), request) {
		if err != nil {
			t.Fatal(err)
		}
	}
	requests := fake.Requests()
	if len(requests) != 1 {
		t.Fatalf("%d requests", len(requests))
	}
	got := requests[0]
	want := []llmtest.Message{
		{Role: "system", Content: "Be brief."},
		{Role: "user", Content: "Hi <b>&\u2028"},
		{Role: "assistant", Content: "Hello."},
		{Role: "user", Content: "Bye"},
	}
	if got.Model != "words-1" || !got.Stream || !got.StreamOptions.IncludeUsage || !slices.Equal(got.Messages, want) {
		t.Errorf("got %+v", got)
	}
	if got.Authorization != "Bearer "+key {
		t.Errorf("Authorization: %q", got.Authorization)
	}
}

func TestNoKeyNoHeader(t *testing.T) {
	fake := llmtest.NewServer(t)
	p := open(t, openai.Config{BaseURL: fake.BaseURL})
	if _, err := ask(t, p, "words-1"); err != nil {
		t.Fatal(err)
	}
	if got := fake.Requests()[0].Authorization; got != "" {
		t.Errorf("Authorization: %q", got)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	fake := llmtest.NewServer(t)
	ask(t, newProvider(t, fake.BaseURL), "redirect")
	if n := len(fake.Requests()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestNobodyListens(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	_, err = ask(t, newProvider(t, "http://"+listener.Addr().String()), "words-1")
	if codeOf(err) != chat.CodeLLMUnavailable {
		t.Errorf("got %v", err)
	}
}

func TestTheEndOfTheContextIsTheLastPair(t *testing.T) {
	for model, after := range map[string]string{"hang": "", "stall-after-3": llmtest.Text(3), "gate-3": ""} {
		t.Run(model, func(t *testing.T) {
			fake := llmtest.NewServer(t)
			p := newProvider(t, fake.BaseURL)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			go func() { // ends with the request that it waits for
				if after == "" && fake.Await(ctx, llmtest.Counts{Requests: 1}) == nil {
					cancel(errors.New("stopped by the user"))
				}
			}()
			var text string
			var last error
			for chunk, err := range p.Stream(ctx, chat.Request{Model: model}) {
				if last != nil {
					t.Error("a pair after the error")
				}
				if text += chunk.Text; text == after && after != "" {
					cancel(errors.New("stopped by the user"))
				}
				last = err
			}
			if !errors.Is(last, context.Canceled) || text != after {
				t.Errorf("got %q, %v; want %q, %v", text, last, after, context.Canceled)
			}
			if err := fake.Await(t.Context(), llmtest.Counts{Cancelled: 1}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestADeadlineIsReturnedAsItIs(t *testing.T) {
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	p := newProvider(t, llmtest.NewServer(t).BaseURL)
	for _, err := range p.Stream(ctx, chat.Request{Model: "words-1"}) {
		if err != context.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
	}
}

func TestLeavingTheLoopEndsTheRequest(t *testing.T) {
	fake := llmtest.NewServer(t)
	p := newProvider(t, fake.BaseURL)
	for chunk, err := range p.Stream(t.Context(), chat.Request{Model: "stall-after-1"}) {
		if err != nil {
			t.Fatal(err)
		}
		if chunk.Text != "" {
			break
		}
	}
	if err := fake.Await(t.Context(), llmtest.Counts{Cancelled: 1}); err != nil {
		t.Error(err)
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dialled := inMemory(t, llmtest.NewHandler())
		for range 10 {
			if _, err := ask(t, p, "words-10"); err != nil {
				t.Fatal(err)
			}
		}
		if n := dialled.Load(); n != 1 {
			t.Errorf("%d connections for 10 answers", n)
		}
	})
}

// inMemory serves an upstream within a synctest bubble, where the network is not allowed. It counts the connections.
func inMemory(t *testing.T, handler http.Handler) (*openai.Provider, *atomic.Int32) {
	listener := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: handler}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	var dialled atomic.Int32
	config := openai.Config{BaseURL: "http://upstream"}
	config.Dial = func(context.Context, string, string) (net.Conn, error) {
		dialled.Add(1)
		ours, theirs := net.Pipe()
		listener.conns <- theirs
		return ours, nil
	}
	return open(t, config), &dialled
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func TestAnUpstreamThatLingersAfterTheFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := llmtest.NewHandler()
		t.Cleanup(handler.Close)
		p, _ := inMemory(t, handler)
		start := time.Now()
		got, err := ask(t, p, "linger-3")
		if err != nil || got.Text != llmtest.Text(3) || got.FinishReason != chat.FinishStop {
			t.Errorf("got %+v, %v; want a whole answer", got, err)
		}
		if waited := time.Since(start); waited != 2*time.Second {
			t.Errorf("waited %s for the usage", waited)
		}
	})
}

func TestAnErrorThatNeverEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			w.Write([]byte("one moment"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}))
		_, err := ask(t, p, "any")
		if codeOf(err) != chat.CodeLLMUnavailable || !strings.Contains(err.Error(), "one moment") {
			t.Errorf("got %v", err)
		}
	})
}
