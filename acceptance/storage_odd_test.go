//go:build unix

package acceptance_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-chat/parley/internal/store/sqlite"
)

// filesWith names the files of a folder that hold a text.
func filesWith(t *testing.T, dir, text string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, []byte(text)) {
			found = append(found, filepath.Base(path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// eventuallyNowhere waits for a while until no file of a folder holds a text.
func eventuallyNowhere(t *testing.T, dir, text string) {
	t.Helper()
	var found []string
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if found = filesWith(t, dir, text); len(found) == 0 {
			return
		}
	}
	t.Errorf("%v hold the text", found)
}

// awaitGone waits until a session cannot be opened any more.
func (s *server) awaitGone(session string) {
	s.t.Helper()
	for end := time.Now().Add(patience); ; {
		c := s.dial(token("alice"))
		c.send("session.open", "session_id", session)
		f := c.next()
		c.conn.CloseNow()
		if f.str("error", "code") == "session_not_found" {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("the session is answered with %v", f)
		}
	}
}

func TestErasedTextGoesFromTheFilesOfARunningServer(t *testing.T) {
	s := startServer(t, eliza)
	c := s.dial(token("alice"))
	c.open()
	c.ask("q", "Marzipankartoffel")
	if resp := s.call("DELETE", "/api/v1/sessions/"+c.session, token("alice")); resp.StatusCode != http.StatusNoContent {
		t.Fatal(resp.Status)
	}
	eventuallyNowhere(t, s.dir, "Marzipankartoffel")
}

func TestResealLeavesNothingReadableBesideARunningServer(t *testing.T) {
	dir, keys := t.TempDir(), keyset(t)
	s := startServer(t, eliza, sqliteStorage(dir))
	c := s.dial(token("alice"))
	c.open()
	c.ask("q", "Marzipankartoffel")
	s.stop(syscall.SIGKILL)
	s = startServer(t, eliza, sqliteStorage(dir, encrypted(keys)))
	parleyOK(t, "storage", "reseal", "--config", s.config)
	eventuallyNowhere(t, dir, "Marzipankartoffel")
}

// Docs: "A server that has such a session in memory gives it up when it stores something of it."
func TestServerGivesUpWhatACommandErased(t *testing.T) {
	s := startServer(t, eliza)
	c := s.dial(token("alice"))
	c.open()
	c.ask("q", "Marzipankartoffel")
	parleyOK(t, "storage", "erase", "--user", "alice", "--yes", "--config", s.config)
	_ = c.trySend("message.send", "message_id", "q2", "text", "more")
	if f, err := c.read(patience); err == nil && f.str("error", "code") == "storage_unavailable" {
		t.Errorf("a message to an erased session is answered with %v", f)
	}
	c.conn.CloseNow()
	s.awaitGone(c.session)
	if resp := s.call("DELETE", "/api/v1/sessions/"+c.session, token("alice")); resp.StatusCode >= 500 {
		t.Errorf("erasing it again is answered with %s", resp.Status)
	}
	eventuallyNowhere(t, filepath.Join(s.dir, "parley.db.events"), "Marzipankartoffel")
}

// An answer that runs while the command erases never leaves memory, nor the journal, not even with a clean stop.
func TestRunningAnswerOfWhatACommandErased(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("gate-20"), "session: {idle_timeout: 1s, grace_period: 1s, cleanup_interval: 1s}\n")
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q", "text", "Marzipankartoffel")
	up.release(t, 5)
	c.untilWords(1)
	parleyOK(t, "storage", "erase", "--user", "alice", "--yes", "--config", s.config)
	up.release(t, 15)
	c.conn.CloseNow()
	s.awaitGone(c.session)
	s.stop(syscall.SIGTERM)
	if found := filesWith(t, s.dir, "Marzipankartoffel"); len(found) > 0 {
		t.Errorf("after a clean stop %v hold the erased text", found)
	}
}

func TestCheckBindsNoStoreToAKeyset(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, eliza, sqliteStorage(dir))
	parleyOK(t, "check", "--config", configured(t, sqliteStorage(dir, encrypted(keyset(t)))))
	s.stop(syscall.SIGTERM)
	if code, _, stderr := runParley(t, "check", "--config", s.config); code != 0 {
		t.Errorf("after `parley check` with a keyset, of a store in which nothing is encrypted, its server says %s", stderr)
	}
}

func TestCopyTakesADeletionOver(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, eliza)
	target := configured(t, sqliteStorage(dir))
	sessions := []string{}
	for _, user := range []string{"alice", "bob"} {
		c := s.dial(token(user))
		c.open()
		c.ask("q", "hi")
		sessions = append(sessions, c.session)
	}
	parleyOK(t, "storage", "copy", "--config", s.config, "--to", target)
	if resp := s.call("DELETE", "/api/v1/sessions/"+sessions[0], token("alice")); resp.StatusCode != http.StatusNoContent {
		t.Fatal(resp.Status)
	}
	s.stop(syscall.SIGTERM)
	if code, _, stderr := runParley(t, "storage", "copy", "--config", s.config, "--to", target); code != 1 || !strings.Contains(stderr, "--prune") {
		t.Errorf("the second copy, after a session was erased, ends with %d: %s", code, stderr)
	}
	if code, _, stderr := runParley(t, "storage", "copy", "--config", s.config, "--to", target, "--prune"); code != 0 {
		t.Errorf("pruned, the copy ends with %d: %s", code, stderr)
	}
}

func TestRefusedCopyWritesNothing(t *testing.T) {
	from, to := startServer(t, eliza), startServer(t, eliza)
	for _, s := range []*server{from, to} {
		c := s.dial(token("alice"))
		c.open()
		c.ask("q", "hi")
		s.stop(syscall.SIGTERM)
	}
	if code, _, _ := runParley(t, "storage", "copy", "--config", from.config, "--to", to.config); code != 1 {
		t.Errorf("a copy into a store with something else ends with %d", code)
	}
	if n, err := to.openStore().Count(t.Context()); err != nil || n.Sessions != 1 {
		t.Errorf("after the refusal the target has %+v, error %v", n, err)
	}
}

// What cannot be decrypted can still be erased.
func TestErasureOfADamagedRecord(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, eliza, sqliteStorage(dir, encrypted(keyset(t))))
	c := s.dial(token("alice"))
	c.open()
	c.ask("q", "hi")
	c.send("session.update", "title", "A title")
	c.until("session.updated")
	s.stop(syscall.SIGTERM)
	db, err := sql.Open("sqlite", filepath.Join(dir, "parley.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE sessions SET title = substr(title, 1, 20) || 'AAAA' || substr(title, 25)"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if code, _, stderr := runParley(t, "storage", "erase", "--user", "alice", "--yes", "--config", s.config); code != 0 {
		t.Errorf("erasing ends with %d: %s", code, stderr)
	}
}

func TestCommandsMakeNoDatabase(t *testing.T) {
	dir := t.TempDir()
	config := configured(t, sqliteStorage(dir))
	for _, args := range [][]string{
		{"backup", filepath.Join(t.TempDir(), "backup.db")}, {"erase", "--user", "alice", "--yes"}, {"export", "--user", "alice"},
	} {
		if code, _, _ := runParley(t, append(append([]string{"storage"}, args...), "--config", config)...); code == 0 {
			t.Errorf("%s of a database that is not there succeeds", args[0])
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "parley.db")); err == nil {
		t.Error("there is a database now")
	}
}

func TestMalformedURIIsAConfigurationError(t *testing.T) {
	config := configured(t, "storage: {driver: mongodb, mongodb: {uri: 'mongodb://root:S3cr%ZZetPw@host/'}}\n")
	code, _, stderr := runParley(t, "check", "--config", config)
	if code != 2 || !strings.Contains(stderr, "storage.mongodb.uri") || strings.Contains(stderr, "S3cr") {
		t.Errorf("a malformed URI: exit code %d, %s", code, stderr)
	}
}

func TestEmptyNameExtendsNoKeyset(t *testing.T) {
	code, stdout, _ := runParley(t, "keygen", "--encryption", "--extend", "")
	if code != 2 {
		t.Errorf("--extend with an empty name ends with %d and prints %d bytes of an unrelated keyset", code, len(stdout))
	}
}

// With MongoDB.

func TestMongoErasedByCommand(t *testing.T) {
	db := startMongo(t)
	s := startServer(t, eliza, db.storage(t))
	c := s.dial(token("alice"))
	c.open()
	c.ask("q", "hi")
	t.Log(parleyOK(t, "storage", "erase", "--user", "alice", "--yes", "--config", s.config))
	_ = c.trySend("message.send", "message_id", "q2", "text", "more")
	if f, err := c.read(patience); err == nil && f.str("error", "code") == "storage_unavailable" {
		t.Errorf("a message to an erased session is answered with %v", f)
	}
	c.conn.CloseNow()
	s.awaitGone(c.session)
	if resp := s.call("DELETE", "/api/v1/sessions/"+c.session, token("alice")); resp.StatusCode >= 500 {
		t.Errorf("erasing it again is answered with %s", resp.Status)
	}
	if n, err := db.open(t).Count(t.Context()); err != nil || n.Sessions+n.Messages > 0 {
		t.Errorf("stored are %+v, error %v", n, err)
	}
}

func TestMongoCopyThereAndBack(t *testing.T) {
	db := startMongo(t)
	s := startServer(t, eliza)
	c := s.dial(token("alice"))
	c.open("metadata", map[string]string{"a.b": "$c", "": "x", "$set": "y"})
	c.ask("q", "hi \x00 nul and \u2028")
	c.send("help.request", "reason", "because")
	c.until("session.updated")
	s.stop(syscall.SIGTERM)
	there, back := configured(t, db.storage(t)), configured(t, sqliteStorage(t.TempDir()))
	a := parleyOK(t, "storage", "copy", "--config", s.config, "--to", there)
	b := parleyOK(t, "storage", "copy", "--config", there, "--to", back)
	export := func(config string) string {
		return parleyOK(t, "storage", "export", "--user", "alice", "--config", config)
	}
	if a != b || export(s.config) != export(back) || export(there) != export(back) {
		t.Errorf("there %s, back %s\n%s\n%s\n%s", a, b, export(s.config), export(there), export(back))
	}
	m := startServer(t, eliza, db.storage(t))
	d := m.dial(token("alice"))
	if opened := d.resume(c); opened["resumed"] != true {
		t.Errorf("on MongoDB the client is told %v", opened)
	}
	d.ask("q2", "and now?")
}

// Docs: "The journal notices, and begins anew: clients are reset." It is not so for sessions that were at rest as the
// backup was made: they go on under the same epoch, and a client holds something else than the server.
func TestRestoredBackupResetsSessionsAtRest(t *testing.T) {
	s := startServer(t, eliza)
	c := s.dial(token("alice"))
	c.open()
	c.ask("q1", "one")
	s.stop(syscall.SIGTERM)
	backup := filepath.Join(t.TempDir(), "backup.db")
	parleyOK(t, "storage", "backup", backup, "--config", s.config)
	s.start()
	c2 := s.comesBack(token("alice"), c)
	c2.ask("q2", "only the client knows this")
	s.stop(syscall.SIGTERM)
	file := filepath.Join(s.dir, "parley.db")
	if err := os.Rename(backup, file); err != nil {
		t.Fatal(err)
	}
	os.Remove(file + "-wal")
	os.Remove(file + "-shm")
	s.start()
	beyond := s.dial(token("alice"))
	beyond.send("session.open", "session_id", c2.session, "after", c2.last, "epoch", c2.epoch)
	if f := beyond.next(); f.str("type") != "session.opened" || f["reset"] != true {
		t.Errorf("right after the restore, whoever knows more is told %v", f)
	}
	other := s.dial(token("alice"))
	other.open("session_id", c2.session)
	other.ask("x2", "another second message")
	other.ask("x3", "another third message")
	again := s.dial(token("alice"))
	again.send("session.open", "session_id", c2.session, "after", c2.last, "epoch", c2.epoch)
	if f := again.next(); f.str("type") != "session.opened" || f["reset"] != true {
		t.Errorf("later, whoever knows something else is told %v", f)
	}
}

func TestMongoDBAwayAtStart(t *testing.T) {
	db := startMongo(t)
	config := configured(t, db.storage(t))
	db.Refuse(true)
	for _, args := range [][]string{
		{"check"}, {"serve"}, {"storage", "export", "--user", "x"}, {"storage", "erase", "--user", "x", "--yes"},
	} {
		if code, stdout, stderr := runParley(t, append(args, "--config", config)...); code != 1 || stdout != "" || !strings.Contains(stderr, "does not answer") {
			t.Errorf("%q ends with %d: %s %s", args, code, stdout, stderr)
		}
	}
	db.Refuse(false)
	parleyOK(t, "check", "--config", config)
}

// Copied while its server runs, a storage is copied as far as it was; copied again once its server has stopped, whole.
// What has gone on in the target is not overwritten.
func TestCopyOfARunningServer(t *testing.T) {
	s, dir := startServer(t, eliza), t.TempDir()
	c := s.dial(token("alice"))
	c.open()
	stop := make(chan struct{})
	talking := c.inBackground(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				c.ask(fmt.Sprint("q", i), "I go on talking")
			}
		}
	})
	target := configured(t, sqliteStorage(dir))
	for range 5 {
		parleyOK(t, "storage", "copy", "--config", s.config, "--to", target)
	}
	close(stop)
	<-talking
	s.stop(syscall.SIGTERM)
	parleyOK(t, "storage", "copy", "--config", s.config, "--to", target)
	moved := startServer(t, eliza, sqliteStorage(dir))
	again := moved.dial(token("alice"))
	if opened := again.resume(c); opened["resumed"] != true {
		t.Errorf("on the copy the client is told %v", opened)
	}
	again.ask("on-the-copy", "I have moved")
	for _, running := range []bool{true, false} {
		if !running {
			moved.stop(syscall.SIGTERM)
		}
		if code, _, stderr := runParley(t, "storage", "copy", "--config", s.config, "--to", target); code != 1 || !strings.Contains(stderr, "has gone on in the target") {
			t.Errorf("copied over what has gone on, it ends with %d: %s", code, stderr)
		}
	}
	store, err := sqlite.Open(t.Context(), filepath.Join(dir, "parley.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.Message(t.Context(), c.session, "on-the-copy"); err != nil {
		t.Errorf("a message with a receipt is gone: %v", err)
	}
}
