package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parley-chat/parley/chat"
)

func TestOpenMakesFilesForThePresentUserOnly(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "a", "b")
	openStore(t, filepath.Join(folder, "parley.db"))
	for path, want := range map[string]os.FileMode{
		filepath.Dir(folder):                   0o700,
		folder:                                 0o700,
		filepath.Join(folder, "parley.db"):     0o600,
		filepath.Join(folder, "parley.db-wal"): 0o600,
		filepath.Join(folder, "parley.db-shm"): 0o600,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has permissions %o, want %o", path, got, want)
		}
	}
}

func TestOpenTakesAnyPath(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, path := range []string{"parley.db", "a folder/ä?b=c#d%20&mode=memory.db", "file:x"} {
		openStore(t, path)
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenRefusesMemory(t *testing.T) {
	for _, path := range []string{"", ":memory:"} {
		if s, err := Open(t.Context(), path); err == nil {
			s.Close()
			t.Errorf("Open(%q) succeeded", path)
		}
	}
}

func TestOpenWithEndedContextFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := Open(ctx, filepath.Join(t.TempDir(), "parley.db")); !errors.Is(err, context.Canceled) {
		if s != nil {
			s.Close()
		}
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
}

// closedStore makes a store with one session and closes it.
func closedStore(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "parley.db")
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CreateSession(t.Context(), &chat.Session{ID: "s1"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantOpenError fails unless Open fails with an error that holds all of the words.
func wantOpenError(t *testing.T, path string, words ...string) {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err == nil {
		s.Close()
		t.Fatal("Open succeeded")
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error lacks %q: %v", word, err)
		}
	}
}

func TestOpenRefusesNewerSchema(t *testing.T) {
	path := closedStore(t)
	setVersion := func(query string) {
		t.Helper()
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec(query); err != nil {
			t.Fatal(err)
		}
	}
	setVersion("PRAGMA user_version = 99")
	wantOpenError(t, path, path, "version 99", "start the Parley that wrote it", "restore a backup")

	setVersion(fmt.Sprint("PRAGMA user_version = ", len(migrations))) // the refused file is as it was
	if _, err := openStore(t, path).Session(t.Context(), "s1"); err != nil {
		t.Error(err)
	}
}

func TestOpenOfDamagedFileSaysWhatToDo(t *testing.T) {
	overwrite := func(offset int64, with string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			file, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if _, err := file.WriteAt([]byte(with), offset); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, damage := range map[string]func(*testing.T, string){
		"another file's header": overwrite(0, "%PDF-1.7 and what not"),
		"another file": func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("some text\n", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a schema that is no tree": overwrite(100, "\xff\xff\xff\xff\xff\xff\xff\xff"),
		"a cut-off file": func(t *testing.T, path string) {
			if err := os.Truncate(path, 5000); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := closedStore(t)
			damage(t, path)
			wantOpenError(t, path, path, "restore it from a backup", "-wal")
		})
	}
}

func TestOpenReportsWhatKeepsItFromTheFile(t *testing.T) {
	folder := t.TempDir()
	wantOpenError(t, folder, folder)
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantOpenError(t, filepath.Join(file, "parley.db"), "not a directory")
}

func TestOpenTwiceSharesTheFile(t *testing.T) {
	path := closedStore(t)
	one, other := openStore(t, path), openStore(t, path)
	if err := one.InsertMessage(t.Context(), "s1", chat.Claim{}, numbered(1)); err != nil {
		t.Error(err)
	}
	if err := other.InsertMessage(t.Context(), "s1", chat.Claim{}, numbered(1)); !errors.Is(err, chat.ErrExists) {
		t.Errorf("got error %v, want %v", err, chat.ErrExists)
	}
}

func TestConnectionSettings(t *testing.T) {
	s := openWithSession(t)
	for _, test := range []struct {
		db           *sql.DB
		pragma, want string
	}{
		{s.writer, "journal_mode", "wal"},
		{s.writer, "synchronous", "2"}, // FULL: a commit is on the disk
		{s.writer, "foreign_keys", "1"},
		{s.writer, "busy_timeout", "5000"},
		{s.readers, "journal_mode", "wal"},
		{s.readers, "busy_timeout", "5000"},
	} {
		var got string
		if err := test.db.QueryRow("PRAGMA " + test.pragma).Scan(&got); err != nil || got != test.want {
			t.Errorf("%s is %q, want %q; error %v", test.pragma, got, test.want, err)
		}
	}
	if _, err := s.readers.Exec("DELETE FROM sessions"); err == nil {
		t.Error("a reader can write")
	}
}

func TestMessageOfUnknownSessionIsNotFound(t *testing.T) {
	s := openWithSession(t)
	if err := s.InsertMessage(t.Context(), "s2", chat.Claim{}, numbered(1)); !errors.Is(err, chat.ErrNotFound) {
		t.Errorf("got error %v, want %v", err, chat.ErrNotFound)
	}
}

// A session's messages are read in the order in which they lie in the file, without sorting.
func TestQueriesUseTheKeys(t *testing.T) {
	s := openWithSession(t)
	for query, want := range map[string]string{
		selectMessagesQuery:      "USING PRIMARY KEY (session_id=? AND n<?)",
		selectMessagesAfterQuery: "USING INDEX messages_by_seq (session_id=? AND seq>?)",
		selectMessagesFromQuery:  "USING PRIMARY KEY (session_id=? AND n>?)",
		selectMessageQuery:       "USING INDEX sqlite_autoindex_messages_2 (session_id=? AND message_id=?)",
		updateMessageQuery:       "USING INDEX sqlite_autoindex_messages_2 (session_id=? AND message_id=?)",
		placeMessageQuery:        "USING INDEX sqlite_autoindex_messages_2 (session_id=? AND message_id=?)",
		selectSessionQuery:       "USING PRIMARY KEY (id=?)",
		sessionClaimQuery:        "USING PRIMARY KEY (id=?)",
		claimSessionQuery:        "USING PRIMARY KEY (id=?)",
		updateSessionQuery:       "USING PRIMARY KEY (id=?)",
	} {
		if plan := planOf(t, s, query); len(plan) != 1 || !strings.HasSuffix(plan[0], want) {
			t.Errorf("the plan is %q, want one step that ends in %q:\n%s", plan, want, query)
		}
	}
}

// planOf gives the steps of a query's plan.
func planOf(t *testing.T, s *Store, query string) (plan []string) {
	t.Helper()
	rows, err := s.writer.Query("EXPLAIN QUERY PLAN "+query, make([]any, strings.Count(query, "?"))...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, step)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return plan
}

// What a user's usage costs to sum depends on how much of it there is in that time, not on all the rest.
func TestUsageOfAUserIsFoundByItsKey(t *testing.T) {
	want := []string{"SEARCH usage USING PRIMARY KEY (user_id=? AND at>? AND at<?)", "USE TEMP B-TREE FOR GROUP BY"}
	if plan := planOf(t, openWithSession(t), sumUsageOfUserQuery); !slices.Equal(plan, want) {
		t.Errorf("the plan is %q, want %q", plan, want)
	}
}

// MessagesAfter begins in the index where it is told to: no entry before that is read and passed over, which would be
// a comparison in the program (https://www.sqlite.org/opcode.html).
func TestMessagesAfterSeeksItsPlace(t *testing.T) {
	s := openWithSession(t)
	rows, err := s.writer.Query("EXPLAIN "+selectMessagesAfterQuery, "s1", 5, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	seeks := 0
	for rows.Next() {
		var opcode string
		var unused any
		if err := rows.Scan(&unused, &opcode, &unused, &unused, &unused, &unused, &unused, &unused); err != nil {
			t.Fatal(err)
		}
		switch opcode {
		case "SeekGT":
			seeks++
		case "Le", "Lt", "Ge", "Gt":
			t.Errorf("the program compares each entry: it has the opcode %s", opcode)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if seeks != 1 {
		t.Errorf("the program seeks %d times, want once", seeks)
	}
}
