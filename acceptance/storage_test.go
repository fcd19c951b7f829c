//go:build unix

package acceptance_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/parley-chat/parley/chat"
)

// parleyOK runs a command that has to succeed, and gives what it printed.
func parleyOK(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := runParley(t, args...)
	if code != 0 {
		t.Fatalf("parley %q ends with %d: %s", args, code, stderr)
	}
	return stdout
}

// keyset makes a keyset's file.
func keyset(t *testing.T, args ...string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "keyset.json")
	text := parleyOK(t, append([]string{"keygen", "--encryption"}, args...)...)
	keepSecret("a keyset", strings.TrimSpace(text))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sqliteStorage is the storage section of a configuration with its database in a folder, and what else is given.
func sqliteStorage(dir string, more ...string) string {
	return "storage: {sqlite: {path: " + filepath.Join(dir, "parley.db") + "}" + strings.Join(append([]string{""}, more...), ", ") + "}\n"
}

func encrypted(keyset string) string { return "encryption: {keyset_file: " + keyset + "}" }

// configured writes a configuration of eliza's with a section of its own.
func configured(t *testing.T, storage string) (path string) {
	t.Helper()
	_, path = configuration(t, eliza, storage)
	return path
}

// wantNothingOf fails if a text stands in a file of a folder.
func wantNothingOf(t *testing.T, text, dir string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files++
		if bytes.Contains(data, []byte(text)) {
			t.Errorf("%s holds the text", filepath.Base(path))
		}
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("%d files were looked into, error %v", files, err)
	}
}

func TestBackupOfARunningServer(t *testing.T) {
	s := startServer(t, eliza)
	c := s.dial(token("alice"))
	c.open()
	c.ask("q1", "I am kept")
	copied := filepath.Join(t.TempDir(), "backup.db")
	parleyOK(t, "storage", "backup", copied, "--config", s.config)
	c.ask("q2", "I came too late")
	if code, _, stderr := runParley(t, "storage", "backup", copied, "--config", s.config); code != 1 || !strings.Contains(stderr, "exists already") {
		t.Errorf("a backup over another ends with %d: %s", code, stderr)
	}

	restored := startServer(t, eliza, "storage: {sqlite: {path: "+copied+"}}\n")
	again := restored.dial(token("alice"))
	opened := again.open("session_id", c.session, "after", c.last, "epoch", c.epoch)
	if opened["reset"] != true {
		t.Errorf("whoever knows more than a backup is told %v", opened)
	}
	for again.last < opened.num("seq") {
		again.next()
	}
	if len(again.order) != 2 || again.text["q1"] != "I am kept" {
		t.Errorf("the backup has %v", again.text)
	}
}

func TestExportAndEraseAUser(t *testing.T) {
	s := startServer(t, eliza)
	for _, user := range []string{"alice", "bob"} {
		c := s.dial(token(user))
		c.open("metadata", map[string]string{"plan": "gold"})
		c.ask("q1", "This is "+user)
	}
	export := func(user string) (lines []frame) {
		t.Helper()
		for line := range strings.Lines(parleyOK(t, "storage", "export", "--user", user, "--config", s.config)) {
			var f frame
			if err := json.Unmarshal([]byte(line), &f); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			lines = append(lines, f)
		}
		return lines
	}
	kinds := ""
	for _, f := range export("alice") {
		kinds += f.str("type") + " "
		if f.str("type") == "message" && f.str("message", "role") == "user" && f.str("message", "text") != "This is alice" {
			t.Errorf("exported is %v", f)
		}
	}
	if kinds != "session message message usage " {
		t.Errorf("exported are %s", kinds)
	}
	if code, _, _ := runParley(t, "storage", "erase", "--user", "alice", "--config", s.config); code != 2 {
		t.Errorf("erasing without --yes ends with %d", code)
	}
	if got := parleyOK(t, "storage", "erase", "--user", "alice", "--yes", "--config", s.config); got != "1 sessions were erased\n" {
		t.Errorf("erasing says %s", got)
	}
	if left := export("alice"); len(left) > 0 {
		t.Errorf("of alice there is left %v", left)
	}
	if left := export("bob"); len(left) != 4 {
		t.Errorf("of bob there is left %v", left)
	}
	s.stop(syscall.SIGTERM)
	wantNothingOf(t, "This is alice", s.dir) // neither in the database nor in the journal
}

// A session that is open is erased over HTTP, in the middle of an answer; nothing of it comes back, whenever the server
// goes down.
func TestErasureOfAnOpenSession(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("gate-20"))
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q", "text", "my secret question")
	up.release(t, 5)
	c.untilWords(1)
	path := "/api/v1/sessions/" + c.session
	for _, stranger := range []string{token("bob"), token("ann", "admin")} {
		if resp := s.call("DELETE", path, stranger); resp.StatusCode != http.StatusNotFound {
			t.Errorf("somebody else's session is erased: %s", resp.Status)
		}
	}
	if resp := s.call("DELETE", path, token("alice")); resp.StatusCode != http.StatusNoContent {
		t.Fatalf("erasing is answered with %s", resp.Status)
	}
	s.stop(syscall.SIGKILL)
	s.start()
	again := s.dial(token("alice"))
	if f := again.sendRefused("session.open", "session_id", c.session); f.str("error", "code") != "session_not_found" {
		t.Errorf("an erased session is answered with %v", f)
	}
	if resp := s.call("DELETE", path, token("alice")); resp.StatusCode != http.StatusNotFound {
		t.Errorf("erasing it again is answered with %s", resp.Status)
	}
	other := s.dial(token("alice"))
	other.open()
	if resp := s.call("DELETE", "/api/v1/admin/users/alice/data", token("alice")); resp.StatusCode != http.StatusForbidden {
		t.Errorf("without the role admin erasing a user is answered with %s", resp.Status)
	}
	resp := s.call("DELETE", "/api/v1/admin/users/alice/data", token("ann", "admin"))
	var told frame
	if err := json.NewDecoder(resp.Body).Decode(&told); err != nil || resp.StatusCode != http.StatusOK || told.num("sessions") != 1 {
		t.Errorf("erasing a user is answered with %s %v", resp.Status, told)
	}
	if f := other.until("session.ended"); f.str("reason") != "admin" {
		t.Errorf("the session ends with %v", f)
	}
	s.stop(syscall.SIGTERM)
	if n, err := s.openStore().Count(t.Context()); err != nil || n != (chat.Counts{}) {
		t.Errorf("stored are %+v, error %v", n, err)
	}
}

func TestNothingIsReadableAtRest(t *testing.T) {
	const marker = "Marzipankartoffel"
	up := startUpstream(t)
	keys := keyset(t)
	dir := t.TempDir()
	s := startServer(t, up.models("echo", "gate-20"), sqliteStorage(dir, encrypted(keys)))
	c := s.dial(token("alice"))
	c.open("model", "echo")
	c.ask("q1", "Say "+marker)
	c.send("session.update", "title", "About "+marker)
	c.until("session.updated")
	c.send("help.request", "reason", "No "+marker)
	c.until("session.updated")
	running := s.dial(token("bob"))
	running.open("model", "gate-20")
	running.send("message.send", "message_id", "q", "text", marker)
	up.release(t, 10)
	running.untilWords(10)
	shown := running.text[running.order[1]]
	s.stop(syscall.SIGKILL) // so that the journal has text, too
	wantNothingOf(t, marker, dir)
	wantNothingOf(t, strings.Fields(shown)[0]+" "+strings.Fields(shown)[1], dir)

	s.start()
	again := s.dial(token("bob"))
	if opened := again.resume(running); opened["resumed"] != true {
		t.Errorf("after a crash the reader is told %v", opened)
	}
	if f := again.until("message.completed"); f.str("status") != "interrupted" || again.text[again.order[1]] != shown {
		t.Errorf("after a crash there is %v, %q", f, again.text)
	}
	alice := s.dial(token("alice"))
	opened := alice.open("session_id", c.session)
	if opened.str("session", "title") != "About "+marker {
		t.Errorf("the title is %v", opened)
	}
	for alice.last < opened.num("seq") {
		alice.next()
	}
	if alice.text["q1"] != "Say "+marker {
		t.Errorf("the question is %q", alice.text["q1"])
	}
	s.stop(syscall.SIGTERM)
	wantNothingOf(t, marker, dir)
}

func TestKeysetHasToFit(t *testing.T) {
	keys, dir := keyset(t), t.TempDir()
	s := startServer(t, eliza, sqliteStorage(dir, encrypted(keys)))
	c := s.dial(token("alice"))
	c.open()
	c.ask("q", "hello")
	s.stop(syscall.SIGTERM)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		storage string
		code    int
		says    string
	}{
		"none":      {sqliteStorage(dir), 1, "storage.encryption.keyset_file"},
		"another":   {sqliteStorage(dir, encrypted(keyset(t))), 1, "storage.encryption.keyset_file"},
		"no file":   {sqliteStorage(dir, encrypted("/no/such/file")), 2, "storage.encryption.keyset_file"},
		"no keyset": {sqliteStorage(dir, encrypted(empty)), 2, "parley keygen --encryption"},
	} {
		path := configured(t, c.storage)
		for _, command := range []string{"check", "serve"} {
			code, _, stderr := runParley(t, command, "--config", path)
			if code != c.code || !strings.Contains(stderr, c.says) || strings.Contains(stderr, "listening") {
				t.Errorf("%s: %s ends with %d: %s", name, command, code, stderr)
			}
		}
	}
	parleyOK(t, "check", "--config", configured(t, sqliteStorage(dir, encrypted(keys))))
}

// What was stored in the clear is encrypted, and then under a new key, while a server runs.
func TestKeysAreRotated(t *testing.T) {
	const marker = "Marzipankartoffel"
	dir := t.TempDir()
	s := startServer(t, eliza, sqliteStorage(dir))
	c := s.dial(token("alice"))
	c.open()
	c.ask("q1", "I like "+marker)
	s.stop(syscall.SIGTERM)

	first := keyset(t)
	second := keyset(t, "--extend", first)
	onlySecond := filepath.Join(t.TempDir(), "second.json")
	withoutFirst(t, second, onlySecond)
	for i, keys := range []string{first, second, onlySecond} {
		s = startServer(t, eliza, sqliteStorage(dir, encrypted(keys)))
		again := s.dial(token("alice"))
		opened := again.open("session_id", c.session)
		for again.last < opened.num("seq") {
			again.next()
		}
		if again.text["q1"] != "I like "+marker {
			t.Errorf("under keyset %d the question is %q", i, again.text["q1"])
		}
		again.ask(fmt.Sprint("under", i), "still "+marker)
		if keys == onlySecond {
			s.stop(syscall.SIGTERM)
			break
		}
		told := parleyOK(t, "storage", "reseal", "--config", s.config)
		if strings.Contains(told, " 0 messages") || !strings.Contains(told, "encrypted anew") {
			t.Errorf("resealing under keyset %d says %s", i, told)
		}
		again.ask(fmt.Sprint("after", i), "and "+marker)
		s.stop(syscall.SIGTERM)
		if told := parleyOK(t, "storage", "reseal", "--config", s.config); !strings.HasPrefix(told, "0 sessions and 0 messages") {
			t.Errorf("resealing again under keyset %d says %s", i, told)
		}
		wantNothingOf(t, marker, dir)
	}
	if code, _, _ := runParley(t, "check", "--config", configured(t, sqliteStorage(dir, encrypted(first)))); code != 1 {
		t.Errorf("with the old key alone the check ends with %d", code)
	}
}

// withoutFirst writes a keyset with its primary key only.
func withoutFirst(t *testing.T, path, to string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		PrimaryKeyID int64 `json:"primaryKeyId"`
		Key          []struct {
			KeyData          json.RawMessage `json:"keyData"`
			Status           string          `json:"status"`
			KeyID            int64           `json:"keyId"`
			OutputPrefixType string          `json:"outputPrefixType"`
		} `json:"key"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		t.Fatal(err)
	}
	for i := len(set.Key) - 1; i >= 0; i-- {
		if set.Key[i].KeyID != set.PrimaryKeyID {
			set.Key = append(set.Key[:i], set.Key[i+1:]...)
		}
	}
	if data, err = json.Marshal(set); err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestStorageThatCannotBeUsedIsRefused(t *testing.T) {
	newer, damaged := t.TempDir(), t.TempDir()
	parleyOK(t, "check", "--config", configured(t, sqliteStorage(newer)))
	db, err := sql.Open("sqlite", filepath.Join(newer, "parley.db"))
	if err == nil {
		_, err = db.Exec("PRAGMA user_version = 99")
	}
	if err == nil {
		err = db.Close()
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(damaged, "parley.db"), bytes.Repeat([]byte("no database "), 1000), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ storage, says string }{
		"a newer schema":   {sqliteStorage(newer), "start the Parley that wrote it, or a newer one"},
		"a damaged file":   {sqliteStorage(damaged), "restore it from a backup"},
		"no MongoDB there": {"storage: {driver: mongodb, mongodb: {uri: 'mongodb://alice:hunter2@" + deadAddr(t) + "/'}}\n", "MongoDB"},
	} {
		path := configured(t, c.storage)
		for _, command := range []string{"check", "serve"} {
			code, _, stderr := runParley(t, command, "--config", path)
			if code != 1 || !strings.Contains(stderr, c.says) || strings.Contains(stderr, "listening") || strings.Contains(stderr, "hunter2") {
				t.Errorf("%s: %s ends with %d: %s", name, command, code, stderr)
			}
		}
	}
}

func TestCopyFromOneStorageToAnother(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	s := startServer(t, eliza, sqliteStorage(from))
	c := s.dial(token("alice"))
	c.open()
	c.ask("q1", "I move")
	source, target := s.config, configured(t, sqliteStorage(to))
	first := parleyOK(t, "storage", "copy", "--config", source, "--to", target) // while the server runs
	if !strings.Contains(first, "1 sessions were copied now") {
		t.Errorf("the first copy says %s", first)
	}
	c.ask("q2", "I move, too")
	s.stop(syscall.SIGTERM)
	second := parleyOK(t, "storage", "copy", "--config", source, "--to", target)
	third := parleyOK(t, "storage", "copy", "--config", source, "--to", target)
	if !strings.Contains(second, "1 sessions, 4 messages and 2 usage records, of which 1 sessions") ||
		!strings.Contains(third, "of which 0 sessions") || strings.SplitAfter(second, "digest")[1] != strings.SplitAfter(third, "digest")[1] {
		t.Errorf("the copies say\n%s%s", second, third)
	}
	if code, _, stderr := runParley(t, "storage", "copy", "--config", source, "--to", source); code != 1 || !strings.Contains(stderr, "same storage") {
		t.Errorf("a copy onto itself ends with %d: %s", code, stderr)
	}
	moved := startServer(t, eliza, sqliteStorage(to))
	again := moved.dial(token("alice"))
	opened := again.resume(c)
	if opened["resumed"] != true {
		t.Errorf("on the copy the reader is told %v", opened)
	}
	again.ask("q3", "I have moved")
	if again.text["q2"] != "I move, too" || len(again.order) != 6 {
		t.Errorf("on the copy there are %v", again.text)
	}
}

func TestSessionsAreRemovedForTheirAge(t *testing.T) {
	s := startServer(t, eliza, "session: {idle_timeout: 100ms, grace_period: 100ms, cleanup_interval: 200ms}\n",
		sqliteStorage(t.TempDir(), "retention: 1s"))
	kept, gone := s.dial(token("alice")), s.dial(token("bob"))
	kept.open()
	kept.ask("q", "I stay")
	gone.open()
	gone.ask("q", "I go")
	gone.conn.CloseNow()
	s.awaitLog("sessions were removed for their age")
	again := s.dial(token("bob"))
	if f := again.sendRefused("session.open", "session_id", gone.session); f.str("error", "code") != "session_not_found" {
		t.Errorf("a session that was removed is answered with %v", f)
	}
	kept.ask("q2", "I am still here")
}
