package session_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/storetest"
)

type answering = func(context.Context, chat.Request) iter.Seq2[chat.Chunk, error]

// entitled has the model "m" answer and "n" make titles.
func entitled(answer, title answering) *model {
	return &model{answer: func(ctx context.Context, r chat.Request) iter.Seq2[chat.Chunk, error] {
		if r.Model == "n" {
			return title(ctx, r)
		}
		return answer(ctx, r)
	}}
}

func byModel(c *session.Config) { c.TitleModel = "n" }

// callsOf gives what a model was asked.
func (m *model) callsOf(model string) (calls []chat.Request) {
	for _, r := range m.calls() {
		if r.Model == model {
			calls = append(calls, r)
		}
	}
	return calls
}

func titleOf(t *testing.T, h *house, s *session.Session) string {
	t.Helper()
	stored, err := h.store.Session(t.Context(), s.ID())
	if err != nil {
		t.Fatal(err)
	}
	if shown := s.Record().Title; shown != stored.Title {
		t.Errorf("the title is %q, stored is %q", shown, stored.Title)
	}
	return stored.Title
}

func TestTitleOfTheFirstWords(t *testing.T) {
	long := strings.Repeat("word ", 30)
	tests := []struct{ text, want string }{
		{"Hello", "Hello"},
		{"  How do I\n\tget a refund?\n\nI bought it\u0007 yesterday. ", "How do I get a refund? I bought it yesterday."},
		{strings.Repeat("x", 60), strings.Repeat("x", 60)},
		{strings.Repeat("x", 61), strings.Repeat("x", 59) + "…"},
		{long, strings.TrimSpace(strings.Repeat("word ", 11)) + "…"},
		{"One two, three; four five six seven eight nine ten, eleven - twelve", "One two, three; four five six seven eight nine ten, eleven…"},
		{"a " + strings.Repeat("x", 80), "a " + strings.Repeat("x", 57) + "…"}, // no word to cut behind
		{strings.Repeat("日本語", 30), strings.Repeat("日本語", 19) + "日本…"},
		{strings.Repeat("😀", 61), strings.Repeat("😀", 59) + "…"},
		{strings.Repeat("ä", 60), strings.Repeat("ä", 60)},
	}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, storetest.NewMemory(), &model{answer: says(time.Second, "yes")}, nil)
			defer h.close(t)
			s := h.create(t)
			defer s.Release()
			r := newReader(t, s)
			send(t, s, "q", test.text)
			time.Sleep(2 * time.Second)
			r.drain(t, s)
			if got := titleOf(t, h, s); got != test.want || r.title != test.want || !utf8.ValidString(got) || utf8.RuneCountInString(got) > 60 {
				t.Errorf("the title of %q is %q, to the reader %q, want %q", test.text, got, r.title, test.want)
			}
			if got := r.bodies(); !strings.HasSuffix(got, "MessageDelta SessionUpdated MessageCompleted") {
				t.Errorf("the reader sees %s", got)
			}
			send(t, s, "q2", "Another question")
			time.Sleep(time.Minute)
			if got := titleOf(t, h, s); got != test.want {
				t.Errorf("after a second question the title is %q", got)
			}
		})
	}
}

// What the first words are made of, and what gives no title.
func TestWhatGivesATitle(t *testing.T) {
	filtered := chat.NewError(chat.CodeContentFiltered, "shame")
	down := chat.NewError(chat.CodeLLMUnavailable, "down")
	made := func() answering { return says(0, "A title") }
	tests := []struct {
		name           string
		answer         answering
		words, byModel string
	}{
		{"whole", says(0, "yes"), "hi", "A title"},
		{"failed with text", breaks(down, "yes"), "hi", "A title"},
		{"failed without", breaks(down), "hi", ""},
		{"refused", breaks(filtered), "", ""},
		{"refused after some text", breaks(filtered, "well"), "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for want, edit := range map[string]func(*session.Config){"words:" + test.words: nil, "model:" + test.byModel: byModel} {
					m := entitled(test.answer, made())
					h := newHouse(t, storetest.NewMemory(), m, edit)
					s := h.create(t)
					send(t, s, "q", "hi")
					time.Sleep(50 * time.Second) // and not just when the cleanup changes the record
					if got := titleOf(t, h, s); got != want[6:] {
						t.Errorf("the title is %q, want %s", got, want)
					}
					// The next one gives a title.
					m.nowAnswers(says(0, "A title"))
					send(t, s, "q2", "ho")
					time.Sleep(5 * time.Second)
					if titleOf(t, h, s) == "" {
						t.Error("a second question gives no title")
					}
					s.Release()
					h.close(t)
				}
			})
		})
	}
}

// A response whose session could not be stored has no title, and the failure of storing a title is no failure of the response.
func TestTitleThatCannotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		h := newHouse(t, failing(&down, "UpdateSession"), &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		r := newReader(t, s)
		down.Store(true)
		send(t, s, "q", "hi")
		r.drain(t, s)
		if r.answer(t).Status != chat.StatusComplete || r.title != "" {
			t.Errorf("the response is %s, the title %q", r.answer(t).Status, r.title)
		}
		down.Store(false)
		send(t, s, "q2", "ho")
		synctest.Wait()
		if got := titleOf(t, h, s); got != "ho" {
			t.Errorf("the next question gives the title %q", got)
		}
	})
}

// A title of the user's own stays.
func TestFirstWordsDoNotReplaceATitle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(time.Second, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		send(t, s, "q", "hi")
		if err := s.Update(t.Context(), new("Mine"), nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := titleOf(t, h, s); got != "Mine" {
			t.Errorf("the title is %q", got)
		}
	})
}

func TestModelMakesATitle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := entitled(says(0, strings.Repeat("ü", 600)), says(time.Second, "Refunds\n", "for shoes"))
		h := newHouse(t, storetest.NewMemory(), m, byModel)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		r := newReader(t, s)
		send(t, s, "q", "Hi "+strings.Repeat("日", 400))
		r.drain(t, s)
		if r.answer(t).Status != chat.StatusComplete || r.title != "" {
			t.Fatalf("the response waits for its title: %+v", r.answer(t))
		}
		time.Sleep(time.Minute)
		r.drain(t, s)
		if got := titleOf(t, h, s); got != "Refunds" || r.title != "Refunds" {
			t.Errorf("the title is %q, to the reader %q", got, r.title)
		}
		asked := m.callsOf("n")
		if len(asked) != 1 || len(asked[0].Messages) != 2 || asked[0].Messages[0].Role != chat.RoleSystem || len(asked[0].States) != 0 {
			t.Fatalf("asked was %+v", asked)
		}
		text := asked[0].Messages[1].Text
		if !strings.HasPrefix(text, "User: Hi 日") || !strings.Contains(text, "Assistant: ü") || !utf8.ValidString(text) || len(text) > 2100 {
			t.Errorf("asked was %q", text)
		}
		if p := asked[0].Parameters; p.MaxOutputTokens != 64 || asked[0].UserID != alice.ID || asked[0].SessionID != s.ID() {
			t.Errorf("asked was with %+v for %s in %s", p, asked[0].UserID, asked[0].SessionID)
		}
		send(t, s, "q2", "ho")
		time.Sleep(time.Minute)
		if n := len(m.callsOf("n")); n != 1 {
			t.Errorf("%d titles were made", n)
		}
		// Two responses and the title.
		u := chat.Usage{InputTokens: 3 + 3 + 3, OutputTokens: 1 + 1 + 2}
		isBilled(t, h.store, s.ID(), 3, u)
	})
}

func TestTitleIsCleaned(t *testing.T) {
	tests := []struct{ said, want string }{
		{"Refunds", "Refunds"},
		{`"Refunds"`, "Refunds"},
		{"„Rückgabe“", "Rückgabe"},
		{"**Refunds**", "Refunds"},
		{"# Refunds", "Refunds"},
		{"\n\n Refunds \nfor shoes", "Refunds"},
		{"Re\u0007funds\r\nfor shoes", "Refunds"},
		{strings.Repeat("Refunds ", 20), "Refunds Refunds Refunds Refunds Refunds Refunds Refunds…"},
		{"It's \"quoted\" within", `It's "quoted" within`},
		{"", "the question"},
		{" \n ", "the question"},
		{`""`, "the question"},
	}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, storetest.NewMemory(), entitled(says(0, "yes"), says(0, test.said)), byModel)
			defer h.close(t)
			s := h.create(t)
			defer s.Release()
			send(t, s, "q", "the question")
			time.Sleep(time.Minute)
			if got := titleOf(t, h, s); got != test.want {
				t.Errorf("of %q the title is %q, want %q", test.said, got, test.want)
			}
		})
	}
}

// Where the model makes no title it is the first words, and no longer than some seconds later.
func TestTitleWithoutItsModel(t *testing.T) {
	down := chat.NewError(chat.CodeLLMUnavailable, "down")
	estimate := func(title string) chat.Usage {
		return chat.Usage{Estimated: true, OutputTokens: llm.EstimateTokens(title)}
	}
	tests := []struct {
		name  string
		title answering
		usage *chat.Usage // of the title; nil: none
	}{
		{"it fails", breaks(down), nil},
		{"it fails in the middle", breaks(down, "How to get"), new(estimate("How to get"))},
		{"it is cut off", breaks(nil, "How to get"), new(estimate("How to get"))},
		{"it hangs", stalls(), nil},
		{"it hangs in the middle", hangs, new(estimate("well"))},
		{"it is empty", gives(nil, chat.Chunk{FinishReason: chat.FinishStop, Usage: &chat.Usage{InputTokens: 7}}), &chat.Usage{InputTokens: 7}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := entitled(says(0, "yes"), test.title)
				h := newHouse(t, storetest.NewMemory(), m, byModel)
				defer h.close(t)
				s := h.create(t)
				defer s.Release()
				r := newReader(t, s)
				send(t, s, "q", "the question")
				r.drain(t, s)
				if r.answer(t).Status != chat.StatusComplete {
					t.Fatal("the response waits for its title")
				}
				time.Sleep(30 * time.Second)
				if got := titleOf(t, h, s); got != "the question" {
					t.Errorf("the title is %q", got)
				}
				want, n := chat.Usage{InputTokens: 3, OutputTokens: 1}, int64(1)
				if test.usage != nil {
					u := *test.usage
					if u.Estimated {
						u.InputTokens = llm.EstimatePrompt(m.callsOf("n")[0].Messages)
					}
					want, n = want.Add(u), 2
				}
				isBilled(t, h.store, s.ID(), n, want)
			})
		})
	}
}

// A title that the user gives while the model is making one stays; what the model cost is charged all the same.
func TestTitleOfTheUsersOwnStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), entitled(says(0, "yes"), says(5*time.Second, "Refunds")), byModel)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		r := newReader(t, s)
		send(t, s, "q", "hi")
		time.Sleep(time.Second)
		if err := s.Update(t.Context(), new("Mine"), nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		r.drain(t, s)
		if got := titleOf(t, h, s); got != "Mine" || r.title != "Mine" {
			t.Errorf("the title is %q, to the reader %q", got, r.title)
		}
		isBilled(t, h.store, s.ID(), 2, chat.Usage{InputTokens: 6, OutputTokens: 2})
	})
}

// While a title is being made no second one is begun.
func TestOneTitleAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), entitled(says(0, "yes"), says(15*time.Second, "Refunds")), byModel)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		for i := range 3 {
			send(t, s, fmt.Sprint("q", i), "hi")
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		if n := len(h.model.callsOf("n")); n != 1 || titleOf(t, h, s) != "Refunds" {
			t.Errorf("%d titles were made; it is %q", n, titleOf(t, h, s))
		}
	})
}

// A session stays in memory while its title is made, and no longer.
func TestTitleHoldsItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), entitled(says(0, "yes"), says(15*time.Second, "Refunds")), func(c *session.Config) {
			byModel(c)
			c.IdleTimeout, c.GracePeriod, c.CleanupInterval = time.Second, time.Second, time.Second
		})
		defer h.close(t)
		s := h.create(t)
		send(t, s, "q", "hi")
		s.Release()
		time.Sleep(14 * time.Second)
		if h.MemoryStats().Total != 1 {
			t.Error("the session has left memory")
		}
		time.Sleep(time.Minute)
		if stored, err := h.store.Session(t.Context(), s.ID()); h.MemoryStats().Total != 0 || err != nil || stored.Title != "Refunds" {
			t.Errorf("%d sessions are in memory; the title is %q (%v)", h.MemoryStats().Total, stored.Title, err)
		}
	})
}

// Closing cancels the model that makes a title and waits for it; the title is the first words then.
func TestCloseWaitsForTitles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := false
		reluctant := func(ctx context.Context, _ chat.Request) iter.Seq2[chat.Chunk, error] {
			return func(yield func(chat.Chunk, error) bool) {
				<-ctx.Done()
				time.Sleep(time.Second)
				gone = true
				yield(chat.Chunk{}, ctx.Err())
			}
		}
		h := newHouse(t, storetest.NewMemory(), entitled(says(0, "yes"), reluctant), byModel)
		s := h.create(t)
		send(t, s, "q", "hi")
		synctest.Wait()
		if len(h.model.callsOf("n")) != 1 {
			t.Fatal("no title is being made")
		}
		s.Release()
		start := time.Now()
		h.close(t)
		if !gone || time.Since(start) != time.Second {
			t.Errorf("closing took %v; the model has ended: %v", time.Since(start), gone)
		}
		if got := titleOf(t, h, s); got != "hi" {
			t.Errorf("the title is %q", got)
		}
	})
}

// In a drain no title is begun.
func TestDrainBeginsNoTitles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), entitled(says(time.Second, "yes"), says(0, "Refunds")), byModel)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		send(t, s, "q", "hi")
		h.StopTurns()
		time.Sleep(time.Minute)
		if n := len(h.model.callsOf("n")); n != 0 || s.Record().Title != "" {
			t.Errorf("the model was asked %d times for %q", n, s.Record().Title)
		}
	})
}

// A session whose title is being made stays in memory for it; one that has ended meanwhile is left as it is.
func TestSessionEndsWhileItsTitleIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), entitled(says(0, "yes"), says(5*time.Second, "Refunds")), byModel)
		defer h.close(t)
		s := h.create(t)
		send(t, s, "q", "hi")
		time.Sleep(time.Second)
		if err := s.End(t.Context(), chat.EndedByUser); err != nil {
			t.Fatal(err)
		}
		s.Release()
		time.Sleep(time.Minute)
		stored, err := h.store.Session(t.Context(), s.ID())
		if err != nil || stored.Title != "" || stored.Status != chat.SessionStatusEnded {
			t.Errorf("stored is %+v (%v)", stored, err)
		}
		if n, u := billed(t, h.store); n != 2 || u.InputTokens != 6 {
			t.Errorf("charged are %d with %+v", n, u)
		}
		if strings.Contains(h.log.String(), "could not be stored") {
			t.Errorf("the log says %s", h.log)
		}
	})
}

// A title is paid from the user's budget; where that is used up, nobody is asked.
func TestBudgetOfATitle(t *testing.T) {
	tests := []struct {
		budget int
		asked  int
		tokens int
	}{{1 << 30, 1, 64}, {5 + 8192 + 1, 1, 64}, {110, 1, 0}, {60, 0, 0}}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.budget), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var budget *llm.Budget
				store := storetest.NewMemory()
				h := newHouse(t, store, entitled(says(0, "yes"), says(0, "Refunds")), func(c *session.Config) {
					rationed(test.budget, store, &budget)(c)
					byModel(c)
				})
				defer h.close(t)
				s := h.create(t)
				defer s.Release()
				send(t, s, "q", "hi")
				time.Sleep(time.Minute)
				asked := h.model.callsOf("n")
				if len(asked) != test.asked {
					t.Fatalf("the model was asked %d times", len(asked))
				}
				want := test.budget - 4*(1+test.asked)
				if n := left(t, budget); n != want {
					t.Errorf("%d tokens are left, want %d", n, want)
				}
				if test.asked == 0 {
					if got := titleOf(t, h, s); got != "hi" {
						t.Errorf("the title is %q", got)
					}
					return
				}
				// No more than the budget has after the prompt.
				most := test.budget - 4 - llm.EstimatePrompt(asked[0].Messages)
				if got := asked[0].Parameters.MaxOutputTokens; got != min(64, most) {
					t.Errorf("the model may write %d tokens, want %d", got, min(64, most))
				}
			})
		})
	}
}

// What a title costs that cannot be stored is told in the log, and harms nothing.
func TestTitleWhoseCostCannotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		h := newHouse(t, failing(&down, "AddUsage"), entitled(says(0, "yes"), says(5*time.Second, "Refunds")), byModel)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		send(t, s, "q", "hi")
		time.Sleep(time.Second)
		down.Store(true)
		time.Sleep(time.Minute)
		if got := titleOf(t, h, s); got != "Refunds" || !strings.Contains(h.log.String(), "what a title cost could not be stored") {
			t.Errorf("the title is %q; the log says %s", got, h.log)
		}
	})
}

// A message that comes as soon as the response has ended meets the beginning of a title: neither stops the other.
func TestTitlesAndMessagesDoNotBlockEachOther(t *testing.T) {
	h := newHouse(t, storetest.NewMemory(), entitled(says(0, "yes"), says(0, "Refunds")), byModel)
	for range 100 {
		s := h.create(t)
		for i := range 3 {
			for {
				_, err := trySend(s, chat.RoleUser, fmt.Sprint("q", i), "hi")
				if err == nil {
					break
				}
				if !errors.Is(err, chat.NewError(chat.CodeResponseInProgress, "")) {
					t.Fatal(err)
				}
			}
		}
		s.Release()
	}
	h.close(t)
}

// The title of a session of which the store knows that it has ended, as the answer to that was lost: the response ends,
// and then the session does.
func TestTitleAfterALostEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lose atomic.Bool
		store := &lossy{Memory: storetest.NewMemory()}
		store.then(func(_ context.Context, operation string) error {
			if operation == "UpdateSession" && lose.CompareAndSwap(true, false) {
				return errors.New("the answer is lost")
			}
			return nil
		})
		h := lossyHouse(t, store, &model{answer: says(0, "yes")}, t.TempDir(), nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		lose.Store(true)
		if err := s.End(t.Context(), chat.EndedByUser); err == nil {
			t.Fatal("the end is told although its answer was lost")
		}
		if _, err := trySend(s, chat.RoleUser, "q", "hi"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if h.Running() != 0 {
			t.Error("the turn still runs")
		}
		if status := s.Record().Status; status != chat.SessionStatusEnded {
			t.Errorf("the session is %s", status)
		}
	})
}
