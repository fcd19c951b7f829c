package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
)

var (
	operandClaim = chat.Claim{Owner: "owner", Epoch: "epoch"}
	operandTime  = time.Date(2026, time.March, 4, 5, 6, 7, 89_123_456, time.FixedZone("", 3600)) // which no store keeps like that
)

// Populate stores what [Operations] are done to: a session with a question and a response that streams, a revocation, and
// an action of the staff that has no outcome yet.
func Populate(t *testing.T, store chat.Store) {
	t.Helper()
	ctx := t.Context()
	question := chat.Message{ID: "q", N: 1, Role: chat.RoleUser, Text: "why?", Status: chat.StatusComplete, CreatedAt: operandTime}
	response := chat.Message{ID: "a", N: 2, Role: chat.RoleAssistant, Status: chat.StatusStreaming, CreatedAt: operandTime}
	session := operandSession("s")
	if err := errors.Join(store.CreateSession(ctx, &session), store.InsertMessage(ctx, "s", operandClaim, question),
		store.InsertMessage(ctx, "s", operandClaim, response), store.AddUsage(ctx, operandUsage("q")),
		store.AddRevocation(ctx, operandRevocation()), store.PutAudit(ctx, operandAudit("begun", ""))); err != nil {
		t.Fatal(err)
	}
}

func operandSession(id string) chat.Session {
	return chat.Session{
		ID: id, UserID: "u", Title: "title", Status: chat.SessionStatusActive, CreatedAt: operandTime, LastActiveAt: operandTime, Claim: operandClaim,
	}
}

func operandUsage(message string) chat.UsageRecord {
	return chat.UsageRecord{SessionID: "s", MessageID: message, UserID: "u", Model: "m", At: operandTime, CostMicros: 3}
}

func operandRevocation() chat.Revocation {
	return chat.Revocation{UserID: "u", TokenID: "t", At: operandTime, Until: operandTime.Add(time.Hour)}
}

func operandAudit(id, outcome string) chat.AuditRecord {
	return chat.AuditRecord{ID: id, At: operandTime, ActorID: "staff", Action: "session.end", UserID: "u", Outcome: outcome}
}

// Operation does something to a store, and gives what it is told.
type Operation func(ctx context.Context, s chat.Store) (any, error)

// Operations are those of a store that are tried again, by their name and, behind a comma, what is particular about one.
// Each is as somebody would call it on a store that [Populate] has filled.
var Operations = map[string]Operation{
	"CreateSession": func(ctx context.Context, s chat.Store) (any, error) {
		created := operandSession("new")
		return nil, s.CreateSession(ctx, &created)
	},
	"UpdateSession": func(ctx context.Context, s chat.Store) (any, error) {
		changed := operandSession("s")
		changed.Title, changed.Revision, changed.LogEnd = "changed", 1, 4
		return nil, s.UpdateSession(ctx, &changed, chat.Place{MessageID: "q", Seq: 1})
	},
	"UpdateSession, which ends it": func(ctx context.Context, s chat.Store) (any, error) {
		ended := operandSession("s")
		ended.Status, ended.EndReason, ended.Revision = chat.SessionStatusEnded, chat.EndedByUser, 1
		return nil, s.UpdateSession(ctx, &ended)
	},
	"ClaimSession": func(ctx context.Context, s chat.Store) (any, error) {
		return s.ClaimSession(ctx, "s", operandClaim, chat.Claim{Owner: "next", Epoch: "next"})
	},
	"InsertMessage": func(ctx context.Context, s chat.Store) (any, error) {
		m := chat.Message{ID: "n", N: 3, Role: chat.RoleUser, Text: "and?", Status: chat.StatusComplete, CreatedAt: operandTime}
		m.Error = &chat.Error{Code: chat.CodeInternal, RetryAfter: time.Second + 1, TraceID: "t", Cause: errors.New("a cause, which is not stored")}
		return nil, s.InsertMessage(ctx, "s", operandClaim, m)
	},
	"UpdateMessage": func(ctx context.Context, s chat.Store) (any, error) {
		m := chat.Message{ID: "a", Text: "so far", Status: chat.StatusStreaming}
		return nil, s.UpdateMessage(ctx, "s", operandClaim, m)
	},
	"UpdateMessage, which ends it": func(ctx context.Context, s chat.Store) (any, error) {
		m := chat.Message{ID: "a", Text: "because", Status: chat.StatusComplete, Usage: &chat.Usage{InputTokens: 1}, DurationMS: 4}
		return nil, s.UpdateMessage(ctx, "s", operandClaim, m)
	},
	"AddUsage": func(ctx context.Context, s chat.Store) (any, error) { return nil, s.AddUsage(ctx, operandUsage("a")) },
	"DeleteSession": func(ctx context.Context, s chat.Store) (any, error) {
		return nil, s.DeleteSession(ctx, "s", operandTime.Add(time.Hour))
	},
	"DeleteUsage": func(ctx context.Context, s chat.Store) (any, error) {
		return nil, s.DeleteUsage(ctx, chat.UsageFilter{UserID: "u"})
	},
	"ResealSession": func(ctx context.Context, s chat.Store) (any, error) {
		sealed := operandSession("s")
		sealed.Title, sealed.Sealed = "sealed", true
		return nil, s.ResealSession(ctx, operandSession("s"), sealed)
	},
	"ResealMessage": func(ctx context.Context, s chat.Store) (any, error) {
		return nil, s.ResealMessage(ctx, "s", chat.Message{ID: "q", Text: "why?"}, chat.Message{Text: "sealed", Sealed: true})
	},
	"SetSealCheck": func(ctx context.Context, s chat.Store) (any, error) { return nil, s.SetSealCheck(ctx, "sealed") },
	"SealCheck":    func(ctx context.Context, s chat.Store) (any, error) { return s.SealCheck(ctx) },
	"Session":      func(ctx context.Context, s chat.Store) (any, error) { return s.Session(ctx, "s") },
	"Message":      func(ctx context.Context, s chat.Store) (any, error) { return s.Message(ctx, "s", "q") },
	"Messages":     func(ctx context.Context, s chat.Store) (any, error) { return s.Messages(ctx, "s", 0, 9) },
	"MessagesAfter": func(ctx context.Context, s chat.Store) (any, error) {
		return s.MessagesAfter(ctx, "s", 0, 9)
	},
	"SumUsage":      func(ctx context.Context, s chat.Store) (any, error) { return s.SumUsage(ctx, chat.UsageFilter{}) },
	"SessionsAfter": func(ctx context.Context, s chat.Store) (any, error) { return s.SessionsAfter(ctx, "", 9) },
	"FindSessions": func(ctx context.Context, s chat.Store) (any, error) {
		return s.FindSessions(ctx, chat.SessionFilter{UserID: "u"}, chat.SessionOrder{}, chat.SessionPlace{}, 9)
	},
	"MessagesFrom": func(ctx context.Context, s chat.Store) (any, error) { return s.MessagesFrom(ctx, "s", 0, 9) },
	"ClaimedSessions": func(ctx context.Context, s chat.Store) (any, error) {
		return s.ClaimedSessions(ctx, "own", "", 9)
	},
	"IdleSessions": func(ctx context.Context, s chat.Store) (any, error) {
		return s.IdleSessions(ctx, operandTime.Add(time.Hour), 9)
	},
	"UsageAfter": func(ctx context.Context, s chat.Store) (any, error) {
		return s.UsageAfter(ctx, chat.UsageFilter{}, "", "", 9)
	},
	"AddRevocation": func(ctx context.Context, s chat.Store) (any, error) {
		return nil, s.AddRevocation(ctx, chat.Revocation{UserID: "u", At: operandTime})
	},
	"AddRevocation, again": func(ctx context.Context, s chat.Store) (any, error) {
		again := operandRevocation()
		again.At, again.Until = again.At.Add(time.Minute), again.Until.Add(-time.Minute)
		return nil, s.AddRevocation(ctx, again)
	},
	"Revocations": func(ctx context.Context, s chat.Store) (any, error) { return s.Revocations(ctx) },
	"DeleteRevocations": func(ctx context.Context, s chat.Store) (any, error) {
		return nil, s.DeleteRevocations(ctx, operandTime.Add(2*time.Hour))
	},
	"PutAudit": func(ctx context.Context, s chat.Store) (any, error) {
		return nil, s.PutAudit(ctx, operandAudit("new", ""))
	},
	"PutAudit, of an outcome": func(ctx context.Context, s chat.Store) (any, error) {
		return nil, s.PutAudit(ctx, operandAudit("begun", chat.AuditDone))
	},
	"Audit": func(ctx context.Context, s chat.Store) (any, error) {
		return s.Audit(ctx, chat.AuditFilter{UserID: "u"}, chat.AuditPlace{}, 9)
	},
	"Count": func(ctx context.Context, s chat.Store) (any, error) { return s.Count(ctx) },
}

// Contents gives all that a store holds.
func Contents(t *testing.T, s chat.Store) string {
	t.Helper()
	ctx := t.Context()
	sessions, err := s.SessionsAfter(ctx, "", 100)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, session := range sessions {
		messages, err := s.Messages(ctx, session.ID, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%+v\n", session)
		for _, m := range messages {
			usage, shown := m.Usage, m.Error
			m.Usage, m.Error = nil, nil // which would be addresses
			fmt.Fprintf(&b, "\t%+v %+v %+v\n", m, usage, shown)
		}
	}
	records, err := s.UsageAfter(ctx, chat.UsageFilter{}, "", "", 100)
	if err != nil {
		t.Fatal(err)
	}
	check, err := s.SealCheck(ctx)
	if err != nil {
		t.Fatal(err)
	}
	revocations, err := s.Revocations(ctx)
	if err != nil {
		t.Fatal(err)
	}
	audit, err := s.Audit(ctx, chat.AuditFilter{}, chat.AuditPlace{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "%+v\n%+v\n%+v\n%s", records, revocations, audit, check)
	return b.String()
}
