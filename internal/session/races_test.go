package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/storetest"
)

// slowStore gives a store whose operations of one name take a second, or fail where fail says so.
func slowStore(operation string, fail func() error) *storetest.Memory {
	store := storetest.NewMemory()
	store.Before = func(_ context.Context, op string) error {
		if op != operation {
			return nil
		}
		time.Sleep(time.Second)
		if fail != nil {
			return fail()
		}
		return nil
	}
	return store
}

// bodies gives what a reader has seen, by the types' names.
func (r *reader) bodies() string {
	var names []string
	for _, e := range r.seen {
		names = append(names, strings.TrimPrefix(fmt.Sprintf("%T", e.Body), "chat."))
	}
	return strings.Join(names, " ")
}

func TestNothingFollowsTheEnd(t *testing.T) {
	for _, role := range []chat.Role{chat.RoleUser, chat.RoleAgent} {
		t.Run(string(role), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, slowStore("InsertMessage", nil), &model{answer: says(0, "yes")}, nil)
				defer h.close(t)
				s := h.create(t)
				r := newReader(t, s)
				sent := make(chan error)
				go func() {
					_, err := s.Send(t.Context(), alice, role, chat.SendMessage{MessageID: "m", Text: "hi"})
					sent <- err
				}()
				time.Sleep(time.Second / 2) // the message is on its way into the store
				if err := s.End(t.Context(), chat.EndedByUser); err != nil {
					t.Error(err)
				}
				if err := <-sent; err != nil {
					t.Errorf("a message that is stored is refused: %v", err)
				}
				if stored, err := h.store.Message(t.Context(), s.ID(), "m"); err != nil || stored.Text != "hi" {
					t.Errorf("it is stored as %+v (%v)", stored, err)
				}
				r.drain(t, s)
				// With no reader registered the log has gone with the end; what was seen before must not go on after it.
				if got := r.bodies(); strings.Contains(got, "SessionEnded ") {
					t.Errorf("the reader sees %s", got)
				}
			})
		})
	}
}

func TestEndWaitsForWhatWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, slowStore("InsertMessage", nil), &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		r := newReader(t, s)
		defer s.Notify(func() {})()
		go func() { _, _ = s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "m", Text: "hi"}) }()
		time.Sleep(time.Second / 2)
		if err := s.End(t.Context(), chat.EndedByUser); err != nil {
			t.Error(err)
		}
		r.drain(t, s)
		if got := r.bodies(); got != "MessageCreated MessageCreated MessageCompleted SessionEnded" || r.answer(t).Status != chat.StatusCancelled {
			t.Errorf("the reader sees %s", got)
		}
	})
}

func TestEndThatFailsLeavesNoQuestionOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		store.Before = func(_ context.Context, op string) error {
			if op == "InsertMessage" || op == "UpdateSession" {
				time.Sleep(time.Second)
			}
			if op == "UpdateSession" {
				return errors.New("no disk")
			}
			return nil
		}
		h := newHouse(t, store, &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		r := newReader(t, s)
		go func() { _, _ = s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "m", Text: "hi"}) }()
		time.Sleep(time.Second / 2)
		if err := s.End(t.Context(), chat.EndedByUser); code(err) != chat.CodeStorageUnavailable {
			t.Errorf("the end gives %v", err)
		}
		r.drain(t, s)
		if got := r.bodies(); got != "MessageCreated MessageCreated MessageCompleted" || r.answer(t).Status != chat.StatusCancelled {
			t.Errorf("the reader sees %s", got)
		}
		if s.Responding() {
			t.Error("the session still responds")
		}
	})
}

func TestEndWhoseAnswerWasLostIsAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		ended := s.Record()
		ended.Status, ended.Revision = chat.SessionStatusEnded, 1
		if err := h.store.UpdateSession(t.Context(), &ended); err != nil {
			t.Fatal(err)
		}
		if err := s.End(t.Context(), chat.EndedByUser); err != nil {
			t.Errorf("the end gives %v", err)
		}
		if h.MemoryStats().Total != 0 {
			t.Error("the session is still in memory")
		}
	})
}

func TestRecordIsShownOnceItIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fail error
		h := newHouse(t, slowStore("UpdateSession", func() error { return fail }), &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		r := newReader(t, s)
		fail = errors.New("no disk")
		joined := make(chan error)
		go func() { joined <- s.Join(t.Context(), chat.Author{ID: "agent"}) }()
		time.Sleep(time.Second / 2)
		if _, opened, _ := s.Attach(nil, "", 0); opened.Session.AssistedBy != nil {
			t.Error("a takeover is shown that is not stored")
		}
		if err := <-joined; code(err) != chat.CodeStorageUnavailable {
			t.Errorf("joining gives %v", err)
		}
		if r.drain(t, s); len(r.seen) > 0 || s.Record().AssistedBy != nil {
			t.Errorf("after a failed takeover the reader sees %s", r.bodies())
		}
	})
}

func TestNoModelAnswersAfterATakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{answer: says(0, "yes")}
		h := newHouse(t, slowStore("InsertMessage", nil), m, nil)
		defer h.close(t)
		s := h.create(t)
		r := newReader(t, s)
		go func() { _, _ = s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "m", Text: "hi"}) }()
		time.Sleep(time.Second / 2)
		if err := s.Join(t.Context(), chat.Author{ID: "agent"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		r.drain(t, s)
		if r.answer(t).Status != chat.StatusCancelled || len(m.calls()) > 0 {
			t.Errorf("the reader sees %s; the model was asked %d times", r.bodies(), len(m.calls()))
		}
	})
}

func TestTakeoverEndsAlthoughTheStoreIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fail error
		h := newHouse(t, slowStore("UpdateSession", func() error { return fail }), &model{}, nil)
		defer h.close(t)
		s := h.create(t)
		if err := s.Join(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		fail = errors.New("no disk")
		if err := s.LeaveAgent(t.Context(), alice.ID, func() bool { return true }); err != nil || s.Record().AssistedBy == nil {
			t.Errorf("a takeover that is wanted is ended (%v)", err)
		}
		if err := s.LeaveAgent(t.Context(), alice.ID, func() bool { return false }); code(err) != chat.CodeStorageUnavailable {
			t.Errorf("leaving gives %v", err)
		}
		if s.Record().AssistedBy != nil {
			t.Error("the takeover goes on without an agent")
		}
	})
}

func TestDrainDoesNotWaitForAStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		store.Before = func(ctx context.Context, op string) error {
			if op == "UpdateMessage" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		h := newHouse(t, store, &model{answer: hangs}, nil)
		s := h.create(t)
		send(t, s, "q", "hi")
		time.Sleep(5 * time.Second) // a checkpoint hangs
		h.StopTurns()
		start := time.Now()
		soft, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		hard, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if n := h.Drain(soft, hard); n != 1 {
			t.Errorf("%d responses were interrupted", n)
		}
		h.close(t)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("draining took %v", took)
		}
	})
}

func TestBeginningThatCouldNotBeStoredIsStoredLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		inserts := 0
		store.Before = func(_ context.Context, op string) error {
			if op == "InsertMessage" {
				if inserts++; inserts == 2 { // the answer's
					return errors.New("no disk")
				}
			}
			return nil
		}
		h := newHouse(t, store, &model{answer: says(300*time.Millisecond, "a", "b", "c", "d", "e", "f")}, nil)
		defer h.close(t)
		s := h.create(t)
		r := newReader(t, s)
		send(t, s, "q", "hi")
		time.Sleep(1100 * time.Millisecond)
		r.drain(t, s)
		if m, err := store.Message(t.Context(), s.ID(), r.order[1]); err != nil || m.Text != "abc" {
			t.Errorf("after a second it is stored as %+v (%v)", m, err)
		}
		time.Sleep(5 * time.Second)
	})
}
