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

// cut is a store that a server cannot reach while it is cut off.
type cut struct {
	*storetest.Memory
	off atomic.Bool
}

var errCutOff = errors.New("the network is cut")

func (c *cut) RenewLease(ctx context.Context, owner string) (map[string]int64, error) {
	if c.off.Load() {
		return nil, errCutOff
	}
	return c.Memory.RenewLease(ctx, owner)
}

func sharing(c *session.Config) { c.LeaseTimeout = 10 * time.Second }

// cutHouse makes a server that shares a store with others.
func cutHouse(t *testing.T, store *cut, m *model) *house {
	t.Helper()
	return houseOn(t, store, store.Memory, t.TempDir(), m, sharing)
}

func TestSessionIsBusyUntilItsServerLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		one := newHouse(t, store, &model{answer: says(time.Second, "yes")}, sharing)
		defer one.close(t)
		two := newHouse(t, store, &model{answer: says(0, "yes")}, sharing)
		defer two.close(t)
		s := one.create(t)
		r := newReader(t, s)
		send(t, s, "q1", "hi")
		busy := func(when string) {
			t.Helper()
			_, err := two.Open(t.Context(), s.ID(), anybody)
			if code(err) != chat.CodeSessionBusy || chat.AsError(err).RetryAfter == 0 {
				t.Errorf("%s another server gives %v", when, err)
			}
		}
		busy("while it answers")
		time.Sleep(time.Hour)
		busy("while somebody reads it")
		r.drain(t, s)
		s.Release()
		busy("a moment after that")
		if again := one.open(t, s.ID()); again != s {
			t.Error("whoever comes back at once finds another session")
		}
		s.Release()
		time.Sleep(7 * time.Second)
		other := two.open(t, s.ID())
		defer other.Release()
		cursor, opened, err := other.Attach(&r.last, epochOf(t, s), 50)
		if err != nil || !opened.Resumed {
			t.Fatalf("on the other server the reader is told %+v, error %v", opened, err)
		}
		r.cursor = cursor
		send(t, other, "q2", "and?")
		r.drain(t, other)
		if got := strings.Join(r.order, " "); len(r.order) != 4 || !strings.HasPrefix(got, "q1 ") || r.order[2] != "q2" {
			t.Errorf("the reader holds %v", r.order)
		}
		if _, err := one.Open(t.Context(), s.ID(), anybody); code(err) != chat.CodeSessionBusy {
			t.Errorf("on the first server it is now %v", err)
		}
	})
}

func TestSessionIsBusyUntilItsServersLeaseHasRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &cut{Memory: storetest.NewMemory()}
		one := cutHouse(t, store, &model{answer: says(time.Second, strings.Split("abcdefghijklmnopqrstuvwxyz", "")...)})
		defer one.close(t)
		two := newHouse(t, store.Memory, &model{answer: says(0, "yes")}, sharing)
		defer two.close(t)
		s := one.create(t)
		defer s.Release()
		r := newReader(t, s)
		send(t, s, "q1", "hi")
		time.Sleep(3500 * time.Millisecond)
		r.drain(t, s)
		store.off.Store(true)
		cutAt := time.Now()
		var other *session.Session
		for {
			var err error
			if other, err = two.Open(t.Context(), s.ID(), anybody); err == nil {
				break
			}
			if code(err) != chat.CodeSessionBusy {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		defer other.Release()
		if took := time.Since(cutAt); took < 6*time.Second || took > 15*time.Second {
			t.Errorf("the session is taken over after %v", took)
		}
		if epochOf(t, other) == epochOf(t, s) {
			t.Error("it goes on under the same epoch")
		}
		stored := func() string {
			all, err := store.Messages(t.Context(), s.ID(), 0, 10)
			if err != nil || len(all) < 2 {
				t.Fatalf("stored are %+v, error %v", all, err)
			}
			return string(all[1].Status) + " " + all[1].Text
		}
		taken := stored()
		if !strings.HasPrefix(taken, "interrupted abc") {
			t.Errorf("the response is stored as %q", taken)
		}
		// The first server does not know. Nothing that it does has an effect.
		if _, err := s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q2", Text: "there?", Interrupt: true}); code(err) != chat.CodeSessionBusy {
			t.Errorf("a message to the first server gives %v", err)
		}
		if err := s.Update(t.Context(), new("mine"), nil); code(err) != chat.CodeSessionBusy {
			t.Errorf("a title on the first server gives %v", err)
		}
		time.Sleep(time.Minute)
		if again := stored(); again != taken {
			t.Errorf("the former owner has made %q of %q", again, taken)
		}
		if _, err := store.Message(t.Context(), s.ID(), "q2"); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("a message of the former owner was stored: %v", err)
		}
		record, err := store.Session(t.Context(), s.ID())
		if err != nil || record.Title == "mine" {
			t.Errorf("the record is %+v, error %v", record, err)
		}
		if !s.Lost() || one.Running() > 0 {
			t.Error("the first server has not given the session up")
		}
		send(t, other, "q3", "and now?")
		store.off.Store(false)
	})
}

// A server whose lease has run out for a while, and whose sessions nobody wanted, goes on.
func TestLeaseThatNobodyMissedIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &cut{Memory: storetest.NewMemory()}
		one := cutHouse(t, store, &model{answer: says(0, "yes")})
		defer one.close(t)
		two := newHouse(t, store.Memory, &model{}, sharing)
		defer two.close(t)
		s := one.create(t)
		defer s.Release()
		store.off.Store(true)
		time.Sleep(time.Minute)
		if n := strings.Count(one.log.String(), "cannot be renewed"); n != 1 {
			t.Errorf("it is logged %d times that the lease cannot be renewed", n)
		}
		store.off.Store(false)
		time.Sleep(10 * time.Second)
		send(t, s, "q", "hi")
		if _, err := two.Open(t.Context(), s.ID(), anybody); code(err) != chat.CodeSessionBusy {
			t.Errorf("another server gives %v", err)
		}
		if !strings.Contains(one.log.String(), "is renewed again") {
			t.Error("it is not logged that the lease is renewed again")
		}
	})
}

// Before a server has a lease it claims nothing: others would take it for gone.
func TestNothingIsClaimedWithoutALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &cut{Memory: storetest.NewMemory()}
		store.off.Store(true)
		h := cutHouse(t, store, &model{})
		defer h.close(t)
		if _, err := h.Create(alice.ID, "", nil); code(err) != chat.CodeStorageUnavailable {
			t.Errorf("a session is made without a lease: %v", err)
		}
		store.off.Store(false)
		h.create(t).Release()
	})
}
