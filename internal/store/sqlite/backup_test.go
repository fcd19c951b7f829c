package sqlite

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/parley-chat/parley/chat"
)

func TestBackupOfAStoreInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "parley.db")
	s := openStore(t, path)
	session := chat.Session{ID: "s1", Title: "title", Status: chat.SessionStatusActive}
	if err := s.CreateSession(t.Context(), &session); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := int64(1); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := s.InsertMessage(t.Context(), "s1", chat.Claim{}, numbered(n)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	var before []chat.Message
	var err error
	for len(before) < 20 && err == nil {
		before, err = s.Messages(t.Context(), "s1", 0, 1<<20)
	}
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "copy.db")
	if err := Backup(t.Context(), path, to); err != nil {
		t.Fatal(err)
	}
	close(stop)
	writer.Wait()

	info, err := os.Stat(to)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy has the mode %v, error %v", info.Mode(), err)
	}
	c := openStore(t, to)
	if c.ID() == s.ID() || len(c.ID()) != len(s.ID()) {
		t.Errorf("the copy has the ID %q, the original %q", c.ID(), s.ID())
	}
	if got, err := c.Session(t.Context(), "s1"); err != nil || got.Title != "title" {
		t.Errorf("the copy has %+v, error %v", got, err)
	}
	all, err := c.Messages(t.Context(), "s1", 0, 1<<20)
	if err != nil || len(all) < len(before) {
		t.Fatalf("the copy has %d messages, %d were there before; error %v", len(all), len(before), err)
	}
	for i, m := range all { // those of one moment
		if m.N != int64(i+1) || m.ID != numbered(m.N).ID {
			t.Fatalf("message %d of the copy is %+v", i, m)
		}
	}
	if err := c.InsertMessage(t.Context(), "s1", chat.Claim{}, numbered(1<<40)); err != nil {
		t.Errorf("the copy cannot be written: %v", err)
	}
}

func TestBackupOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	path, to := filepath.Join(dir, "parley.db"), filepath.Join(dir, "copy.db")
	openStore(t, path)
	if err := os.WriteFile(to, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Backup(t.Context(), path, to); err == nil {
		t.Error("a file was overwritten")
	}
	if data, err := os.ReadFile(to); err != nil || string(data) != "precious" {
		t.Errorf("the file holds %q, error %v", data, err)
	}
}

func TestBackupThatFailsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	for i, path := range []string{filepath.Join(dir, "missing.db"), damaged(t)} {
		to := filepath.Join(dir, fmt.Sprint("copy", i))
		if err := Backup(t.Context(), path, to); err == nil {
			t.Errorf("%s: no error", path)
		}
		for _, left := range []string{to, to + ".unfinished"} {
			if _, err := os.Stat(left); err == nil {
				t.Errorf("%s: %s was left", path, left)
			}
		}
	}
}

// damaged makes a file that is no database.
func damaged(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "damaged.db")
	if err := os.WriteFile(path, []byte("this is no database, however long one looks at it; not at all, not at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
