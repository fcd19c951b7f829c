package mongo

import (
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
	"github.com/parley-chat/parley/internal/store/storetest"
)

// fullSession returns a session with something in each field that is more than one value.
func fullSession() chat.Session {
	return chat.Session{
		ID: "s1", Title: "title", Model: "model", Status: chat.SessionStatusActive, AssistedBy: &chat.Author{ID: "a1"},
		CreatedAt: time.UnixMilli(1).UTC(), LastActiveAt: time.UnixMilli(2).UTC(),
		Claim: chat.Claim{Owner: "owner", Epoch: "epoch"}, LogEnd: 7,
		ResponseTimes:  []chat.ResponseTime{{FirstTokenMS: 1, TotalMS: 2}},
		Usage:          chat.Usage{InputTokens: 3, OutputTokens: 4, Estimated: true},
		ProviderStates: map[string]string{"p1": "state"},
	}
}

func TestR10_1_SerializationTakesTheSessionLock(t *testing.T) {
	locked := storetest.NewLockedSession(fullSession())
	sessionToDocument(locked)
	if n := locked.Views(); n != 1 {
		t.Errorf("the lock was taken %d times, want once", n)
	}
}

func TestR10_2_SerializationReadsAllUnderTheLock(t *testing.T) {
	d := sessionToDocument(storetest.NewLockedSession(fullSession()))
	if got := d.session(); !reflect.DeepEqual(got, fullSession()) {
		t.Errorf("read after the lock was released: %+v", got)
	}
}

func TestR10_3_SessionToDocumentTakesLiveAndPlainSessions(t *testing.T) {
	session := fullSession()
	live := sessionToDocument(storetest.NewLockedSession(session)) // takes the lock
	plain := sessionToDocument(&session)                           // nobody else has it
	if !reflect.DeepEqual(live, plain) {
		t.Errorf("got %+v from the live session, %+v from the plain one", live, plain)
	}
}

func TestR10_4_SessionLockIsFreeWhileTheStoreWrites(t *testing.T) {
	server, s := start(t)
	for command, do := range map[string]func(chat.SessionView) error{
		"insert": func(session chat.SessionView) error { return s.CreateSession(t.Context(), session) },
		"update": func(session chat.SessionView) error { return s.UpdateSession(t.Context(), session) },
	} {
		createSessions(t, s, former, command)
		session := fullSession()
		session.ID = command
		locked := storetest.NewLockedSession(session)
		held := make(chan struct{})
		_, release := server.Inject(mongotest.Fault{
			Command: command, Collection: "sessions", OnHit: func() { close(held) }, Action: mongotest.Hold,
		})
		done := make(chan error, 1)
		go func() { done <- do(locked) }()
		<-held
		if locked.Locked() {
			t.Errorf("%s: the session is locked while it is being stored", command)
		}
		release()
		<-done // whatever has come of it
	}
}

func TestR10_5_ConcurrentSerializationsSeeWholeSessions(t *testing.T) {
	locked := storetest.NewLockedSession(fullSession())
	locked.Set(0)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			locked.Set(int64(i))
			d := sessionToDocument(locked)
			storetest.WantOneMoment(t, d.session())
		})
	}
	wg.Wait()
}

// What a newer version means is not known here, so nothing of it is guessed.
func TestNewerRecordsAreRefused(t *testing.T) {
	_, s := start(t)
	ctx := t.Context()
	createSessions(t, s, former, "s1")
	must(t, s.InsertMessage(ctx, "s1", former, numbered(1)))
	must(t, s.AddUsage(ctx, chat.UsageRecord{SessionID: "s1", MessageID: "m1", At: time.UnixMilli(0)}))
	must(t, s.AddRevocation(ctx, chat.Revocation{UserID: "u", At: time.UnixMilli(0)}))
	must(t, s.PutAudit(ctx, chat.AuditRecord{ID: "a", At: time.UnixMilli(0)}))
	for _, c := range []*mongo.Collection{s.sessions, s.messages, s.usage, s.revocations, s.audit} {
		_, err := c.UpdateMany(ctx, bson.D{}, set(bson.D{{Key: "v", Value: schemaVersion + 1}}))
		must(t, err)
	}
	for name, read := range map[string]func() error{
		"Session":       func() error { _, err := s.Session(ctx, "s1"); return err },
		"ClaimSession":  func() error { _, err := s.ClaimSession(ctx, "s1", former, owner); return err },
		"SessionsAfter": func() error { _, err := s.SessionsAfter(ctx, "", 9); return err },
		"Message":       func() error { _, err := s.Message(ctx, "s1", "m1"); return err },
		"Messages":      func() error { _, err := s.Messages(ctx, "s1", 0, 9); return err },
		"FindSessions": func() error {
			_, err := s.FindSessions(ctx, chat.SessionFilter{}, chat.SessionOrder{}, chat.SessionPlace{}, 9)
			return err
		},
		"MessagesFrom": func() error { _, err := s.MessagesFrom(ctx, "s1", 0, 9); return err },
		"Revocations":  func() error { _, err := s.Revocations(ctx); return err },
		"Audit":        func() error { _, err := s.Audit(ctx, chat.AuditFilter{}, chat.AuditPlace{}, 9); return err },
		"UsageAfter":   func() error { _, err := s.UsageAfter(ctx, chat.UsageFilter{}, "", "", 9); return err },
	} {
		if err := read(); err == nil || !strings.Contains(err.Error(), "start the Parley that wrote it") {
			t.Errorf("%s: got error %v, want one that says what to do", name, err)
		}
	}
}
