package sqlite

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/parley-chat/parley/chat"
)

// inserterEnv makes the test binary insert into the store that it names, instead of running tests.
const inserterEnv = "PARLEY_TEST_SQLITE_INSERTER"

// TestAcknowledgedMessagesSurviveKill kills a process in the middle of its writes: every message that was
// acknowledged is there afterwards, and the file is sound.
func TestAcknowledgedMessagesSurviveKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "parley.db")
	acknowledged := killInserter(t, path, 200)

	s := openStore(t, path)
	messages, err := s.Messages(t.Context(), "s1", 0, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	stored := make(map[int64]string)
	for _, m := range messages {
		stored[m.N] = m.Text
	}
	for _, n := range acknowledged {
		if want := textOf(n); stored[n] != want {
			t.Errorf("message %d: got %q, want %q", n, stored[n], want)
		}
	}
	var check string
	if err := s.writer.QueryRow("PRAGMA integrity_check").Scan(&check); err != nil || check != "ok" {
		t.Errorf("integrity check: %q, error %v", check, err)
	}
}

// killInserter runs an inserter and kills it after it has acknowledged some messages. It returns the numbers of all
// that were acknowledged up to its death.
func killInserter(t *testing.T, path string, after int) (acknowledged []int64) {
	t.Helper()
	inserter := exec.Command(os.Args[0])
	inserter.Env = append(os.Environ(), inserterEnv+"="+path)
	inserter.Stderr = os.Stderr
	stdout, err := inserter.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := inserter.Start(); err != nil {
		t.Fatal(err)
	}
	defer inserter.Wait() // reports the kill
	defer inserter.Process.Kill()
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		n, err := strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			t.Fatal(err) // no line is cut: a pipe takes a short write whole or not at all
		}
		acknowledged = append(acknowledged, n)
		if len(acknowledged) == after {
			inserter.Process.Kill()
		}
	}
	if len(acknowledged) < after {
		t.Fatalf("the inserter ended after %d messages", len(acknowledged))
	}
	return acknowledged
}

// insertUntilKilled inserts messages from several goroutines and prints the number of each once it is acknowledged.
// It returns only on failure.
func insertUntilKilled(path string) (exitCode int) {
	ctx := context.Background()
	s, err := Open(ctx, path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := s.CreateSession(ctx, &chat.Session{ID: "s1", Status: chat.SessionStatusActive}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var last atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				n := last.Add(1)
				m := chat.Message{N: n, ID: strconv.FormatInt(n, 10), Text: textOf(n), Status: chat.StatusComplete}
				if err := s.InsertMessage(ctx, "s1", chat.Claim{}, m); err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				fmt.Println(n)
			}
		})
	}
	wg.Wait()
	return 1
}

func textOf(n int64) string { return fmt.Sprintf("text of message %d", n) }
