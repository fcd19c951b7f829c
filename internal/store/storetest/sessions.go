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
		wantError(t, updateSession(t, store, &session), chat.ErrNotFound)
		wantNoSession(t, store, "s1")
	})},
	{"UpdateSession leaves other sessions alone", onStore(func(t *testing.T, store chat.Store) {
		one, other := newSession("s1"), newSession("s2")
		mustCreate(t, store, one, other)
		one.Title = "another title"
		must(t, updateSession(t, store, &one))
		wantSession(t, store, one)
		wantSession(t, store, other)
	})},
	{"what Session returns is the caller's own", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, filledSession("s1", 1))
		got, err := store.Session(t.Context(), "s1")
		must(t, err)
		overwrite(&got)
		wantSession(t, store, filledSession("s1", 1))
	})},
	{"UpdateSession with a revision that is not higher is ErrStale and changes nothing", onStore(func(t *testing.T, store chat.Store) {
		session, m := newSession("s1"), newMessage(1, "m1")
		mustCreate(t, store, session)
		mustInsert(t, store, "s1", m)
		session.Revision, session.Title = 7, "the seventh"
		must(t, store.UpdateSession(t.Context(), &session))
		for _, revision := range []int64{7, 6, 0, -1} {
			late := filledSession("s1", 1)
			late.Claim, late.Revision = session.Claim, revision
			wantError(t, store.UpdateSession(t.Context(), &late, chat.Place{MessageID: "m1", Seq: 3}), chat.ErrStale)
		}
		wantSession(t, store, session)
		wantMessages(t, store, "s1", m)
	})},
	{"UpdateSession of an ended session is ErrStale and changes nothing", onStore(keepsSessionEnded)},
}

func updatesSession(t *testing.T, store chat.Store) {
	original, update := filledSession("s1", 1), filledSession("s1", 2)
	update.Claim = original.Claim
	mustCreate(t, store, original)
	empty := chat.Session{ID: "s1", Status: chat.SessionStatusActive, Claim: original.Claim, Revision: update.Revision + 1}
	highest, latest := update.LogEnd, update.Changed // they never become less
	for _, update := range []chat.Session{update, empty} {
		must(t, updateSession(t, store, &update))
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
	must(t, updateSession(t, store, &session))

	again, revived := session, newSession("s1")
	again.EndReason = chat.EndedByAdmin
	wantError(t, updateSession(t, store, &again), chat.ErrStale)
	wantError(t, updateSession(t, store, &revived), chat.ErrStale)
	wantSession(t, store, session)
}
