package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
)

var listTests = []contractTest{
	{"SessionsAfter page by page gives each session once, by ID", onStore(listsAll)},
	{"IdleSessions gives those before a time, longest idle first", onStore(listsIdle)},
	{"ClaimedSessions gives those of owners with a prefix, page by page", onStore(listsClaimed)},
	{"a limit of 0 or less gives no session", onStore(func(t *testing.T, store chat.Store) {
		session := newSession("s1")
		session.Claim.Owner = "A"
		mustCreate(t, store, session)
		for _, limit := range []int{0, -1} {
			all, err := store.SessionsAfter(t.Context(), "", limit)
			must(t, err)
			found, err := store.FindSessions(t.Context(), chat.SessionFilter{}, chat.SessionOrder{}, chat.SessionPlace{}, limit)
			must(t, err)
			idle, err := store.IdleSessions(t.Context(), someTime.Add(time.Hour), limit)
			must(t, err)
			claimed, err := store.ClaimedSessions(t.Context(), "A", "", limit)
			must(t, err)
			if len(all)+len(found)+len(idle)+len(claimed) > 0 {
				t.Errorf("a limit of %d gives %v, %v, %v and %v", limit, ids(all), ids(found), idle, claimed)
			}
		}
	})},
	{"Count counts everything", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, newSession("s1"), newSession("s2"))
		mustInsert(t, store, "s1", newMessage(1, "m1"), newMessage(2, "m2"))
		mustInsert(t, store, "s2", newMessage(1, "m1"))
		mustAddUsage(t, store, newUsage("m1"))
		got, err := store.Count(t.Context())
		must(t, err)
		wantEqual(t, got, chat.Counts{Sessions: 2, Messages: 3, Usage: 1})
	})},
}

func ids(sessions []chat.Session) (ids []string) {
	for _, s := range sessions {
		ids = append(ids, s.ID)
	}
	return ids
}

func wantIDs(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got the sessions %q, want %q", got, want)
	}
}

func listsAll(t *testing.T, store chat.Store) {
	want := []string{"A", "B", "a", "a-", "a1", "aa", "b"} // the order of the bytes
	for _, id := range []string{"b", "aa", "A", "a-", "B", "a", "a1"} {
		mustCreate(t, store, filledSession(id, len(id)))
	}
	var got []string
	for len(got) <= len(want) {
		after := ""
		if n := len(got); n > 0 {
			after = got[n-1]
		}
		page, err := store.SessionsAfter(t.Context(), after, 3)
		must(t, err)
		if len(page) == 0 {
			break
		}
		for _, s := range page {
			wantEqual(t, s, filledSession(s.ID, len(s.ID)))
		}
		got = append(got, ids(page)...)
	}
	wantIDs(t, got, want...)
}

func listsIdle(t *testing.T, store chat.Store) {
	for i, id := range []string{"c", "a", "b", "d"} {
		session := newSession(id)
		session.LastActiveAt = someTime.Add(time.Duration(i) * time.Second)
		if id == "a" {
			session.Status = chat.SessionStatusEnded
		}
		mustCreate(t, store, session)
	}
	for _, test := range []struct {
		after time.Duration
		limit int
		want  []string
	}{
		{0, 10, nil},
		{time.Millisecond, 10, []string{"c"}},
		{2 * time.Second, 10, []string{"c", "a"}},
		{time.Hour, 3, []string{"c", "a", "b"}},
	} {
		got, err := store.IdleSessions(t.Context(), someTime.Add(test.after), test.limit)
		must(t, err)
		wantIDs(t, got, test.want...)
	}
}

func listsClaimed(t *testing.T, store chat.Store) {
	for i, owner := range []string{"A", "A.1", "A.zz", "", "B", "a", "AB", "", "A.3", "A."} {
		session := newSession(fmt.Sprint("s", i))
		session.Claim.Owner = owner
		if owner == "A.3" {
			session.Status = chat.SessionStatusEnded
		}
		mustCreate(t, store, session)
	}
	for prefix, want := range map[string][]string{
		"A":   {"s0", "s1", "s2", "s6", "s9"},
		"A.":  {"s1", "s2", "s9"},
		"A.1": {"s1"},
		"C":   nil,
	} {
		var got []string
		for after := ""; len(got) <= len(want); after = got[len(got)-1] {
			page, err := store.ClaimedSessions(t.Context(), prefix, after, 2)
			must(t, err)
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
		}
		wantIDs(t, got, want...)
	}
}
