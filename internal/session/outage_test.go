package session_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/storetest"
)

// frozen is a store that takes nothing while it is frozen: operations wait.
func frozen() (store *storetest.Memory, freeze func(on bool)) {
	store = storetest.NewMemory()
	var on atomic.Bool
	store.Before = func(ctx context.Context, _ string) error {
		for on.Load() {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	return store, on.Store
}

// A storage that is frozen in the middle of an answer is not noticed by who reads it, whether the answer ends meanwhile
// or goes on; after the thaw all of it is stored.
func TestFrozenStorageIsNotNoticedByReaders(t *testing.T) {
	for name, pieces := range map[string]int{"the answer goes on": 200, "the answer ends meanwhile": 50} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, freeze := frozen()
				h := newHouse(t, store, &model{answer: says(100*time.Millisecond, strings.Split(strings.Repeat("a ", pieces), "")[:pieces]...)}, nil)
				defer h.close(t)
				s := h.create(t)
				defer s.Release()
				r := newReader(t, s)
				send(t, s, "q", "hi")
				began, last, longest := time.Now(), time.Now(), time.Duration(0)
				for len(r.done) == 0 {
					time.Sleep(50 * time.Millisecond)
					before := r.last
					r.drain(t, s)
					if r.last > before {
						longest, last = max(longest, time.Since(last)), time.Now()
					}
					switch at := time.Since(began); {
					case at > 12*time.Second:
						freeze(false)
					case at > 2*time.Second:
						freeze(true)
					}
					if time.Since(began) > time.Minute {
						t.Fatal("the answer does not end")
					}
				}
				longest = max(longest, time.Since(last))
				if longest > time.Second {
					t.Errorf("the reader has waited for %v", longest)
				}
				for time.Since(began) < 12*time.Second {
					time.Sleep(50 * time.Millisecond)
				}
				freeze(false)
				time.Sleep(5 * time.Second)
				end := r.answer(t)
				m, err := store.Message(t.Context(), s.ID(), end.MessageID)
				if err != nil || m.Status != chat.StatusComplete || m.Text != r.text[end.MessageID] || m.Usage == nil {
					t.Errorf("after the thaw the response is stored as %+v, error %v", m, err)
				}
				if responses, _ := billed(t, store); responses != 1 {
					t.Errorf("after the thaw %d responses are billed", responses)
				}
				record, err := store.Session(t.Context(), s.ID())
				if err != nil || record.LogEnd != r.last || m.Seq == 0 {
					t.Errorf("the store knows the log up to %d of %d, the response at %d; error %v", record.LogEnd, r.last, m.Seq, err)
				}
			})
		})
	}
}

// While the storage is away nothing new is accepted, and a response that was running is not lost by a crash.
func TestNothingNewDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, freeze := frozen()
		h := newHouse(t, store, &model{answer: says(time.Second, "one ", "two ", "three")}, nil)
		s := h.create(t)
		r := newReader(t, s)
		send(t, s, "q", "hi")
		time.Sleep(1500 * time.Millisecond)
		freeze(true)
		_, err := s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q2", Text: "there?", Interrupt: true})
		if code(err) != chat.CodeStorageUnavailable || !chat.AsError(err).Code.Retryable() {
			t.Errorf("a message is answered with %v", err)
		}
		if _, err := h.Create(alice.ID, "", nil); code(err) != chat.CodeStorageUnavailable {
			t.Errorf("a new session is answered with %v", err)
		}
		time.Sleep(time.Minute)
		r.drain(t, s)
		shown := r.text[r.order[1]]
		h2 := h.crashed(t, &model{}) // with the storage as it is, which has been reached again
		defer h2.close(t)
		again := h2.open(t, s.ID())
		defer again.Release()
		cursor, opened, err := again.Attach(&r.last, epochOf(t, s), 50)
		if err != nil || !opened.Resumed {
			t.Fatalf("after the crash the reader is told %+v, error %v", opened, err)
		}
		r.cursor = cursor
		r.drain(t, again)
		m, err := h2.store.Message(t.Context(), s.ID(), r.order[1])
		if err != nil || m.Text != shown || m.Status == chat.StatusStreaming {
			t.Errorf("what was shown is %q, stored is %+v, error %v", shown, m, err)
		}
		freeze(false)
		s.Release()
		h.close(t)
	})
}

func TestRetentionRemovesWhatIsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		h := newHouse(t, store, &model{answer: says(0, "yes")}, func(c *session.Config) {
			c.Retention, c.UsageRetention = 24*time.Hour, 48*time.Hour
		})
		defer h.close(t)
		old, read, ended := h.create(t), h.create(t), h.create(t)
		defer read.Release() // somebody has it open all the time
		for _, s := range []*session.Session{old, read, ended} {
			send(t, s, "q", "hi")
		}
		synctest.Wait()
		if err := ended.End(t.Context(), chat.EndedByUser); err != nil {
			t.Fatal(err)
		}
		old.Release()
		ended.Release()
		elsewhere := chat.Session{
			ID: "elsewhere", UserID: alice.ID, Status: chat.SessionStatusActive, CreatedAt: chat.Now(), LastActiveAt: chat.Now(),
			Claim: chat.Claim{Owner: "other server", Epoch: "e"},
		}
		if err := store.CreateSession(t.Context(), &elsewhere); err != nil {
			t.Fatal(err)
		}
		there := func() (ids map[string]bool) {
			all, err := store.SessionsAfter(t.Context(), "", 100)
			if err != nil {
				t.Fatal(err)
			}
			ids = make(map[string]bool)
			for _, s := range all {
				ids[s.ID] = true
			}
			return ids
		}
		time.Sleep(23 * time.Hour)
		if got := there(); len(got) != 4 {
			t.Errorf("too early there are %v", got)
		}
		for range 20 { // the other server is alive
			if _, err := store.RenewLease(t.Context(), "other server"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute)
		}
		if got := there(); len(got) != 2 || !got[read.ID()] || !got["elsewhere"] {
			t.Errorf("after a day there are %v", got)
		}
		if messages, err := store.Messages(t.Context(), old.ID(), 0, 10); err != nil || len(messages) != 0 {
			t.Errorf("of a removed session there are %+v, error %v", messages, err)
		}
		if responses, _ := billed(t, store); responses != 3 {
			t.Errorf("%d responses are billed after a day", responses)
		}
		if err := store.EndLease(t.Context(), "other server"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		if got := there(); len(got) != 1 {
			t.Errorf("after two days there are %v", got)
		}
		if responses, _ := billed(t, store); responses != 0 {
			t.Errorf("%d responses are billed after two days", responses)
		}
	})
}
