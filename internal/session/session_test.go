package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/store/storetest"
)

func TestTurnIsStoredAndStreamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(time.Second, "Hel", "lo, ", "Alice")}, nil)
		defer h.close(t)
		s := h.create(t)
		r := newReader(t, s)
		send(t, s, "q1", "hi")
		r.drain(t, s)
		if got, want := len(r.seen), 2; got != want { // the receipt and the beginning of the answer
			t.Errorf("there are %d events at once, want %d", got, want)
		}
		if stored, err := h.store.Message(t.Context(), s.ID(), "q1"); err != nil || stored.AnswerID != r.order[1] {
			t.Errorf("the receipted message is stored as %+v (%v)", stored, err)
		}
		time.Sleep(10 * time.Second)
		r.drain(t, s)
		id := r.order[1]
		if r.text[id] != "Hello, Alice" {
			t.Errorf("the answer is %q", r.text[id])
		}
		end := r.answer(t)
		if end.Status != chat.StatusComplete || end.FinishReason != chat.FinishStop || end.FirstTokenMS != 1000 || end.DurationMS != 3000 {
			t.Errorf("the answer ends as %+v", end)
		}
		stored, err := h.store.Message(t.Context(), s.ID(), id)
		if err != nil || stored.Text != "Hello, Alice" || stored.Status != chat.StatusComplete || stored.Provider != "fake" || stored.Usage.OutputTokens != 3 {
			t.Errorf("the answer is stored as %+v (%v)", stored, err)
		}
		s.Release()
	})
}

func TestSecondTurnKnowsTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{answer: says(0, "blue"), edit: func(c *llm.Config) { c.Models[0].SystemPrompt = "be brief" }}
		h := newHouse(t, storetest.NewMemory(), m, nil)
		defer h.close(t)
		s := h.create(t)
		send(t, s, "q1", "my colour is blue")
		synctest.Wait()
		send(t, s, "q2", "what is my colour?")
		synctest.Wait()
		var got []string
		for _, p := range m.calls()[1].Messages {
			got = append(got, string(p.Role)+":"+p.Text)
		}
		want := "system:be brief user:my colour is blue assistant:blue user:what is my colour?"
		if strings.Join(got, " ") != want {
			t.Errorf("the model is asked %q, want %q", got, want)
		}
	})
}

func TestTurnOutlivesEveryReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(time.Second, "a", "b")}, nil)
		defer h.close(t)
		s := h.create(t)
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := s.Send(ctx, alice, chat.RoleUser, chat.SendMessage{MessageID: "q", Text: "hi"}); err != nil {
			t.Fatal(err)
		}
		cancel() // the connection is gone
		s.Release()
		time.Sleep(time.Minute)
		r := newReader(t, s)
		r.drain(t, s)
		if r.text[r.order[1]] != "ab" {
			t.Errorf("the answer is %q", r.text[r.order[1]])
		}
	})
}

func TestEndingsOfATurn(t *testing.T) {
	rejected := chat.NewError(chat.CodeLLMRejected, "no")
	tests := []struct {
		name   string
		model  *model
		status chat.Status
		code   chat.Code
		text   string
	}{
		{"error", &model{answer: breaks(rejected, "so far")}, chat.StatusFailed, chat.CodeLLMRejected, "so far"},
		{"unknown error", &model{answer: breaks(errors.New("password=x"), "a")}, chat.StatusFailed, chat.CodeInternal, "a"},
		{"cut off without an end mark", &model{answer: breaks(nil, "so", " far")}, chat.StatusFailed, chat.CodeLLMUnavailable, "so far"},
		{"hung", &model{answer: hangs, edit: impatient(time.Minute)}, chat.StatusFailed, chat.CodeLLMTimeout, "well"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, storetest.NewMemory(), test.model, nil)
				defer h.close(t)
				s := h.create(t)
				r := newReader(t, s)
				send(t, s, "q", "hi")
				time.Sleep(3 * time.Minute)
				r.drain(t, s)
				end := r.answer(t)
				if end.Status != test.status || end.Error == nil || end.Error.Code != test.code {
					t.Errorf("the answer ends as %+v (%v)", end, end.Error)
				}
				if got := r.text[end.MessageID]; got != test.text {
					t.Errorf("the text is %q, want %q", got, test.text)
				}
				stored, err := h.store.Message(t.Context(), s.ID(), end.MessageID)
				if err != nil || stored.Status != test.status || stored.Text != test.text || stored.Error.Code != test.code {
					t.Errorf("it is stored as %+v (%v)", stored, err)
				}
				if s.Responding() {
					t.Error("the session still responds")
				}
			})
		})
	}
}

func TestR08_2_TimeoutCancelsTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{answer: hangs, edit: impatient(7 * time.Second)}
		h := newHouse(t, storetest.NewMemory(), m, nil)
		defer h.close(t)
		s := h.create(t)
		start := time.Now()
		send(t, s, "q", "hi")
		for s.Responding() {
			time.Sleep(time.Second / 10)
		}
		// The model's iterator ends only by its context: that the turn is over means that it was cancelled.
		if took := time.Since(start); took.Round(time.Second) != 7*time.Second {
			t.Errorf("the turn took %v", took)
		}
		if !strings.Contains(h.log.String(), "a response timed out") {
			t.Errorf("the log does not tell of the timeout: %s", h.log)
		}
	})
}

func TestCancelKeepsTheText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: hangs}, nil)
		defer h.close(t)
		s := h.create(t)
		r := newReader(t, s)
		s.Cancel("") // nothing in progress: nothing
		send(t, s, "q", "hi")
		synctest.Wait()
		s.Cancel("another")
		synctest.Wait()
		if !s.Responding() {
			t.Fatal("a cancel for another message stopped the response")
		}
		s.Cancel("")
		synctest.Wait()
		r.drain(t, s)
		if end := r.answer(t); end.Status != chat.StatusCancelled || end.FinishReason != chat.FinishCancelled || r.text[end.MessageID] != "well" {
			t.Errorf("the answer ends as %+v with %q", end, r.text[end.MessageID])
		}
	})
}

func TestOneTurnAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{answer: hangs}
		h := newHouse(t, storetest.NewMemory(), m, nil)
		defer h.close(t)
		s := h.create(t)
		r := newReader(t, s)
		send(t, s, "q1", "hi")
		synctest.Wait()
		_, err := s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q2", Text: "hello?"})
		if code(err) != chat.CodeResponseInProgress {
			t.Errorf("a second message gives %v", err)
		}
		if err := s.Retry(t.Context(), false); code(err) != chat.CodeResponseInProgress {
			t.Errorf("a retry gives %v", err)
		}
		_, err = s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q2", Text: "hello?", Interrupt: true})
		if err != nil {
			t.Errorf("an interrupting message gives %v", err)
		}
		synctest.Wait()
		r.drain(t, s)
		if len(m.calls()) != 2 || r.answer(t).Status != chat.StatusCancelled {
			t.Errorf("there were %d turns, the first ended as %+v", len(m.calls()), r.answer(t))
		}
	})
}

func TestSameSubmissionTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{answer: says(time.Second, "yes")}
		store := storetest.NewMemory()
		store.Before = func(_ context.Context, op string) error {
			if op == "InsertMessage" {
				time.Sleep(time.Second)
			}
			return nil
		}
		h := newHouse(t, store, m, nil)
		defer h.close(t)
		s := h.create(t)
		var wg sync.WaitGroup
		var mu sync.Mutex
		repeats := 0
		for range 20 {
			wg.Go(func() {
				again, err := s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q", Text: "hi"})
				if err != nil {
					t.Error(err)
				}
				if again != nil {
					if !again.Repeat || again.Seq != 1 || again.Body.(chat.MessageCreated).Message.Text != "hi" {
						t.Errorf("the repeat is %+v", again)
					}
					mu.Lock()
					repeats++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		if repeats != 19 || len(m.calls()) != 1 {
			t.Errorf("20 submissions made %d repeats and %d calls", repeats, len(m.calls()))
		}
		for _, other := range []struct {
			author chat.Author
			text   string
		}{{alice, "ho"}, {chat.Author{ID: "bob"}, "hi"}} {
			_, err := s.Send(t.Context(), other.author, chat.RoleUser, chat.SendMessage{MessageID: "q", Text: other.text})
			if code(err) != chat.CodeMessageConflict {
				t.Errorf("%q by %s gives %v", other.text, other.author.ID, err)
			}
		}
	})
}

func TestConcurrentSendsOfOneMessageAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		store.Before = func(context.Context, string) error {
			time.Sleep(time.Second) // so that all of them meet
			return nil
		}
		h := newHouse(t, store, &model{answer: says(time.Second, "yes", "yes", "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		var senders sync.WaitGroup
		var mu sync.Mutex
		repeats := 0
		for i := range 20 {
			senders.Go(func() {
				time.Sleep(time.Duration(i) * 200 * time.Millisecond) // some while it is stored, some during the answer
				again, err := s.Send(context.Background(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q", Text: "hi", Interrupt: i%2 == 0})
				if err != nil {
					t.Errorf("sender %d is told %v", i, err)
				}
				mu.Lock()
				defer mu.Unlock()
				if again != nil {
					repeats++
				}
			})
		}
		senders.Wait()
		time.Sleep(time.Minute)
		stored, err := store.Messages(t.Context(), s.ID(), 0, 100)
		if err != nil || len(stored) != 2 || stored[1].Status != chat.StatusComplete || len(h.model.calls()) != 1 || repeats != 19 {
			t.Errorf("of 20 sends %d are repeats; the model was asked %d times; stored are %+v (%v)", repeats, len(h.model.calls()), stored, err)
		}
	})
}

func TestUnstoredMessageIsNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{answer: says(0, "yes")}
		store := storetest.NewMemory()
		down := false
		store.Before = func(context.Context, string) error {
			if down {
				return errors.New("the disk is full")
			}
			return nil
		}
		h := newHouse(t, store, m, nil)
		defer h.close(t)
		s := h.create(t)
		r := newReader(t, s)
		down = true
		_, err := s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q", Text: "hi"})
		if code(err) != chat.CodeStorageUnavailable {
			t.Errorf("sending gives %v", err)
		}
		synctest.Wait()
		if r.drain(t, s); len(r.seen) != 0 || len(m.calls()) != 0 || s.Responding() {
			t.Errorf("%d events, %d calls", len(r.seen), len(m.calls()))
		}
		down = false
		send(t, s, "q", "hi")
		synctest.Wait()
		if r.drain(t, s); r.answer(t).Status != chat.StatusComplete {
			t.Errorf("the answer ends as %+v", r.answer(t))
		}
	})
}

func TestLostAnswerOfTheStoreIsNoSecondMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{answer: says(0, "yes")}
		store := storetest.NewMemory()
		h := newHouse(t, store, m, nil)
		defer h.close(t)
		s := h.create(t)
		// As if an insert had been done and its answer lost.
		stored := chat.Message{ID: "q", N: 1, Role: chat.RoleUser, Text: "hi", Status: chat.StatusComplete, Author: &alice, AnswerID: "A"}
		if err := store.InsertMessage(t.Context(), s.ID(), s.Record().Claim, stored); err != nil {
			t.Fatal(err)
		}
		r := newReader(t, s)
		send(t, s, "q", "hi")
		synctest.Wait()
		r.drain(t, s)
		if all, _ := store.Messages(t.Context(), s.ID(), 0, 10); len(all) != 2 || r.answer(t).MessageID != "A" {
			t.Errorf("stored are %+v", all)
		}
	})
}

func TestRetryReplacesTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{answer: says(0, "yes")}
		h := newHouse(t, storetest.NewMemory(), m, nil)
		defer h.close(t)
		s := h.create(t)
		if err := s.Retry(t.Context(), false); code(err) != chat.CodeInvalidRequest {
			t.Errorf("a retry of nothing gives %v", err)
		}
		r := newReader(t, s)
		send(t, s, "q", "hi")
		synctest.Wait()
		if err := s.Retry(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r.drain(t, s)
		var second chat.Message
		for _, e := range r.seen {
			if c, ok := e.Body.(chat.MessageCreated); ok && c.Message.ID == r.order[2] {
				second = c.Message
			}
		}
		if second.Replaces != r.order[1] || second.ReplyTo != "q" {
			t.Errorf("the new answer is %+v", second)
		}
		if got := m.calls()[1].Messages; len(got) != 1 || got[0].Text != "hi" {
			t.Errorf("the model is asked %+v", got)
		}
	})
}

func TestEditReplacesTheLastMessageOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{answer: says(0, "yes")}
		h := newHouse(t, storetest.NewMemory(), m, nil)
		defer h.close(t)
		s := h.create(t)
		send(t, s, "q1", "one")
		synctest.Wait()
		send(t, s, "q2", "two")
		synctest.Wait()
		_, err := s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q3", Text: "uno", Replaces: "q1"})
		if code(err) != chat.CodeInvalidMessage {
			t.Errorf("an edit of an older message gives %v", err)
		}
		if _, err = s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q3", Text: "due", Replaces: "q2"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		var got []string
		for _, p := range m.calls()[2].Messages {
			got = append(got, p.Text)
		}
		if strings.Join(got, " ") != "one yes due" {
			t.Errorf("the model is asked %q", got)
		}
	})
}

func TestR01_1_EndedSessionLeavesMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: hangs}, nil)
		defer h.close(t)
		s := h.create(t)
		r := newReader(t, s)
		stop := s.Notify(func() {})
		send(t, s, "q", "hi")
		synctest.Wait()
		if err := s.End(t.Context(), chat.EndedByUser); err != nil {
			t.Fatal(err)
		}
		r.drain(t, s)
		if end, ok := r.seen[len(r.seen)-1].Body.(chat.SessionEnded); !ok || end.Reason != chat.EndedByUser {
			t.Errorf("the last event is %+v", r.seen[len(r.seen)-1])
		}
		if r.answer(t).Status != chat.StatusCancelled {
			t.Errorf("the response ends as %+v", r.answer(t))
		}
		if stats := h.MemoryStats(); stats.Total != 0 {
			t.Errorf("in memory are %+v", stats)
		}
		stop()
		for what, err := range map[string]error{
			"end":    s.End(t.Context(), chat.EndedByUser),
			"update": s.Update(t.Context(), new("x"), nil),
			"retry":  s.Retry(t.Context(), false),
			"help":   s.RequestHelp(t.Context(), ""),
		} {
			if code(err) != chat.CodeSessionEnded {
				t.Errorf("%s gives %v", what, err)
			}
		}
		if _, err := h.Open(t.Context(), s.ID(), anybody); code(err) != chat.CodeSessionEnded {
			t.Errorf("opening it again gives %v", err)
		}
		if _, err := h.Open(t.Context(), s.ID(), func(*chat.Session) bool { return false }); code(err) != chat.CodeSessionNotFound {
			t.Errorf("a stranger is told %v", err)
		}
	})
}

func TestR01_2_IdleSessionLeavesMemoryAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		send(t, s, "q", "hi")
		time.Sleep(time.Hour)
		if stats := h.MemoryStats(); stats.Active != 1 || stats.Messages != 2 {
			t.Errorf("while it is held, in memory are %+v", stats)
		}
		s.Release()
		time.Sleep(17 * time.Minute)
		if stats := h.MemoryStats(); stats.Inactive != 1 || stats.Active != 0 {
			t.Errorf("after the idle timeout, in memory are %+v", stats)
		}
		time.Sleep(5 * time.Minute)
		if stats := h.MemoryStats(); stats.Total != 0 || stats.Bytes != 0 {
			t.Errorf("after the grace period, in memory are %+v", stats)
		}
		again, err := h.Open(t.Context(), s.ID(), anybody)
		if err != nil || again == s {
			t.Fatalf("opening gives the same session or %v", err)
		}
		defer again.Release()
		cursor, opened, err := again.Attach(new(int64(2)), "an epoch of before", 50)
		if err != nil || !opened.Reset || opened.Resumed {
			t.Errorf("the reader is told %+v (%v)", opened, err)
		}
		r := &reader{cursor: cursor, text: map[string]string{}, done: map[string]chat.MessageCompleted{}}
		r.drain(t, again)
		if len(r.order) != 2 || r.text["q"] != "hi" || r.text[r.order[1]] != "yes" {
			t.Errorf("the reader gets %v", r.text)
		}
	})
}

func TestStrangerIsNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{}, nil)
		defer h.close(t)
		s := h.create(t)
		_, known := h.Open(t.Context(), s.ID(), func(r *chat.Session) bool { return r.UserID == "bob" })
		_, unknown := h.Open(t.Context(), "nonsense", anybody)
		if code(known) != chat.CodeSessionNotFound || known.Error() != unknown.Error() {
			t.Errorf("another's session is %q, an unknown one %q", known, unknown)
		}
	})
}

func TestServerThatWentDownUnderAResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		h := newHouse(t, store, &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		for _, m := range []chat.Message{
			{ID: "q1", N: 1, Role: chat.RoleUser, Text: "one", Status: chat.StatusComplete, Author: &alice, AnswerID: "a1"},
			{ID: "a1", N: 2, Role: chat.RoleAssistant, Text: "half an ans", Status: chat.StatusStreaming, ReplyTo: "q1"},
			{ID: "q2", N: 3, Role: chat.RoleUser, Text: "two", Status: chat.StatusComplete, Author: &alice, AnswerID: "a2"},
		} {
			if err := store.InsertMessage(t.Context(), s.ID(), s.Record().Claim, m); err != nil {
				t.Fatal(err)
			}
		}
		h.seemsGone(t)
		next := newHouse(t, store, &model{answer: says(0, "yes")}, nil)
		defer next.close(t)
		again, err := next.Open(t.Context(), s.ID(), anybody)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Release()
		for id, text := range map[string]string{"a1": "half an ans", "a2": ""} {
			m, err := store.Message(t.Context(), s.ID(), id)
			if err != nil || m.Status != chat.StatusInterrupted || m.Text != text {
				t.Errorf("%s is stored as %+v (%v)", id, m, err)
			}
		}
		r := newReader(t, again)
		r.drain(t, again)
		if fmt.Sprint(r.order) != "[q1 a1 q2 a2]" || r.last != 4 {
			t.Errorf("the reader gets %v up to %d", r.order, r.last)
		}
		if err := again.Retry(t.Context(), false); err != nil {
			t.Errorf("a retry gives %v", err)
		}
		synctest.Wait()
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(10*time.Second, "a", "b", "c")}, nil)
		defer h.close(t)
		s := h.create(t)
		r := newReader(t, s)
		send(t, s, "q", "hi")
		synctest.Wait()
		h.StopTurns()
		_, err := s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q2", Text: "x", Interrupt: true})
		if code(err) != chat.CodeServerDraining {
			t.Errorf("a new turn gives %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		if forced := h.Drain(ctx, t.Context()); forced != 1 {
			t.Errorf("%d turns were forced", forced)
		}
		r.drain(t, s)
		if end := r.answer(t); end.Status != chat.StatusInterrupted || r.text[end.MessageID] != "a" {
			t.Errorf("the response ends as %+v with %q", end, r.text[end.MessageID])
		}
		stored, _ := h.store.Message(t.Context(), s.ID(), r.order[1])
		if stored.Status != chat.StatusInterrupted || stored.Text != "a" {
			t.Errorf("it is stored as %+v", stored)
		}
	})
}

func TestCheckpointSurvivesACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(300*time.Millisecond, "a", "b", "c", "d", "e", "f", "g", "h")}, nil)
		defer h.close(t)
		s := h.create(t)
		r := newReader(t, s)
		send(t, s, "q", "hi")
		time.Sleep(2100 * time.Millisecond)
		r.drain(t, s)
		stored, err := h.store.Message(t.Context(), s.ID(), r.order[1])
		if err != nil || stored.Status != chat.StatusStreaming || stored.Text != "abcdef" {
			t.Errorf("while it streams it is stored as %+v (%v)", stored, err)
		}
	})
}

func TestFinishedMessageGivesUpItsDeltas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(time.Second, "a", "b", "c", "d")}, nil)
		defer h.close(t)
		s := h.create(t)
		if err := s.Update(t.Context(), new("letters"), nil); err != nil { // so that it gets no title later
			t.Fatal(err)
		}
		r := newReader(t, s)
		send(t, s, "q", "hi")
		time.Sleep(2500 * time.Millisecond)
		r.drain(t, s)
		held := r.last
		time.Sleep(2 * time.Minute)
		r.drain(t, s)
		// The reader stood in the middle of the answer. It is given the rest as the whole.
		last := r.seen[len(r.seen)-1]
		whole, ok := last.Body.(chat.MessageCreated)
		if !ok || last.From != held+1 || whole.Message.Text != "abcd" || whole.Message.Status != chat.StatusComplete {
			t.Errorf("after %d the reader is given %+v", held, last)
		}
	})
}

func TestFollowYieldsEverythingOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(time.Millisecond, strings.Split(strings.Repeat("word ", 200), "r")...)}, nil)
		defer h.close(t)
		s := h.create(t)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, pause := range []time.Duration{0, time.Millisecond, 70 * time.Millisecond} {
			wg.Go(func() {
				r := &reader{text: map[string]string{}, done: map[string]chat.MessageCompleted{}}
				for e, err := range s.Follow(ctx, 0) {
					if err != nil {
						break
					}
					r.take(t, e)
					time.Sleep(pause)
				}
				if got := r.text[r.answer(t).MessageID]; got != strings.Join(strings.Split(strings.Repeat("word ", 200), "r"), "") {
					t.Errorf("with pauses of %v the text is %q", pause, got)
				}
			})
		}
		send(t, s, "q", "hi")
		time.Sleep(time.Minute)
		cancel()
		wg.Wait()
	})
}

func TestAfterBeyondTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{}, nil)
		defer h.close(t)
		s := h.create(t)
		_, opened, _ := s.Attach(nil, "", 0)
		if _, _, err := s.Attach(new(int64(1)), opened.Epoch, 0); code(err) != chat.CodeInvalidMessage {
			t.Errorf("an after beyond the end gives %v", err)
		}
		if _, opened, err := s.Attach(new(int64(0)), opened.Epoch, 0); err != nil || !opened.Resumed {
			t.Errorf("an after at the end gives %+v, %v", opened, err)
		}
	})
}

func TestResponseInProgressComesWithAnyHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(time.Second, "a", "b", "c")}, nil)
		defer h.close(t)
		s := h.create(t)
		send(t, s, "q", "hi")
		time.Sleep(1500 * time.Millisecond)
		for limit, want := range map[int]string{0: "[answer]", 1: "[answer]", 2: "[q answer]"} {
			cursor, opened, err := s.Attach(nil, "", limit)
			if err != nil || opened.HasMore != (limit < 2) {
				t.Errorf("with a history of %d it is opened as %+v (%v)", limit, opened, err)
			}
			r := &reader{cursor: cursor, text: map[string]string{}, done: map[string]chat.MessageCompleted{}}
			r.drain(t, s)
			if got := strings.ReplaceAll(fmt.Sprint(r.order), opened.InProgress, "answer"); got != want || r.text[opened.InProgress] != "a" {
				t.Errorf("with a history of %d the reader gets %s: %v", limit, got, r.text)
			}
		}
		time.Sleep(10 * time.Second)
	})
}

func TestHistoryEndsWithWhatElseHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		send(t, s, "q", "hi")
		synctest.Wait()
		if err := s.Update(t.Context(), new("Greetings"), nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, limit := range []int{0, 50} {
			cursor, opened, err := s.Attach(nil, "", limit)
			if err != nil {
				t.Fatal(err)
			}
			r := &reader{cursor: cursor, text: map[string]string{}, done: map[string]chat.MessageCompleted{}}
			r.drain(t, s)
			last, ok := r.seen[len(r.seen)-1].Body.(chat.SessionUpdated)
			if !ok || r.last != opened.Seq || *last.Title != "Greetings" || *last.Model != "m" || *last.HelpRequested {
				t.Errorf("with a history of %d the reader sees %s up to %d of %d", limit, r.bodies(), r.last, opened.Seq)
			}
		}
	})
}

func TestTakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{answer: says(0, "yes")}
		h := newHouse(t, storetest.NewMemory(), m, nil)
		defer h.close(t)
		s := h.create(t)
		r := newReader(t, s)
		agent := chat.Author{ID: "agent", Name: "Ann"}
		if err := s.RequestHelp(t.Context(), "stuck"); err != nil {
			t.Fatal(err)
		}
		if err := s.Join(t.Context(), agent); err != nil {
			t.Fatal(err)
		}
		if err := s.Join(t.Context(), chat.Author{ID: "other"}); code(err) != chat.CodeTakeoverConflict {
			t.Errorf("a second takeover gives %v", err)
		}
		if rec := s.Record(); rec.AssistedBy == nil || rec.AssistedBy.ID != "agent" || rec.HelpRequested {
			t.Errorf("the record is %+v", rec)
		}
		send(t, s, "q", "hi")
		if _, err := s.Send(t.Context(), agent, chat.RoleAgent, chat.SendMessage{MessageID: "a", Text: "hello"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(m.calls()) != 0 {
			t.Error("the model answered a session that an agent holds")
		}
		if err := s.LeaveAgent(t.Context(), agent.ID, func() bool { return false }); err != nil {
			t.Fatal(err)
		}
		send(t, s, "q2", "and now?")
		synctest.Wait()
		r.drain(t, s)
		var got []string
		for _, p := range m.calls()[0].Messages {
			got = append(got, p.Text)
		}
		if strings.Join(got, "|") != "hi|Ann: hello|and now?" {
			t.Errorf("the model is asked %q", got)
		}
	})
}
