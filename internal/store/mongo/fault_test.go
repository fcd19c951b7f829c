package mongo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
)

// write is one kind of write to the server, as an operation of the store does it.
type write struct {
	name                string
	command, collection string
	do                  func(context.Context, *Store) error
	again               error // what it gives when it was done already
}

// Each on a store that prepareWrites has filled.
var writes = []write{
	{"CreateSession", "insert", "sessions", func(ctx context.Context, s *Store) error {
		return s.CreateSession(ctx, &chat.Session{ID: "s2", Claim: former})
	}, chat.ErrExists},
	{"ClaimSession", "findAndModify", "sessions", func(ctx context.Context, s *Store) error {
		_, err := s.ClaimSession(ctx, "s1", former, owner)
		return err
	}, nil},
	{"ClaimSession: the messages", "update", "messages", func(ctx context.Context, s *Store) error {
		_, err := s.ClaimSession(ctx, "s1", former, owner)
		return err
	}, nil},
	{"UpdateSession", "update", "sessions", func(ctx context.Context, s *Store) error {
		session := chat.Session{ID: "s1", Status: chat.SessionStatusActive, Title: "title", Claim: former, Revision: 1}
		return s.UpdateSession(ctx, &session, chat.Place{MessageID: "m1", Seq: 1})
	}, chat.ErrStale},
	{"UpdateSession: the places", "update", "messages", func(ctx context.Context, s *Store) error {
		session := chat.Session{ID: "s1", Status: chat.SessionStatusActive, Title: "title", Claim: former, Revision: 1}
		return s.UpdateSession(ctx, &session, chat.Place{MessageID: "m1", Seq: 1})
	}, nil},
	{"InsertMessage", "insert", "messages", func(ctx context.Context, s *Store) error {
		return s.InsertMessage(ctx, "s1", former, numbered(2))
	}, chat.ErrExists},
	{"UpdateMessage", "update", "messages", func(ctx context.Context, s *Store) error {
		m := numbered(1)
		m.Text = "text"
		return s.UpdateMessage(ctx, "s1", former, m)
	}, nil},
	{"UpdateMessage: the end", "update", "messages", func(ctx context.Context, s *Store) error {
		m := numbered(1)
		m.Text, m.Status = "text", chat.StatusComplete
		return s.UpdateMessage(ctx, "s1", former, m)
	}, chat.ErrStale},
	{"AddUsage", "insert", "usage", func(ctx context.Context, s *Store) error {
		return s.AddUsage(ctx, chat.UsageRecord{SessionID: "s1", MessageID: "m2", UserID: "user", CostMicros: 5})
	}, nil},
	{"DeleteSession: the fence", "update", "sessions", deleteS1, nil},
	{"DeleteSession: the messages", "delete", "messages", deleteS1, nil},
	{"DeleteSession", "delete", "sessions", deleteS1, nil},
	{"DeleteUsage", "delete", "usage", func(ctx context.Context, s *Store) error {
		return s.DeleteUsage(ctx, chat.UsageFilter{})
	}, nil},
	{"ResealSession", "update", "sessions", func(ctx context.Context, s *Store) error {
		return s.ResealSession(ctx, chat.Session{ID: "s1"}, chat.Session{Title: "sealed", Sealed: true})
	}, chat.ErrStale},
	{"ResealMessage", "update", "messages", func(ctx context.Context, s *Store) error {
		return s.ResealMessage(ctx, "s1", numbered(1), chat.Message{Text: "sealed", Sealed: true})
	}, chat.ErrStale},
	{"RenewLease", "findAndModify", "owners", func(ctx context.Context, s *Store) error {
		_, err := s.RenewLease(ctx, "owner")
		return err
	}, nil},
	{"EndLease", "delete", "owners", func(ctx context.Context, s *Store) error {
		return s.EndLease(ctx, "former")
	}, nil},
	{"SetSealCheck", "update", "store", func(ctx context.Context, s *Store) error {
		return s.SetSealCheck(ctx, "sealed")
	}, nil},
}

func deleteS1(ctx context.Context, s *Store) error {
	return s.DeleteSession(ctx, "s1", time.UnixMilli(1))
}

func prepareWrites(t *testing.T, s *Store) {
	t.Helper()
	createSessions(t, s, former, "s1")
	must(t, s.InsertMessage(t.Context(), "s1", former, numbered(1)))
	must(t, s.AddUsage(t.Context(), chat.UsageRecord{SessionID: "s1", MessageID: "m1", UserID: "user"}))
	_, err := s.RenewLease(t.Context(), "former")
	must(t, err)
}

// contents shows all that a store holds, but for beats: a lease may be renewed twice.
func contents(t *testing.T, s *Store) string {
	t.Helper()
	ctx := t.Context()
	sessions, err := s.SessionsAfter(ctx, "", 10)
	must(t, err)
	messages, err := s.Messages(ctx, "s1", 0, 10)
	must(t, err)
	usage, err := s.UsageAfter(ctx, chat.UsageFilter{}, "", "", 10)
	must(t, err)
	leases, err := find[lease](ctx, s.owners, byID("former"))
	must(t, err)
	check, err := s.SealCheck(ctx)
	must(t, err)
	return fmt.Sprintf("%+v\n%+v\n%+v\n%d leases, %q", sessions, messages, usage, len(leases), check)
}

// The answer to a write is lost. The error says that it may be done again, and then the store holds what it holds after
// one that was not disturbed.
func TestWritesOfWhichTheAnswerIsLostCanBeRepeated(t *testing.T) {
	for _, w := range writes {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			server, s := start(t)
			want := func() string {
				undisturbed := openStore(t, Config{URI: server.URI(), Database: server.Database()})
				prepareWrites(t, undisturbed)
				must(t, w.do(t.Context(), undisturbed))
				return contents(t, undisturbed)
			}()
			prepareWrites(t, s)
			lose(t, server, w, mongotest.DropAfter, func() {
				if err := w.do(t.Context(), s); err != nil && !Transient(err) { // a replica set's write is repeated by the driver
					t.Errorf("got error %v, want a transient one", err)
				}
			})
			wantError(t, w.do(t.Context(), s), w.again)
			if got := contents(t, s); got != want {
				t.Errorf("the store holds\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// A write is lost before it is executed: done again, it is as if it had not been.
func TestWritesThatAreLostCanBeRepeated(t *testing.T) {
	for _, w := range writes {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			server, s := start(t)
			prepareWrites(t, s)
			lost := true
			lose(t, server, w, mongotest.DropBefore, func() {
				if err := w.do(t.Context(), s); err == nil {
					lost = false // a replica set's write is repeated by the driver
				} else if !Transient(err) {
					t.Errorf("got error %v, want a transient one", err)
				}
			})
			if lost {
				must(t, w.do(t.Context(), s))
			}
		})
	}
}

// lose makes the action happen to a write's command once, while f runs.
func lose(t *testing.T, server *mongotest.Server, w write, action mongotest.Action, f func()) {
	t.Helper()
	hits, remove := server.Inject(mongotest.Fault{Command: w.command, Collection: w.collection, Action: action})
	f()
	if hits() != 1 {
		t.Errorf("%s: %d commands were lost, want one", w.name, hits())
	}
	remove()
}

// What the server says when it goes, or is not the primary any more, is transient; what it refuses is not.
func TestWhatTheServerSaysIsTransientOrNot(t *testing.T) {
	for _, w := range writes {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			server, s := start(t)
			prepareWrites(t, s)
			for _, test := range []struct {
				code int
				name string
				want bool
			}{
				{13, "Unauthorized", false},
				{2, "BadValue", false},
				{50, "MaxTimeMSExpired", true},
				{91, "ShutdownInProgress", true},
				{10107, "NotWritablePrimary", true},
			} {
				_, remove := server.Inject(mongotest.Fault{
					Command: w.command, Collection: w.collection, Times: -1,
					Action: mongotest.Fail(test.code, test.name, "as the test wants it"),
				})
				if err := w.do(t.Context(), s); err == nil || Transient(err) != test.want {
					t.Errorf("%s: got error %v, transient %v, want %v", test.name, err, !test.want, test.want)
				}
				remove()
			}
		})
	}
}

func TestInsertionsShareCommands(t *testing.T) {
	server, s := start(t)
	const n = 200
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprint("s", i))
	}
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() { createSessions(t, s, former, id) })
	}
	wg.Wait()
	before := server.Commands()
	for _, id := range ids {
		wg.Go(func() {
			if err := s.InsertMessage(t.Context(), id, former, numbered(1)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		wg.Go(func() {
			m := numbered(1)
			m.Text, m.Status = "text of "+id, chat.StatusComplete
			if err := s.UpdateMessage(t.Context(), id, former, m); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		wg.Go(func() {
			if err := s.AddUsage(t.Context(), chat.UsageRecord{SessionID: id, MessageID: "m1"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	after := server.Commands()
	inserts, updates := after["insert"]-before["insert"], after["update"]-before["update"]
	finds := after["find"] - before["find"]
	t.Logf("%d messages and records: %d insert, %d update and %d find commands", n, inserts, updates, finds)
	if inserts > n/4 || updates > n/8 || finds > n/4 {
		t.Errorf("got %d insert, %d update and %d find commands for %d messages and records", inserts, updates, finds, n)
	}
	counts, err := s.Count(t.Context())
	must(t, err)
	if counts != (chat.Counts{Sessions: n, Messages: n, Usage: n}) {
		t.Errorf("got %+v", counts)
	}
	wantTexts(t, s, "s7", "text of s7")
}

// An outage is an error at once, or soon, and over when it is over.
func TestOutageIsTransientAndPasses(t *testing.T) {
	server := mongotest.Start(t)
	s := openStore(t, Config{URI: server.URI() + "&serverSelectionTimeoutMS=200", Database: server.Database()})
	prepareWrites(t, s)
	server.Refuse(true)
	for name, do := range operations(s) {
		if err := do(t.Context()); !Transient(err) {
			t.Errorf("%s: got error %v, want a transient one", name, err)
		}
	}
	server.Refuse(false)
	must(t, recovered(t, s))
}

// A caller does not wait for a server that hangs longer than it wants to, and the store is well when the server is.
func TestFrozenServerHoldsNobodyLongerThanItWants(t *testing.T) {
	server, s := start(t)
	prepareWrites(t, s)
	server.Freeze()
	for name, do := range operations(s) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := do(ctx); !errors.Is(err, context.DeadlineExceeded) || !Transient(err) {
			t.Errorf("%s: got error %v, want %v", name, err, context.DeadlineExceeded)
		}
		cancel()
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		if err := do(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got error %v, want %v", name, err, context.Canceled)
		}
	}
	server.Thaw()
	must(t, recovered(t, s))
}

// operations are some of each kind.
func operations(s *Store) map[string]func(context.Context) error {
	all := map[string]func(context.Context) error{
		"Session":  func(ctx context.Context) error { _, err := s.Session(ctx, "s1"); return err },
		"Messages": func(ctx context.Context) error { _, err := s.Messages(ctx, "s1", 0, 10); return err },
		"SumUsage": func(ctx context.Context) error { _, err := s.SumUsage(ctx, chat.UsageFilter{}); return err },
		"Count":    func(ctx context.Context) error { _, err := s.Count(ctx); return err },
		"Ping":     s.Ping,
	}
	for _, w := range writes {
		all[w.name] = func(ctx context.Context) error { return w.do(ctx, s) }
	}
	return all
}

// recovered does something until it succeeds, or fails for another reason than the outage that was.
func recovered(t *testing.T, s *Store) error {
	for {
		record := chat.UsageRecord{SessionID: "s1", MessageID: "after the outage"}
		if err := s.AddUsage(t.Context(), record); err == nil || !Transient(err) {
			return err
		}
	}
}

// A write that was taken is done, though nobody waits for it any more.
func TestCloseAfterWritesThatWereGivenUp(t *testing.T) {
	server := mongotest.Start(t)
	config := Config{URI: server.URI(), Database: server.Database()}
	s, err := Open(t.Context(), config)
	must(t, err)
	createSessions(t, s, former, "s1")
	ctx, cancel := context.WithCancel(t.Context())
	err = hold(t, server, "insert", "messages", func() error {
		return s.InsertMessage(ctx, "s1", former, numbered(1))
	}, cancel)
	wantError(t, err, context.Canceled)
	must(t, s.Close()) // it waits for the insertion, which was taken
	if got := storedTexts(t, openStore(t, config), "s1"); !slices.Equal(got, []string{"text 1"}) {
		t.Errorf("got the texts %q", got)
	}
}
