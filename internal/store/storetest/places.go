package storetest

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/parley-chat/parley/chat"
)

var placeTests = []contractTest{
	{"UpdateSession gives messages their Seq and changes nothing else of them", onStore(givesPlaces)},
	{"UpdateSession that ends the session gives messages their Seq", onStore(func(t *testing.T, store chat.Store) {
		session, m := newSession("s1"), newMessage(1, "m1")
		mustCreate(t, store, session)
		mustInsert(t, store, "s1", m)
		session.Status, session.EndReason, session.LogEnd = chat.SessionStatusEnded, chat.EndedByUser, 5
		must(t, updateSession(t, store, &session, chat.Place{MessageID: "m1", Seq: 4}))
		m.Seq = 4
		wantSession(t, store, session)
		wantMessages(t, store, "s1", m)
	})},
	{"a message that has a Seq keeps it", onStore(keepsPlaces)},
	{"a place of an unknown message is passed over", onStore(func(t *testing.T, store chat.Store) {
		session, one, two := newSession("s1"), newMessage(1, "m1"), newMessage(2, "m2")
		mustCreate(t, store, session, newSession("s2"))
		mustInsert(t, store, "s1", one, two)
		mustInsert(t, store, "s2", newMessage(1, "m1"), newMessage(2, "other"))
		session.LogEnd = 9
		must(t, updateSession(t, store, &session, chat.Place{MessageID: "m1", Seq: 3},
			chat.Place{MessageID: "unknown", Seq: 4}, chat.Place{MessageID: "other", Seq: 5},
			chat.Place{MessageID: "M2", Seq: 6}, chat.Place{MessageID: "m2", Seq: 7}))
		one.Seq, two.Seq = 3, 7
		wantSession(t, store, session)
		wantMessages(t, store, "s1", one, two)
		wantMessages(t, store, "s2", newMessage(1, "m1"), newMessage(2, "other"))
	})},
	{"UpdateSession of an ended or unknown session gives no message a Seq", onStore(func(t *testing.T, store chat.Store) {
		ended, unknown, m := newSession("s1"), newSession("s2"), newMessage(1, "m1")
		ended.Status = chat.SessionStatusEnded
		mustCreate(t, store, ended)
		mustInsert(t, store, "s1", m)
		place := chat.Place{MessageID: "m1", Seq: 3}
		wantError(t, updateSession(t, store, &ended, place), chat.ErrStale)
		wantError(t, updateSession(t, store, &unknown, place), chat.ErrNotFound)
		wantMessages(t, store, "s1", m)
	})},
	{"UpdateMessage neither gives nor takes a Seq", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, newSession("s1"))
		without, with := newStreamingMessage(1, "m1"), newStreamingMessage(2, "m2")
		with.Seq = 5
		mustInsert(t, store, "s1", without, with)
		for _, seq := range []int64{0, 5, 9} {
			for _, m := range []chat.Message{without, with} {
				m.Seq = seq
				must(t, store.UpdateMessage(t.Context(), "s1", chat.Claim{}, m))
			}
			wantMessages(t, store, "s1", without, with)
		}
	})},
	{"MessagesAfter of an unknown session is empty", onStore(func(t *testing.T, store chat.Store) {
		got, err := store.MessagesAfter(t.Context(), "unknown", 0, 10)
		if err != nil || len(got) != 0 {
			t.Errorf("got %d messages and error %v, want none and nil", len(got), err)
		}
	})},
	{"MessagesAfter gives the first limit above seq, ascending by Seq", onStore(pagesAfter)},
	{"MessagesAfter page by page gives each message with a Seq once", onStore(pagesThroughAfter)},
}

func givesPlaces(t *testing.T, store chat.Store) {
	session := newSession("s1")
	mustCreate(t, store, session)
	var places []chat.Place
	var messages []chat.Message
	for n := range int64(300) {
		m := filledMessage(n+1, fmt.Sprint("m", n), int(n))
		m.Seq = 0
		if n%2 == 0 {
			m.Status = chat.StatusStreaming
		}
		mustInsert(t, store, "s1", m)
		if n%3 != 0 {
			m.Seq = 1000 - n
			places = append(places, chat.Place{MessageID: m.ID, Seq: m.Seq})
		}
		messages = append(messages, m)
	}
	session.Title, session.LogEnd = "another title", 1000
	must(t, updateSession(t, store, &session, places...))
	wantSession(t, store, session)
	wantMessages(t, store, "s1", messages...)
}

func keepsPlaces(t *testing.T, store chat.Store) {
	session, inserted, given := newSession("s1"), newMessage(1, "m1"), newMessage(2, "m2")
	inserted.Seq = 3
	mustCreate(t, store, session)
	mustInsert(t, store, "s1", inserted, given)
	must(t, updateSession(t, store, &session,
		chat.Place{MessageID: "m1", Seq: 10}, chat.Place{MessageID: "m2", Seq: 11}, chat.Place{MessageID: "m2", Seq: 12}))
	given.Seq = 11
	wantMessages(t, store, "s1", inserted, given)

	session.Title = "another title"
	must(t, updateSession(t, store, &session,
		chat.Place{MessageID: "m2", Seq: 2}, chat.Place{MessageID: "m1", Seq: 20}))
	wantSession(t, store, session) // that nothing was left to place is no error
	wantMessages(t, store, "s1", inserted, given)
}

// insertWithPlaces stores messages with the numbers 1 to 8, some of them without a Seq and the others not in the order
// of Seq; half of these get it later. Another session has messages at all of their places.
func insertWithPlaces(t *testing.T, store chat.Store) {
	t.Helper()
	session := newSession("s1")
	mustCreate(t, store, session, newSession("s2"))
	var places []chat.Place
	for i, seq := range []int64{4, 0, 9, 30, 12, 0, 21, 15} {
		m := newMessage(int64(i+1), fmt.Sprint("m", i+1))
		if i%2 == 0 {
			m.Seq = seq
		} else if seq > 0 {
			places = append(places, chat.Place{MessageID: m.ID, Seq: seq})
		}
		mustInsert(t, store, "s1", m)
		m.Seq = seq
		mustInsert(t, store, "s2", m)
	}
	must(t, updateSession(t, store, &session, places...))
}

func pagesAfter(t *testing.T, store chat.Store) {
	insertWithPlaces(t, store)
	for _, test := range []struct {
		seq   int64
		limit int
		want  []int64
	}{
		{0, 100, []int64{4, 9, 12, 15, 21, 30}},
		{0, 1, []int64{4}},
		{0, 4, []int64{4, 9, 12, 15}},
		{3, 1, []int64{4}},
		{4, 2, []int64{9, 12}},
		{13, 2, []int64{15, 21}},
		{21, 10, []int64{30}},
		{30, 10, nil},
		{math.MaxInt64, 10, nil},
		{-1, 2, []int64{4, 9}}, // not those without a Seq
		{0, 0, nil},            // to some databases 0, or a negative limit, is no limit
		{0, -1, nil},
	} {
		messages, err := store.MessagesAfter(t.Context(), "s1", test.seq, test.limit)
		must(t, err)
		if got := seqs(messages); !slices.Equal(got, test.want) {
			t.Errorf("MessagesAfter(seq %d, limit %d): got %v, want %v", test.seq, test.limit, got, test.want)
		}
	}
}

func pagesThroughAfter(t *testing.T, store chat.Store) {
	insertWithPlaces(t, store)
	var got []int64
	for after := int64(0); len(got) <= 6; {
		page, err := store.MessagesAfter(t.Context(), "s1", after, 2)
		must(t, err)
		if len(page) == 0 {
			break
		}
		got = append(got, seqs(page)...)
		after = page[len(page)-1].Seq
	}
	if want := []int64{4, 9, 12, 15, 21, 30}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func seqs(messages []chat.Message) (seqs []int64) {
	for _, m := range messages {
		seqs = append(seqs, m.Seq)
	}
	return seqs
}
