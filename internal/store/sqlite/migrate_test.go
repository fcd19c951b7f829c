package sqlite

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
)

// oldFile makes the file that a dump in testdata describes.
func oldFile(t *testing.T, dump string) (path string) {
	t.Helper()
	statements, err := os.ReadFile(filepath.Join("testdata", dump))
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "parley.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(string(statements)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVersion1IsMigrated(t *testing.T) {
	s := openStore(t, oldFile(t, "version1.sql"))
	created := time.Date(2026, time.March, 4, 5, 6, 7, 89_000_000, time.UTC)
	wantSessions(t, s,
		chat.Session{
			ID: "active", UserID: "ada", Title: "An active one", Model: "eliza", Status: chat.SessionStatusActive,
			CreatedAt: created, LastActiveAt: created.Add(time.Minute), AssistedBy: &chat.Author{ID: "grace", Name: "Grace"},
			HelpRequested: true, HelpReason: "it is stuck", Metadata: map[string]string{"page": "/prices"}, LogEnd: 9,
			Usage: chat.Usage{InputTokens: 3, OutputTokens: 2, Estimated: true}, Messages: 4,
		},
		chat.Session{
			ID: "empty", UserID: "ada", Model: "eliza", Status: chat.SessionStatusActive,
			CreatedAt: created, LastActiveAt: created,
		},
		chat.Session{
			ID: "ended", UserID: "bob", Title: "An ended one", Model: "eliza", Status: chat.SessionStatusEnded,
			CreatedAt: created, LastActiveAt: created, EndReason: chat.EndedByUser, LogEnd: 3, Messages: 1,
		},
	)
	wantMessages(t, s, map[string][]chat.Message{
		"active": version1Messages(created),
		"empty":  nil,
		"ended": {{
			ID: "q1", N: 3, Seq: 3, Role: chat.RoleUser, Text: "Bye", Status: chat.StatusComplete, CreatedAt: created,
			Author: &chat.Author{ID: "bob", Name: "Bob"},
		}},
	})
	wantSums(t, s, chat.UsageSum{
		UserID: "ada", Model: "eliza", Day: time.Date(2026, time.March, 4, 0, 0, 0, 0, time.UTC),
		Responses: 1, Estimated: 1, InputTokens: 3, OutputTokens: 2,
	})
}

func wantSessions(t *testing.T, s *Store, sessions ...chat.Session) {
	t.Helper()
	for _, want := range sessions {
		got, err := s.Session(t.Context(), want.ID)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("session %s: got %+v, want %+v", want.ID, got, want)
		}
	}
}

// wantMessages compares the messages of each session, both by their N and by their Seq.
func wantMessages(t *testing.T, s *Store, messages map[string][]chat.Message) {
	t.Helper()
	for sessionID, want := range messages {
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

func wantSums(t *testing.T, s *Store, want ...chat.UsageSum) {
	t.Helper()
	got, err := s.SumUsage(t.Context(), chat.UsageFilter{})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("usage: got %+v, want %+v", got, want)
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

// version2Created is when all in testdata/version2.sql began.
var version2Created = time.Date(2026, time.March, 4, 23, 59, 58, 89_000_000, time.UTC)

func TestVersion2IsMigrated(t *testing.T) {
	s := openStore(t, oldFile(t, "version2.sql"))
	if want := "725aa112e0df169a6da9ac950019b85b"; s.ID() != want {
		t.Errorf("the store's ID is %q, want %q", s.ID(), want)
	}
	created := version2Created
	wantSessions(t, s,
		chat.Session{
			ID: "active", UserID: "ada", Title: "An active one", Model: "eliza", Status: chat.SessionStatusActive,
			CreatedAt: created, LastActiveAt: created.Add(time.Minute), AssistedBy: &chat.Author{ID: "grace", Name: "Grace"},
			HelpRequested: true, HelpReason: "it is stuck", Metadata: map[string]string{"page": "/prices"},
			ResponseTimes: []chat.ResponseTime{{FirstTokenMS: 12, TotalMS: 345}, {FirstTokenMS: 20, TotalMS: 3000}},
			Usage:         chat.Usage{InputTokens: 33, OutputTokens: 22, Estimated: true}, Messages: 4,
			Claim: chat.Claim{Owner: "server 1", Epoch: "epoch 1"}, LogEnd: 9, Changed: 7,
		},
		chat.Session{
			ID: "unanswered", UserID: "ada", Model: "eliza", Status: chat.SessionStatusActive,
			CreatedAt: created, LastActiveAt: created, LogEnd: 1, Messages: 1,
		},
		chat.Session{
			ID: "ended", UserID: "bob", Title: "An ended one", Model: "eliza", Status: chat.SessionStatusEnded,
			CreatedAt: created, LastActiveAt: created, EndReason: chat.EndedByUser, LogEnd: 6, Changed: 6,
			ResponseTimes: []chat.ResponseTime{{FirstTokenMS: 1, TotalMS: 2}},
			Usage:         chat.Usage{InputTokens: 5, OutputTokens: 7}, Messages: 2,
		},
	)
	question := chat.Message{
		ID: "q1", N: 1, Seq: 1, Role: chat.RoleUser, Text: "Is anybody there?", Status: chat.StatusComplete,
		CreatedAt: created, Author: &chat.Author{ID: "ada", Name: "Ada"}, AnswerID: "a1",
	}
	wantMessages(t, s, map[string][]chat.Message{"unanswered": {question}})
	usage := &chat.Usage{InputTokens: 30, OutputTokens: 20}
	m, err := s.Message(t.Context(), "active", "a2")
	if err != nil || m.Seq != 5 || !reflect.DeepEqual(m.Usage, usage) {
		t.Errorf("got %+v and error %v, want seq 5 and usage %+v", m, err, usage)
	}
}

// A response's usage is that of the day on which it began; what has not ended has none yet.
func TestUsageOfVersion2IsMigrated(t *testing.T) {
	s := openStore(t, oldFile(t, "version2.sql"))
	day := time.Date(2026, time.March, 4, 0, 0, 0, 0, time.UTC)
	ada := chat.UsageSum{
		UserID: "ada", Model: "eliza", Day: day, Responses: 2, Estimated: 1, InputTokens: 33, OutputTokens: 22,
	}
	bob := chat.UsageSum{UserID: "bob", Model: "eliza", Day: day, Responses: 1, InputTokens: 5, OutputTokens: 7}
	wantSums(t, s, ada, bob)

	for _, messageID := range []string{"a1", "a4"} { // one that had ended, and one that ends only now
		if err := s.AddUsage(t.Context(), chat.UsageRecord{
			SessionID: "active", MessageID: messageID, UserID: "ada", Model: "eliza", At: version2Created,
			Usage: chat.Usage{InputTokens: 30, OutputTokens: 9},
		}); err != nil {
			t.Fatal(err)
		}
	}
	ada.Responses, ada.InputTokens, ada.OutputTokens = 3, ada.InputTokens+30, ada.OutputTokens+9
	wantSums(t, s, ada, bob)
}

func TestMigratedStoreGoesOn(t *testing.T) {
	s := openStore(t, oldFile(t, "version1.sql"))
	session, err := s.Session(t.Context(), "active")
	if err != nil {
		t.Fatal(err)
	}
	claim := chat.Claim{Owner: "owner", Epoch: "epoch"}
	if _, err := s.ClaimSession(t.Context(), "active", chat.Claim{}, claim); err != nil {
		t.Fatal(err)
	}
	if err := s.InsertMessage(t.Context(), "active", claim, chat.Message{ID: "q3", N: 10}); err != nil {
		t.Fatal(err)
	}
	session.Claim, session.LogEnd, session.Revision = claim, 12, 1
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
	want := schemaOf(t, openWithSession(t))
	for version := 1; version < len(migrations); version++ {
		dump := fmt.Sprintf("version%d.sql", version)
		if got := schemaOf(t, openStore(t, oldFile(t, dump))); got != want {
			t.Errorf("%s: after the migration it is\n%s\nin a new file it is\n%s", dump, got, want)
		}
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
	path := oldFile(t, "version1.sql")
	one, again, other := openStore(t, path), openStore(t, path), openStore(t, oldFile(t, "version1.sql"))
	if len(one.ID()) != 32 || again.ID() != one.ID() || other.ID() == one.ID() {
		t.Errorf("one file has the IDs %q and %q, another has %q", one.ID(), again.ID(), other.ID())
	}
}

func TestVersion3IsMigrated(t *testing.T) {
	s := openStore(t, oldFile(t, "version3.sql"))
	at := time.Date(2026, time.May, 6, 7, 8, 9, 10_000_000, time.UTC)
	third := chat.Session{
		ID: "third", UserID: "cleo", Title: "Of version 3", Model: "eliza", Status: chat.SessionStatusActive,
		CreatedAt: at, LastActiveAt: at.Add(time.Hour), Metadata: map[string]string{"plan": "gold"},
		ProviderStates: map[string]string{"dify": "conversation 7"}, Claim: chat.Claim{Owner: "server 3", Epoch: "epoch 3"},
		LogEnd: 4, Changed: 4, Usage: chat.Usage{InputTokens: 5, OutputTokens: 6}, Messages: 1,
	}
	wantSessions(t, s, third)
	wantMessages(t, s, map[string][]chat.Message{"third": {
		{
			ID: "q1", N: 1, Seq: 1, Role: chat.RoleUser, Text: "Héllo 👋", Status: chat.StatusComplete, CreatedAt: at,
			Author: &chat.Author{ID: "cleo", Name: "Cleo"}, AnswerID: "a1",
		},
		{
			ID: "a1", N: 2, Role: chat.RoleAssistant, Text: "Hi, as far as", Status: chat.StatusStreaming, CreatedAt: at,
			Model: "eliza", Provider: "eliza", ReplyTo: "q1",
		},
	}})
	records, err := s.UsageAfter(t.Context(), chat.UsageFilter{UserID: "cleo"}, "", "", 10)
	if err != nil || len(records) != 1 || records[0].CostMicros != 70 {
		t.Errorf("the usage is %+v, error %v", records, err)
	}
	if check, err := s.SealCheck(t.Context()); err != nil || check != "" {
		t.Errorf("the file is said to be sealed: %q, error %v", check, err)
	}
	ended, err := s.FindSessions(t.Context(), chat.SessionFilter{UserID: "bob"}, chat.SessionOrder{}, chat.SessionPlace{}, 10)
	if err != nil || len(ended) != 1 || ended[0].ID != "ended" {
		t.Errorf("the sessions of bob are %+v, error %v", ended, err)
	}
	third.Revision, third.Title = 1, "and now of today"
	if err := s.UpdateSession(t.Context(), &third); err != nil {
		t.Errorf("the session does not go on: %v", err)
	}
}

func TestVersion4IsMigrated(t *testing.T) {
	s := openStore(t, oldFile(t, "version4.sql"))
	at := time.Date(2026, time.July, 8, 9, 10, 11, 12_000_000, time.UTC)
	fourth := chat.Session{
		ID: "fourth", UserID: "dora", Title: "sealed title", Model: "eliza", Status: chat.SessionStatusActive,
		CreatedAt: at, LastActiveAt: at.Add(time.Minute), Metadata: map[string]string{"plan": "free"}, Sealed: true,
		Claim: chat.Claim{Owner: "server 4", Epoch: "epoch 4"}, LogEnd: 5, Revision: 1783501811012000,
		ResponseTimes: []chat.ResponseTime{{FirstTokenMS: 7, TotalMS: 70}},
		Usage:         chat.Usage{InputTokens: 8, OutputTokens: 9}, Messages: 2,
	}
	wantSessions(t, s, fourth)
	if check, err := s.SealCheck(t.Context()); err != nil || check != "a seal's check" {
		t.Errorf("the seal's check is %q, error %v", check, err)
	}
	for by, want := range map[chat.SessionSort][]string{
		chat.SortByMessages: {"third", "unanswered", "ended", "fourth", "active"},
		chat.SortByTokens:   {"unanswered", "third", "ended", "fourth", "active"},
	} {
		all, err := s.FindSessions(t.Context(), chat.SessionFilter{}, chat.SessionOrder{By: by}, chat.SessionPlace{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, session := range all {
			got = append(got, session.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("by %s the sessions are %q, want %q", by, got, want)
		}
	}
	revocation, record := chat.Revocation{UserID: "dora", At: at}, chat.AuditRecord{ID: "a", At: at}
	if err := errors.Join(s.AddRevocation(t.Context(), revocation), s.PutAudit(t.Context(), record)); err != nil {
		t.Error(err)
	}
	fourth.Revision, fourth.Messages = fourth.Revision+1, 3
	if err := s.UpdateSession(t.Context(), &fourth); err != nil {
		t.Errorf("the session does not go on: %v", err)
	}
	wantSessions(t, s, fourth)
}
