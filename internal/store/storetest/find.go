package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
)

var findTests = []contractTest{
	{"FindSessions gives sessions in each order, page by page, each once", onStore(findsInOrder)},
	{"FindSessions gives what the filter chooses, and nothing else", onStore(findsFiltered)},
	{"FindSessions gives a user's sessions, the latest active first, and nobody else's", onStore(findsByUser)},
	{"FindSessions in an unknown order is that by last activity", onStore(findsInUnknownOrder)},
	{"FindSessions goes on after a place that no session has", onStore(findsAfterAnyPlace)},
	{"FindSessions gives every field of a session", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, filledSession("s1", 1))
		got, err := store.FindSessions(t.Context(), chat.SessionFilter{}, chat.SessionOrder{}, chat.SessionPlace{}, 10)
		must(t, err)
		wantIDs(t, ids(got), "s1")
		wantEqual(t, got[0], filledSession("s1", 1))
	})},
	{"FindSessions follows what changes", onStore(findsChanged)},
	{"FindSessions of an empty store is empty", onStore(func(t *testing.T, store chat.Store) {
		wantFound(t, store, chat.SessionFilter{}, chat.SessionOrder{})
	})},
}

var sessionSorts = []chat.SessionSort{
	chat.SortByLastActive, chat.SortByCreated, chat.SortByUser, chat.SortByMessages, chat.SortByTokens,
}

// findable are sessions in no order at all, of which some are alike in each thing that a list is ordered by. Nothing of
// some is in them.
func findable() (all []chat.Session) {
	for i := range 18 {
		s := newSession(fmt.Sprintf("s%02d", i*7%18))
		s.UserID = []string{"alice", "bob", "Bob", "b"}[i%4]
		s.Model = []string{"small", "large"}[i/2%2]
		s.CreatedAt = someTime.Add(time.Duration(i*5%7) * time.Minute)
		s.LastActiveAt = s.CreatedAt.Add(time.Duration(i*3%5) * time.Minute)
		s.Messages = int64(i * 11 % 6)
		s.Usage = chat.Usage{InputTokens: i * 13 % 4 * 1000, OutputTokens: i % 2 * 1000}
		s.HelpRequested = i%3 == 0
		if i%5 == 0 {
			s.AssistedBy = &chat.Author{ID: "ann", Name: "Ann"}
		}
		if i%4 == 1 {
			s.Status = chat.SessionStatusEnded
		}
		all = append(all, s)
	}
	return all
}

// wantFound fails unless the store gives, page by page, the IDs in this order.
func wantFound(t *testing.T, store chat.Store, filter chat.SessionFilter, order chat.SessionOrder, want ...string) {
	t.Helper()
	for _, limit := range []int{1, 3, len(want) + 1} {
		var got []string
		for after := (chat.SessionPlace{}); len(got) <= len(want); {
			page, err := store.FindSessions(t.Context(), filter, order, after, limit)
			must(t, err)
			if len(page) > limit {
				t.Fatalf("%d sessions are given of at most %d", len(page), limit)
			}
			if len(page) == 0 {
				break
			}
			got = append(got, ids(page)...)
			after = order.Place(&page[len(page)-1])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v in the order %+v, in pages of %d: got the sessions %q, want %q", filter, order, limit, got, want)
		}
	}
}

// inOrder gives the IDs of the sessions that a filter chooses, in an order.
func inOrder(all []chat.Session, filter chat.SessionFilter, order chat.SessionOrder) []string {
	all = slices.DeleteFunc(slices.Clone(all), func(s chat.Session) bool { return !finds(filter, s) })
	slices.SortFunc(all, func(a, b chat.Session) int { return comparePlaces(order, order.Place(&a), order.Place(&b)) })
	return ids(all)
}

func findsInOrder(t *testing.T, store chat.Store) {
	all := findable()
	mustCreate(t, store, all...)
	for _, by := range sessionSorts {
		for _, descending := range []bool{false, true} {
			order := chat.SessionOrder{By: by, Descending: descending}
			wantFound(t, store, chat.SessionFilter{}, order, inOrder(all, chat.SessionFilter{}, order)...)
		}
	}
}

func findsFiltered(t *testing.T, store chat.Store) {
	all := findable()
	mustCreate(t, store, all...)
	yes, no := true, false
	from, to := someTime.Add(4*time.Minute), someTime.Add(3*time.Minute)
	for i, filter := range []chat.SessionFilter{
		{UserID: "bob"},
		{UserID: "nobody"},
		{Status: chat.SessionStatusActive},
		{Status: chat.SessionStatusEnded},
		{Model: "small"},
		{Assisted: &yes},
		{Assisted: &no},
		{HelpRequested: &yes},
		{HelpRequested: &no},
		{From: from},
		{To: to},
		{From: from.Add(999 * time.Microsecond), To: to.Add(999 * time.Microsecond)}, // to the millisecond
		{From: from.Add(time.Millisecond)},
		{To: to.Add(time.Millisecond)},
		{From: someTime.Add(time.Hour)},
		{To: someTime},
		{UserID: "alice", Status: chat.SessionStatusActive, Model: "small", Assisted: &no, HelpRequested: &no, From: from, To: from.Add(time.Minute)},
	} {
		for _, by := range sessionSorts { // of which some are what is chosen by, too
			order := chat.SessionOrder{By: by, Descending: i%2 == 0}
			wantFound(t, store, filter, order, inOrder(all, filter, order)...)
		}
	}
}

func findsByUser(t *testing.T, store chat.Store) {
	var want []string
	for i := range 7 {
		session := filledSession(fmt.Sprint("s", i), i)
		session.UserID, session.LastActiveAt = "alice", someTime.Add(time.Duration(i/2)*time.Second)
		other := newSession(fmt.Sprint("t", i))
		other.UserID = "bob"
		mustCreate(t, store, session, other)
		want = append([]string{session.ID}, want...)
	}
	latestFirst := chat.SessionOrder{By: chat.SortByLastActive, Descending: true}
	wantFound(t, store, chat.SessionFilter{UserID: "alice"}, latestFirst, want...)
	wantFound(t, store, chat.SessionFilter{UserID: "ali"}, latestFirst)
}

func findsInUnknownOrder(t *testing.T, store chat.Store) {
	all := findable()
	mustCreate(t, store, all...)
	for _, by := range []chat.SessionSort{"", "title", "id; --"} {
		for _, descending := range []bool{false, true} {
			known := chat.SessionOrder{By: chat.SortByLastActive, Descending: descending}
			wantFound(t, store, chat.SessionFilter{}, chat.SessionOrder{By: by, Descending: descending},
				inOrder(all, chat.SessionFilter{}, known)...)
		}
	}
}

// The session that a page ended with may have moved, or be gone.
func findsAfterAnyPlace(t *testing.T, store chat.Store) {
	for i, id := range []string{"b", "d", "f"} {
		session := newSession(id)
		session.Messages = int64(i+1) * 10
		mustCreate(t, store, session)
	}
	for _, test := range []struct {
		after      chat.SessionPlace
		descending bool
		want       []string
	}{
		{chat.SessionPlace{Number: 20, ID: "a"}, false, []string{"d", "f"}},
		{chat.SessionPlace{Number: 20, ID: "e"}, false, []string{"f"}},
		{chat.SessionPlace{Number: 15, ID: "z"}, false, []string{"d", "f"}},
		{chat.SessionPlace{ID: "a"}, false, []string{"b", "d", "f"}},
		{chat.SessionPlace{Number: 31, ID: "a"}, false, nil},
		{chat.SessionPlace{Number: 20, ID: "e"}, true, []string{"d", "b"}},
		{chat.SessionPlace{Number: 20, ID: "a"}, true, []string{"b"}},
		{chat.SessionPlace{ID: "z"}, true, nil},
	} {
		got, err := store.FindSessions(t.Context(), chat.SessionFilter{},
			chat.SessionOrder{By: chat.SortByMessages, Descending: test.descending}, test.after, 10)
		must(t, err)
		wantIDs(t, ids(got), test.want...)
	}
}

func findsChanged(t *testing.T, store chat.Store) {
	one, two := newSession("s1"), newSession("s2")
	one.LastActiveAt, one.Messages = someTime.Add(time.Second), 1
	one.Usage = chat.Usage{InputTokens: 1}
	mustCreate(t, store, one, two)
	sorts := []chat.SessionSort{chat.SortByLastActive, chat.SortByMessages, chat.SortByTokens}
	for _, by := range sorts {
		wantFound(t, store, chat.SessionFilter{}, chat.SessionOrder{By: by}, "s2", "s1")
	}
	two.LastActiveAt, two.Messages = someTime.Add(2*time.Second), 2
	two.Usage = chat.Usage{OutputTokens: 2}
	must(t, updateSession(t, store, &two))
	for _, by := range sorts {
		wantFound(t, store, chat.SessionFilter{}, chat.SessionOrder{By: by}, "s1", "s2")
	}
	must(t, store.DeleteSession(t.Context(), "s1", time.Time{}))
	wantFound(t, store, chat.SessionFilter{}, chat.SessionOrder{}, "s2")
}
