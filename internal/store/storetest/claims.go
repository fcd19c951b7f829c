package storetest

import (
	"fmt"
	"testing"

	"github.com/parley-chat/parley/chat"
)

var claimTests = []contractTest{
	{"ClaimSession changes the claim and nothing else", onStore(claims)},
	{"ClaimSession may be repeated", onStore(claimsAgain)},
	{"ClaimSession from another claim is ErrStale and changes nothing", onStore(func(t *testing.T, store chat.Store) {
		session := claimedSession("s1")
		mustCreate(t, store, session)
		for _, from := range otherClaims {
			wantError(t, store.ClaimSession(t.Context(), "s1", from, newClaim("new")), chat.ErrStale)
		}
		wantSession(t, store, session)
	})},
	{"ClaimSession of an ended session is ErrStale and changes nothing", onStore(func(t *testing.T, store chat.Store) {
		ended := claimedSession("s1")
		ended.Status, ended.EndReason = chat.SessionStatusEnded, chat.EndedByUser
		mustCreate(t, store, ended)
		for _, to := range []chat.Claim{newClaim("new"), {}, ended.Claim} {
			wantError(t, store.ClaimSession(t.Context(), "s1", ended.Claim, to), chat.ErrStale)
		}
		wantSession(t, store, ended)
	})},
	{"ClaimSession of an unknown session is ErrNotFound", onStore(func(t *testing.T, store chat.Store) {
		wantError(t, store.ClaimSession(t.Context(), "s1", chat.Claim{}, newClaim("new")), chat.ErrNotFound)
		wantError(t, store.ClaimSession(t.Context(), "s1", chat.Claim{}, chat.Claim{}), chat.ErrNotFound)
		wantNoSession(t, store, "s1")
	})},
	{"ClaimSession leaves other sessions alone", onStore(func(t *testing.T, store chat.Store) {
		one, other := claimedSession("s1"), claimedSession("s2")
		mustCreate(t, store, one, other)
		must(t, store.ClaimSession(t.Context(), "s1", one.Claim, newClaim("new")))
		one.Claim = newClaim("new")
		wantSession(t, store, one)
		wantSession(t, store, other)
	})},
	{"UpdateSession under another claim is ErrStale and changes nothing", onStore(updatesUnderItsClaimOnly)},
	{"one of many claims a session", onStore(func(t *testing.T, store chat.Store) {
		session := claimedSession("s1")
		mustCreate(t, store, session)
		winner := oneWins(t, chat.ErrStale, func(i int) error {
			return store.ClaimSession(t.Context(), "s1", session.Claim, newClaim(fmt.Sprint(i)))
		})
		session.Claim = newClaim(fmt.Sprint(winner))
		wantSession(t, store, session)
	})},
	{"all of many may repeat a claim", onStore(func(t *testing.T, store chat.Store) {
		session := claimedSession("s1")
		mustCreate(t, store, session)
		together(func(int) {
			if err := store.ClaimSession(t.Context(), "s1", session.Claim, newClaim("new")); err != nil {
				t.Error(err)
			}
		})
		session.Claim = newClaim("new")
		wantSession(t, store, session)
	})},
	{"no update of a former owner comes after a claim", onStore(updatesOfFormerOwnersAreStale)},
}

func newClaim(name string) chat.Claim {
	return chat.Claim{Owner: "owner " + name, Epoch: "epoch " + name}
}

func claimedSession(id string) chat.Session {
	session := newSession(id)
	session.Claim = newClaim("old")
	return session
}

// otherClaims are those that the session of [claimedSession] does not have.
var otherClaims = []chat.Claim{
	{},
	newClaim("other"),
	{Owner: "owner old"},
	{Epoch: "epoch old"},
	{Owner: "owner old", Epoch: "epoch other"},
	{Owner: "owner other", Epoch: "epoch old"},
	{Owner: "epoch old", Epoch: "owner old"},
	{Owner: "OWNER OLD", Epoch: "EPOCH OLD"},
}

func claims(t *testing.T, store chat.Store) {
	session := filledSession("s1", 1)
	session.Claim = chat.Claim{} // nobody has it, and it has had no epoch
	mustCreate(t, store, session)
	for _, to := range []chat.Claim{
		newClaim("1"),
		newClaim("2"),
		{Owner: "owner 2", Epoch: "epoch 3"},
		{Epoch: "epoch 3"},
		{Owner: "owner 4", Epoch: "epoch 3"},
		{},
	} {
		must(t, store.ClaimSession(t.Context(), "s1", session.Claim, to))
		session.Claim = to
		wantSession(t, store, session)
	}
}

func claimsAgain(t *testing.T, store chat.Store) {
	session := newSession("s1")
	mustCreate(t, store, session)
	claim := func(from, to chat.Claim) error { return store.ClaimSession(t.Context(), "s1", from, to) }
	one, two := newClaim("1"), newClaim("2")
	must(t, claim(chat.Claim{}, one))
	must(t, claim(chat.Claim{}, one))
	must(t, claim(one, one))
	must(t, claim(two, one)) // it is there already, wherever it came from
	session.Claim = one
	wantSession(t, store, session)

	must(t, claim(one, two))
	wantError(t, claim(chat.Claim{}, one), chat.ErrStale) // a repetition that comes too late
	session.Claim = two
	wantSession(t, store, session)
}

func updatesUnderItsClaimOnly(t *testing.T, store chat.Store) {
	session, m := claimedSession("s1"), newMessage(1, "m1")
	mustCreate(t, store, session)
	mustInsert(t, store, "s1", m)
	for _, claim := range otherClaims {
		update := filledSession("s1", 1)
		update.Claim = claim
		wantError(t, store.UpdateSession(t.Context(), &update), chat.ErrStale)
		wantError(t, store.UpdateSession(t.Context(), &update, chat.Place{MessageID: "m1", Seq: 7}), chat.ErrStale)
	}
	wantSession(t, store, session)
	wantMessages(t, store, "s1", m)
}

// updatesOfFormerOwnersAreStale has many goroutines update a session as its owner while one takes it over.
func updatesOfFormerOwnersAreStale(t *testing.T, store chat.Store) {
	former := claimedSession("s1")
	mustCreate(t, store, former)
	mustInsert(t, store, "s1", newMessage(1, "m1"))
	former.Title = "of the former owner"
	owned := former
	owned.Claim, owned.Title, owned.LogEnd = newClaim("new"), "of the new owner", 7
	together(func(i int) {
		if i != callers/2 {
			session := former
			if err := store.UpdateSession(t.Context(), &session); err != nil {
				wantError(t, err, chat.ErrStale)
			}
			return
		}
		if err := store.ClaimSession(t.Context(), "s1", former.Claim, owned.Claim); err != nil {
			t.Error(err)
		}
		if err := store.UpdateSession(t.Context(), &owned, chat.Place{MessageID: "m1", Seq: 7}); err != nil {
			t.Error(err)
		}
	})
	wantSession(t, store, owned)
	m := newMessage(1, "m1")
	m.Seq = 7
	wantMessages(t, store, "s1", m)
}
