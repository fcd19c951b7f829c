package storetest

import (
	"context"
	"maps"
	"slices"
	"strconv"
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

// LockedSession is a session under the lock that guards it, like those in use.
type LockedSession struct {
	mu      sync.Mutex // guards the fields below
	session chat.Session
	views   int
}

// NewLockedSession returns the session under a lock of its own.
func NewLockedSession(session chat.Session) *LockedSession {
	return &LockedSession{session: session}
}

// View implements [chat.SessionView]. Nothing of what it lends is left once it returns.
func (l *LockedSession) View(f func(*chat.Session)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.views++
	lent := l.session
	lent.Metadata, lent.ProviderStates = maps.Clone(lent.Metadata), maps.Clone(lent.ProviderStates)
	lent.ResponseTimes = slices.Clone(lent.ResponseTimes)
	if lent.AssistedBy != nil {
		author := *lent.AssistedBy
		lent.AssistedBy = &author
	}
	f(&lent)
	overwrite(&lent)
}

// overwrite leaves nothing of the session, nor of what it refers to.
func overwrite(session *chat.Session) {
	if session.AssistedBy != nil {
		*session.AssistedBy = chat.Author{}
	}
	clear(session.Metadata)
	clear(session.ResponseTimes)
	clear(session.ProviderStates)
	*session = chat.Session{}
}

// Views returns how often the lock was taken for a View.
func (l *LockedSession) Views() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.views
}

// Locked tells whether somebody holds the lock now.
func (l *LockedSession) Locked() bool {
	if l.mu.TryLock() {
		l.mu.Unlock()
		return false
	}
	return true
}

// Set has many fields of the session say the moment, one after the other, under the lock.
func (l *LockedSession) Set(moment int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, text := &l.session, strconv.FormatInt(moment, 10)
	s.Revision++
	s.Title, s.Model, s.HelpReason, s.AssistedBy = text, text, text, &chat.Author{ID: text, Name: text}
	s.ResponseTimes = []chat.ResponseTime{{FirstTokenMS: moment, TotalMS: moment}}
	s.Usage = chat.Usage{InputTokens: int(moment), OutputTokens: int(moment)}
	s.ProviderStates = map[string]string{"provider": text}
}

// WantOneMoment checks that all fields which [LockedSession.Set] sets say the same moment.
func WantOneMoment(t *testing.T, got chat.Session) {
	t.Helper()
	moment, err := strconv.ParseInt(got.Title, 10, 64)
	if err != nil || got.AssistedBy == nil || len(got.ResponseTimes) != 1 {
		t.Errorf("got %+v (%v), want what Set makes of a session", got, err)
		return
	}
	if got.Model != got.Title || got.HelpReason != got.Title ||
		*got.AssistedBy != (chat.Author{ID: got.Title, Name: got.Title}) ||
		got.ResponseTimes[0] != (chat.ResponseTime{FirstTokenMS: moment, TotalMS: moment}) ||
		got.Usage != (chat.Usage{InputTokens: int(moment), OutputTokens: int(moment)}) ||
		got.ProviderStates["provider"] != got.Title {
		t.Errorf("read from several moments: %+v, %+v", got, *got.AssistedBy)
	}
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
		locked := NewLockedSession(call.session)
		wantError(t, call.do(t.Context(), locked), call.want)
		if locked.Locked() {
			t.Fatalf("%s: the lock is still held (R10.4)", call.name)
		}
		if n := locked.Views(); n != 1 {
			t.Errorf("%s: the lock was taken %d times, want once", call.name, n)
		}
	}
}

func readsUnderLock(t *testing.T, store chat.Store) {
	must(t, store.CreateSession(t.Context(), NewLockedSession(filledSession("s1", 1))))
	want := filledSession("s1", 1)
	wantSession(t, store, want)

	original, update := filledSession("s1", 1), filledSession("s1", 2)
	update.Claim = original.Claim
	must(t, store.UpdateSession(t.Context(), NewLockedSession(update)))
	want = filledSession("s1", 2)
	want.UserID, want.CreatedAt, want.Metadata = original.UserID, original.CreatedAt, original.Metadata
	want.Claim = original.Claim
	wantSession(t, store, want)
}

// storesOneMoment has many goroutines change a session, in steps, under its lock, and store it.
func storesOneMoment(t *testing.T, store chat.Store) {
	locked := NewLockedSession(newSession("s1"))
	locked.Set(0)
	must(t, store.CreateSession(t.Context(), locked))
	together(func(i int) {
		for round := range 4 {
			locked.Set(int64(100*i + round))
			if err := store.UpdateSession(t.Context(), locked); err != nil {
				wantError(t, err, chat.ErrStale) // a later moment is stored already
			}
			locked.Set(int64(100*i + round + 50)) // after it was stored
			got, err := store.Session(t.Context(), "s1")
			if err != nil {
				t.Error(err)
				continue
			}
			WantOneMoment(t, got)
		}
	})
}
