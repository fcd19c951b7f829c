package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/parley-chat/parley/chat"
)

// holdWriter keeps the write loop busy until release is called, so that writes gather.
func holdWriter(t *testing.T, s *Store) (release func()) {
	t.Helper()
	held, free, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- s.submit(context.Background(), func(*sql.Tx) error {
			close(held)
			<-free
			return nil
		})
	}()
	<-held
	return func() {
		t.Helper()
		close(free)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// openWithSession opens a store that has the session s1.
func openWithSession(tb testing.TB) *Store {
	tb.Helper()
	s := openStore(tb, filepath.Join(tb.TempDir(), "parley.db"))
	if err := s.CreateSession(tb.Context(), &chat.Session{ID: "s1", Status: chat.SessionStatusActive}); err != nil {
		tb.Fatal(err)
	}
	return s
}

func numbered(n int64) chat.Message {
	return chat.Message{N: n, ID: fmt.Sprint("m", n), Status: chat.StatusComplete, Text: "text"}
}

// storedNumbers gives the N of every message of s1.
func storedNumbers(t *testing.T, s *Store) string {
	t.Helper()
	messages, err := s.Messages(context.Background(), "s1", 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var numbers []string
	for _, m := range messages {
		numbers = append(numbers, fmt.Sprint(m.N))
	}
	return strings.Join(numbers, " ")
}

func TestWaitingWritesShareATransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openWithSession(t)
		release := holdWriter(t, s)
		var wg sync.WaitGroup
		transactions := make([]*sql.Tx, 100)
		for i := range transactions {
			wg.Go(func() {
				if err := s.submit(t.Context(), func(tx *sql.Tx) error {
					transactions[i] = tx
					return nil
				}); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		release()
		wg.Wait()
		for i, tx := range transactions {
			if tx == nil || tx != transactions[0] {
				t.Fatalf("write %d had transaction %p, write 0 had %p", i, tx, transactions[0])
			}
		}
	})
}

func TestOneFailureInAGroupHarmsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openWithSession(t)
		if err := s.InsertMessage(t.Context(), "s1", chat.Claim{}, numbered(3)); err != nil {
			t.Fatal(err)
		}
		broken := errors.New("broken")
		writes := []struct {
			do   func() error
			want error
		}{
			{func() error { return s.InsertMessage(t.Context(), "s1", chat.Claim{}, numbered(1)) }, nil},
			{func() error { return s.InsertMessage(t.Context(), "s1", chat.Claim{}, numbered(3)) }, chat.ErrExists},
			{func() error { return s.UpdateMessage(t.Context(), "s1", chat.Claim{}, numbered(3)) }, chat.ErrStale},
			{func() error { return s.InsertMessage(t.Context(), "unknown", chat.Claim{}, numbered(1)) }, chat.ErrNotFound},
			{func() error {
				return s.submit(t.Context(), func(tx *sql.Tx) error {
					_, err := tx.Exec("UPDATE messages SET n = n + 1000")
					return errors.Join(broken, err)
				})
			}, broken},
			{func() error { return s.InsertMessage(t.Context(), "s1", chat.Claim{}, numbered(2)) }, nil},
		}
		release := holdWriter(t, s)
		var wg sync.WaitGroup
		for i, write := range writes {
			wg.Go(func() {
				if err := write.do(); !errors.Is(err, write.want) {
					t.Errorf("write %d: got error %v, want %v", i, err, write.want)
				}
			})
			synctest.Wait() // so that they come in this order
		}
		release()
		wg.Wait()
		if got := storedNumbers(t, s); got != "1 2 3" {
			t.Errorf("stored messages %s, want 1 2 3", got)
		}
	})
}

// A failure that makes SQLite roll back the whole transaction is the failure of all in the group: none may be told
// that its write is stored.
func TestLostTransactionFailsTheWholeGroup(t *testing.T) {
	for name, outcome := range map[string]error{"with an error": errors.New("broken"), "silently": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openWithSession(t)
				release := holdWriter(t, s)
				var wg sync.WaitGroup
				wantFailure := func(do func() error) {
					wg.Go(func() {
						if err := do(); err == nil {
							t.Error("a write of a lost transaction was acknowledged")
						}
					})
					synctest.Wait()
				}
				wantFailure(func() error { return s.InsertMessage(t.Context(), "s1", chat.Claim{}, numbered(1)) })
				wantFailure(func() error {
					return s.submit(t.Context(), func(tx *sql.Tx) error {
						if _, err := tx.Exec("ROLLBACK"); err != nil {
							t.Error(err)
						}
						return outcome
					})
				})
				wantFailure(func() error { return s.InsertMessage(t.Context(), "s1", chat.Claim{}, numbered(2)) })
				release()
				wg.Wait()
				if err := s.InsertMessage(t.Context(), "s1", chat.Claim{}, numbered(3)); err != nil {
					t.Errorf("the next write: %v", err)
				}
				if got := storedNumbers(t, s); got != "3" {
					t.Errorf("stored messages %s, want 3", got)
				}
			})
		})
	}
}

func TestFullDiskFailsTheWriteAndPasses(t *testing.T) {
	s := openWithSession(t)
	setMaxPages := func(n int) {
		t.Helper()
		if _, err := s.writer.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", n)); err != nil {
			t.Fatal(err)
		}
	}
	setMaxPages(10)
	large := numbered(1)
	large.Text = strings.Repeat("x", 100_000)
	err := s.InsertMessage(t.Context(), "s1", chat.Claim{}, large)
	if err == nil || !strings.Contains(err.Error(), "there is no room left") {
		t.Errorf("got error %v, want one that says that there is no room left", err)
	}
	setMaxPages(1_000_000)
	if err := s.InsertMessage(t.Context(), "s1", chat.Claim{}, large); err != nil {
		t.Error(err)
	}
	if got := storedNumbers(t, s); got != "1" {
		t.Errorf("stored messages %s, want 1", got)
	}
}

func TestWriteNotYetTakenIsNotDoneWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openWithSession(t)
		release := holdWriter(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		inserted := make(chan error, 1)
		go func() { inserted <- s.InsertMessage(ctx, "s1", chat.Claim{}, numbered(1)) }()
		synctest.Wait()
		cancel()
		if err := <-inserted; !errors.Is(err, context.Canceled) { // answered while the writer is busy
			t.Errorf("got error %v, want %v", err, context.Canceled)
		}
		release()
		if got := storedNumbers(t, s); got != "" {
			t.Errorf("stored messages %s, want none", got)
		}
	})
}

func TestWriteOnceTakenIsDoneAlthoughNobodyWaitsForIt(t *testing.T) {
	s := openWithSession(t)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan struct{})
	err := s.submit(ctx, func(tx *sql.Tx) error {
		cancel()
		<-left // the disk hangs until the caller has given up
		_, err := tx.Exec(insertEmptySessions + "SELECT 's2', '', '', '', '', 0, 0, 0, '', ''")
		return err
	})
	close(left)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	// The next write is behind it.
	if err := s.InsertMessage(t.Context(), "s1", chat.Claim{}, numbered(1)); err != nil {
		t.Error(err)
	}
	if _, err := s.Session(t.Context(), "s2"); err != nil {
		t.Error(err)
	}
}

// A caller that is no longer waited for may use its places again.
func TestPlacesOnceTakenAreTheStores(t *testing.T) {
	path := filepath.Join(t.TempDir(), "parley.db")
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, path)
		session := chat.Session{ID: "s1", Status: chat.SessionStatusActive}
		if err := errors.Join(s.CreateSession(t.Context(), &session),
			s.InsertMessage(t.Context(), "s1", chat.Claim{}, numbered(1))); err != nil {
			t.Fatal(err)
		}
		session.Revision = 1
		release := holdWriter(t, s)
		taken, free := make(chan struct{}), make(chan struct{})
		go s.submit(context.Background(), func(*sql.Tx) error {
			close(taken) // and so is the write that waits behind this one
			<-free
			return nil
		})
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		places := []chat.Place{{MessageID: "m1", Seq: 3}}
		updated := make(chan error, 1)
		go func() { updated <- s.UpdateSession(ctx, &session, places...) }()
		synctest.Wait()
		release()
		<-taken
		cancel()
		if err := <-updated; !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want %v", err, context.Canceled)
		}
		places[0] = chat.Place{MessageID: "m1", Seq: 99}
		close(free)
		if err := s.InsertMessage(t.Context(), "s1", chat.Claim{}, numbered(2)); err != nil { // behind the update
			t.Error(err)
		}
		if m, err := s.Message(t.Context(), "s1", "m1"); err != nil || m.Seq != 3 {
			t.Errorf("got Seq %d and error %v, want 3", m.Seq, err)
		}
	})
}

func TestSessionAndPlacesAreStoredTogetherOrNotAtAll(t *testing.T) {
	s := openWithSession(t)
	if err := errors.Join(s.InsertMessage(t.Context(), "s1", chat.Claim{}, numbered(1)),
		s.InsertMessage(t.Context(), "s1", chat.Claim{}, numbered(2))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.writer.Exec(`
		CREATE TRIGGER refuse BEFORE UPDATE OF seq ON messages WHEN new.message_id = 'm2'
		BEGIN SELECT RAISE(ABORT, 'refused'); END`); err != nil {
		t.Fatal(err)
	}
	changed := chat.Session{ID: "s1", Status: chat.SessionStatusActive, Title: "changed", LogEnd: 9, Revision: 1}
	err := s.UpdateSession(t.Context(), &changed,
		chat.Place{MessageID: "m1", Seq: 3}, chat.Place{MessageID: "m2", Seq: 4})
	if err == nil || !strings.Contains(err.Error(), "place message m2") {
		t.Errorf("got error %v, want one that names the message", err)
	}
	session, err := s.Session(t.Context(), "s1")
	if err != nil || session.Title != "" || session.LogEnd != 0 {
		t.Errorf("the session was changed: %+v, error %v", session, err)
	}
	if placed, err := s.MessagesAfter(t.Context(), "s1", 0, 10); err != nil || len(placed) != 0 {
		t.Errorf("%d messages were placed, error %v", len(placed), err)
	}
}

func TestCloseWaitsForTheWriteThatWasTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "parley.db")
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		release := holdWriter(t, s)
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		synctest.Wait()
		if err := s.Ping(t.Context()); err != nil {
			t.Errorf("Close did not wait for the write: %v", err)
		}
		release()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if err := s.InsertMessage(t.Context(), "s1", chat.Claim{}, numbered(1)); !errors.Is(err, errClosed) {
			t.Errorf("got error %v, want %v", err, errClosed)
		}
	})
}
