package storetest

import (
	"testing"

	"github.com/parley-chat/parley/chat"
)

var sealingTests = []contractTest{
	{"ResealMessage replaces what is sealed and nothing else", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, newSession("s1"), newSession("s2"))
		for _, status := range []chat.Status{chat.StatusComplete, chat.StatusStreaming} {
			m := filledMessage(int64(len(status)), string(status), 1)
			m.Status = status
			mustInsert(t, store, "s1", m)
			sealed := m
			sealed.Text, sealed.Reasoning, sealed.Sealed = "sealed text", "sealed reasoning", !m.Sealed
			wrong := filledMessage(9, "another", 2) // all but what is sealed counts for nothing
			wrong.ID, wrong.Text, wrong.Reasoning, wrong.Sealed = m.ID, sealed.Text, sealed.Reasoning, sealed.Sealed
			must(t, store.ResealMessage(t.Context(), "s1", m, wrong))
			got, err := store.Message(t.Context(), "s1", m.ID)
			must(t, err)
			wantEqual(t, got, sealed)
		}
	})},
	{"ResealMessage of what has changed, or is not there, is ErrStale and changes nothing", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, newSession("s1"))
		m := newMessage(1, "m1")
		mustInsert(t, store, "s1", m)
		sealed := chat.Message{ID: "m1", Text: "sealed", Sealed: true}
		for _, edit := range []func(*chat.Message){
			func(m *chat.Message) { m.Text += "." },
			func(m *chat.Message) { m.Reasoning = "another" },
			func(m *chat.Message) { m.Sealed = true },
			func(m *chat.Message) { m.ID = "m2" },
		} {
			old := m
			edit(&old)
			wantError(t, store.ResealMessage(t.Context(), "s1", old, sealed), chat.ErrStale)
		}
		wantError(t, store.ResealMessage(t.Context(), "s2", m, sealed), chat.ErrStale)
		wantMessages(t, store, "s1", m)
	})},
	{"ResealSession replaces what is sealed and nothing else", onStore(func(t *testing.T, store chat.Store) {
		session := filledSession("s1", 1)
		mustCreate(t, store, session, newSession("s2"))
		sealed := filledSession("s1", 2)
		sealed.Sealed = false
		must(t, store.ResealSession(t.Context(), session, sealed))
		session.Title, session.HelpReason, session.Sealed = sealed.Title, sealed.HelpReason, sealed.Sealed
		wantSession(t, store, session)
		wantSession(t, store, newSession("s2"))
	})},
	{"ResealSession of what has changed, or is not there, is ErrStale and changes nothing", onStore(func(t *testing.T, store chat.Store) {
		session := filledSession("s1", 1)
		mustCreate(t, store, session)
		for _, edit := range []func(*chat.Session){
			func(s *chat.Session) { s.Title += "." },
			func(s *chat.Session) { s.HelpReason += "." },
			func(s *chat.Session) { s.Sealed = !s.Sealed },
			func(s *chat.Session) { s.Revision-- },
			func(s *chat.Session) { s.ID = "s2" },
		} {
			old := session
			edit(&old)
			wantError(t, store.ResealSession(t.Context(), old, filledSession("s1", 2)), chat.ErrStale)
		}
		wantSession(t, store, session)
	})},
	{"the seal's check is kept", func(t *testing.T, open Opener) {
		store, reopen := open(t)
		for i, want := range []string{"", "one", "two"} {
			if i > 0 {
				must(t, store.SetSealCheck(t.Context(), want))
				store = reopen()
			}
			got, err := store.SealCheck(t.Context())
			must(t, err)
			if got != want {
				t.Errorf("got the check %q, want %q", got, want)
			}
		}
	}},
}
