package mongo

import (
	"fmt"
	"slices"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
)

// startWithOldSessions gives a database with more sessions of an older Parley than are summed in one go, and one of today.
// Every third has messages, of which the last has no place, and usage.
func startWithOldSessions(t *testing.T) (*mongotest.Server, *Store, Config) {
	t.Helper()
	server, s := start(t)
	for i := range maxGroup + 5 {
		id := fmt.Sprintf("s%03d", i)
		session := chat.Session{ID: id, Status: chat.SessionStatusActive, Messages: 99}
		if i%3 == 0 {
			session.Usage = chat.Usage{InputTokens: i, OutputTokens: 1}
		}
		must(t, s.CreateSession(t.Context(), &session))
		for n := range int64(i % 3 * 2) {
			m := numbered(n + 1)
			m.Seq = n
			must(t, s.InsertMessage(t.Context(), id, chat.Claim{}, m))
		}
	}
	_, err := s.sessions.UpdateMany(t.Context(), bson.D{},
		bson.D{{Key: "$unset", Value: bson.D{{Key: "messages", Value: ""}, {Key: "tokens", Value: ""}}}})
	must(t, err)
	must(t, s.CreateSession(t.Context(), &chat.Session{ID: "today", Status: chat.SessionStatusActive, Messages: 2}))
	return server, s, Config{URI: server.URI(), Database: s.sessions.Database().Name()}
}

// wantSummed fails unless all sessions that [startWithOldSessions] has made are in each list, at their place.
func wantSummed(t *testing.T, s *Store) {
	t.Helper()
	for _, by := range []chat.SessionSort{chat.SortByMessages, chat.SortByTokens} {
		order := chat.SessionOrder{By: by}
		var got []string
		for place := (chat.SessionPlace{}); ; {
			page, err := s.FindSessions(t.Context(), chat.SessionFilter{}, order, place, 20)
			must(t, err)
			if len(page) == 0 {
				break
			}
			for _, session := range page {
				got = append(got, session.ID)
				wantOldSession(t, session)
				place = order.Place(&session)
			}
		}
		slices.Sort(got)
		if got = slices.Compact(got); len(got) != maxGroup+6 {
			t.Errorf("by %s there are %d sessions, want %d", by, len(got), maxGroup+6)
		}
	}
}

func wantOldSession(t *testing.T, s chat.Session) {
	t.Helper()
	want := int64(2)
	var i int
	if n, err := fmt.Sscanf(s.ID, "s%d", &i); n == 1 && err == nil {
		want = max(int64(i%3*2-1), 0) // the first of them has no place
	}
	if s.Messages != want {
		t.Errorf("session %s has %d messages, want %d", s.ID, s.Messages, want)
	}
}

func TestOldSessionsAreSummedUp(t *testing.T) {
	server, _, config := startWithOldSessions(t)
	wantSummed(t, openStore(t, config))
	before := server.Commands()["update"]
	wantSummed(t, openStore(t, config))
	if after := server.Commands()["update"]; after != before {
		t.Errorf("%d more updates were made", after-before)
	}
}

func TestSummingUpOldSessionsGoesOnWhereItWasCutShort(t *testing.T) {
	server, _, config := startWithOldSessions(t)
	_, remove := server.Inject(mongotest.Fault{
		Command: "update", Collection: "sessions", Skip: 1, Times: -1, Action: mongotest.Fail(8000, "AtlasError", "no room left"),
	})
	if s, err := Open(t.Context(), config); err == nil {
		s.Close()
		t.Fatal("Open succeeded")
	}
	remove()
	wantSummed(t, openStore(t, config))
}

// An update that comes between the look at an old session and its sums is newer than these.
func TestSummingUpOldSessionsUndoesNoUpdate(t *testing.T) {
	server, s, config := startWithOldSessions(t)
	looked := make(chan struct{})
	_, release := server.Inject(mongotest.Fault{
		Command: "update", Collection: "sessions", OnHit: func() { close(looked) }, Action: mongotest.Hold,
	})
	opened := make(chan error, 1)
	go func() {
		other, err := Open(t.Context(), config)
		if err == nil {
			err = other.Close()
		}
		opened <- err
	}()
	<-looked
	updated := chat.Session{ID: "s000", Status: chat.SessionStatusActive, Messages: 7, Revision: 1}
	must(t, s.sessions.FindOneAndUpdate(t.Context(), byID("s000"), set(sessionToDocument(&updated).Replaced)).Err())
	release()
	must(t, <-opened)
	got, err := s.Session(t.Context(), "s000")
	must(t, err)
	if got.Messages != 7 {
		t.Errorf("the session has %d messages, want 7", got.Messages)
	}
}
