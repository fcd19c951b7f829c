package session_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/storetest"
)

// hasMessages checks how many messages the session's record says it has, in memory and in the store, where it is to have
// as many with a place.
func hasMessages(t *testing.T, store chat.Store, s *session.Session, want int64) {
	t.Helper()
	synctest.Wait()
	if got := s.Record().Messages; got != want {
		t.Errorf("the session says that it has %d messages, want %d", got, want)
	}
	hasStoredMessages(t, store, s.ID(), want)
}

func hasStoredMessages(t *testing.T, store chat.Store, id string, want int64) {
	t.Helper()
	record, err := store.Session(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	placed, err := store.MessagesAfter(context.Background(), id, 0, 1000)
	if err != nil || record.Messages != want || int64(len(placed)) != want {
		t.Errorf("the store says that there are %d messages, and has %d with a place, want %d; error %v",
			record.Messages, len(placed), want, err)
	}
}

func TestMessagesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(time.Second, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		hasMessages(t, h.store, s, 0)
		for i := range int64(2) {
			send(t, s, fmt.Sprint("q", i), "hi")
			hasMessages(t, h.store, s, 2*i) // a response that runs keeps its question's place back
			time.Sleep(2 * time.Second)
			hasMessages(t, h.store, s, 2*i+2)
		}
		s.Release()
		time.Sleep(time.Hour)
		if h.MemoryStats().Total != 0 {
			t.Fatal("it has not left memory")
		}
		hasStoredMessages(t, h.store, s.ID(), 4)
		again := h.open(t, s.ID())
		defer again.Release()
		hasMessages(t, h.store, again, 4)
		send(t, again, "q2", "hi")
		time.Sleep(2 * time.Second)
		hasMessages(t, h.store, again, 6)
	})
}

func TestMessagesOfAnAgentAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		agent := chat.Author{ID: "agent", Name: "Ann"}
		if err := s.Join(t.Context(), agent); err != nil {
			t.Fatal(err)
		}
		send(t, s, "q", "hi")
		if _, err := s.Send(t.Context(), agent, chat.RoleAgent, chat.SendMessage{MessageID: "a", Text: "hello"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute) // the cleanup comes, as no response does
		hasMessages(t, h.store, s, 2)
		if err := s.LeaveAgent(t.Context(), agent.ID, func() bool { return false }); err != nil {
			t.Fatal(err)
		}
		hasMessages(t, h.store, s, 2)
		send(t, s, "q2", "and now?")
		hasMessages(t, h.store, s, 4)
	})
}

// What could not be stored is stored again, and counts once; so does what was stored, where only the answer was lost.
func TestMessagesWhoseStoringFails(t *testing.T) {
	for name, lossy := range map[string]bool{"before it is done": false, "after it is done": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var fail atomic.Int64
				store := storetest.NewMemory()
				before := func(op string) error {
					if op == "UpdateSession" && fail.Add(-1) >= 0 {
						return errors.New("no disk")
					}
					return nil
				}
				if lossy {
					store.After = func(_ context.Context, op string, err error) error { return errors.Join(err, before(op)) }
				} else {
					store.Before = func(_ context.Context, op string) error { return before(op) }
				}
				h := newHouse(t, store, &model{answer: says(0, "yes")}, nil)
				defer h.close(t)
				s := h.create(t)
				defer s.Release()
				send(t, s, "q1", "hi")
				hasMessages(t, store, s, 2)
				fail.Store(3)
				send(t, s, "q2", "hi")
				synctest.Wait()
				if fail.Load() == 3 {
					t.Fatal("nothing has failed")
				}
				if got := s.Record().Messages; got != 2 {
					t.Errorf("before it is stored it counts %d messages, want 2", got)
				}
				time.Sleep(5 * time.Minute)
				hasMessages(t, store, s, 4)
				send(t, s, "q3", "hi")
				hasMessages(t, store, s, 6)
			})
		})
	}
}

// A change of the record of which the answer is lost is done: what it had counts.
func TestMessagesOfAChangeWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lose atomic.Bool
		store := storetest.NewMemory()
		store.After = func(_ context.Context, op string, err error) error {
			if op == "UpdateSession" && err == nil && lose.Swap(false) {
				return chat.ErrStale // as a repetition is told
			}
			return err
		}
		h := newHouse(t, store, &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		lose.Store(true)
		send(t, s, "q1", "hi")
		hasMessages(t, store, s, 2)
		if lose.Load() {
			t.Error("nothing was lost")
		}
		send(t, s, "q2", "hi")
		hasMessages(t, store, s, 4)
	})
}

// A server goes down between the messages' places and the record, which are two writes where several share a store.
func TestMessagesWithPlacesThatTheRecordDoesNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		send(t, s, "q1", "hi")
		synctest.Wait()
		s.Release()
		time.Sleep(time.Hour)

		record, err := h.store.Session(t.Context(), s.ID())
		if err != nil {
			t.Fatal(err)
		}
		m := chat.Message{ID: "q2", N: 9, Seq: record.LogEnd + 1, Role: chat.RoleUser, Status: chat.StatusComplete, CreatedAt: record.CreatedAt}
		if err := h.store.InsertMessage(t.Context(), s.ID(), record.Claim, m); err != nil {
			t.Fatal(err)
		}
		again := h.open(t, s.ID())
		defer again.Release()
		send(t, again, "q3", "hi")
		hasMessages(t, h.store, again, 5)
	})
}

// However far it was stored before: an ended session counts all of its messages.
func TestMessagesOfAnEndedSession(t *testing.T) {
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
			record, err := h.store.Session(t.Context(), s.ID())
			if err != nil || record.Messages != 2 {
				t.Errorf("an ended session counts %d messages, want 2; error %v", record.Messages, err)
			}
		})
	}
}
