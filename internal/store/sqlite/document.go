package sqlite

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/parley-chat/parley/chat"
)

// sessionDocument is a session as its row holds it. It shares no memory with the session.
type sessionDocument struct {
	id, userID     string
	title, model   string
	status         chat.SessionStatus
	createdAt      int64
	lastActiveAt   int64
	assistedBy     sql.NullString
	helpRequested  bool
	helpReason     string
	endReason      chat.EndReason
	metadata       sql.NullString
	owner, epoch   string
	logEnd         int64
	changed        int64
	responseTimes  sql.NullString
	usage          sql.NullString
	providerStates sql.NullString
	sealed         bool
	revision       int64
	messages       int64
}

// sessionToDocument serialises a session under the lock that guards it: all of it is read before View returns.
func sessionToDocument(view chat.SessionView) (d sessionDocument, err error) {
	view.View(func(session *chat.Session) {
		d = sessionDocument{
			id:            session.ID,
			userID:        session.UserID,
			title:         session.Title,
			model:         session.Model,
			status:        session.Status,
			createdAt:     session.CreatedAt.UnixMilli(),
			lastActiveAt:  session.LastActiveAt.UnixMilli(),
			helpRequested: session.HelpRequested,
			helpReason:    session.HelpReason,
			endReason:     session.EndReason,
			owner:         session.Claim.Owner,
			epoch:         session.Claim.Epoch,
			logEnd:        session.LogEnd,
			changed:       session.Changed,
			sealed:        session.Sealed,
			revision:      session.Revision,
			messages:      session.Messages,
		}
		if d.assistedBy, err = encode(session.AssistedBy); err != nil {
			return
		}
		if d.metadata, err = encode(session.Metadata); err != nil {
			return
		}
		if d.responseTimes, err = encode(session.ResponseTimes); err != nil {
			return
		}
		if d.usage, err = encode(session.Usage); err != nil {
			return
		}
		d.providerStates, err = encode(session.ProviderStates)
	})
	return d, err
}

func (d *sessionDocument) session() (chat.Session, error) {
	session := chat.Session{
		ID:            d.id,
		UserID:        d.userID,
		Title:         d.title,
		Model:         d.model,
		Status:        d.status,
		CreatedAt:     time.UnixMilli(d.createdAt).UTC(),
		LastActiveAt:  time.UnixMilli(d.lastActiveAt).UTC(),
		HelpRequested: d.helpRequested,
		HelpReason:    d.helpReason,
		EndReason:     d.endReason,
		Claim:         chat.Claim{Owner: d.owner, Epoch: d.epoch},
		LogEnd:        d.logEnd,
		Changed:       d.changed,
		Sealed:        d.sealed,
		Revision:      d.revision,
		Messages:      d.messages,
	}
	if err := decode(d.assistedBy, &session.AssistedBy); err != nil {
		return chat.Session{}, fmt.Errorf("assisted_by: %w", err)
	}
	if err := decode(d.metadata, &session.Metadata); err != nil {
		return chat.Session{}, fmt.Errorf("metadata: %w", err)
	}
	if err := decode(d.responseTimes, &session.ResponseTimes); err != nil {
		return chat.Session{}, fmt.Errorf("response_times: %w", err)
	}
	if err := decode(d.usage, &session.Usage); err != nil {
		return chat.Session{}, fmt.Errorf("usage: %w", err)
	}
	if err := decode(d.providerStates, &session.ProviderStates); err != nil {
		return chat.Session{}, fmt.Errorf("provider_states: %w", err)
	}
	return session, nil
}

// messageDocument holds those fields of a message that its row has in another form.
type messageDocument struct {
	createdAt                        int64
	errorJSON, authorJSON, usageJSON sql.NullString
}

// errorDocument is a [chat.Error] as it is stored. Its cause is for the log and stays there.
type errorDocument struct {
	Code         chat.Code `json:"code"`
	Message      string    `json:"message"`
	RetryAfterMS int64     `json:"retry_after_ms,omitempty"`
	Field        string    `json:"field,omitempty"`
	TraceID      string    `json:"trace_id,omitempty"`
}

func messageToDocument(m *chat.Message) (d messageDocument, err error) {
	d.createdAt = m.CreatedAt.UnixMilli()
	if m.Error != nil {
		if d.errorJSON, err = encode(errorDocument{
			Code:         m.Error.Code,
			Message:      m.Error.Message,
			RetryAfterMS: m.Error.RetryAfter.Milliseconds(),
			Field:        m.Error.Field,
			TraceID:      m.Error.TraceID,
		}); err != nil {
			return d, err
		}
	}
	if d.authorJSON, err = encode(m.Author); err == nil {
		d.usageJSON, err = encode(m.Usage)
	}
	return d, err
}

// complete fills in the fields of m that the document holds.
func (d *messageDocument) complete(m *chat.Message) error {
	m.CreatedAt = time.UnixMilli(d.createdAt).UTC()
	var shown *errorDocument
	if err := decode(d.errorJSON, &shown); err != nil {
		return fmt.Errorf("error: %w", err)
	}
	if shown != nil {
		m.Error = &chat.Error{
			Code:       shown.Code,
			Message:    shown.Message,
			RetryAfter: time.Duration(shown.RetryAfterMS) * time.Millisecond,
			Field:      shown.Field,
			TraceID:    shown.TraceID,
		}
	}
	if err := decode(d.authorJSON, &m.Author); err != nil {
		return fmt.Errorf("author: %w", err)
	}
	if err := decode(d.usageJSON, &m.Usage); err != nil {
		return fmt.Errorf("usage: %w", err)
	}
	return nil
}

// encode gives a value as JSON: a nil pointer, map or slice is NULL.
func encode(value any) (sql.NullString, error) {
	text, err := json.Marshal(value)
	if err != nil || string(text) == "null" {
		return sql.NullString{}, err
	}
	return sql.NullString{String: string(text), Valid: true}, nil
}

// decode is the inverse of encode.
func decode(column sql.NullString, into any) error {
	if !column.Valid {
		return nil
	}
	return json.Unmarshal([]byte(column.String), into)
}
