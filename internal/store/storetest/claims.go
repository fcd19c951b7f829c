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
			wantError(t, claimSession(t, store, "s1", from, newClaim("new")), chat.ErrStale)
		}
		wantSession(t, store, session)
	})},
	{"ClaimSession of an ended session is ErrStale and changes nothing", onStore(func(t *testing.T, store chat.Store) {
		ended := claimedSession("s1")
		ended.Status, ended.EndReason = chat.SessionStatusEnded, chat.EndedByUser
		mustCreate(t, store, ended)
		for _, to := range []chat.Claim{newClaim("new"), {}, ended.Claim} {
			wantError(t, claimSession(t, store, "s1", ended.Claim, to), chat.ErrStale)
		}
		wantSession(t, store, ended)
	})},
	{"ClaimSession of an unknown session is ErrNotFound", onStore(func(t *testing.T, store chat.Store) {
		wantError(t, claimSession(t, store, "s1", chat.Claim{}, newClaim("new")), chat.ErrNotFound)
		wantError(t, claimSession(t, store, "s1", chat.Claim{}, chat.Claim{}), chat.ErrNotFound)
		wantNoSession(t, store, "s1")
	})},
	{"ClaimSession leaves other sessions alone", onStore(func(t *testing.T, store chat.Store) {
		one, other := claimedSession("s1"), claimedSession("s2")
		mustCreate(t, store, one, other)
		must(t, claimSession(t, store, "s1", one.Claim, newClaim("new")))
		one.Claim = newClaim("new")
		wantSession(t, store, one)
		wantSession(t, store, other)
	})},
	{"UpdateSession under another claim is ErrStale and changes nothing", onStore(updatesUnderItsClaimOnly)},
	{"one of many claims a session", onStore(func(t *testing.T, store chat.Store) {
		session := claimedSession("s1")
		mustCreate(t, store, session)
		winner := oneWins(t, chat.ErrStale, func(i int) error {
			return claimSession(t, store, "s1", session.Claim, newClaim(fmt.Sprint(i)))
		})
		session.Claim = newClaim(fmt.Sprint(winner))
		wantSession(t, store, session)
	})},
	{"all of many may repeat a claim", onStore(func(t *testing.T, store chat.Store) {
		session := claimedSession("s1")
		mustCreate(t, store, session)
		together(func(int) {
			if err := claimSession(t, store, "s1", session.Claim, newClaim("new")); err != nil {
				t.Error(err)
			}
		})
		session.Claim = newClaim("new")
		wantSession(t, store, session)
	})},
	{"no update of a former owner comes after a claim", onStore(updatesOfFormerOwnersAreStale)},
	{"ClaimSession returns the record as it is then", onStore(func(t *testing.T, store chat.Store) {
		session := filledSession("s1", 1)
		mustCreate(t, store, session)
		for _, from := range []chat.Claim{session.Claim, newClaim("another")} { // and repeated
			claimed, err := store.ClaimSession(t.Context(), "s1", from, newClaim("new"))
			must(t, err)
			session.Claim = newClaim("new")
			wantEqual(t, claimed, session)
		}
	})},
	{"a message is inserted and updated by the owner alone", onStore(writesMessagesAsOwner)},
	{"a former owner changes nothing of a response that it began", onStore(takesResponsesOver)},
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
		must(t, claimSession(t, store, "s1", session.Claim, to))
		session.Claim = to
		wantSession(t, store, session)
	}
}

func claimsAgain(t *testing.T, store chat.Store) {
	session := newSession("s1")
	mustCreate(t, store, session)
	claim := func(from, to chat.Claim) error { return claimSession(t, store, "s1", from, to) }
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
		wantError(t, updateSession(t, store, &update), chat.ErrStale)
		wantError(t, updateSession(t, store, &update, chat.Place{MessageID: "m1", Seq: 7}), chat.ErrStale)
	}
	wantSession(t, store, session)
	wantMessages(t, store, "s1", m)
}

func writesMessagesAsOwner(t *testing.T, store chat.Store) {
	session, m := claimedSession("s1"), newStreamingMessage(1, "m1")
	mustCreate(t, store, session)
	mustInsert(t, store, "s1", m)
	for _, claim := range otherClaims {
		late := m
		late.Text, late.Status = "late", chat.StatusComplete
		wantError(t, store.InsertMessage(t.Context(), "s1", claim, newMessage(2, "m2")), chat.ErrStale)
		wantError(t, store.UpdateMessage(t.Context(), "s1", claim, late), chat.ErrStale)
		wantError(t, store.InsertMessage(t.Context(), "unknown", claim, newMessage(2, "m2")), chat.ErrNotFound)
	}
	wantMessages(t, store, "s1", m)
}

func takesResponsesOver(t *testing.T, store chat.Store) {
	session, question, response := claimedSession("s1"), newMessage(1, "m1"), newStreamingMessage(2, "m2")
	former, owner := session.Claim, newClaim("new")
	mustCreate(t, store, session)
	mustInsert(t, store, "s1", question, response)
	must(t, claimSession(t, store, "s1", former, owner))

	late := response
	late.Text, late.Status = "the former owner's", chat.StatusComplete
	wantError(t, store.UpdateMessage(t.Context(), "s1", former, late), chat.ErrStale)
	wantError(t, updateSession(t, store, &session, chat.Place{MessageID: "m1", Seq: 1}), chat.ErrStale)
	wantMessages(t, store, "s1", question, response)

	response.Text, response.Status = "the owner's", chat.StatusInterrupted
	must(t, store.UpdateMessage(t.Context(), "s1", owner, response))
	session.Claim = owner
	must(t, updateSession(t, store, &session, chat.Place{MessageID: "m1", Seq: 3}, chat.Place{MessageID: "m2", Seq: 4}))
	question.Seq, response.Seq = 3, 4
	wantMessages(t, store, "s1", question, response)
}

// updatesOfFormerOwnersAreStale has many goroutines update a session as its owner while one takes it over.
func updatesOfFormerOwnersAreStale(t *testing.T, store chat.Store) {
	former := claimedSession("s1")
	mustCreate(t, store, former)
	mustInsert(t, store, "s1", newMessage(1, "m1"))
	former.Title = "of the former owner"
	owned := former
	owned.Claim, owned.Title, owned.LogEnd, owned.Revision = newClaim("new"), "of the new owner", 7, 1
	together(func(i int) {
		if i != callers/2 {
			session := former
			if err := updateSession(t, store, &session); err != nil {
				wantError(t, err, chat.ErrStale)
			}
			return
		}
		if err := claimSession(t, store, "s1", former.Claim, owned.Claim); err != nil {
			t.Error(err)
		}
		if err := updateSession(t, store, &owned, chat.Place{MessageID: "m1", Seq: 7}); err != nil {
			t.Error(err)
		}
	})
	wantSession(t, store, owned)
	m := newMessage(1, "m1")
	m.Seq = 7
	wantMessages(t, store, "s1", m)
}
