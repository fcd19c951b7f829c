package mongo

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
)

// hold has do send a command that arrives, and is not executed before meanwhile has returned. It gives do's error.
func hold(t *testing.T, server *mongotest.Server, command, collection string, do func() error, meanwhile func()) error {
	t.Helper()
	held := make(chan struct{})
	_, release := server.Inject(mongotest.Fault{
		Command: command, Collection: collection, OnHit: func() { close(held) }, Action: mongotest.Hold,
	})
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case <-held:
	case err := <-done:
		t.Fatalf("no %s came: error %v", command, err)
	}
	meanwhile()
	release()
	return <-done
}

func wantError(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got error %v, want %v", got, want)
	}
}

func wantTexts(t *testing.T, s *Store, sessionID string, want ...string) {
	t.Helper()
	if got := storedTexts(t, s, sessionID); !slices.Equal(got, want) {
		t.Errorf("session %s has the texts %q, want %q", sessionID, got, want)
	}
}

// Each write of a former owner arrives at the server before a claim, and is executed afterwards.
func TestWritesOnTheirWayAreLostToAClaim(t *testing.T) {
	server, s := start(t)
	ctx := t.Context()
	claim := func() {
		t.Helper()
		_, err := s.ClaimSession(ctx, "s1", former, owner)
		must(t, err)
	}
	begin := func(t *testing.T) {
		must(t, s.DeleteSession(ctx, "s1", time.Time{}))
		createSessions(t, s, former, "s1")
		must(t, s.InsertMessage(ctx, "s1", former, numbered(1)))
	}
	late := numbered(1)
	late.Text, late.Status = "the former owner's", chat.StatusComplete

	t.Run("UpdateMessage", func(t *testing.T) {
		begin(t)
		wantError(t, hold(t, server, "update", "messages", func() error {
			return s.UpdateMessage(ctx, "s1", former, late)
		}, claim), chat.ErrStale)
		wantTexts(t, s, "s1", "text 1")
	})
	t.Run("UpdateSession with places", func(t *testing.T) {
		begin(t)
		session := chat.Session{ID: "s1", Status: chat.SessionStatusActive, Title: "late", Claim: former, Revision: 1}
		wantError(t, hold(t, server, "update", "messages", func() error {
			return s.UpdateSession(ctx, &session, chat.Place{MessageID: "m1", Seq: 1})
		}, claim), chat.ErrStale)
		m, err := s.Message(ctx, "s1", "m1")
		must(t, err)
		stored, err := s.Session(ctx, "s1")
		must(t, err)
		if m.Seq != 0 || stored.Title != "" {
			t.Errorf("the message has the place %d, the session the title %q", m.Seq, stored.Title)
		}
	})
	t.Run("InsertMessage", func(t *testing.T) {
		begin(t)
		wantError(t, hold(t, server, "insert", "messages", func() error {
			return s.InsertMessage(ctx, "s1", former, numbered(2))
		}, claim), chat.ErrStale)
		// It is there, and it is the new owner's.
		late := numbered(2)
		late.Text = "the former owner's"
		wantError(t, s.UpdateMessage(ctx, "s1", former, late), chat.ErrStale)
		late.Text = "the owner's"
		must(t, s.UpdateMessage(ctx, "s1", owner, late))
		wantTexts(t, s, "s1", "text 1", "the owner's")
	})
	t.Run("InsertMessage into a session that is deleted", func(t *testing.T) {
		begin(t)
		wantError(t, hold(t, server, "insert", "messages", func() error {
			return s.InsertMessage(ctx, "s1", former, numbered(2))
		}, func() { must(t, s.DeleteSession(ctx, "s1", time.Time{})) }), chat.ErrNotFound)
		wantTexts(t, s, "s1")
	})
	t.Run("InsertMessage into a session of which another has taken the ID", func(t *testing.T) {
		begin(t)
		wantError(t, hold(t, server, "insert", "messages", func() error {
			return s.InsertMessage(ctx, "s1", former, numbered(2))
		}, func() {
			must(t, s.DeleteSession(ctx, "s1", time.Time{}))
			must(t, s.CreateSession(ctx, &chat.Session{ID: "s1", Claim: former, CreatedAt: time.UnixMilli(1)}))
		}), chat.ErrNotFound)
		wantTexts(t, s, "s1")
	})
	t.Run("InsertMessage into a session that is being deleted", func(t *testing.T) {
		begin(t)
		deleting := make(chan error, 1)
		gone := make(chan struct{}) // its messages, but not yet the session
		_, release := server.Inject(mongotest.Fault{
			Command: "delete", Collection: "sessions", OnHit: func() { close(gone) }, Action: mongotest.Hold,
		})
		wantError(t, hold(t, server, "insert", "messages", func() error {
			return s.InsertMessage(ctx, "s1", former, numbered(2))
		}, func() {
			go func() { deleting <- s.DeleteSession(ctx, "s1", time.Time{}) }()
			<-gone
		}), chat.ErrNotFound)
		release()
		must(t, <-deleting)
		wantTexts(t, s, "s1")
	})
}

// An insertion of which the answer is lost may be into a session that is deleted meanwhile: its repetition removes it.
func TestRepeatedInsertionIntoDeletedSessionRemovesTheFirst(t *testing.T) {
	server, s := start(t)
	ctx := t.Context()
	createSessions(t, s, former, "s1")
	secondLook := mongotest.Fault{
		Command: "find", Collection: "sessions", Skip: 1, Action: mongotest.Fail(50, "MaxTimeMSExpired", "it takes too long"),
	}
	if err := hold(t, server, "insert", "messages", func() error {
		server.Inject(secondLook)
		return s.InsertMessage(ctx, "s1", former, numbered(1))
	}, func() { must(t, s.DeleteSession(ctx, "s1", time.Time{})) }); !Transient(err) {
		t.Fatalf("got error %v, want a transient one", err)
	}
	wantTexts(t, s, "s1", "text 1") // left behind
	wantError(t, s.InsertMessage(ctx, "s1", former, numbered(1)), chat.ErrNotFound)
	wantTexts(t, s, "s1")
}

// A former owner goes on as if nothing had happened, while another takes over.
func TestNothingOfAFormerOwnerCountsAfterAClaim(t *testing.T) {
	_, s := start(t)
	ctx := t.Context()
	createSessions(t, s, former, "s1")
	for n := range int64(4) {
		must(t, s.InsertMessage(ctx, "s1", former, numbered(n+1)))
	}
	var claimed atomic.Bool
	var wg sync.WaitGroup
	for worker := range int64(4) {
		wg.Go(func() {
			for round := range int64(12) {
				late := claimed.Load() // so that the write begins after the claim
				m := numbered(worker + 1)
				m.Text = fmt.Sprint("the former owner's ", round)
				session := chat.Session{ID: "s1", Claim: former, Revision: 1 + 4*round + worker}
				for _, err := range []error{
					s.UpdateMessage(ctx, "s1", former, m),
					s.InsertMessage(ctx, "s1", former, numbered(100+100*worker+round)),
					s.UpdateSession(ctx, &session, chat.Place{MessageID: m.ID, Seq: 1 + worker}),
				} {
					if err == nil && late {
						t.Error("a write after the claim succeeded")
					} else if err != nil && !errors.Is(err, chat.ErrStale) {
						t.Error(err)
					}
				}
			}
		})
	}
	if _, err := s.ClaimSession(ctx, "s1", former, owner); err != nil {
		t.Error(err)
	}
	claimed.Store(true)
	read := func() (messages []chat.Message) {
		for n := range int64(4) {
			m, err := s.Message(ctx, "s1", numbered(n+1).ID)
			must(t, err)
			messages = append(messages, m)
		}
		return messages
	}
	before := read()
	wg.Wait()
	for i, after := range read() {
		if after != before[i] {
			t.Errorf("after the claim message %s became %+v, and was %+v", after.ID, after, before[i])
		}
	}
}

// A group has writes that succeed and fail for all reasons; each has its own result.
func TestEachInsertionOfAGroupHasItsOwnResult(t *testing.T) {
	_, s := start(t)
	ctx := t.Context()
	createSessions(t, s, former, "s1", "s2")
	must(t, s.InsertMessage(ctx, "s1", former, numbered(1)))
	var group []insertion
	add := func(sessionID string, by chat.Claim, m chat.Message) {
		d := messageToDocument(sessionID, by, &m)
		document, err := encode(d)
		must(t, err)
		group = append(group, insertion{d.ID, sessionID, m.ID, d.Claim, document})
	}
	sameN := numbered(1)
	sameN.ID = "another"
	add("s1", former, numbered(2))
	add("s1", former, sameN)
	add("s1", former, numbered(1))
	add("s1", owner, numbered(3))
	add("unknown", former, numbered(4))
	add("s2", former, numbered(1))
	want := []error{nil, chat.ErrExists, chat.ErrExists, chat.ErrStale, chat.ErrNotFound, nil}
	for range 2 { // a repetition of the same command is not taken for another message
		results := make([]error, len(group))
		must(t, s.insertMessages(ctx, group, results))
		for i, err := range results {
			wantError(t, explain(err), want[i])
		}
	}
	wantTexts(t, s, "s1", "text 1", "text 2")
	wantTexts(t, s, "s2", "text 1")
	wantTexts(t, s, "unknown")
}

func TestEachUpdateOfAGroupHasItsOwnResult(t *testing.T) {
	_, s := start(t)
	ctx := t.Context()
	createSessions(t, s, former, "s1")
	for n := range int64(5) {
		must(t, s.InsertMessage(ctx, "s1", former, numbered(n+1)))
	}
	final := numbered(2)
	final.Status = chat.StatusComplete
	must(t, s.UpdateMessage(ctx, "s1", former, final))

	var group []update
	add := func(by chat.Claim, n int64, text string, status chat.Status) {
		m := numbered(n)
		m.Text, m.Status = text, status
		w := update{sessionID: "s1", messageID: m.ID, by: claimDocument(by), write: bson.NewObjectID()}
		var err error
		w.set, err = encode(set(changesOf(&m, w.write)))
		must(t, err)
		group = append(group, w)
	}
	add(former, 1, "one", chat.StatusStreaming)
	add(former, 2, "two", chat.StatusComplete)  // has ended
	add(owner, 3, "three", chat.StatusComplete) // another's
	add(former, 4, "four", chat.StatusComplete)
	add(former, 5, "five, in part", chat.StatusStreaming)
	add(former, 5, "five, in part", chat.StatusStreaming) // either may be the later
	add(former, 6, "six", chat.StatusStreaming)           // unknown
	results := make([]error, len(group))
	must(t, s.updateMessages(ctx, group, results))
	for i, want := range []error{nil, chat.ErrStale, chat.ErrStale, nil, nil, nil, chat.ErrStale} {
		wantError(t, results[i], want)
	}
	wantTexts(t, s, "s1", "one", "text 2", "text 3", "four", "five, in part")
}

func TestDocumentsAreBoundedBeforeTheyReachTheServer(t *testing.T) {
	server, s := start(t)
	ctx := t.Context()
	createSessions(t, s, former, "s1")
	must(t, s.InsertMessage(ctx, "s1", former, numbered(1)))
	large := numbered(1)
	large.Text = string(make([]byte, maxDocument))
	before := server.Commands()
	for name, err := range map[string]error{
		"InsertMessage": s.InsertMessage(ctx, "s1", former, large),
		"UpdateMessage": s.UpdateMessage(ctx, "s1", former, large),
	} {
		if err == nil || Transient(err) {
			t.Errorf("%s: got error %v, want one that is not transient", name, err)
		}
	}
	if after := server.Commands(); after["insert"] != before["insert"] || after["update"] != before["update"] {
		t.Errorf("the server got %v, and had %v", after, before)
	}
}

func TestLeasesOfOwnersLongDeadGo(t *testing.T) {
	_, s := start(t)
	ctx := t.Context()
	for _, owner := range []string{"dead", "silent", "alive"} {
		_, err := s.RenewLease(ctx, owner)
		must(t, err)
	}
	for owner, ago := range map[string]time.Duration{"dead": leaseKept + time.Minute, "silent": leaseKept - time.Minute} {
		_, err := s.owners.UpdateOne(ctx, byID(owner), set(bson.D{
			{Key: "renewed_at", Value: bson.NewDateTimeFromTime(time.Now().Add(-ago))},
		}))
		must(t, err)
	}
	others, err := s.RenewLease(ctx, "alive")
	must(t, err)
	if _, silent := others["silent"]; len(others) != 1 || !silent {
		t.Errorf("there are the leases %v, want that of silent", others)
	}
	if _, err := findOne[lease](ctx, s.owners, byID("dead")); !errors.Is(err, mongo.ErrNoDocuments) {
		t.Errorf("got error %v, want %v", err, mongo.ErrNoDocuments)
	}
}
