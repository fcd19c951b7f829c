package sqlite

import (
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/parley-chat/parley/chat"
)

// lockedSession is a session under the lock that guards it. It counts how often the lock was taken, and what was
// under it does not outlive the lock: the pointer that View lends shows another session afterwards.
type lockedSession struct {
	mu      sync.Mutex // guards the fields below
	session chat.Session
	views   int
}

func (l *lockedSession) View(f func(*chat.Session)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.views++
	lent := l.session
	author := *l.session.AssistedBy
	lent.AssistedBy = &author
	times := slices.Clone(l.session.ResponseTimes)
	lent.ResponseTimes = times
	states := maps.Clone(l.session.ProviderStates)
	lent.ProviderStates = states
	f(&lent)
	clear(times)
	clear(states)
	author = chat.Author{ID: "overwritten", Name: "overwritten"}
	lent = chat.Session{ID: "overwritten", AssistedBy: &author}
}

func (l *lockedSession) set(value int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session.Title = strconv.FormatInt(value, 10)
	l.session.Model = l.session.Title
	l.session.AssistedBy.ID = l.session.Title
	l.session.LogEnd = value
	l.session.ResponseTimes[0] = chat.ResponseTime{FirstTokenMS: value, TotalMS: value}
	l.session.Usage = chat.Usage{InputTokens: int(value), OutputTokens: int(value)}
	l.session.ProviderStates["p1"] = l.session.Title
}

func newLockedSession() *lockedSession {
	return &lockedSession{session: chat.Session{
		ID: "s1", Title: "title", Model: "model", Status: chat.SessionStatusActive, AssistedBy: &chat.Author{ID: "a1"},
		Claim: chat.Claim{Owner: "owner", Epoch: "epoch"}, LogEnd: 7,
		ResponseTimes:  []chat.ResponseTime{{FirstTokenMS: 1, TotalMS: 2}},
		Usage:          chat.Usage{InputTokens: 3, OutputTokens: 4, Estimated: true},
		ProviderStates: map[string]string{"p1": "state"},
	}}
}

func TestR10_1_SerializationTakesTheSessionLock(t *testing.T) {
	locked := newLockedSession()
	if _, err := sessionToDocument(locked); err != nil {
		t.Fatal(err)
	}
	if locked.views != 1 {
		t.Errorf("the lock was taken %d times, want once", locked.views)
	}
}

func TestR10_2_SerializationReadsAllUnderTheLock(t *testing.T) {
	d, err := sessionToDocument(newLockedSession())
	if err != nil {
		t.Fatal(err)
	}
	if d.id != "s1" || d.title != "title" || d.assistedBy.String != `{"id":"a1","name":""}` ||
		d.owner != "owner" || d.epoch != "epoch" || d.logEnd != 7 ||
		d.responseTimes.String != `[{"first_token_ms":1,"total_ms":2}]` ||
		d.usage.String != `{"input_tokens":3,"output_tokens":4,"estimated":true}` ||
		d.providerStates.String != `{"p1":"state"}` {
		t.Errorf("read after the lock was released: %+v", d)
	}
}

func TestR10_3_SessionToDocumentTakesLiveAndPlainSessions(t *testing.T) {
	locked := newLockedSession()
	live, err := sessionToDocument(locked) // takes the lock
	if err != nil {
		t.Fatal(err)
	}
	plain, err := sessionToDocument(&locked.session) // nobody else has it
	if err != nil {
		t.Fatal(err)
	}
	if live != plain {
		t.Errorf("got %+v from the live session, %+v from the plain one", live, plain)
	}
}

func TestR10_4_SessionLockIsFreeWhileTheStoreWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "parley.db")
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, path)
		release := holdWriter(t, s)
		locked := newLockedSession()
		created := make(chan error, 1)
		go func() { created <- s.CreateSession(t.Context(), locked) }()
		synctest.Wait() // for the session to be serialised, and to wait for the writer
		if !locked.mu.TryLock() {
			t.Error("the session is locked while it is being stored")
		}
		release()
		if err := <-created; err != nil {
			t.Error(err)
		}
	})
}

func TestR10_5_ConcurrentSerializationsSeeWholeSessions(t *testing.T) {
	locked := newLockedSession()
	locked.set(0)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			locked.set(int64(i))
			d, err := sessionToDocument(locked)
			if err != nil {
				t.Error(err)
			}
			if d.model != d.title || strconv.FormatInt(d.logEnd, 10) != d.title ||
				d.assistedBy.String != `{"id":"`+d.title+`","name":""}` ||
				d.responseTimes.String != `[{"first_token_ms":`+d.title+`,"total_ms":`+d.title+`}]` ||
				d.usage.String != `{"input_tokens":`+d.title+`,"output_tokens":`+d.title+`}` ||
				d.providerStates.String != `{"p1":"`+d.title+`"}` {
				t.Errorf("read from several moments: %+v", d)
			}
		})
	}
	wg.Wait()
}
