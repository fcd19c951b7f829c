package storetest

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/parley-chat/parley/chat"
)

var pagingTests = []contractTest{
	{"Messages of an unknown session is empty", onStore(func(t *testing.T, store chat.Store) {
		got, err := store.Messages(t.Context(), "unknown", 0, 10)
		if err != nil || len(got) != 0 {
			t.Errorf("got %d messages and error %v, want none and nil", len(got), err)
		}
	})},
	{"Messages gives the newest limit below before, ascending", onStore(pages)},
	{"Messages page by page gives each message once", onStore(pagesThrough)},
	{"MessagesFrom of an unknown session is empty", onStore(func(t *testing.T, store chat.Store) {
		got, err := store.MessagesFrom(t.Context(), "unknown", 0, 10)
		if err != nil || len(got) != 0 {
			t.Errorf("got %d messages and error %v, want none and nil", len(got), err)
		}
	})},
	{"MessagesFrom gives the first limit above after, ascending", onStore(pagesFrom)},
	{"MessagesFrom page by page gives each message once", onStore(pagesThroughFrom)},
	{"MessagesFrom gives messages of every status, with a Seq and without", onStore(givesAllFrom)},
}

// insertWithGaps stores messages with the numbers 3, 6, … 30, not in this order, among those of another session.
func insertWithGaps(t *testing.T, store chat.Store) {
	t.Helper()
	mustCreate(t, store, newSession("s1"), newSession("s2"))
	for _, n := range []int64{15, 3, 30, 9, 27, 6, 21, 12, 24, 18} {
		mustInsert(t, store, "s1", newMessage(n, fmt.Sprintf("m%d", n)))
		mustInsert(t, store, "s2", newMessage(n+1, fmt.Sprintf("m%d", n)))
	}
}

func pages(t *testing.T, store chat.Store) {
	insertWithGaps(t, store)
	for _, test := range []struct {
		before int64
		limit  int
		want   []int64
	}{
		{0, 4, []int64{21, 24, 27, 30}},
		{0, 1, []int64{30}},
		{0, 100, []int64{3, 6, 9, 12, 15, 18, 21, 24, 27, 30}},
		{30, 2, []int64{24, 27}},
		{16, 3, []int64{9, 12, 15}},
		{15, 3, []int64{6, 9, 12}},
		{7, 10, []int64{3, 6}},
		{3, 10, nil},
		{1, 10, nil},
		{math.MaxInt64, 2, []int64{27, 30}},
		{0, 0, nil}, // to some databases 0, or a negative limit, is no limit
		{0, -1, nil},
	} {
		messages, err := store.Messages(t.Context(), "s1", test.before, test.limit)
		must(t, err)
		if got := numbers(messages); !slices.Equal(got, test.want) {
			t.Errorf("Messages(before %d, limit %d): got %v, want %v", test.before, test.limit, got, test.want)
		}
	}
}

func pagesThrough(t *testing.T, store chat.Store) {
	insertWithGaps(t, store)
	var got []int64
	for before := int64(0); len(got) <= 10; {
		page, err := store.Messages(t.Context(), "s1", before, 3)
		must(t, err)
		if len(page) == 0 {
			break
		}
		got = slices.Concat(numbers(page), got)
		before = page[0].N
	}
	if want := []int64{3, 6, 9, 12, 15, 18, 21, 24, 27, 30}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func numbers(messages []chat.Message) (numbers []int64) {
	for _, m := range messages {
		numbers = append(numbers, m.N)
	}
	return numbers
}

func pagesFrom(t *testing.T, store chat.Store) {
	insertWithGaps(t, store)
	for _, test := range []struct {
		after int64
		limit int
		want  []int64
	}{
		{0, 4, []int64{3, 6, 9, 12}},
		{0, 1, []int64{3}},
		{0, 100, []int64{3, 6, 9, 12, 15, 18, 21, 24, 27, 30}},
		{-7, 2, []int64{3, 6}},
		{2, 1, []int64{3}},
		{3, 2, []int64{6, 9}},
		{16, 3, []int64{18, 21, 24}},
		{24, 10, []int64{27, 30}},
		{30, 10, nil},
		{math.MaxInt64, 10, nil},
		{0, 0, nil}, // to some databases 0, or a negative limit, is no limit
		{0, -1, nil},
	} {
		messages, err := store.MessagesFrom(t.Context(), "s1", test.after, test.limit)
		must(t, err)
		if got := numbers(messages); !slices.Equal(got, test.want) {
			t.Errorf("MessagesFrom(after %d, limit %d): got %v, want %v", test.after, test.limit, got, test.want)
		}
	}
}

func pagesThroughFrom(t *testing.T, store chat.Store) {
	insertWithGaps(t, store)
	var got []int64
	for after := int64(0); len(got) <= 10; {
		page, err := store.MessagesFrom(t.Context(), "s1", after, 3)
		must(t, err)
		if len(page) == 0 {
			break
		}
		got = append(got, numbers(page)...)
		after = page[len(page)-1].N
	}
	if want := []int64{3, 6, 9, 12, 15, 18, 21, 24, 27, 30}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func givesAllFrom(t *testing.T, store chat.Store) {
	mustCreate(t, store, newSession("s1"))
	var want []chat.Message
	for i, status := range []chat.Status{
		chat.StatusStreaming, chat.StatusComplete, chat.StatusCancelled, chat.StatusFailed, chat.StatusInterrupted,
	} {
		m := filledMessage(int64(i+1), string(status), i)
		m.Status, m.Seq = status, int64(i%2*(9-i)) // the Seq of some, and that in another order
		mustInsert(t, store, "s1", m)
		want = append(want, m)
	}
	got, err := store.MessagesFrom(t.Context(), "s1", 0, 10)
	must(t, err)
	if len(got) != len(want) {
		t.Fatalf("got %d messages, want %d", len(got), len(want))
	}
	for i := range want {
		wantEqual(t, got[i], want[i])
	}
}
