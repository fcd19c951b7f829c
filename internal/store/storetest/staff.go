package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
)

var revocationTests = []contractTest{
	{"every field of a revocation comes back", onStore(func(t *testing.T, store chat.Store) {
		wantRevocations(t, store)
		mustRevoke(t, store, filledRevocation(1))
		wantRevocations(t, store, filledRevocation(1))
	})},
	{"empty fields of a revocation come back empty", onStore(func(t *testing.T, store chat.Store) {
		mustRevoke(t, store, chat.Revocation{})
		wantRevocations(t, store, chat.Revocation{})
	})},
	{"Revocations gives all, by user and token", onStore(listsRevocations)},
	{"AddRevocation again keeps the later times", onStore(keepsLaterTimes)},
	{"AddRevocation leaves other revocations alone", onStore(func(t *testing.T, store chat.Store) {
		all := []chat.Revocation{
			{UserID: "a", At: someTime}, {UserID: "a", TokenID: "t", At: someTime}, {UserID: "b", TokenID: "t", At: someTime},
		}
		mustRevoke(t, store, all...)
		all[1].At = someTime.Add(time.Hour)
		mustRevoke(t, store, all[1])
		wantRevocations(t, store, all...)
	})},
	{"AddRevocation at the same time as others keeps the latest", onStore(func(t *testing.T, store chat.Store) {
		want := chat.Revocation{UserID: "a", TokenID: "t", At: someTime, Until: someTime}
		together(func(i int) {
			r := want
			r.At, r.Until = r.At.Add(time.Duration(i)*time.Second), r.Until.Add(time.Duration(-i)*time.Second)
			if err := store.AddRevocation(t.Context(), r); err != nil {
				t.Error(err)
			}
		})
		want.At = someTime.Add((callers - 1) * time.Second)
		wantRevocations(t, store, want)
	})},
	{"DeleteRevocations removes those that are over, and no other", onStore(deletesRevocations)},
	{"what a user has left can be erased without the revocations and the audit", onStore(keepsWhatStaffDid)},
}

func mustRevoke(t *testing.T, store chat.Store, revocations ...chat.Revocation) {
	t.Helper()
	for _, r := range revocations {
		must(t, store.AddRevocation(t.Context(), r))
	}
}

func wantRevocations(t *testing.T, store chat.Store, want ...chat.Revocation) {
	t.Helper()
	got, err := store.Revocations(t.Context())
	must(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("got the revocations %+v, want %+v", got, want)
	}
}

func listsRevocations(t *testing.T, store chat.Store) {
	var all []chat.Revocation
	for i, user := range []string{"B", "a", "aa", "b"} { // the order of the bytes
		for j, token := range []string{"", "T", "t", "tt"} {
			r := filledRevocation(10*i + j)
			r.UserID, r.TokenID = user, token
			all = append(all, r)
		}
	}
	for i := range all {
		mustRevoke(t, store, all[i*7%len(all)])
	}
	wantRevocations(t, store, all...)
}

func keepsLaterTimes(t *testing.T, store chat.Store) {
	early, late := someTime, someTime.Add(time.Hour)
	var never time.Time
	for i, test := range []struct{ until, again, want time.Time }{
		{early, early, early},
		{early, late, late},
		{late, early, late},
		{early, never, never},
		{never, early, never},
		{never, never, never},
	} {
		r := chat.Revocation{UserID: fmt.Sprint("u", i), TokenID: "t", At: someTime, Until: test.until}
		mustRevoke(t, store, r)
		for _, at := range []time.Time{late, early} {
			r.At, r.Until = at, test.again
			mustRevoke(t, store, r)
		}
		all, err := store.Revocations(t.Context())
		must(t, err)
		if len(all) != i+1 {
			t.Fatalf("there are %d revocations, want %d", len(all), i+1)
		}
		r.At, r.Until = late, test.want
		wantEqual(t, all[i], r)
	}
}

func deletesRevocations(t *testing.T, store chat.Store) {
	over := chat.Revocation{UserID: "a", TokenID: "over", At: someTime, Until: someTime}
	until := chat.Revocation{UserID: "a", TokenID: "t", At: someTime, Until: someTime.Add(time.Millisecond)}
	forGood := chat.Revocation{UserID: "a", TokenID: "z", At: someTime.Add(-time.Hour)}
	mustRevoke(t, store, over, until, forGood)
	must(t, store.DeleteRevocations(t.Context(), time.Time{}))
	must(t, store.DeleteRevocations(t.Context(), someTime))
	wantRevocations(t, store, over, until, forGood)
	for range 2 {
		must(t, store.DeleteRevocations(t.Context(), someTime.Add(time.Millisecond)))
		wantRevocations(t, store, until, forGood)
	}
	must(t, store.DeleteRevocations(t.Context(), someTime.Add(24*365*time.Hour)))
	wantRevocations(t, store, forGood)
	mustRevoke(t, store, over)
	wantRevocations(t, store, over, forGood)
}

func keepsWhatStaffDid(t *testing.T, store chat.Store) {
	session, revocation, audit := newSession("s1"), filledRevocation(1), filledAudit(1)
	revocation.UserID, audit.UserID, audit.SessionID = session.UserID, session.UserID, session.ID
	mustCreate(t, store, session)
	mustRevoke(t, store, revocation)
	mustAudit(t, store, audit)
	must(t, store.DeleteSession(t.Context(), session.ID, time.Time{}))
	must(t, store.DeleteUsage(t.Context(), chat.UsageFilter{UserID: session.UserID}))
	wantRevocations(t, store, revocation)
	wantAudit(t, store, chat.AuditFilter{}, audit)
}

var auditTests = []contractTest{
	{"every field of an audit record comes back", onStore(func(t *testing.T, store chat.Store) {
		mustAudit(t, store, filledAudit(1))
		wantAudit(t, store, chat.AuditFilter{}, filledAudit(1))
	})},
	{"empty fields of an audit record come back empty", onStore(func(t *testing.T, store chat.Store) {
		mustAudit(t, store, chat.AuditRecord{ID: "a1"})
		wantAudit(t, store, chat.AuditFilter{}, chat.AuditRecord{ID: "a1"})
	})},
	{"PutAudit again replaces the outcome and nothing else", onStore(func(t *testing.T, store chat.Store) {
		first, other := filledAudit(1), filledAudit(2)
		mustAudit(t, store, other, first)
		again := filledAudit(3)
		again.ID = first.ID
		for range 2 {
			mustAudit(t, store, again)
			want := first
			want.Outcome = again.Outcome
			wantAudit(t, store, chat.AuditFilter{}, other, want)
		}
	})},
	{"PutAudit without an outcome takes none away", onStore(func(t *testing.T, store chat.Store) {
		ended := newAudit("a1", chat.AuditDone)
		mustAudit(t, store, ended, newAudit("a1", ""))
		wantAudit(t, store, chat.AuditFilter{}, ended)
	})},
	{"Audit page by page gives each record once, the latest first", onStore(func(t *testing.T, store chat.Store) {
		all := someAudit()
		for i := range all {
			mustAudit(t, store, all[i*7%len(all)])
		}
		wantAudit(t, store, chat.AuditFilter{}, all...)
	})},
	{"Audit gives what the filter chooses, and nothing else", onStore(filtersAudit)},
	{"Audit with a limit of 0 or less gives none", onStore(func(t *testing.T, store chat.Store) {
		mustAudit(t, store, newAudit("a1", ""))
		for _, limit := range []int{0, -1} {
			got, err := store.Audit(t.Context(), chat.AuditFilter{}, chat.AuditPlace{}, limit)
			must(t, err)
			if len(got) > 0 {
				t.Errorf("a limit of %d gives %+v", limit, got)
			}
		}
	})},
}

func newAudit(id, outcome string) chat.AuditRecord {
	return chat.AuditRecord{ID: id, At: someTime, ActorID: "staff", Action: "session.end", SessionID: "s1", Outcome: outcome}
}

func mustAudit(t *testing.T, store chat.Store, records ...chat.AuditRecord) {
	t.Helper()
	for _, r := range records {
		must(t, store.PutAudit(t.Context(), r))
	}
}

// wantAudit fails unless the store gives the records, page by page, in this order.
func wantAudit(t *testing.T, store chat.Store, filter chat.AuditFilter, want ...chat.AuditRecord) {
	t.Helper()
	for _, limit := range []int{2, len(want) + 1} {
		var got []chat.AuditRecord
		for after := (chat.AuditPlace{}); len(got) <= len(want); {
			page, err := store.Audit(t.Context(), filter, after, limit)
			must(t, err)
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
			last := page[len(page)-1]
			after = chat.AuditPlace{At: last.At, ID: last.ID}
		}
		if len(got) != len(want) {
			t.Fatalf("%+v: got %d records, want %d", filter, len(got), len(want))
		}
		for i := range want {
			wantEqual(t, got[i], want[i])
		}
	}
}

// someAudit are records of several times and people, the latest first; some are of the same millisecond.
func someAudit() (all []chat.AuditRecord) {
	for i := range 15 {
		r := filledAudit(i)
		r.ID, r.At = fmt.Sprintf("a%02d", 99-i), someTime.Add(time.Duration(-i/3)*time.Second)
		r.ActorID, r.Action = []string{"ann", "bert"}[i%2], []string{"session.end", "token.revoke"}[i/2%2]
		r.UserID, r.SessionID = []string{"alice", "bob", ""}[i%3], []string{"s1", "", "s2", ""}[i%4]
		all = append(all, r)
	}
	return all
}

func filtersAudit(t *testing.T, store chat.Store) {
	all := someAudit()
	mustAudit(t, store, all...)
	from, to := someTime.Add(-3*time.Second), someTime.Add(-time.Second)
	for _, filter := range []chat.AuditFilter{
		{ActorID: "ann"},
		{ActorID: "an"},
		{Action: "token.revoke"},
		{UserID: "alice"},
		{SessionID: "s2"},
		{From: from},
		{To: to},
		{From: from.Add(999 * time.Microsecond), To: to.Add(999 * time.Microsecond)}, // to the millisecond
		{From: from.Add(time.Millisecond), To: to.Add(time.Millisecond)},
		{ActorID: "bert", Action: "session.end", UserID: "bob", SessionID: "s1", From: from.Add(-time.Hour), To: to.Add(time.Hour)},
		{ActorID: "ann", UserID: "alice", From: from},
	} {
		want := slices.DeleteFunc(slices.Clone(all), func(r chat.AuditRecord) bool { return !findsAudit(filter, r) })
		wantAudit(t, store, filter, want...)
	}
}
