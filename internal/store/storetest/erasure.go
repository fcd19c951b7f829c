package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
)

var erasureTests = []contractTest{
	{"DeleteSession removes the session and its messages, and nothing else", onStore(deletesSession)},
	{"DeleteSession of an unknown session is no error", onStore(func(t *testing.T, store chat.Store) {
		must(t, store.DeleteSession(t.Context(), "unknown", time.Time{}))
		must(t, store.DeleteSession(t.Context(), "unknown", someTime))
	})},
	{"DeleteSession leaves alone what is not idle", onStore(func(t *testing.T, store chat.Store) {
		session, m := newSession("s1"), newMessage(1, "m1")
		mustCreate(t, store, session)
		mustInsert(t, store, "s1", m)
		for _, idleSince := range []time.Time{someTime, someTime.Add(-time.Hour)} {
			wantError(t, store.DeleteSession(t.Context(), "s1", idleSince), chat.ErrStale)
		}
		wantSession(t, store, session)
		wantMessages(t, store, "s1", m)
		must(t, store.DeleteSession(t.Context(), "s1", someTime.Add(time.Millisecond)))
		wantNoSession(t, store, "s1")
	})},
	{"nothing is written to a session that is deleted", onStore(func(t *testing.T, store chat.Store) {
		session := claimedSession("s1")
		mustCreate(t, store, session)
		mustInsert(t, store, "s1", newStreamingMessage(1, "m1"))
		must(t, store.DeleteSession(t.Context(), "s1", time.Time{}))
		wantError(t, store.InsertMessage(t.Context(), "s1", session.Claim, newMessage(2, "m2")), chat.ErrNotFound)
		wantError(t, store.UpdateMessage(t.Context(), "s1", session.Claim, newStreamingMessage(1, "m1")), chat.ErrStale)
		wantError(t, updateSession(t, store, &session, chat.Place{MessageID: "m1", Seq: 1}), chat.ErrNotFound)
		wantNoSession(t, store, "s1")
		wantMessages(t, store, "s1")
	})},
	{"a deleted session's ID is free", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, newSession("s1"))
		mustInsert(t, store, "s1", newMessage(1, "m1"))
		must(t, store.DeleteSession(t.Context(), "s1", time.Time{}))
		mustCreate(t, store, newSession("s1"))
		wantMessages(t, store, "s1")
		mustInsert(t, store, "s1", newMessage(1, "m1"))
	})},
	{"UsageAfter page by page gives each record once", onStore(pagesThroughUsage)},
	{"DeleteUsage removes what the filter chooses, and nothing else", onStore(deletesUsage)},
}

func deletesSession(t *testing.T, store chat.Store) {
	mustCreate(t, store, filledSession("s1", 1), filledSession("s2", 2))
	for n := range int64(30) {
		mustInsert(t, store, "s1", newMessage(n+1, fmt.Sprint("m", n)))
	}
	other := filledMessage(1, "m1", 1)
	mustInsert(t, store, "s2", other)
	usage := newUsage("m1")
	usage.SessionID = "s1"
	mustAddUsage(t, store, usage)

	must(t, store.DeleteSession(t.Context(), "s1", time.Time{}))
	wantNoSession(t, store, "s1")
	wantMessages(t, store, "s1")
	wantNoMessage(t, store, "s1", "m1")
	wantSession(t, store, filledSession("s2", 2))
	wantMessages(t, store, "s2", other)
	wantSums(t, store, chat.UsageFilter{}, sumOf(usage))
}

// someUsage are the records of two users over some days.
func someUsage() (all []chat.UsageRecord) {
	for i := range 12 {
		record := filledUsage(i)
		record.SessionID, record.MessageID = fmt.Sprint("s", i%3), fmt.Sprintf("m%02d", i)
		record.UserID, record.At = []string{"alice", "bob"}[i%2], someTime.Add(time.Duration(i)*12*time.Hour)
		all = append(all, record)
	}
	return all
}

func chosen(filter chat.UsageFilter, all []chat.UsageRecord) []chat.UsageRecord {
	all = slices.DeleteFunc(all, func(r chat.UsageRecord) bool { return !chooses(filter, r) })
	slices.SortFunc(all, func(a, b chat.UsageRecord) int {
		return slices.Compare([]string{a.SessionID, a.MessageID}, []string{b.SessionID, b.MessageID})
	})
	return all
}

func wantUsage(t *testing.T, store chat.Store, filter chat.UsageFilter, want []chat.UsageRecord) {
	t.Helper()
	var got []chat.UsageRecord
	for len(got) <= len(want) {
		var last chat.UsageRecord
		if n := len(got); n > 0 {
			last = got[n-1]
		}
		page, err := store.UsageAfter(t.Context(), filter, last.SessionID, last.MessageID, 2)
		must(t, err)
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
	}
	if len(got) != len(want) {
		t.Fatalf("got %d records, want %d", len(got), len(want))
	}
	for i := range want {
		wantEqual(t, got[i], want[i])
	}
}

var usageFilters = []chat.UsageFilter{
	{},
	{UserID: "alice"},
	{UserID: "nobody"},
	{From: someTime.Add(36 * time.Hour)},
	{To: someTime.Add(36 * time.Hour)},
	{UserID: "bob", From: someTime.Add(12 * time.Hour), To: someTime.Add(96 * time.Hour)},
}

func pagesThroughUsage(t *testing.T, store chat.Store) {
	mustAddUsage(t, store, someUsage()...)
	for _, filter := range usageFilters {
		wantUsage(t, store, filter, chosen(filter, someUsage()))
	}
}

func deletesUsage(t *testing.T, store chat.Store) {
	for _, filter := range usageFilters {
		mustAddUsage(t, store, someUsage()...)
		must(t, store.DeleteUsage(t.Context(), filter))
		left := slices.DeleteFunc(someUsage(), func(r chat.UsageRecord) bool { return chooses(filter, r) })
		wantUsage(t, store, chat.UsageFilter{}, chosen(chat.UsageFilter{}, left))
	}
}
