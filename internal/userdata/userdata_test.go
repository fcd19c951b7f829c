package userdata_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/storetest"
	"github.com/parley-chat/parley/internal/userdata"
)

var at = time.Date(2026, time.March, 4, 5, 6, 7, 89_000_000, time.UTC)

// filled is a store with sessions of two users.
func filled(t *testing.T) *storetest.Memory {
	t.Helper()
	store := storetest.NewMemory()
	for i := range 6 {
		s := chat.Session{
			ID: fmt.Sprint("s", i), UserID: []string{"alice", "bob"}[i%2], Title: fmt.Sprint("Title ", i), CreatedAt: at,
			LastActiveAt: at.Add(time.Duration(i) * time.Hour), Status: chat.SessionStatusActive, HelpReason: "stuck",
		}
		if err := store.CreateSession(t.Context(), &s); err != nil {
			t.Fatal(err)
		}
		for n := range 250 {
			m := chat.Message{
				ID: fmt.Sprint("m", n), N: int64(n + 1), Seq: int64(n + 1), Role: chat.RoleUser, CreatedAt: at, Status: chat.StatusComplete,
				Text: fmt.Sprintf("<b>%s says %d", s.UserID, n), Author: &chat.Author{ID: s.UserID, Name: "Name"},
			}
			if err := store.InsertMessage(t.Context(), s.ID, chat.Claim{}, m); err != nil {
				t.Fatal(err)
			}
		}
		r := chat.UsageRecord{SessionID: s.ID, MessageID: "m1", UserID: s.UserID, Model: "m", At: at, CostMicros: 5}
		if err := store.AddUsage(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

func export(t *testing.T, store chat.Store, user string) (lines []map[string]any, n userdata.Counts) {
	t.Helper()
	var b bytes.Buffer
	n, err := userdata.Export(t.Context(), store, user, &b)
	if err != nil {
		t.Fatal(err)
	}
	for scanner := bufio.NewScanner(&b); scanner.Scan(); {
		var line map[string]any
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v", scanner.Text(), err)
		}
		lines = append(lines, line)
	}
	return lines, n
}

func TestExportGivesAllOfOneUser(t *testing.T) {
	lines, n := export(t, filled(t), "alice")
	if n != (userdata.Counts{Sessions: 3, Messages: 750, Usage: 3}) || len(lines) != 756 {
		t.Fatalf("exported are %+v in %d lines", n, len(lines))
	}
	session, texts := "", make(map[string]bool)
	for _, line := range lines {
		switch line["type"] {
		case "session":
			session = line["session"].(map[string]any)["id"].(string)
			if line["user_id"] != "alice" || line["help_reason"] != "stuck" {
				t.Errorf("a session is exported as %v", line)
			}
		case "message":
			m := line["message"].(map[string]any)
			texts[fmt.Sprint(session, m["text"])] = true
			if line["session_id"] != session || !strings.HasPrefix(m["text"].(string), "<b>alice says") {
				t.Errorf("a message of session %s is exported as %v", session, line)
			}
		case "usage":
			if line["message_id"] != "m1" || line["cost_micros"] != 5.0 {
				t.Errorf("usage is exported as %v", line)
			}
		default:
			t.Errorf("there is the line %v", line)
		}
	}
	if len(texts) != 750 {
		t.Errorf("%d different messages are exported", len(texts))
	}
	if lines, _ := export(t, filled(t), "nobody"); len(lines) > 0 {
		t.Errorf("of nobody there is %v", lines)
	}
}

func TestEraseRemovesAllOfOneUser(t *testing.T) {
	store := filled(t)
	before, _ := export(t, store, "bob")
	n, err := userdata.Erase(t.Context(), store, "alice", userdata.FromStore(store))
	if err != nil || n != 3 {
		t.Fatalf("%d sessions are erased, error %v", n, err)
	}
	if lines, _ := export(t, store, "alice"); len(lines) > 0 {
		t.Errorf("of alice there is left %v", lines)
	}
	if after, _ := export(t, store, "bob"); len(after) != len(before) {
		t.Errorf("of bob there were %d lines and are %d", len(before), len(after))
	}
	if c, err := store.Count(t.Context()); err != nil || c != (chat.Counts{Sessions: 3, Messages: 750, Usage: 3}) {
		t.Errorf("there are %+v, error %v", c, err)
	}
	if n, err := userdata.Erase(t.Context(), store, "alice", userdata.FromStore(store)); err != nil || n != 0 {
		t.Errorf("again %d sessions are erased, error %v", n, err)
	}
}

// What was done about a user is not theirs to take away: least of all that a token is revoked.
func TestEraseKeepsWhatStaffDid(t *testing.T) {
	store := filled(t)
	revocation := chat.Revocation{UserID: "alice", TokenID: "t", At: at}
	record := chat.AuditRecord{ID: "a", At: at, ActorID: "ann", Action: "token.revoke", UserID: "alice", SessionID: "s0"}
	if err := errors.Join(store.AddRevocation(t.Context(), revocation), store.PutAudit(t.Context(), record)); err != nil {
		t.Fatal(err)
	}
	if _, err := userdata.Erase(t.Context(), store, "alice", userdata.FromStore(store)); err != nil {
		t.Fatal(err)
	}
	if got, err := store.Revocations(t.Context()); err != nil || len(got) != 1 || got[0] != revocation {
		t.Errorf("the revocations are %+v, error %v", got, err)
	}
	got, err := store.Audit(t.Context(), chat.AuditFilter{}, chat.AuditPlace{}, 10)
	if err != nil || len(got) != 1 || got[0] != record {
		t.Errorf("the audit records are %+v, error %v", got, err)
	}
}
