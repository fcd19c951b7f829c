//go:build unix

package acceptance_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/mongo"
	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
)

// database is a MongoDB database that servers share.
type database struct {
	*mongotest.Server
	name string
}

func startMongo(t *testing.T) *database {
	t.Helper()
	m := mongotest.Start(t)
	return &database{m, m.Database()}
}

// storage gives the storage section of a server's configuration with a journal of its own.
func (d *database) storage(t *testing.T, more ...string) string {
	t.Helper()
	return fmt.Sprintf("storage: {driver: mongodb, mongodb: {uri: %q, database: %s}, journal: {path: %s}%s}\n", d.URI(), d.name,
		filepath.Join(t.TempDir(), "events"), strings.Join(append([]string{""}, more...), ", "))
}

// open opens the database as it is.
func (d *database) open(t *testing.T) chat.Store {
	t.Helper()
	store, err := mongo.Open(t.Context(), mongo.Config{URI: d.URI(), Database: d.name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// awaitMessage waits until a message is stored in a final state.
func awaitMessage(t *testing.T, store chat.Store, sessionID, messageID string) chat.Message {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		m, err := store.Message(t.Context(), sessionID, messageID)
		if err == nil && m.Status != chat.StatusStreaming {
			return m
		}
		if time.Now().After(end) {
			t.Fatalf("message %s is not stored: %+v, error %v", messageID, m, err)
		}
	}
}

func TestConversationOnMongoDB(t *testing.T) {
	db, up := startMongo(t), startUpstream(t)
	s := startServer(t, up.models("words-300"), db.storage(t))
	c := s.dial(token("alice"))
	c.open()
	for _, id := range []string{"q1", "q2"} {
		if f := c.ask(id, "hi, this is "+id); f.str("status") != "complete" {
			t.Fatalf("the answer ends with %v", f)
		}
	}
	s.stop(syscall.SIGTERM)
	s.start()
	again := s.dial(token("alice"))
	if opened := again.resume(c); opened["resumed"] != true {
		t.Errorf("after a restart the reader is told %v", opened)
	}
	again.ask("q3", "and now?")
	if got := len(up.requests(t)[2].Messages); got != 5 {
		t.Errorf("the model is asked with %d messages", got)
	}
	stored, err := db.open(t).Messages(t.Context(), c.session, 0, 100)
	if err != nil || len(stored) != 6 {
		t.Fatalf("stored are %d messages, error %v", len(stored), err)
	}
	for _, m := range stored {
		if m.Text != again.text[m.ID] || string(m.Status) != again.status[m.ID] {
			t.Errorf("message %s is stored as %s, %d bytes; the client holds %s, %d bytes", m.ID, m.Status, len(m.Text),
				again.status[m.ID], len(again.text[m.ID]))
		}
	}
}

// The connection is lost before, or after, MongoDB has done what it was asked: the message is there once.
func TestR09_1_LostConnectionsToMongoDBAreNotNoticed(t *testing.T) {
	db := startMongo(t)
	s := startServer(t, eliza, db.storage(t))
	c := s.dial(token("alice"))
	c.open()
	store := db.open(t)
	for i, action := range []mongotest.Action{mongotest.DropBefore, mongotest.DropAfter} {
		for j, command := range []string{"insert", "update", "find", "findAndModify"} {
			hits, remove := db.Inject(mongotest.Fault{Command: command, Times: 2, Action: action})
			id := fmt.Sprintf("q%d%d", i, j)
			if f := c.ask(id, "hello again"); f.str("status") != "complete" {
				t.Errorf("%s, lost: the answer ends with %v", command, f)
			}
			if f := c.ask(id+"b", "and again"); f.str("status") != "complete" {
				t.Errorf("after %s was lost: the answer ends with %v", command, f)
			}
			if command == "insert" && hits() != 2 {
				t.Errorf("%s was lost %d times", command, hits())
			}
			remove()
		}
	}
	awaitMessage(t, store, c.session, c.order[len(c.order)-1])
	stored, err := store.Messages(t.Context(), c.session, 0, 1000)
	if err != nil || len(stored) != 32 {
		t.Errorf("stored are %d messages, want 32; error %v", len(stored), err)
	}
	if n := s.figure(`parley_storage_retries_total{operation="InsertMessage"}`); n < 2 {
		t.Errorf("%v retries are counted", n)
	}
	entry := s.awaitLog("an operation of the storage is tried again")
	for _, key := range []string{"operation", "attempt", "delay", "error"} {
		if entry[key] == nil {
			t.Errorf("a retry is logged without %s: %v", key, entry)
		}
	}
}

func TestR09_4_MongoDBThatIsAwayIsAnError(t *testing.T) {
	db, up := startMongo(t), startUpstream(t)
	s := startServer(t, up.models("gate-20"), db.storage(t, "retry: {max_attempts: 3, initial_backoff: 10ms, max_backoff: 20ms}"))
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q1", "text", "hi")
	up.release(t, 5)
	c.untilWords(1)
	s.readiness(http.StatusOK)
	db.Refuse(true)
	s.readiness(http.StatusServiceUnavailable)
	up.release(t, 15) // a running answer goes on, to its end
	if f := c.until("message.completed"); f.str("status") != "complete" || len(strings.Fields(c.text[c.order[1]])) != 20 {
		t.Errorf("the answer ends with %v: %q", f, c.text[c.order[1]])
	}
	f := c.sendRefused("message.send", "message_id", "q2", "text", "are you there?")
	if f.str("error", "code") != "storage_unavailable" || f.at("error", "retryable") != true {
		t.Errorf("a message is answered with %v", f)
	}
	down, failures := s.figure("parley_storage_down"), s.figure(`parley_storage_failures_total{operation="InsertMessage"}`)
	if down != 1 || failures < 1 {
		t.Errorf("parley_storage_down is %v, %v failures are counted", down, failures)
	}
	if strings.Contains(f.str("error", "message"), "mongodb") {
		t.Errorf("the client is told %v", f)
	}
	db.Refuse(false)
	s.readiness(http.StatusOK)
	store := db.open(t)
	if m := awaitMessage(t, store, c.session, c.order[1]); m.Text != c.text[c.order[1]] {
		t.Errorf("once it is back the answer is stored as %q", m.Text)
	}
	up.release(t, 20)
	c.ask("q2", "are you there?")
	if n, err := store.Messages(t.Context(), c.session, 0, 100); err != nil || len(n) != 4 {
		t.Errorf("stored are %d messages, error %v", len(n), err)
	}
}

// readiness waits until /readyz answers with a status.
func (s *server) readiness(status int) {
	s.t.Helper()
	for end := time.Now().Add(patience); ; {
		resp, err := http.Get(s.operations + "/readyz")
		if err != nil {
			s.t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == status {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("/readyz answers %s, want %d", resp.Status, status)
		}
	}
}

// MongoDB stops in the middle of an answer, which is read to its end meanwhile.
func TestFrozenMongoDBIsNotNoticed(t *testing.T) {
	db, up := startMongo(t), startUpstream(t)
	s := startServer(t, up.models("paced-1050-10ms"), db.storage(t))
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q", "text", "hi")
	c.untilWords(50)
	db.Freeze()
	frozen, last, longest := time.Now(), time.Now(), time.Duration(0)
	for c.status[c.order[1]] == "streaming" {
		c.next()
		longest, last = max(longest, time.Since(last)), time.Now()
	}
	t.Logf("frozen for %v, the reader waited for %v at the longest", time.Since(frozen).Round(time.Millisecond), longest.Round(time.Millisecond))
	if c.status[c.order[1]] != "complete" {
		t.Errorf("the answer ends as %s", c.status[c.order[1]])
	}
	db.Thaw()
	m := awaitMessage(t, db.open(t), c.session, c.order[1])
	if m.Text != c.text[c.order[1]] || m.Status != chat.StatusComplete {
		t.Errorf("after the thaw the answer is stored as %s, %d bytes; the client holds %d", m.Status, len(m.Text), len(c.text[c.order[1]]))
	}
}

// Two servers on one MongoDB: a session is owned by one at a time.
func TestSessionHasOneServer(t *testing.T) {
	db, up := startMongo(t), startUpstream(t)
	one := startServer(t, up.models("words-30"), db.storage(t, "lease_timeout: 3s"))
	two := startServer(t, up.models("words-30"), db.storage(t, "lease_timeout: 3s"))
	c := one.dial(token("alice"))
	c.open()
	c.ask("q1", "hi")
	d := two.dial(token("alice"))
	f := d.sendRefused("session.open", "session_id", c.session)
	if f.str("error", "code") != "session_busy" || f.at("error", "retryable") != true || f.num("error", "retry_after_ms") == 0 {
		t.Fatalf("a session of another server is answered with %v", f)
	}
	// Its server lets go of it soon after its client has gone.
	c.conn.CloseNow()
	d = two.comesBack(token("alice"), c)
	if d.epoch != c.epoch {
		t.Error("handed over, the session has another epoch")
	}
	d.ask("q2", "hi")
	// Its server goes, at once.
	two.stop(syscall.SIGTERM)
	e := one.comesBack(token("alice"), d)
	if e.epoch != c.epoch {
		t.Error("after a clean end, the session has another epoch")
	}
	e.ask("q3", "hi")
	if len(e.order) != 6 {
		t.Errorf("the client holds %v", e.order)
	}
}

// comesBack opens a session with what the client holds, as soon as it is not busy any more.
func (s *server) comesBack(token string, old *client) *client {
	s.t.Helper()
	c := s.dial(token)
	c.session, c.epoch, c.last = old.session, old.epoch, old.last
	c.text, c.status, c.order = old.text, old.status, old.order
	for end := time.Now().Add(patience); ; {
		c.send("session.open", "session_id", old.session, "after", old.last, "epoch", old.epoch)
		f := c.next()
		if f.str("type") == "session.opened" {
			return c
		}
		if f.str("error", "code") != "session_busy" || time.Now().After(end) {
			s.t.Fatalf("session.open is answered with %v", f)
		}
	}
}

// A server that was taken for gone comes back to life. Nothing that it does then has an effect.
func TestFormerOwnerOfASessionChangesNothing(t *testing.T) {
	db, up := startMongo(t), startUpstream(t)
	one := startServer(t, up.models("gate-20"), db.storage(t, "lease_timeout: 2s"))
	two := startServer(t, up.models("gate-20"), db.storage(t, "lease_timeout: 2s"))
	c := one.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q1", "text", "hi")
	up.release(t, 10)
	c.untilWords(10)
	answer, held := c.order[1], c.text[c.order[1]]
	store := db.open(t)
	awaitText(t, store, c.session, answer, held)
	if err := one.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume := sync.OnceFunc(func() { _ = one.cmd.Process.Signal(syscall.SIGCONT) })
	t.Cleanup(resume)
	d := two.comesBack(token("alice"), c)
	if d.epoch == c.epoch {
		t.Error("the session goes on under the same epoch")
	}
	interrupted := awaitMessage(t, store, c.session, answer)
	if interrupted.Status != chat.StatusInterrupted || interrupted.Text != held {
		t.Errorf("the answer is stored as %s %q", interrupted.Status, interrupted.Text)
	}
	resume()
	up.release(t, 10) // the first server gets the rest of its answer
	if err := c.trySend("message.send", "message_id", "q2", "text", "still there?", "interrupt", true); err == nil {
		for {
			f, err := c.read(patience)
			if err != nil {
				break // it was sent away
			}
			if f.str("message", "id") == "q2" {
				t.Errorf("the former owner receipts %v", f)
			}
		}
	}
	one.awaitLog("a session is given up, and loaded anew when it is wanted")
	up.release(t, 20)
	d.forget()
	d.order = nil
	d.ask("q3", "are you?")
	stored, err := store.Messages(t.Context(), c.session, 0, 100)
	if err != nil || len(stored) != 4 {
		t.Fatalf("stored are %+v, error %v", stored, err)
	}
	for _, m := range stored {
		if m.ID == answer && (m.Text != held || m.Status != chat.StatusInterrupted) || m.ID == "q2" {
			t.Errorf("the former owner has left %+v", m)
		}
	}
}

// awaitText waits until a message is stored with a text.
func awaitText(t *testing.T, store chat.Store, sessionID, messageID, text string) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		m, err := store.Message(t.Context(), sessionID, messageID)
		if err == nil && m.Text == text {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("message %s is stored as %+v, error %v", messageID, m, err)
		}
	}
}

// A server is killed, and another machine, which has no journal of it, takes over.
func TestAnotherMachineTakesOver(t *testing.T) {
	db, up := startMongo(t), startUpstream(t)
	one := startServer(t, up.models("gate-20"), db.storage(t, "lease_timeout: 2s"))
	c := one.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q", "text", "hi")
	up.release(t, 10)
	c.untilWords(10)
	held := c.text[c.order[1]]
	awaitText(t, db.open(t), c.session, c.order[1], held)
	up.release(t, 3)
	c.next() // which no checkpoint has
	one.stop(syscall.SIGKILL)
	two := startServer(t, up.models("gate-20"), db.storage(t, "lease_timeout: 2s"))
	d := two.dial(token("alice"))
	for end := time.Now().Add(patience); ; {
		d.send("session.open", "session_id", c.session, "after", c.last, "epoch", c.epoch)
		f := d.next()
		if f.str("type") == "session.opened" {
			if f["reset"] != true || f["resumed"] != false || f.str("epoch") == c.epoch {
				t.Errorf("on another machine the reader is told %v", f)
			}
			for d.last < f.num("seq") {
				d.next()
			}
			break
		}
		if f.str("error", "code") != "session_busy" || time.Now().After(end) {
			t.Fatalf("session.open is answered with %v", f)
		}
	}
	if len(d.order) != 2 || d.status[d.order[1]] != "interrupted" || !strings.HasPrefix(d.text[d.order[1]], held) {
		t.Errorf("the reader is given %v: %v", d.status, d.text)
	}
}

// The kill test on MongoDB, whose connections are cut all the time as well.
func TestKillLosesNothingOnMongoDB(t *testing.T) {
	db, up := startMongo(t), startUpstream(t)
	s := startServer(t, up.models("paced-400-1ms", "words-30"), db.storage(t, "lease_timeout: 2s"))
	random, stop := seeded(t), make(chan struct{})
	var cutter sync.WaitGroup
	calm := sync.OnceFunc(func() {
		close(stop)
		cutter.Wait()
	})
	defer calm()
	cutter.Go(func() {
		ticker := time.NewTicker(700 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
			case <-stop:
				return
			}
			switch random.IntN(4) {
			case 0:
				db.Cut()
			case 1:
				db.Inject(mongotest.Fault{Skip: random.IntN(5), Action: mongotest.DropBefore})
			case 2:
				db.Inject(mongotest.Fault{Skip: random.IntN(5), Action: mongotest.DropAfter})
			}
		}
	})
	people := survives(t, s, max(1, kills(t)/3), 6, true)
	calm()
	compareWithStore(t, db.open(t), people)
}

// A product grows: from SQLite to MongoDB, with all that is there.
func TestStorageGrowsFromSQLiteToMongoDB(t *testing.T) {
	db, keys, dir := startMongo(t), keyset(t), t.TempDir()
	s := startServer(t, eliza, sqliteStorage(dir, encrypted(keys)))
	c := s.dial(token("alice"))
	c.open()
	c.ask("q1", "I move")
	s.stop(syscall.SIGTERM)
	target := configured(t, db.storage(t, encrypted(keys)))
	if code, _, stderr := runParley(t, "storage", "copy", "--config", s.config, "--to", configured(t, db.storage(t))); code != 1 || !strings.Contains(stderr, "keyset") {
		t.Errorf("a copy without the keys ends with %d: %s", code, stderr)
	}
	if told := parleyOK(t, "storage", "copy", "--config", s.config, "--to", target); !strings.Contains(told, "2 messages") {
		t.Errorf("the copy says %s", told)
	}
	moved := startServer(t, eliza, db.storage(t, encrypted(keys)))
	again := moved.dial(token("alice"))
	if opened := again.resume(c); opened["resumed"] != true {
		t.Errorf("on MongoDB the reader is told %v", opened)
	}
	again.ask("q2", "I have moved")
	second := keyset(t, "--extend", keys)
	moved.stop(syscall.SIGTERM)
	rotated := configured(t, db.storage(t, encrypted(second)))
	if told := parleyOK(t, "storage", "reseal", "--config", rotated); !strings.Contains(told, "4 messages") {
		t.Errorf("resealing says %s", told)
	}
	lines := strings.Count(parleyOK(t, "storage", "export", "--user", "alice", "--config", rotated), "\n")
	erased := parleyOK(t, "storage", "erase", "--user", "alice", "--yes", "--config", rotated)
	if lines != 7 || erased != "1 sessions were erased\n" {
		t.Errorf("%d lines are exported, erasing says %s", lines, erased)
	}
	if n, err := db.open(t).Count(t.Context()); err != nil || n != (chat.Counts{}) {
		t.Errorf("there is left %+v, error %v", n, err)
	}
}
