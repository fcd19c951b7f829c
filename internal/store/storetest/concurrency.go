package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
)

// callers is how many goroutines do the same at the same time.
const callers = 64

var concurrencyTests = []contractTest{
	{"one of many creates a session", onStore(func(t *testing.T, store chat.Store) {
		winner := oneWins(t, chat.ErrExists, func(i int) error {
			session := newSession("s1")
			session.Title = fmt.Sprint(i)
			return store.CreateSession(t.Context(), &session)
		})
		want := newSession("s1")
		want.Title = fmt.Sprint(winner)
		wantSession(t, store, want)
	})},
	{"one of many gets an N", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, newSession("s1"))
		winner := oneWins(t, chat.ErrExists, func(i int) error {
			return store.InsertMessage(t.Context(), "s1", chat.Claim{}, newMessage(1, fmt.Sprint(i)))
		})
		wantMessages(t, store, "s1", newMessage(1, fmt.Sprint(winner)))
	})},
	{"one of many gets a message ID", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, newSession("s1"))
		winner := oneWins(t, chat.ErrExists, func(i int) error {
			return store.InsertMessage(t.Context(), "s1", chat.Claim{}, newMessage(int64(i+1), "m1"))
		})
		wantMessages(t, store, "s1", newMessage(int64(winner+1), "m1"))
	})},
	{"one of many ends a session", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, newSession("s1"))
		ended := func(i int) chat.Session {
			session := newSession("s1")
			session.Title, session.Status, session.Revision = fmt.Sprint(i), chat.SessionStatusEnded, 1
			return session
		}
		winner := oneWins(t, chat.ErrStale, func(i int) error {
			session := ended(i)
			session.Revision = 0
			return updateSession(t, store, &session)
		})
		wantSession(t, store, ended(winner))
	})},
	{"one of many finishes a message", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, newSession("s1"))
		mustInsert(t, store, "s1", newStreamingMessage(1, "m1"))
		finished := func(i int) chat.Message {
			m := newStreamingMessage(1, "m1")
			m.Text, m.Status = fmt.Sprint(i), chat.StatusComplete
			return m
		}
		winner := oneWins(t, chat.ErrStale, func(i int) error {
			return store.UpdateMessage(t.Context(), "s1", chat.Claim{}, finished(i))
		})
		wantMessages(t, store, "s1", finished(winner))
	})},
	{"no checkpoint revives a message that is finished meanwhile", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, newSession("s1"))
		mustInsert(t, store, "s1", newStreamingMessage(1, "m1"))
		final := newStreamingMessage(1, "m1")
		final.Text, final.Status = "the whole answer", chat.StatusComplete
		together(func(i int) {
			m, late := final, chat.ErrStale
			if i != callers/2 {
				m.Text, m.Status = "the", chat.StatusStreaming
			} else {
				late = nil
			}
			if err := store.UpdateMessage(t.Context(), "s1", chat.Claim{}, m); err != nil && !errors.Is(err, late) {
				t.Error(err)
			}
		})
		wantMessages(t, store, "s1", final)
	})},
	{"one of many adds the usage of a response, and all succeed", onStore(func(t *testing.T, store chat.Store) {
		usage := func(i int) chat.UsageRecord {
			record := newUsage("m1")
			record.UserID, record.Model, record.CostMicros = fmt.Sprint("user ", i), fmt.Sprint("model ", i), int64(i)
			record.At = record.At.Add(time.Duration(i) * time.Hour)
			record.Usage = chat.Usage{InputTokens: i, OutputTokens: i, Estimated: i%2 == 0}
			return record
		}
		together(func(i int) {
			if err := store.AddUsage(t.Context(), usage(i)); err != nil {
				t.Error(err)
			}
		})
		sums, err := store.SumUsage(t.Context(), chat.UsageFilter{})
		must(t, err)
		if len(sums) != 1 {
			t.Fatalf("got %d sums, want one", len(sums))
		}
		wantEqual(t, sums[0], sumOf(usage(int(sums[0].CostMicros))))
	})},
	{"usage that many add at once is all summed", onStore(func(t *testing.T, store chat.Store) {
		together(func(i int) {
			record := newUsage(fmt.Sprint("m", i))
			record.Usage.InputTokens = i
			if err := store.AddUsage(t.Context(), record); err != nil {
				t.Error(err)
			}
		})
		want := sumOf(newUsage("m0"))
		want.Responses, want.InputTokens = callers, callers*(callers-1)/2
		want.OutputTokens, want.CostMicros = want.OutputTokens*callers, want.CostMicros*callers
		wantSums(t, store, chat.UsageFilter{}, want)
	})},
	{"writes that do not concern each other all succeed", onStore(func(t *testing.T, store chat.Store) {
		together(func(i int) {
			session := newSession(fmt.Sprint("s", i))
			if err := store.CreateSession(t.Context(), &session); err != nil {
				t.Error(err)
			}
			for n := range int64(4) {
				if err := store.InsertMessage(t.Context(), session.ID, chat.Claim{}, newMessage(n+1, fmt.Sprint(n))); err != nil {
					t.Error(err)
				}
				if got, err := store.Messages(t.Context(), session.ID, 0, 10); err != nil || len(got) != int(n)+1 {
					t.Errorf("read %d messages and error %v after %d were stored", len(got), err, n+1)
				}
			}
		})
		for i := range callers {
			wantSession(t, store, newSession(fmt.Sprint("s", i)))
			wantMessages(t, store, fmt.Sprint("s", i),
				newMessage(1, "0"), newMessage(2, "1"), newMessage(3, "2"), newMessage(4, "3"))
		}
	})},
}

// together calls f from many goroutines at once and waits for all of them.
func together(f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range callers {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

// oneWins calls f from many goroutines at once: one call must succeed, and the others fail with loss. It returns
// which one succeeded.
func oneWins(t *testing.T, loss error, f func(i int) error) (winner int) {
	t.Helper()
	errs := make([]error, callers)
	together(func(i int) { errs[i] = f(i) })
	var winners []int
	for i, err := range errs {
		if err == nil {
			winners = append(winners, i)
		} else if !errors.Is(err, loss) {
			t.Errorf("call %d: got error %v, want %v", i, err, loss)
		}
	}
	if len(winners) != 1 {
		t.Fatalf("calls %v succeeded, want one of them", winners)
	}
	return winners[0]
}
