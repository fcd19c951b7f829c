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

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/storetest"
)

func (s *lossy) AddUsage(ctx context.Context, r chat.UsageRecord) error {
	return s.lose(ctx, "AddUsage", s.Memory.AddUsage(ctx, r))
}

// gives answers with the chunks, and then with the error; nil: with nothing more.
func gives(err error, chunks ...chat.Chunk) func(context.Context, chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(context.Context, chat.Request) iter.Seq2[chat.Chunk, error] {
		return func(yield func(chat.Chunk, error) bool) {
			for _, c := range chunks {
				if !yield(c, nil) {
					return
				}
			}
			if err != nil {
				yield(chat.Chunk{}, err)
			}
		}
	}
}

// stalls gives the chunks and then nothing more, until it is cancelled.
func stalls(chunks ...chat.Chunk) func(context.Context, chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(ctx context.Context, _ chat.Request) iter.Seq2[chat.Chunk, error] {
		return func(yield func(chat.Chunk, error) bool) {
			for _, c := range chunks {
				if !yield(c, nil) {
					return
				}
			}
			<-ctx.Done()
			yield(chat.Chunk{}, ctx.Err())
		}
	}
}

// billed gives what a user is charged, and for how many responses.
func billed(t *testing.T, store chat.Store) (responses int64, u chat.Usage) {
	t.Helper()
	sums, err := store.SumUsage(context.Background(), chat.UsageFilter{UserID: alice.ID})
	if err != nil {
		t.Fatal(err)
	}
	for _, sum := range sums {
		responses += sum.Responses
		u = u.Add(chat.Usage{InputTokens: int(sum.InputTokens), OutputTokens: int(sum.OutputTokens), Estimated: sum.Estimated > 0})
	}
	return responses, u
}

// isBilled checks what a user is charged, and that the session in the store has the same sum.
func isBilled(t *testing.T, store chat.Store, sessionID string, responses int64, want chat.Usage) {
	t.Helper()
	if n, u := billed(t, store); n != responses || u != want {
		t.Errorf("charged are %d responses with %+v, want %d with %+v", n, u, responses, want)
	}
	record, err := store.Session(context.Background(), sessionID)
	if err != nil || record.Usage != want {
		t.Errorf("the session's sum is %+v (%v), want %+v", record.Usage, err, want)
	}
}

// The prompt of each case is "hi", which is estimated at 1 token and 4 more.
func TestUsageOfAResponse(t *testing.T) {
	text := func(s string) chat.Chunk { return chat.Chunk{Text: s} }
	usage := func(in, out int) chat.Chunk {
		return chat.Chunk{Usage: &chat.Usage{InputTokens: in, OutputTokens: out}}
	}
	end := chat.Chunk{FinishReason: chat.FinishStop}
	down := chat.NewError(chat.CodeLLMUnavailable, "down")
	tests := []struct {
		name   string
		answer func(context.Context, chat.Request) iter.Seq2[chat.Chunk, error]
		cancel bool
		want   *chat.Usage
	}{
		{"told at the end", gives(nil, text("yes"), end, usage(3, 4)), false, &chat.Usage{InputTokens: 3, OutputTokens: 4}},
		{"told with the end", gives(nil, text("yes"), chat.Chunk{FinishReason: chat.FinishStop, Usage: &chat.Usage{InputTokens: 3, OutputTokens: 4}}),
			false, &chat.Usage{InputTokens: 3, OutputTokens: 4}},
		{"told twice", gives(nil, usage(3, 1), text("yes"), end, usage(3, 4)), false, &chat.Usage{InputTokens: 3, OutputTokens: 4}},
		{"told, then an error", gives(down, text("yes"), end, usage(3, 4)), false, &chat.Usage{InputTokens: 3, OutputTokens: 4}},
		{"an error, and never told", gives(down, text("yes"), end), false, &chat.Usage{InputTokens: 5, OutputTokens: 1, Estimated: true}},
		{"never told", gives(nil, text("yes, yes"), end), false, &chat.Usage{InputTokens: 5, OutputTokens: 2, Estimated: true}},
		{"never told, of an empty answer", gives(nil, end), false, &chat.Usage{InputTokens: 5, Estimated: true}},
		{"told as nothing", gives(nil, text("yes, yes"), end, usage(0, 0)), false, &chat.Usage{InputTokens: 5, OutputTokens: 2, Estimated: true}},
		{"told of the beginning only", gives(nil, usage(40, 1), text("yes, yes"), end), false, &chat.Usage{InputTokens: 40, OutputTokens: 2, Estimated: true}},
		{"cut off", gives(nil, text("yes, yes")), false, &chat.Usage{InputTokens: 5, OutputTokens: 2, Estimated: true}},
		{"failed", gives(down, chat.Chunk{Reasoning: "hm"}, text("yes, yes")), false, &chat.Usage{InputTokens: 5, OutputTokens: 3, Estimated: true}},
		{"failed in the reasoning", gives(down, chat.Chunk{Reasoning: "hm"}), false, &chat.Usage{InputTokens: 5, OutputTokens: 1, Estimated: true}},
		{"cancelled", stalls(text("yes, yes")), true, &chat.Usage{InputTokens: 5, OutputTokens: 2, Estimated: true}},
		{"cancelled after its end", stalls(text("yes"), end, usage(3, 4)), true, &chat.Usage{InputTokens: 3, OutputTokens: 4}},
		{"cancelled, half told", stalls(usage(40, 1), text("yes, yes")), true, &chat.Usage{InputTokens: 40, OutputTokens: 2, Estimated: true}},
		{"failed, half told", gives(down, usage(40, 7), text("yes")), false, &chat.Usage{InputTokens: 40, OutputTokens: 7, Estimated: true}},
		{"failed before anything", gives(down), false, nil},
		{"cut off before anything", gives(nil), false, nil},
		{"cancelled before anything", stalls(), true, &chat.Usage{InputTokens: 5, Estimated: true}}, // the question was sent
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, storetest.NewMemory(), &model{answer: test.answer}, nil)
				defer h.close(t)
				s := h.create(t)
				defer s.Release()
				r := newReader(t, s)
				send(t, s, "q", "hi")
				time.Sleep(time.Second)
				if test.cancel {
					s.Cancel("")
				}
				r.drain(t, s)
				told := r.answer(t)
				stored, err := h.store.Message(t.Context(), s.ID(), told.MessageID)
				if err != nil {
					t.Fatal(err)
				}
				if test.want == nil {
					if told.Usage != nil || stored.Usage != nil {
						t.Errorf("told is %+v, stored %+v, want nothing", told.Usage, stored.Usage)
					}
					isBilled(t, h.store, s.ID(), 0, chat.Usage{})
					return
				}
				if told.Usage == nil || *told.Usage != *test.want || stored.Usage == nil || *stored.Usage != *test.want {
					t.Errorf("told is %+v, stored %+v, want %+v", told.Usage, stored.Usage, test.want)
				}
				isBilled(t, h.store, s.ID(), 1, *test.want)
			})
		})
	}
}

// A session's sum, and the user's, are those of its responses. What an answer costs depends on what the model is priced at.
func TestUsageIsSummed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{answer: says(0, "yes", "!"), edit: func(c *llm.Config) {
			c.Models[0].Price = llm.Price{Input: 2, Output: 10}
		}}
		h := newHouse(t, storetest.NewMemory(), m, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		for i := range 3 {
			send(t, s, fmt.Sprint("q", i), "hi")
			synctest.Wait()
		}
		if err := s.Retry(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		isBilled(t, h.store, s.ID(), 4, chat.Usage{InputTokens: 12, OutputTokens: 8})
		if u := s.Record().Usage; u != (chat.Usage{InputTokens: 12, OutputTokens: 8}) {
			t.Errorf("in memory the sum is %+v", u)
		}
		sums, err := h.store.SumUsage(t.Context(), chat.UsageFilter{})
		if err != nil || len(sums) != 1 || sums[0].CostMicros != 4*(3*2+2*10) || sums[0].Model != "m" {
			t.Errorf("the sums are %+v (%v)", sums, err)
		}
	})
}

// What the store did not take when a response ended it gets with a later checkpoint, once.
func TestUsageThatCouldNotBeStored(t *testing.T) {
	for _, operations := range [][]string{
		{"AddUsage"}, {"UpdateMessage"}, {"AddUsage", "UpdateSession"}, {"UpdateMessage", "UpdateSession"},
		{"InsertMessage", "UpdateMessage", "AddUsage", "UpdateSession"},
	} {
		t.Run(strings.Join(operations, " "), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var down atomic.Bool
				h := newHouse(t, failing(&down, operations...), &model{answer: says(time.Second, "yes")}, nil)
				defer h.close(t)
				s := h.create(t)
				defer s.Release()
				send(t, s, "q1", "hi")
				time.Sleep(500 * time.Millisecond)
				down.Store(true)
				time.Sleep(5 * time.Second)
				if n, _ := billed(t, h.store); n != 0 {
					t.Fatal("it is charged already")
				}
				down.Store(false)
				time.Sleep(2 * time.Minute) // the cleanup comes
				isBilled(t, h.store, s.ID(), 1, chat.Usage{InputTokens: 3, OutputTokens: 1})
				send(t, s, "q2", "hi")
				time.Sleep(2 * time.Minute)
				isBilled(t, h.store, s.ID(), 2, chat.Usage{InputTokens: 6, OutputTokens: 2})
			})
		})
	}
}

// Where only the answer to storing it is lost, it is stored again, and counts once.
func TestUsageWhoseStoringIsNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost atomic.Int64
		store := &lossy{Memory: storetest.NewMemory()}
		store.then(func(_ context.Context, op string) error {
			if op == "AddUsage" && lost.Add(1) <= 3 {
				return errors.New("no answer")
			}
			return nil
		})
		h := lossyHouse(t, store, &model{answer: says(0, "yes")}, t.TempDir(), nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		send(t, s, "q", "hi")
		time.Sleep(5 * time.Minute)
		isBilled(t, h.store, s.ID(), 1, chat.Usage{InputTokens: 3, OutputTokens: 1})
		if lost.Load() != 4 {
			t.Errorf("it was stored %d times, want 4", lost.Load())
		}
	})
}

// A response that a crash cuts is charged once, by an estimate, however often the server crashes then.
func TestUsageOfACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: hangs}, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		send(t, s, "q", "hi")
		time.Sleep(3 * time.Second)
		want := chat.Usage{InputTokens: 5, OutputTokens: 1, Estimated: true}
		h2 := h.crashed(t, &model{answer: says(0, "yes")})
		defer h2.close(t)
		synctest.Wait()
		isBilled(t, h2.store, s.ID(), 1, want)
		h3 := h2.crashed(t, &model{answer: says(0, "yes")})
		defer h3.close(t)
		synctest.Wait()
		isBilled(t, h3.store, s.ID(), 1, want)
		again := h3.open(t, s.ID())
		defer again.Release()
		send(t, again, "q2", "hi")
		synctest.Wait()
		isBilled(t, h3.store, s.ID(), 2, want.Add(chat.Usage{InputTokens: 3, OutputTokens: 1}))
	})
}

// A crash in which nothing was answered yet costs nothing.
func TestCrashBeforeTheFirstTokenCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: stalls()}, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		send(t, s, "q", "hi")
		time.Sleep(3 * time.Second)
		h2 := h.crashed(t, &model{})
		defer h2.close(t)
		synctest.Wait()
		isBilled(t, h2.store, s.ID(), 0, chat.Usage{})
	})
}

// A crash after a response has ended, while the store does not take all of its end.
func TestUsageThatOnlyTheJournalHas(t *testing.T) {
	for _, operations := range [][]string{
		{"AddUsage", "UpdateSession"}, {"UpdateMessage", "UpdateSession"}, {"UpdateMessage", "AddUsage", "UpdateSession"}, {"UpdateSession"}, {"AddUsage"}, {"UpdateMessage"},
	} {
		t.Run(strings.Join(operations, " "), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var down atomic.Bool
				h := newHouse(t, failing(&down, operations...), &model{answer: says(time.Second, "yes")}, nil)
				defer h.close(t)
				s := h.create(t)
				defer s.Release()
				send(t, s, "q", "hi")
				time.Sleep(500 * time.Millisecond)
				down.Store(true)
				time.Sleep(5 * time.Second)
				h2 := h.crashed(t, &model{})
				defer h2.close(t)
				synctest.Wait()
				isBilled(t, h2.store, s.ID(), 1, chat.Usage{InputTokens: 3, OutputTokens: 1})
			})
		})
	}
}

// A response that a drain interrupts is charged like one that was cancelled.
func TestUsageOfADrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: hangs}, nil)
		s := h.create(t)
		send(t, s, "q", "hi")
		time.Sleep(time.Second)
		s.Release()
		h.close(t)
		isBilled(t, h.store, s.ID(), 1, chat.Usage{InputTokens: 5, OutputTokens: 1, Estimated: true})
	})
}

// The end of a session cancels its response, which is charged, and is in the session's sum.
func TestUsageOfAResponseThatTheEndCancels(t *testing.T) {
	for range 20 { // whoever stores the session first
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, storetest.NewMemory(), &model{answer: hangs}, nil)
			defer h.close(t)
			s := h.create(t)
			defer s.Release()
			send(t, s, "q", "hi")
			time.Sleep(time.Second)
			if err := s.End(t.Context(), chat.EndedByUser); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			isBilled(t, h.store, s.ID(), 1, chat.Usage{InputTokens: 5, OutputTokens: 1, Estimated: true})
		})
	}
}

// Whoever sends a message again while it is being stored, which fails then, does not get an answer beside the budget.
func TestBudgetOfAMessageThatIsSentTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var budget *llm.Budget
		var inserts atomic.Int64
		store := storetest.NewMemory()
		store.Before = func(_ context.Context, op string) error {
			if op == "InsertMessage" && inserts.Add(1) == 1 {
				time.Sleep(time.Second)
				return errors.New("no disk")
			}
			return nil
		}
		h := newHouse(t, store, &model{answer: says(time.Second, "yes")}, rationed(1000, store, &budget))
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		first := make(chan error)
		go func() {
			_, err := trySend(s, chat.RoleUser, "q", "hi")
			first <- err
		}()
		time.Sleep(time.Second / 2)
		second := make(chan error)
		go func() {
			_, err := trySend(s, chat.RoleUser, "q", "hi")
			second <- err
		}()
		if err := <-first; code(err) != chat.CodeStorageUnavailable {
			t.Errorf("the first one gets %v", err)
		}
		if err := <-second; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := h.model.calls()[0].Parameters.MaxOutputTokens; got != 995 {
			t.Errorf("the answer may have %d tokens, want 995", got)
		}
		time.Sleep(time.Minute)
		if n := left(t, budget); n != 996 {
			t.Errorf("%d tokens are left", n)
		}
	})
}

// rationed has users spend no more than some tokens a day.
func rationed(tokens int, store chat.Store, budget **llm.Budget) func(*session.Config) {
	return func(c *session.Config) {
		c.Budget = llm.NewBudget(tokens, 24*time.Hour, store)
		if budget != nil {
			*budget = c.Budget
		}
	}
}

// left gives what a budget would grant now.
func left(t *testing.T, b *llm.Budget) int {
	t.Helper()
	g, err := b.Reserve(context.Background(), alice.ID, 0, 1<<40)
	if code(err) == chat.CodeBudgetExceeded {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	defer g.Settle(chat.Usage{})
	return g.MaxOutputTokens
}

func trySend(s *session.Session, role chat.Role, id, text string) (*chat.Event, error) {
	return s.Send(context.Background(), alice, role, chat.SendMessage{MessageID: id, Text: text})
}

func TestBudgetRefusesMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var budget *llm.Budget
		store := storetest.NewMemory()
		h := newHouse(t, store, &model{answer: gives(nil, chat.Chunk{Text: "yes", FinishReason: chat.FinishStop,
			Usage: &chat.Usage{InputTokens: 50, OutputTokens: 50}})}, rationed(100, store, &budget))
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		r := newReader(t, s)
		send(t, s, "q1", "hi")
		synctest.Wait()
		if n := left(t, budget); n != 0 {
			t.Fatalf("%d tokens are left", n)
		}
		_, err := trySend(s, chat.RoleUser, "q2", "hi")
		if shown, ok := errors.AsType[*chat.Error](err); !ok || shown.Code != chat.CodeBudgetExceeded || shown.RetryAfter != 24*time.Hour {
			t.Errorf("sending gives %v", err)
		}
		if err := s.Retry(t.Context(), false); code(err) != chat.CodeBudgetExceeded {
			t.Errorf("retrying gives %v", err)
		}
		r.drain(t, s)
		if stored, _ := store.Messages(t.Context(), s.ID(), 0, 10); len(stored) != 2 || len(r.order) != 2 || len(h.model.calls()) != 1 {
			t.Errorf("stored are %d messages, shown %d; the model was asked %d times", len(stored), len(r.order), len(h.model.calls()))
		}
		// What is there already is told, whatever is left of the budget.
		if again, err := trySend(s, chat.RoleUser, "q1", "hi"); err != nil || again == nil || !again.Repeat {
			t.Errorf("sending the first again gives %v, %v", again, err)
		}
		if _, err := trySend(s, chat.RoleUser, "q1", "ho"); code(err) != chat.CodeMessageConflict {
			t.Errorf("sending another text as the first gives %v", err)
		}
		// To write to a human costs nothing.
		if err := s.Join(t.Context(), ann); err != nil {
			t.Fatal(err)
		}
		send(t, s, "q3", "are you there?")
		if _, err := s.Send(t.Context(), ann, chat.RoleAgent, chat.SendMessage{MessageID: "a", Text: "I am"}); err != nil {
			t.Errorf("an agent is told %v", err)
		}
		time.Sleep(24 * time.Hour)
		if err := s.LeaveAgent(t.Context(), ann.ID, func() bool { return false }); err != nil {
			t.Fatal(err)
		}
		send(t, s, "q4", "hi") // tomorrow is another day
		synctest.Wait()
	})
}

// A message that only the store has any more is told, too.
func TestBudgetDoesNotHideOldMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		h := newHouse(t, store, &model{answer: gives(nil, chat.Chunk{Text: "yes", FinishReason: chat.FinishStop,
			Usage: &chat.Usage{InputTokens: 50, OutputTokens: 50}})}, rationed(100, store, nil))
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		send(t, s, "q", "hi")
		synctest.Wait()
		for i := range 250 {
			if _, err := s.Send(t.Context(), ann, chat.RoleAgent, chat.SendMessage{MessageID: fmt.Sprint("a", i), Text: "x"}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Minute)
		if n := h.MemoryStats().Messages; n > 210 {
			t.Fatalf("%d messages are in memory", n)
		}
		if again, err := trySend(s, chat.RoleUser, "q", "hi"); err != nil || again == nil || !again.Repeat {
			t.Errorf("sending it again gives %v, %v", again, err)
		}
		if _, err := trySend(s, chat.RoleUser, "q", "ho"); code(err) != chat.CodeMessageConflict {
			t.Errorf("sending another text gives %v", err)
		}
		if _, err := trySend(s, chat.RoleUser, "new", "hi"); code(err) != chat.CodeBudgetExceeded {
			t.Errorf("sending a new one gives %v", err)
		}
	})
}

// The provider is told how long an answer may be: as long as the budget, and the model's own limit, allow.
func TestGrantLimitsTheAnswer(t *testing.T) {
	tests := []struct{ budget, model, want int }{
		{1 << 30, 0, 8192}, {1 << 30, 500, 500}, {105, 500, 100}, {105, 0, 100}, {6, 0, 1}, {0, 500, 500}, {0, 0, 0},
	}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			store := storetest.NewMemory()
			m := &model{answer: says(0, "yes"), edit: func(c *llm.Config) { c.Models[0].Parameters.MaxOutputTokens = test.model }}
			edit := rationed(test.budget, store, nil)
			if test.budget == 0 {
				edit = nil
			}
			h := newHouse(t, store, m, edit)
			defer h.close(t)
			s := h.create(t)
			defer s.Release()
			send(t, s, "q", "hi") // 5 tokens
			synctest.Wait()
			if got := m.calls()[0].Parameters.MaxOutputTokens; got != test.want {
				t.Errorf("of a budget of %d and a limit of %d the provider is told %d, want %d", test.budget, test.model, got, test.want)
			}
		})
	}
}

// While a response is written its reservation counts; two sessions of a user cannot spend the same tokens.
func TestSessionsShareABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var budget *llm.Budget
		store := storetest.NewMemory()
		h := newHouse(t, store, &model{answer: says(time.Second, "yes")}, rationed(1000, store, &budget))
		defer h.close(t)
		one, two := h.create(t), h.create(t)
		defer one.Release()
		defer two.Release()
		send(t, one, "q", "hi")
		_, err := trySend(two, chat.RoleUser, "q", "hi")
		if shown, ok := errors.AsType[*chat.Error](err); !ok || shown.Code != chat.CodeBudgetExceeded || shown.RetryAfter != 0 {
			t.Errorf("beside a response that has reserved all it gives %v", err)
		}
		time.Sleep(2 * time.Second)
		send(t, two, "q", "hi")
		time.Sleep(2 * time.Second)
		if n := left(t, budget); n != 1000-8 {
			t.Errorf("%d tokens are left", n)
		}
	})
}

// Whatever comes between a reservation and an answer, the reservation is given back.
func TestGrantIsGivenBack(t *testing.T) {
	type scene struct {
		*house
		s    *session.Session
		down *atomic.Bool
	}
	answered := func(t *testing.T, c scene) {
		t.Helper()
		send(t, c.s, "q0", "hi")
		time.Sleep(time.Minute)
	}
	tests := []struct {
		name  string
		spent int
		act   func(t *testing.T, c scene) error
		want  chat.Code
	}{
		{"the store fails", 0, func(_ *testing.T, c scene) error {
			c.down.Store(true)
			defer c.down.Store(false)
			_, err := trySend(c.s, chat.RoleUser, "q", "hi")
			return err
		}, chat.CodeStorageUnavailable},
		{"the server drains", 0, func(_ *testing.T, c scene) error {
			c.StopTurns()
			_, err := trySend(c.s, chat.RoleUser, "q", "hi")
			return err
		}, chat.CodeServerDraining},
		{"the session has ended", 0, func(t *testing.T, c scene) error {
			if err := c.s.End(t.Context(), chat.EndedByUser); err != nil {
				t.Fatal(err)
			}
			_, err := trySend(c.s, chat.RoleUser, "q", "hi")
			return err
		}, chat.CodeSessionEnded},
		{"a response is in progress", 4, func(t *testing.T, c scene) error {
			send(t, c.s, "q0", "hi")
			_, err := trySend(c.s, chat.RoleUser, "q", "hi")
			time.Sleep(time.Minute)
			return err
		}, chat.CodeResponseInProgress},
		{"another message is replaced", 0, func(_ *testing.T, c scene) error {
			_, err := c.s.Send(context.Background(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q", Text: "hi", Replaces: "other"})
			return err
		}, chat.CodeInvalidMessage},
		{"nothing to retry", 0, func(t *testing.T, c scene) error { return c.s.Retry(t.Context(), false) }, chat.CodeInvalidRequest},
		{"a retry beside a response", 4, func(t *testing.T, c scene) error {
			send(t, c.s, "q0", "hi")
			err := c.s.Retry(t.Context(), false)
			time.Sleep(time.Minute)
			return err
		}, chat.CodeResponseInProgress},
		{"a retry in a drain", 4, func(t *testing.T, c scene) error {
			answered(t, c)
			c.StopTurns()
			return c.s.Retry(t.Context(), false)
		}, chat.CodeServerDraining},
		{"a retry beside an agent", 4, func(t *testing.T, c scene) error {
			answered(t, c)
			if err := c.s.Join(t.Context(), ann); err != nil {
				t.Fatal(err)
			}
			return c.s.Retry(t.Context(), false)
		}, chat.CodeForbidden},
		{"cancelled before anything is answered", 5, func(t *testing.T, c scene) error {
			send(t, c.s, "q", "hi")
			synctest.Wait()
			c.s.Cancel("")
			synctest.Wait()
			return nil
		}, "<nil>"},
		{"the provider is down", 0, func(t *testing.T, c scene) error {
			c.model.nowAnswers(breaks(chat.NewError(chat.CodeLLMUnavailable, "down")))
			send(t, c.s, "q", "hi")
			synctest.Wait()
			return nil
		}, "<nil>"},
		{"the same message twice at once", 4, func(t *testing.T, c scene) error {
			second := make(chan error)
			go func() {
				_, err := trySend(c.s, chat.RoleUser, "q", "hi")
				second <- err
			}()
			_, err := trySend(c.s, chat.RoleUser, "q", "hi")
			err = errors.Join(err, <-second)
			time.Sleep(time.Minute)
			return err
		}, "<nil>"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var budget *llm.Budget
				down := &atomic.Bool{}
				store := failing(down, "InsertMessage")
				h := newHouse(t, store, &model{answer: says(time.Second, "yes")}, rationed(100_000, store, &budget))
				defer h.close(t)
				s := h.create(t)
				defer s.Release()
				if err := test.act(t, scene{h, s, down}); code(err) != test.want {
					t.Errorf("it gives %v, want %s", err, test.want)
				}
				synctest.Wait()
				if n := left(t, budget); n != 100_000-test.spent {
					t.Errorf("of 100000 tokens %d are left, want %d", n, 100_000-test.spent)
				}
			})
		})
	}
}

// Who gives up waiting for the response that he interrupts gives the reservation back.
func TestGrantOfAnImpatientSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var budget *llm.Budget
		store := storetest.NewMemory()
		slow := func(ctx context.Context, _ chat.Request) iter.Seq2[chat.Chunk, error] {
			return func(yield func(chat.Chunk, error) bool) {
				<-ctx.Done()
				time.Sleep(10 * time.Second)
				yield(chat.Chunk{}, ctx.Err())
			}
		}
		h := newHouse(t, store, &model{answer: slow}, rationed(100_000, store, &budget))
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		for i, act := range []func(ctx context.Context) error{
			func(ctx context.Context) error {
				_, err := s.Send(ctx, alice, chat.RoleUser, chat.SendMessage{MessageID: "q2", Text: "hi", Interrupt: true})
				return err
			},
			func(ctx context.Context) error { return s.Retry(ctx, true) },
		} {
			send(t, s, fmt.Sprint("first", i), "hi")
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := act(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the impatient one is told %v", err)
			}
			cancel()
			time.Sleep(time.Minute)
			// What was interrupted has cost its questions.
			if n, want := left(t, budget), []int{100_000 - 5, 100_000 - 5 - 10}[i]; n != want {
				t.Errorf("%d tokens are left of 100000, want %d", n, want)
			}
		}
	})
}

// A ledger that cannot be read is the storage's fault: nothing is sent for nothing.
func TestBudgetWithoutItsLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		store := failing(&down, "SumUsage")
		h := newHouse(t, store, &model{answer: says(0, "yes")}, rationed(1000, store, nil))
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		down.Store(true)
		if _, err := trySend(s, chat.RoleUser, "q", "hi"); code(err) != chat.CodeStorageUnavailable {
			t.Errorf("sending gives %v", err)
		}
		down.Store(false)
		send(t, s, "q", "hi")
		synctest.Wait()
	})
}
