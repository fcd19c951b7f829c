package session_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/storetest"
)

// endLost gives a session whose end is stored although the answer was lost.
func endLost(t *testing.T) (*house, *session.Session) {
	t.Helper()
	var ended atomic.Bool
	store := &lossy{Memory: storetest.NewMemory()}
	store.then(func(_ context.Context, op string) error {
		if op == "UpdateSession" && ended.CompareAndSwap(true, false) {
			return errors.New("no answer")
		}
		return nil
	})
	h := lossyHouse(t, store, &model{answer: says(0, "yes")}, t.TempDir(), nil)
	s := h.create(t)
	if err := s.Join(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	ended.Store(true)
	if err := s.End(t.Context(), chat.EndedByUser); err == nil {
		t.Fatal("the end succeeds")
	}
	return h, s
}

// Nothing follows the end, and an ended session stays ended, where the end's answer was lost.
func TestNothingFollowsAnEndWhoseAnswerWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := endLost(t)
		defer h.close(t)
		r := newReader(t, s)
		stop := s.Notify(func() {})
		_ = s.LeaveAgent(t.Context(), ann.ID, func() bool { return false })
		r.drain(t, s)
		if got := r.bodies(); strings.Contains(got, "SessionEnded ") {
			t.Errorf("the reader sees %s", got)
		}
		if status := s.Record().Status; status != chat.SessionStatusEnded {
			t.Errorf("the session is %s", status)
		}
		stop()
		s.Release()
	})
}

func TestCheckpointDoesNotReviveAnEndedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := endLost(t)
		defer h.close(t)
		r := newReader(t, s)
		stop := s.Notify(func() {})
		time.Sleep(2 * time.Minute) // the cleanup's checkpoint finds it out
		r.drain(t, s)
		if status := s.Record().Status; status != chat.SessionStatusEnded {
			t.Errorf("the session is %s after %s", status, r.bodies())
		}
		stop()
		s.Release()
	})
}

// A response whose number is taken (by a message of an earlier life of the session, that came late) does not make the
// session unable to leave memory, or to be loaded.
func TestResponseWhoseNumberIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		send(t, s, "q", "hi")
		synctest.Wait()
		late := chat.Message{ID: "late", N: 3, Role: chat.RoleUser, Status: chat.StatusComplete, Author: &alice}
		if err := h.store.InsertMessage(t.Context(), s.ID(), s.Record().Claim, late); err != nil {
			t.Fatal(err)
		}
		if err := s.Retry(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		h2 := h.crashed(t, &model{answer: says(0, "yes")})
		again, err := h2.Open(t.Context(), s.ID(), anybody)
		for i := 0; err != nil && i < 3; i++ {
			time.Sleep(time.Minute)
			again, err = h2.Open(t.Context(), s.ID(), anybody)
		}
		if err != nil {
			t.Errorf("after a crash the session cannot be opened any more: %v", err)
		} else {
			again.Release()
		}
		h2.close(t)
		s.Release()
		time.Sleep(5 * time.Hour)
		if total := h.MemoryStats().Total; total != 0 {
			t.Errorf("%d sessions are in memory after five hours", total)
		}
	})
}
