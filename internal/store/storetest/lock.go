package storetest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/parley-chat/parley/chat"
)

// sessionLockTests test that a store reads a session only while it holds the session's lock.
var sessionLockTests = []contractTest{
	{"R10.1 each operation takes the lock once", onStore(locksOnce)},
	{"R10.2 nothing is read once the lock is released", onStore(readsUnderLock)},
	{"R10.5 a session that others change is stored as it was at one moment", onStore(storesOneMoment)},
}

// lockedSession is a session under the lock that guards it, like those in use.
type lockedSession struct {
	mu      sync.Mutex // guards the fields below
	session chat.Session
	views   int
}

// View implements [chat.SessionView].
func (l *lockedSession) View(f func(*chat.Session)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.views++
	f(&l.session)
}

func locksOnce(t *testing.T, store chat.Store) {
	active, ended := newSession("s1"), newSession("s1")
	ended.Status, ended.Revision = chat.SessionStatusEnded, 1
	update := func(ctx context.Context, session chat.SessionView) error {
		return store.UpdateSession(ctx, session, chat.Place{MessageID: "m1", Seq: 3})
	}
	for _, call := range []struct {
		name    string
		do      func(context.Context, chat.SessionView) error
		session chat.Session
		want    error
	}{
		{"UpdateSession of none", update, active, chat.ErrNotFound},
		{"CreateSession", store.CreateSession, active, nil},
		{"CreateSession again", store.CreateSession, active, chat.ErrExists},
		{"UpdateSession", update, ended, nil},
		{"UpdateSession of an ended one", update, ended, chat.ErrStale},
	} {
		locked := &lockedSession{session: call.session}
		wantError(t, call.do(t.Context(), locked), call.want)
		if !locked.mu.TryLock() {
			t.Fatalf("%s: the lock is still held (R10.4)", call.name)
		}
		if locked.views != 1 {
			t.Errorf("%s: the lock was taken %d times, want once", call.name, locked.views)
		}
	}
}

// overwritten is a view of a session that nothing is left of when View returns.
type overwritten struct{ session chat.Session }

func (o *overwritten) View(f func(*chat.Session)) {
	f(&o.session)
	*o.session.AssistedBy = chat.Author{}
	clear(o.session.Metadata)
	clear(o.session.ResponseTimes)
	clear(o.session.ProviderStates)
	o.session = chat.Session{}
}

func readsUnderLock(t *testing.T, store chat.Store) {
	must(t, store.CreateSession(t.Context(), &overwritten{filledSession("s1", 1)}))
	want := filledSession("s1", 1)
	wantSession(t, store, want)

	original, update := filledSession("s1", 1), filledSession("s1", 2)
	update.Claim = original.Claim
	must(t, store.UpdateSession(t.Context(), &overwritten{update}))
	want = filledSession("s1", 2)
	want.UserID, want.CreatedAt, want.Metadata = original.UserID, original.CreatedAt, original.Metadata
	want.Claim = original.Claim
	wantSession(t, store, want)
}

// storesOneMoment has many goroutines change a session, in steps, under its lock, and store it.
func storesOneMoment(t *testing.T, store chat.Store) {
	locked := &lockedSession{session: newSession("s1")}
	locked.session.AssistedBy, locked.session.ResponseTimes = &chat.Author{}, make([]chat.ResponseTime, 1)
	locked.session.ProviderStates = make(map[string]string)
	change := func(moment int64) {
		locked.mu.Lock()
		defer locked.mu.Unlock()
		s, text := &locked.session, fmt.Sprint(moment)
		s.Revision++
		s.Title, s.Model, s.HelpReason, s.AssistedBy.ID, s.AssistedBy.Name = text, text, text, text, text
		s.ResponseTimes[0] = chat.ResponseTime{FirstTokenMS: moment, TotalMS: moment}
		s.Usage, s.ProviderStates["provider"] = chat.Usage{InputTokens: int(moment), OutputTokens: int(moment)}, text
	}
	change(0)
	must(t, store.CreateSession(t.Context(), locked))
	together(func(i int) {
		for round := range 4 {
			change(int64(100*i + round))
			if err := store.UpdateSession(t.Context(), locked); err != nil {
				wantError(t, err, chat.ErrStale) // a later moment is stored already
			}
			change(int64(100*i + round + 50)) // after it was stored
			got, err := store.Session(t.Context(), "s1")
			if err != nil {
				t.Error(err)
				continue
			}
			text, author := got.Title, chat.Author{ID: got.Title, Name: got.Title}
			if got.Model != text || got.HelpReason != text || *got.AssistedBy != author || len(got.ResponseTimes) != 1 ||
				fmt.Sprint(got.ResponseTimes[0].FirstTokenMS) != text || fmt.Sprint(got.ResponseTimes[0].TotalMS) != text ||
				fmt.Sprint(got.Usage.InputTokens) != text || fmt.Sprint(got.Usage.OutputTokens) != text ||
				got.ProviderStates["provider"] != text {
				t.Errorf("stored from several moments: %+v, %+v", got, *got.AssistedBy)
			}
		}
	})
}
