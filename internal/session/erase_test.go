package session_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/storetest"
)

func TestEraseRemovesASessionForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(time.Second, "my ", "secret ", "is ", "this")}, nil)
		s, bystander := h.create(t), h.create(t)
		r := newReader(t, s)
		defer s.Notify(func() {})() // as who reads it has to be told of its end
		send(t, s, "q", "hi")
		send(t, bystander, "q", "hi")
		time.Sleep(2500 * time.Millisecond)
		if err := h.Erase(t.Context(), s.ID(), chat.EndedByUser, func(*chat.Session) bool { return false }); code(err) != chat.CodeSessionNotFound {
			t.Errorf("somebody else's session is erased: %v", err)
		}
		if err := h.Erase(t.Context(), s.ID(), chat.EndedByUser, anybody); err != nil {
			t.Fatal(err)
		}
		r.drain(t, s)
		if !strings.HasSuffix(r.bodies(), "MessageCompleted SessionEnded") {
			t.Errorf("the reader sees %s", r.bodies())
		}
		s.Release()
		h2 := h.crashed(t, &model{}) // which brings in what the journal has
		defer h2.close(t)
		synctest.Wait()
		for _, house := range []*house{h, h2} {
			if _, err := house.Open(t.Context(), s.ID(), anybody); code(err) != chat.CodeSessionNotFound {
				t.Errorf("the session can be opened: %v", err)
			}
			if _, err := house.store.Session(t.Context(), s.ID()); !errors.Is(err, chat.ErrNotFound) {
				t.Errorf("the session is stored: %v", err)
			}
			if all, err := house.store.Messages(t.Context(), s.ID(), 0, 10); err != nil || len(all) > 0 {
				t.Errorf("stored are %+v, error %v", all, err)
			}
		}
		again := h2.open(t, bystander.ID())
		defer again.Release()
		if all := newReader(t, again); len(all.order) == 0 {
			all.drain(t, again)
			if all.text["q"] != "hi" {
				t.Errorf("of another session there is %v", all.text)
			}
		}
		bystander.Release()
		h.close(t)
	})
}

func TestEraseOfAnEndedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		send(t, s, "q", "hi")
		synctest.Wait()
		if err := s.End(t.Context(), chat.EndedByUser); err != nil {
			t.Fatal(err)
		}
		s.Release()
		for range 2 {
			err := h.Erase(t.Context(), s.ID(), chat.EndedByUser, anybody)
			if err != nil && code(err) != chat.CodeSessionNotFound {
				t.Errorf("erasing it gives %v", err)
			}
		}
		if n, err := h.store.Count(t.Context()); err != nil || n.Sessions+n.Messages > 0 {
			t.Errorf("there are %+v, error %v", n, err)
		}
	})
}
