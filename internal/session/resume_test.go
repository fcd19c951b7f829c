package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/storetest"
)

// A message of an agent's stands in the middle of a response, so that the response, as a whole, comes after it. A reader
// that is cut off between the two must not miss the response's beginning.
func TestReaderThatIsCutOffWithinItsHistory(t *testing.T) {
	for _, history := range []int{0, 1, 2, 50} {
		for _, seconds := range []int{3, 9} { // the response goes on, or is complete
			t.Run(fmt.Sprintf("history %d after %d s", history, seconds), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHouse(t, storetest.NewMemory(), &model{answer: says(time.Second, "a", "b", "c", "d")}, nil)
					defer h.close(t)
					s := h.create(t)
					send(t, s, "q0", "before")
					time.Sleep(5 * time.Second)
					send(t, s, "q", "hi")
					time.Sleep(1500 * time.Millisecond)
					agent := chat.Author{ID: "ann"}
					if err := s.Join(t.Context(), agent); err != nil {
						t.Fatal(err)
					}
					if _, err := s.Send(t.Context(), agent, chat.RoleAgent, chat.SendMessage{MessageID: "m", Text: "hello"}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Duration(seconds) * time.Second)
					for cut := range 12 {
						r := newReader(t, s)
						var opened chat.SessionOpened
						r.cursor, opened, _ = s.Attach(nil, "", history)
						for range cut {
							if e, ok, _ := s.Read(&r.cursor); ok {
								r.take(t, e)
							}
						}
						var err error
						if r.cursor, _, err = s.Attach(&r.last, opened.Epoch, history); err != nil {
							t.Fatal(err)
						}
						r.drain(t, s)
						for id, text := range r.text {
							if !slices.Contains(r.order, id) || !strings.HasPrefix(stored(t, s, id), text) || text == "" {
								t.Errorf("cut after %d: the reader holds %s as %q, of %v", cut, id, text, r.order)
							}
						}
					}
				})
			})
		}
	}
}

// stored gives what a message's text comes to.
func stored(t *testing.T, s *session.Session, id string) string {
	t.Helper()
	all := newReader(t, s)
	all.drain(t, s)
	return all.text[id]
}

// A message that was stored although its sender was told that it was not has the number of that attempt. Sent again
// later, it is nevertheless what the model has to answer, and what a retry is for.
func TestQuestionIsAnsweredWhateverItsNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{answer: says(0, "yes")}
		store := storetest.NewMemory()
		h := newHouse(t, store, m, nil)
		defer h.close(t)
		s := h.create(t)
		lost := chat.Message{ID: "q1", N: 1, Role: chat.RoleUser, Text: "one", Status: chat.StatusComplete, Author: &alice, AnswerID: "A"}
		claim := s.Record().Claim
		var lostIt atomic.Bool
		store.Before = func(ctx context.Context, operation string) error {
			if operation != "InsertMessage" || !lostIt.CompareAndSwap(false, true) {
				return nil
			}
			return errors.Join(store.InsertMessage(ctx, s.ID(), claim, lost), errors.New("the answer is lost"))
		}
		if _, err := s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q1", Text: "one"}); code(err) != chat.CodeStorageUnavailable {
			t.Fatalf("a message of which the answer is lost gives %v", err)
		}
		send(t, s, "q2", "two")
		synctest.Wait()
		send(t, s, "q1", "one")
		synctest.Wait()
		if err := s.Retry(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for i, want := range []string{"two", "one", "one"} {
			asked := m.calls()[i].Messages
			if got := asked[len(asked)-1].Text; got != want {
				t.Errorf("call %d asks %q, want %q", i+1, got, want)
			}
		}
	})
}
