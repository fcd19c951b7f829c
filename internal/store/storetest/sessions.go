package storetest

import (
	"testing"

	"github.com/parley-chat/parley/chat"
)

var sessionTests = []contractTest{
	{"CreateSession of a taken ID is ErrExists and changes nothing", onStore(func(t *testing.T, store chat.Store) {
		first, second := newSession("s1"), newSession("s1")
		second.UserID, second.Title = "another user", "another title"
		mustCreate(t, store, first)
		wantError(t, store.CreateSession(t.Context(), &second), chat.ErrExists)
		wantSession(t, store, first)
	})},
	{"IDs that differ in case are different sessions", onStore(func(t *testing.T, store chat.Store) {
		lower, upper := newSession("abc"), newSession("ABC")
		mustCreate(t, store, lower, upper)
		wantSession(t, store, lower)
		wantSession(t, store, upper)
	})},
	{"Session of an unknown ID is ErrNotFound", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, newSession("s1"))
		wantNoSession(t, store, "s2")
	})},
	{"UpdateSession replaces what can change and nothing else", onStore(updatesSession)},
	{"UpdateSession never inserts", onStore(func(t *testing.T, store chat.Store) {
		session := newSession("s1")
		wantError(t, store.UpdateSession(t.Context(), &session), chat.ErrNotFound)
		wantNoSession(t, store, "s1")
	})},
	{"UpdateSession leaves other sessions alone", onStore(func(t *testing.T, store chat.Store) {
		one, other := newSession("s1"), newSession("s2")
		mustCreate(t, store, one, other)
		one.Title = "another title"
		must(t, store.UpdateSession(t.Context(), &one))
		wantSession(t, store, one)
		wantSession(t, store, other)
	})},
	{"what Session returns is the caller's own", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, filledSession("s1", 1))
		got, err := store.Session(t.Context(), "s1")
		must(t, err)
		(&overwritten{got}).View(func(*chat.Session) {})
		wantSession(t, store, filledSession("s1", 1))
	})},
	{"UpdateSession of an ended session is ErrStale and changes nothing", onStore(keepsSessionEnded)},
}

func updatesSession(t *testing.T, store chat.Store) {
	original, update := filledSession("s1", 1), filledSession("s1", 2)
	update.Claim = original.Claim
	mustCreate(t, store, original)
	empty := chat.Session{ID: "s1", Status: chat.SessionStatusActive, Claim: original.Claim}
	highest, latest := update.LogEnd, update.Changed // they never become less
	for _, update := range []chat.Session{update, empty} {
		must(t, store.UpdateSession(t.Context(), &update))
		want := update
		want.UserID, want.CreatedAt, want.Metadata = original.UserID, original.CreatedAt, original.Metadata
		want.LogEnd, want.Changed = highest, latest
		wantSession(t, store, want)
	}
}

func keepsSessionEnded(t *testing.T, store chat.Store) {
	session := newSession("s1")
	mustCreate(t, store, session)
	session.Status, session.EndReason = chat.SessionStatusEnded, chat.EndedByUser
	must(t, store.UpdateSession(t.Context(), &session))

	again, revived := session, newSession("s1")
	again.EndReason = chat.EndedByAdmin
	wantError(t, store.UpdateSession(t.Context(), &again), chat.ErrStale)
	wantError(t, store.UpdateSession(t.Context(), &revived), chat.ErrStale)
	wantSession(t, store, session)
}
