package sqlite

import (
	"database/sql"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
)

// version1File makes the file that testdata/version1.sql describes.
func version1File(t *testing.T) (path string) {
	t.Helper()
	dump, err := os.ReadFile(filepath.Join("testdata", "version1.sql"))
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "parley.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(string(dump)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVersion1IsMigrated(t *testing.T) {
	s := openStore(t, version1File(t))
	created := time.Date(2026, time.March, 4, 5, 6, 7, 89_000_000, time.UTC)
	for _, want := range []chat.Session{
		{
			ID: "active", UserID: "ada", Title: "An active one", Model: "eliza", Status: chat.SessionStatusActive,
			CreatedAt: created, LastActiveAt: created.Add(time.Minute), AssistedBy: &chat.Author{ID: "grace", Name: "Grace"},
			HelpRequested: true, HelpReason: "it is stuck", Metadata: map[string]string{"page": "/prices"}, LogEnd: 9,
		},
		{
			ID: "empty", UserID: "ada", Model: "eliza", Status: chat.SessionStatusActive,
			CreatedAt: created, LastActiveAt: created,
		},
		{
			ID: "ended", UserID: "bob", Title: "An ended one", Model: "eliza", Status: chat.SessionStatusEnded,
			CreatedAt: created, LastActiveAt: created, EndReason: chat.EndedByUser, LogEnd: 3,
		},
	} {
		got, err := s.Session(t.Context(), want.ID)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("session %s: got %+v, want %+v", want.ID, got, want)
		}
	}
	for sessionID, want := range map[string][]chat.Message{
		"active": version1Messages(created),
		"empty":  nil,
		"ended": {{
			ID: "q1", N: 3, Seq: 3, Role: chat.RoleUser, Text: "Bye", Status: chat.StatusComplete, CreatedAt: created,
			Author: &chat.Author{ID: "bob", Name: "Bob"},
		}},
	} {
		byN, err := s.Messages(t.Context(), sessionID, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		bySeq, err := s.MessagesAfter(t.Context(), sessionID, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(byN, want) {
			t.Errorf("messages of session %s: got %+v, want %+v", sessionID, byN, want)
		}
		placed := slices.DeleteFunc(slices.Clone(want), func(m chat.Message) bool { return m.Seq == 0 })
		if !reflect.DeepEqual(bySeq, placed) {
			t.Errorf("messages of session %s by seq: got %+v, want %+v", sessionID, bySeq, placed)
		}
	}
}

// version1Messages gives the messages of the session "active" as they are to be after the migration.
func version1Messages(created time.Time) []chat.Message {
	ada := &chat.Author{ID: "ada", Name: "Ada"}
	return []chat.Message{
		{
			ID: "q1", N: 1, Seq: 1, Role: chat.RoleUser, Text: "It's \"raining\".\nWhy?", Status: chat.StatusComplete,
			CreatedAt: created, Author: ada, AnswerID: "a1",
		},
		{
			ID: "a1", N: 2, Seq: 2, Role: chat.RoleAssistant, Text: "Because.", Reasoning: "hm",
			Status: chat.StatusComplete, FinishReason: chat.FinishStop, CreatedAt: created,
			Model: "eliza", Provider: "doctor", ReplyTo: "q1",
			Usage: &chat.Usage{InputTokens: 3, OutputTokens: 2, Estimated: true}, FirstTokenMS: 12, DurationMS: 345,
		},
		{
			ID: "q2", N: 5, Seq: 5, Role: chat.RoleUser, Text: "Why, then?", Status: chat.StatusComplete,
			CreatedAt: created, Author: ada, Replaces: "q1", AnswerID: "a2",
		},
		{
			ID: "a2", N: 6, Seq: 6, Role: chat.RoleAssistant, Text: "Well", Status: chat.StatusFailed,
			Error: &chat.Error{
				Code: chat.CodeLLMTimeout, Message: "too slow", RetryAfter: time.Second, Field: "text",
			},
			CreatedAt: created, Model: "eliza", ReplyTo: "q2",
		},
		{
			ID: "a3", N: 9, Role: chat.RoleAssistant, Text: "I was", Status: chat.StatusStreaming,
			CreatedAt: created, Model: "eliza", ReplyTo: "q2", Replaces: "a2",
		},
	}
}

func TestMigratedStoreGoesOn(t *testing.T) {
	s := openStore(t, version1File(t))
	session, err := s.Session(t.Context(), "active")
	if err != nil {
		t.Fatal(err)
	}
	claim := chat.Claim{Owner: "owner", Epoch: "epoch"}
	if err := s.ClaimSession(t.Context(), "active", chat.Claim{}, claim); err != nil {
		t.Fatal(err)
	}
	if err := s.InsertMessage(t.Context(), "active", chat.Message{ID: "q3", N: 10}); err != nil {
		t.Fatal(err)
	}
	session.Claim, session.LogEnd = claim, 12
	if err := s.UpdateSession(t.Context(), &session, chat.Place{MessageID: "q3", Seq: 12}); err != nil {
		t.Fatal(err)
	}
	after, err := s.MessagesAfter(t.Context(), "active", 9, 10)
	if err != nil || len(after) != 1 || after[0].ID != "q3" || after[0].Seq != 12 {
		t.Errorf("got %+v and error %v, want q3 at seq 12", after, err)
	}
}

// Whoever migrates a file and whoever makes one have the same: what was released of the schema was not edited.
func TestMigratedSchemaIsThatOfANewFile(t *testing.T) {
	migrated, fresh := openStore(t, version1File(t)), openWithSession(t)
	if got, want := schemaOf(t, migrated), schemaOf(t, fresh); got != want {
		t.Errorf("after the migration it is\n%s\nin a new file it is\n%s", got, want)
	}
}

func schemaOf(t *testing.T, s *Store) string {
	t.Helper()
	rows, err := s.writer.Query("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var schema []string
	for rows.Next() {
		var name, definition string
		if err := rows.Scan(&name, &definition); err != nil {
			t.Fatal(err)
		}
		schema = append(schema, name+": "+definition)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(schema, "\n")
}

func TestMigratedStoresHaveTheirOwnIDs(t *testing.T) {
	path := version1File(t)
	one, again, other := openStore(t, path), openStore(t, path), openStore(t, version1File(t))
	if len(one.ID()) != 32 || again.ID() != one.ID() || other.ID() == one.ID() {
		t.Errorf("one file has the IDs %q and %q, another has %q", one.ID(), again.ID(), other.ID())
	}
}
