package sqlite

import (
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/storetest"
)

// fullSession returns a session with something in each field that is more than a column's value.
func fullSession() chat.Session {
	return chat.Session{
		ID: "s1", Title: "title", Model: "model", Status: chat.SessionStatusActive, AssistedBy: &chat.Author{ID: "a1"},
		Claim: chat.Claim{Owner: "owner", Epoch: "epoch"}, LogEnd: 7,
		ResponseTimes:  []chat.ResponseTime{{FirstTokenMS: 1, TotalMS: 2}},
		Usage:          chat.Usage{InputTokens: 3, OutputTokens: 4, Estimated: true},
		ProviderStates: map[string]string{"p1": "state"},
	}
}

func TestR10_1_SerializationTakesTheSessionLock(t *testing.T) {
	locked := storetest.NewLockedSession(fullSession())
	if _, err := sessionToDocument(locked); err != nil {
		t.Fatal(err)
	}
	if n := locked.Views(); n != 1 {
		t.Errorf("the lock was taken %d times, want once", n)
	}
}

func TestR10_2_SerializationReadsAllUnderTheLock(t *testing.T) {
	d, err := sessionToDocument(storetest.NewLockedSession(fullSession()))
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
	session := fullSession()
	live, err := sessionToDocument(storetest.NewLockedSession(session)) // takes the lock
	if err != nil {
		t.Fatal(err)
	}
	plain, err := sessionToDocument(&session) // nobody else has it
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
		locked := storetest.NewLockedSession(fullSession())
		created := make(chan error, 1)
		go func() { created <- s.CreateSession(t.Context(), locked) }()
		synctest.Wait() // for the session to be serialised, and to wait for the writer
		if locked.Locked() {
			t.Error("the session is locked while it is being stored")
		}
		release()
		if err := <-created; err != nil {
			t.Error(err)
		}
	})
}

func TestR10_5_ConcurrentSerializationsSeeWholeSessions(t *testing.T) {
	locked := storetest.NewLockedSession(fullSession())
	locked.Set(0)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			locked.Set(int64(i))
			d, err := sessionToDocument(locked)
			if err != nil {
				t.Error(err)
			}
			if d.model != d.title || d.assistedBy.String != `{"id":"`+d.title+`","name":"`+d.title+`"}` ||
				d.responseTimes.String != `[{"first_token_ms":`+d.title+`,"total_ms":`+d.title+`}]` ||
				d.usage.String != `{"input_tokens":`+d.title+`,"output_tokens":`+d.title+`}` ||
				d.providerStates.String != `{"provider":"`+d.title+`"}` {
				t.Errorf("read from several moments: %+v", d)
			}
		})
	}
	wg.Wait()
}
