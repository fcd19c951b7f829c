// Package storetest holds every [chat.Store] to its contract: what one store passes, all do, so the rest of Parley
// cannot tell them apart.
package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
)

// Opener opens an empty store that nothing else uses, and closes it when the test ends. reopen closes the store and
// opens it again on the same data.
type Opener func(t *testing.T) (store chat.Store, reopen func() chat.Store)

// Persistent returns what an [Opener] has to: the store that open opens, again and again on the same data.
func Persistent(t *testing.T, open func() (chat.Store, error)) (store chat.Store, reopen func() chat.Store) {
	opened := func() chat.Store {
		store, err := open()
		must(t, err)
		return store
	}
	store = opened()
	current := store
	t.Cleanup(func() {
		if err := current.Close(); err != nil {
			t.Error(err)
		}
	})
	return store, func() chat.Store {
		must(t, current.Close())
		current = opened()
		return current
	}
}

// Run tests that the stores which open gives keep the contract of [chat.Store]. A subtest stands for each sentence
// of it.
func Run(t *testing.T, open Opener) {
	for _, group := range []struct {
		name  string
		tests []contractTest
	}{
		{"Sessions", sessionTests},
		{"Claims", claimTests},
		{"Messages", messageTests},
		{"Places", placeTests},
		{"Usage", usageTests},
		{"Paging", pagingTests},
		{"Fields", fieldTests},
		{"Concurrency", concurrencyTests},
		{"Lists", listTests},
		{"Finding", findTests},
		{"Revocations", revocationTests},
		{"Audit", auditTests},
		{"Erasure", erasureTests},
		{"Sealing", sealingTests},
		{"Leases", leaseTests},
		{"SessionLock", sessionLockTests},
		{"Store", storeTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, test := range group.tests {
				t.Run(test.name, func(t *testing.T) { test.run(t, open) })
			}
		})
	}
}

// contractTest tests one sentence of the contract.
type contractTest struct {
	name string
	run  func(t *testing.T, open Opener)
}

// onStore makes a contractTest of a test that needs no more than an empty store.
func onStore(test func(*testing.T, chat.Store)) func(*testing.T, Opener) {
	return func(t *testing.T, open Opener) {
		store, _ := open(t)
		test(t, store)
	}
}

var storeTests = []contractTest{
	{"what is acknowledged survives Close", survivesClose},
	{"ID names the data", namesItsData},
	{"Ping answers", onStore(func(t *testing.T, store chat.Store) {
		if err := store.Ping(t.Context()); err != nil {
			t.Error(err)
		}
	})},
	{"a context that has ended is an error and nothing is done", onStore(refusesEndedContext)},
}

func survivesClose(t *testing.T, open Opener) {
	store, reopen := open(t)
	session, question, answer := newSession("s1"), newMessage(1, "m1"), newStreamingMessage(2, "m2")
	mustCreate(t, store, session)
	mustInsert(t, store, "s1", question, answer)
	must(t, claimSession(t, store, "s1", session.Claim, newClaim("new")))
	session.Claim, session.Title, question.Seq = newClaim("new"), "another title", 3
	session.Usage = chat.Usage{InputTokens: 3, OutputTokens: 4}
	session.ProviderStates = map[string]string{"provider": "state"}
	must(t, updateSession(t, store, &session, chat.Place{MessageID: "m1", Seq: 3}))
	answer.Text, answer.Status = "the whole answer", chat.StatusComplete
	must(t, store.UpdateMessage(t.Context(), "s1", session.Claim, answer))
	mustAddUsage(t, store, filledUsage(1))
	revocation, audit := filledRevocation(1), filledAudit(1)
	mustRevoke(t, store, revocation)
	mustAudit(t, store, audit)

	store = reopen()
	wantSession(t, store, session)
	wantMessages(t, store, "s1", question, answer)
	mustAddUsage(t, store, filledUsage(1))
	wantSums(t, store, chat.UsageFilter{}, sumOf(filledUsage(1)))
	wantRevocations(t, store, revocation)
	wantAudit(t, store, chat.AuditFilter{}, audit)
	wantError(t, store.CreateSession(t.Context(), &session), chat.ErrExists)
	wantError(t, store.UpdateMessage(t.Context(), "s1", session.Claim, answer), chat.ErrStale)
	wantError(t, claimSession(t, store, "s1", chat.Claim{}, newClaim("another")), chat.ErrStale)
}

func namesItsData(t *testing.T, open Opener) {
	store, reopen := open(t)
	other, _ := open(t)
	id := store.ID()
	if id == "" {
		t.Error("the store has no ID")
	}
	if other.ID() == id {
		t.Errorf("two stores have the ID %q", id)
	}
	mustCreate(t, store, newSession("s1"))
	if got := store.ID(); got != id {
		t.Errorf("the ID was %q and is %q after a write", id, got)
	}
	if got := reopen().ID(); got != id {
		t.Errorf("the ID was %q and is %q after the store was opened again", id, got)
	}
}

func refusesEndedContext(t *testing.T, store chat.Store) {
	session, streaming := newSession("s1"), newStreamingMessage(1, "m1")
	mustCreate(t, store, session)
	mustInsert(t, store, "s1", streaming)
	revocation, begun := chat.Revocation{UserID: "user", TokenID: "t", At: someTime, Until: someTime}, newAudit("a1", "")
	mustRevoke(t, store, revocation)
	mustAudit(t, store, begun)

	other, changed, final := newSession("s2"), session, streaming
	changed.Title, changed.Revision = "another title", 1
	final.Status = chat.StatusComplete
	for name, do := range map[string]func(context.Context) error{
		"CreateSession": func(ctx context.Context) error { return store.CreateSession(ctx, &other) },
		"Session":       func(ctx context.Context) error { _, err := store.Session(ctx, "s1"); return err },
		"ClaimSession": func(ctx context.Context) error {
			_, err := store.ClaimSession(ctx, "s1", session.Claim, newClaim("new"))
			return err
		},
		"UpdateSession": func(ctx context.Context) error {
			return store.UpdateSession(ctx, &changed, chat.Place{MessageID: "m1", Seq: 3})
		},
		"InsertMessage": func(ctx context.Context) error {
			return store.InsertMessage(ctx, "s1", chat.Claim{}, newMessage(2, "m2"))
		},
		"UpdateMessage": func(ctx context.Context) error { return store.UpdateMessage(ctx, "s1", chat.Claim{}, final) },
		"Message":       func(ctx context.Context) error { _, err := store.Message(ctx, "s1", "m1"); return err },
		"Messages":      func(ctx context.Context) error { _, err := store.Messages(ctx, "s1", 0, 10); return err },
		"MessagesAfter": func(ctx context.Context) error { _, err := store.MessagesAfter(ctx, "s1", 0, 10); return err },
		"SessionsAfter": func(ctx context.Context) error { _, err := store.SessionsAfter(ctx, "", 10); return err },
		"MessagesFrom":  func(ctx context.Context) error { _, err := store.MessagesFrom(ctx, "s1", 0, 10); return err },
		"FindSessions": func(ctx context.Context) error {
			_, err := store.FindSessions(ctx, chat.SessionFilter{}, chat.SessionOrder{}, chat.SessionPlace{}, 10)
			return err
		},
		"AddRevocation":     func(ctx context.Context) error { return store.AddRevocation(ctx, chat.Revocation{UserID: "user"}) },
		"Revocations":       func(ctx context.Context) error { _, err := store.Revocations(ctx); return err },
		"DeleteRevocations": func(ctx context.Context) error { return store.DeleteRevocations(ctx, someTime.Add(time.Hour)) },
		"PutAudit":          func(ctx context.Context) error { return store.PutAudit(ctx, newAudit("a1", chat.AuditDone)) },
		"Audit": func(ctx context.Context) error {
			_, err := store.Audit(ctx, chat.AuditFilter{}, chat.AuditPlace{}, 10)
			return err
		},
		"IdleSessions": func(ctx context.Context) error { _, err := store.IdleSessions(ctx, time.Now(), 10); return err },
		"ClaimedSessions": func(ctx context.Context) error {
			_, err := store.ClaimedSessions(ctx, "owner", "", 10)
			return err
		},
		"DeleteSession": func(ctx context.Context) error { return store.DeleteSession(ctx, "s1", time.Time{}) },
		"UsageAfter": func(ctx context.Context) error {
			_, err := store.UsageAfter(ctx, chat.UsageFilter{}, "", "", 10)
			return err
		},
		"DeleteUsage":   func(ctx context.Context) error { return store.DeleteUsage(ctx, chat.UsageFilter{}) },
		"ResealSession": func(ctx context.Context) error { return store.ResealSession(ctx, session, changed) },
		"ResealMessage": func(ctx context.Context) error { return store.ResealMessage(ctx, "s1", streaming, final) },
		"RenewLease":    func(ctx context.Context) error { _, err := store.RenewLease(ctx, "owner"); return err },
		"EndLease":      func(ctx context.Context) error { return store.EndLease(ctx, "owner") },
		"SealCheck":     func(ctx context.Context) error { _, err := store.SealCheck(ctx); return err },
		"SetSealCheck":  func(ctx context.Context) error { return store.SetSealCheck(ctx, "sealed") },
		"Count":         func(ctx context.Context) error { _, err := store.Count(ctx); return err },
		"AddUsage":      func(ctx context.Context) error { return store.AddUsage(ctx, newUsage("m1")) },
		"SumUsage": func(ctx context.Context) error {
			_, err := store.SumUsage(ctx, chat.UsageFilter{})
			return err
		},
		"Ping": store.Ping,
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := do(ctx); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			wantError(t, err, context.Canceled)
		}
	}
	wantNoSession(t, store, "s2")
	wantSession(t, store, session)
	wantMessages(t, store, "s1", streaming)
	wantSums(t, store, chat.UsageFilter{})
	wantRevocations(t, store, revocation)
	wantAudit(t, store, chat.AuditFilter{}, begun)
}
