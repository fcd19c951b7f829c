// Package userdata gives one user all that is stored of them, and removes it.
package userdata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/wire"
)

const pageSize = 200

// A line of an export is one of these, as JSON.
type (
	// sessionLine comes before the messages of its session.
	sessionLine struct {
		Type       string         `json:"type"` // session
		UserID     string         `json:"user_id"`
		Session    wire.Session   `json:"session"`
		HelpReason string         `json:"help_reason,omitempty"`
		EndReason  chat.EndReason `json:"end_reason,omitempty"`
	}

	// messageLine is a message; a session's come newest first.
	messageLine struct {
		Type      string       `json:"type"` // message
		SessionID string       `json:"session_id"`
		Seq       int64        `json:"seq,omitempty"`
		Message   wire.Message `json:"message"`
	}

	// usageLine is what a response cost.
	usageLine struct {
		Type       string     `json:"type"` // usage
		SessionID  string     `json:"session_id"`
		MessageID  string     `json:"message_id"`
		Model      string     `json:"model"`
		At         wire.Time  `json:"at"`
		Usage      chat.Usage `json:"usage"`
		CostMicros int64      `json:"cost_micros,omitempty"`
	}
)

// Counts is how much was exported, or removed.
type Counts struct{ Sessions, Messages, Usage int64 }

// Export writes all that a store has of a user: JSON lines of the types session, message and usage.
func Export(ctx context.Context, store chat.Store, userID string, w io.Writer) (n Counts, err error) {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	var after chat.SessionPlace
	for {
		page, err := sessionsOf(ctx, store, userID, after)
		if err != nil {
			return n, err
		}
		if len(page) == 0 {
			break
		}
		for _, s := range page {
			if err := exportSession(ctx, store, s, out, &n); err != nil {
				return n, fmt.Errorf("session %s: %w", s.ID, err)
			}
			after = latestFirst.Place(&s)
		}
	}
	for last := (chat.UsageRecord{}); ; {
		page, err := store.UsageAfter(ctx, chat.UsageFilter{UserID: userID}, last.SessionID, last.MessageID, pageSize)
		if err != nil || len(page) == 0 {
			return n, err
		}
		for _, last = range page {
			n.Usage++
			if err := out.Encode(usageLine{
				"usage", last.SessionID, last.MessageID, last.Model, wire.Time(last.At), last.Usage, last.CostMicros,
			}); err != nil {
				return n, err
			}
		}
	}
}

var latestFirst = chat.SessionOrder{By: chat.SortByLastActive, Descending: true}

// sessionsOf gives a page of a user's sessions, which come after a place.
func sessionsOf(ctx context.Context, store chat.Store, userID string, after chat.SessionPlace) ([]chat.Session, error) {
	return store.FindSessions(ctx, chat.SessionFilter{UserID: userID}, latestFirst, after, pageSize)
}

func exportSession(ctx context.Context, store chat.Store, s chat.Session, out *json.Encoder, n *Counts) error {
	n.Sessions++
	if err := out.Encode(sessionLine{"session", s.UserID, wire.NewSession(&s), s.HelpReason, s.EndReason}); err != nil {
		return err
	}
	for before := int64(0); ; {
		page, err := store.Messages(ctx, s.ID, before, pageSize)
		if err != nil || len(page) == 0 {
			return err
		}
		for i := len(page) - 1; i >= 0; i-- {
			n.Messages++
			if err := out.Encode(messageLine{"message", s.ID, page[i].Seq, wire.NewMessage(&page[i])}); err != nil {
				return err
			}
		}
		before = page[0].N
	}
}

// Erase removes what a user has left in a store: the sessions, each by remove, and what responses cost. What was done
// about the user stays: the revocations, without which a token would be valid again, and the audit records. After an error it
// can be called again.
func Erase(
	ctx context.Context, store chat.Store, userID string, remove func(ctx context.Context, sessionID string) error,
) (sessions int, err error) {
	for {
		page, err := sessionsOf(ctx, store, userID, chat.SessionPlace{})
		if err != nil {
			return sessions, err
		}
		if len(page) == 0 {
			return sessions, store.DeleteUsage(ctx, chat.UsageFilter{UserID: userID})
		}
		for _, s := range page {
			switch err := remove(ctx, s.ID); {
			case errors.Is(err, chat.NewError(chat.CodeSessionNotFound, "")): // somebody was faster
			case err != nil:
				return sessions, fmt.Errorf("session %s: %w", s.ID, err)
			default:
				sessions++
			}
		}
	}
}

// FromStore removes a session from a store, whoever has it open.
func FromStore(store chat.Store) func(ctx context.Context, sessionID string) error {
	return func(ctx context.Context, sessionID string) error {
		return store.DeleteSession(ctx, sessionID, time.Time{})
	}
}
