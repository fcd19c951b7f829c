package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/parley-chat/parley/chat"
)

// Message is a message as clients see it, over WebSocket and HTTP alike.
type Message struct {
	ID           string            `json:"id"`
	Role         chat.Role         `json:"role"`
	Text         string            `json:"text"`
	Reasoning    string            `json:"reasoning,omitempty"`
	Status       chat.Status       `json:"status"`
	CreatedAt    Time              `json:"created_at"`
	Model        string            `json:"model,omitempty"`
	Provider     string            `json:"provider,omitempty"`
	ReplyTo      string            `json:"reply_to,omitempty"`
	Replaces     string            `json:"replaces,omitempty"`
	Author       *chat.Author      `json:"author,omitempty"`
	Usage        *chat.Usage       `json:"usage,omitempty"`
	Error        *Error            `json:"error,omitempty"`
	FinishReason chat.FinishReason `json:"finish_reason,omitempty"`
}

// NewMessage gives the form of m that clients see.
func NewMessage(m *chat.Message) Message {
	return Message{
		ID: m.ID, Role: m.Role, Text: m.Text, Reasoning: m.Reasoning, Status: m.Status, CreatedAt: Time(m.CreatedAt),
		Model: m.Model, Provider: m.Provider, ReplyTo: m.ReplyTo, Replaces: m.Replaces, Author: m.Author,
		Usage: m.Usage, Error: NewError(m.Error), FinishReason: m.FinishReason,
	}
}

// Session is a session as clients see it.
type Session struct {
	ID            string             `json:"id"`
	Title         string             `json:"title"`
	Model         string             `json:"model"`
	Status        chat.SessionStatus `json:"status"`
	CreatedAt     Time               `json:"created_at"`
	LastActiveAt  Time               `json:"last_active_at"`
	AssistedBy    *chat.Author       `json:"assisted_by,omitempty"`
	HelpRequested bool               `json:"help_requested"`
	Usage         *chat.Usage        `json:"usage,omitempty"` // of all responses together
	Metadata      map[string]string  `json:"metadata,omitempty"`
}

// NewSession gives the form of s that clients see.
func NewSession(s *chat.Session) Session {
	var usage *chat.Usage
	if s.Usage != (chat.Usage{}) {
		usage = new(s.Usage)
	}
	return Session{
		ID: s.ID, Title: s.Title, Model: s.Model, Status: s.Status, CreatedAt: Time(s.CreatedAt),
		LastActiveAt: Time(s.LastActiveAt), AssistedBy: s.AssistedBy, HelpRequested: s.HelpRequested,
		Usage: usage, Metadata: s.Metadata,
	}
}

// Error is an error as clients see it: everything but its cause.
type Error struct {
	Code         chat.Code `json:"code"`
	Message      string    `json:"message"`
	Retryable    bool      `json:"retryable"`
	RetryAfterMS int64     `json:"retry_after_ms,omitempty"`
	Field        string    `json:"field,omitempty"`
	TraceID      string    `json:"trace_id,omitempty"`
}

// NewError gives the form of e that clients see; nil for nil.
func NewError(e *chat.Error) *Error {
	if e == nil {
		return nil
	}
	return &Error{
		Code: e.Code, Message: e.Message, Retryable: e.Code.Retryable(),
		RetryAfterMS: e.RetryAfter.Milliseconds(), Field: e.Field, TraceID: e.TraceID,
	}
}

// Time is written as RFC 3339 in UTC with milliseconds.
type Time time.Time

// MarshalJSON implements [json.Marshaler].
func (t Time) MarshalJSON() ([]byte, error) {
	return time.Time(t).UTC().AppendFormat(make([]byte, 0, 26), `"2006-01-02T15:04:05.000Z"`), nil
}

// head is what every sequenced frame begins with.
type head struct {
	Type      string `json:"type"`
	SessionID string `json:"session_id"`
	Seq       int64  `json:"seq"`
	From      int64  `json:"from,omitempty"` // see saysFrom
	Repeat    bool   `json:"repeat,omitempty"`
}

func newHead(kind string, e *chat.Event) head {
	h := head{Type: kind, SessionID: e.SessionID, Seq: e.Seq, Repeat: e.Repeat}
	if saysFrom(e) {
		h.From = e.From
	}
	return h
}

// saysFrom reports whether a frame says what it stands for: where that is more than one event, and where it is the
// reader's first.
func saysFrom(e *chat.Event) bool { return !e.Repeat && (e.From != e.Seq || e.From == 1) }

type (
	createdFrame struct {
		head
		Message Message `json:"message"`
	}
	deltaFrame struct {
		head
		MessageID string         `json:"message_id"`
		Text      string         `json:"text"`
		Kind      chat.DeltaKind `json:"kind,omitempty"`
	}
	completedFrame struct {
		head
		MessageID    string            `json:"message_id"`
		Status       chat.Status       `json:"status"`
		FinishReason chat.FinishReason `json:"finish_reason,omitempty"`
		Usage        *chat.Usage       `json:"usage,omitempty"`
		FirstTokenMS int64             `json:"first_token_ms,omitempty"`
		DurationMS   int64             `json:"duration_ms,omitempty"`
		Length       int               `json:"length"`
		Error        *Error            `json:"error,omitempty"`
	}
	updatedFrame struct {
		head
		Title         *string       `json:"title,omitempty"`
		Model         *string       `json:"model,omitempty"`
		HelpRequested *bool         `json:"help_requested,omitempty"`
		AssistedBy    **chat.Author `json:"assisted_by,omitempty"` // null: nobody
	}
	authorFrame struct {
		head
		Author chat.Author `json:"author"`
	}
	endedFrame struct {
		head
		Reason chat.EndReason `json:"reason"`
	}
)

// AppendEvent appends the frame for an event to dst.
func AppendEvent(dst []byte, e *chat.Event) []byte {
	switch b := e.Body.(type) {
	case chat.MessageDelta:
		return appendDelta(dst, e, &b)
	case chat.MessageCreated:
		return appendJSON(dst, createdFrame{newHead("message.created", e), NewMessage(&b.Message)})
	case chat.MessageCompleted:
		return appendJSON(dst, completedFrame{
			head: newHead("message.completed", e), MessageID: b.MessageID, Status: b.Status,
			FinishReason: b.FinishReason, Usage: b.Usage, FirstTokenMS: b.FirstTokenMS, DurationMS: b.DurationMS,
			Length: b.Length, Error: NewError(b.Error),
		})
	case chat.SessionUpdated:
		return appendJSON(dst, updatedFrame{
			newHead("session.updated", e), b.Title, b.Model, b.HelpRequested, b.AssistedBy,
		})
	case chat.AgentJoined:
		return appendJSON(dst, authorFrame{newHead("agent.joined", e), b.Author})
	case chat.AgentLeft:
		return appendJSON(dst, authorFrame{newHead("agent.left", e), b.Author})
	case chat.SessionEnded:
		return appendJSON(dst, endedFrame{newHead("session.ended", e), b.Reason})
	default:
		panic(fmt.Sprintf("wire: no frame for %T", b))
	}
}

// appendDelta lays the bytes of a message.delta by hand: it is the one frame that every token passes. The result is
// what encoding/json makes of a deltaFrame, byte for byte.
func appendDelta(dst []byte, e *chat.Event, d *chat.MessageDelta) []byte {
	dst = append(dst, `{"type":"message.delta","session_id":`...)
	dst = appendString(dst, e.SessionID)
	dst = append(dst, `,"seq":`...)
	dst = strconv.AppendInt(dst, e.Seq, 10)
	if saysFrom(e) {
		dst = append(dst, `,"from":`...)
		dst = strconv.AppendInt(dst, e.From, 10)
	}
	dst = append(dst, `,"message_id":`...)
	dst = appendString(dst, d.MessageID)
	dst = append(dst, `,"text":`...)
	dst = appendString(dst, d.Text)
	if d.Kind == chat.DeltaReasoning {
		dst = append(dst, `,"kind":"reasoning"`...)
	}
	return append(dst, '}')
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string (RFC 8259 §7), escaping what encoding/json does without its HTML mode: the
// two mandatory characters, C0, invalid UTF-8, and U+2028 and U+2029.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		b := s[i]
		if b < utf8.RuneSelf {
			if b >= 0x20 && b != '"' && b != '\\' {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			dst = appendEscape(dst, b)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(append(dst, s[start:i]...), `\ufffd`...)
			start = i + size
		case r == '\u2028' || r == '\u2029':
			dst = append(append(dst, s[start:i]...), `\u202`...)
			dst = append(dst, hexDigits[r&0xf])
			start = i + size
		}
		i += size
	}
	return append(append(dst, s[start:]...), '"')
}

func appendEscape(dst []byte, b byte) []byte {
	switch b {
	case '"', '\\':
		return append(dst, '\\', b)
	case '\b':
		return append(dst, `\b`...)
	case '\f':
		return append(dst, `\f`...)
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	case '\t':
		return append(dst, `\t`...)
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&0xf])
}

// answer is what a frame that no log holds begins with.
type answer struct {
	Type string `json:"type"`
	Ref  string `json:"ref,omitempty"`
}

type (
	openedFrame struct {
		answer
		Session      Session `json:"session"`
		Epoch        string  `json:"epoch"`
		Seq          int64   `json:"seq"`
		Resumed      bool    `json:"resumed"`
		Reset        bool    `json:"reset"`
		InProgress   string  `json:"in_progress,omitempty"`
		HasMore      bool    `json:"has_more"`
		ConnectionID string  `json:"connection_id"`
	}
	errorFrame struct {
		answer
		Error *Error `json:"error"`
	}
	typingFrame struct {
		answer
		Author chat.Author `json:"author"`
		Active bool        `json:"active"`
	}
	limitFrame struct {
		answer
		Limit   int `json:"limit"`
		Current int `json:"current"`
	}
	expiryFrame struct {
		answer
		ExpiresAt Time `json:"expires_at"`
	}
	drainingFrame struct {
		answer
		ReconnectAfterMS int64 `json:"reconnect_after_ms"`
	}
)

// AppendNotice appends the frame for a notice to dst. ref is that of the frame which it answers, or empty.
func AppendNotice(dst []byte, n chat.Notice, ref string) []byte {
	switch n := n.(type) {
	case chat.SessionOpened:
		return appendJSON(dst, openedFrame{
			answer: answer{"session.opened", ref}, Session: NewSession(&n.Session), Epoch: n.Epoch, Seq: n.Seq,
			Resumed: n.Resumed, Reset: n.Reset, InProgress: n.InProgress, HasMore: n.HasMore,
			ConnectionID: n.ConnectionID,
		})
	case chat.ErrorNotice:
		return appendJSON(dst, errorFrame{answer{"error", ref}, NewError(n.Err)})
	case chat.Typing:
		return appendJSON(dst, typingFrame{answer{"typing", ref}, n.Author, n.Active})
	case chat.ConnectionLimit:
		return appendJSON(dst, limitFrame{answer{"connection.limit", ref}, n.Limit, n.Current})
	case chat.AuthExpiring:
		return appendJSON(dst, expiryFrame{answer{"auth.expiring", ref}, Time(n.ExpiresAt)})
	case chat.AuthRefreshed:
		return appendJSON(dst, expiryFrame{answer{"auth.refreshed", ref}, Time(n.ExpiresAt)})
	case chat.ServerDraining:
		return appendJSON(dst, drainingFrame{answer{"server.draining", ref}, n.ReconnectAfter.Milliseconds()})
	case chat.Pong:
		return appendJSON(dst, answer{"pong", ref})
	default:
		panic(fmt.Sprintf("wire: no frame for %T", n))
	}
}

// appendJSON appends v as encoding/json writes it, without its HTML escapes. Every v is one of this package's frames,
// which cannot fail to be written.
func appendJSON(dst []byte, v any) []byte {
	buf := bytes.NewBuffer(dst)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("wire: encoding %T: %v", v, err))
	}
	return buf.Bytes()[:buf.Len()-1] // without the encoder's newline
}
