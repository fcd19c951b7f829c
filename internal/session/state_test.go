package session_test

import (
	"context"
	"iter"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/store/storetest"
)

// remembers answers like a provider that keeps the conversation: under the name it was given before, or a new one.
func remembers(name string, last ...chat.Chunk) func(context.Context, chat.Request) iter.Seq2[chat.Chunk, error] {
	return gives(nil, append([]chat.Chunk{{State: name}, {Text: "yes"}}, last...)...)
}

// What a provider wants to be kept with a session it finds with the next request, however the answer ended, and also
// after the session has left memory and after a crash.
func TestProviderFindsItsState(t *testing.T) {
	end := chat.Chunk{FinishReason: chat.FinishStop}
	tests := []struct {
		name   string
		answer func(context.Context, chat.Request) iter.Seq2[chat.Chunk, error]
		cancel bool
	}{
		{"whole", remembers("c-1", end), false},
		{"told at the end", gives(nil, chat.Chunk{Text: "yes"}, chat.Chunk{FinishReason: chat.FinishStop, State: "c-1"}), false},
		{"changed", gives(nil, chat.Chunk{Text: "yes", State: "c-0"}, chat.Chunk{State: "c-1"}, end), false},
		{"cut off", remembers("c-1"), false},
		{"failed", gives(chat.NewError(chat.CodeLLMUnavailable, "down"), chat.Chunk{State: "c-1", Text: "yes"}), false},
		{"cancelled", stalls(chat.Chunk{State: "c-1"}, chat.Chunk{Text: "yes"}), true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &model{answer: test.answer}
				h := newHouse(t, storetest.NewMemory(), m, nil)
				defer h.close(t)
				s := h.create(t)
				send(t, s, "q1", "hi")
				time.Sleep(time.Second)
				if test.cancel {
					s.Cancel("")
				}
				synctest.Wait()
				if len(m.calls()[0].States) != 0 {
					t.Errorf("the first request has the states %v", m.calls()[0].States)
				}
				want := map[string]string{llmtest.ProviderID: "c-1"}
				if stored, err := h.store.Session(t.Context(), s.ID()); err != nil || !maps.Equal(stored.ProviderStates, want) {
					t.Errorf("stored are the states %v (%v)", stored.ProviderStates, err)
				}
				m.nowAnswers(says(0, "yes")) // without a state: the one before stays
				send(t, s, "q2", "hi")
				synctest.Wait()
				s.Release()
				time.Sleep(time.Hour)
				s = h.open(t, s.ID())
				send(t, s, "q3", "hi")
				synctest.Wait()
				s.Release()

				m2 := &model{answer: says(0, "yes")}
				h2 := h.crashed(t, m2)
				defer h2.close(t)
				again := h2.open(t, s.ID())
				defer again.Release()
				send(t, again, "q4", "hi")
				synctest.Wait()
				for i, r := range append(m.calls()[1:], m2.calls()...) {
					if !maps.Equal(r.States, want) {
						t.Errorf("request %d has the states %v, want %v", i+2, r.States, want)
					}
				}
				if n := len(m.calls()) + len(m2.calls()); n != 4 {
					t.Errorf("%d requests", n)
				}
			})
		})
	}
}

// A state that changes replaces the one before, and one request's states do not change under it.
func TestStateChangesWithTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{answer: remembers("c-1", chat.Chunk{FinishReason: chat.FinishStop})}
		h := newHouse(t, storetest.NewMemory(), m, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		for i, name := range []string{"c-1", "c-2", "c-3"} {
			m.nowAnswers(remembers(name, chat.Chunk{FinishReason: chat.FinishStop}))
			send(t, s, name, "hi")
			synctest.Wait()
			if got := s.Record().ProviderStates[llmtest.ProviderID]; got != name {
				t.Errorf("after answer %d the state is %q", i+1, got)
			}
		}
		for i, want := range []string{"", "c-1", "c-2"} {
			if got := m.calls()[i].States[llmtest.ProviderID]; got != want {
				t.Errorf("request %d has the state %q, want %q", i+1, got, want)
			}
		}
	})
}
