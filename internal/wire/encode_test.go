package wire

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
)

func delta(text string, kind chat.DeltaKind, from, seq int64) *chat.Event {
	return &chat.Event{
		SessionID: "S", From: from, Seq: seq, Body: chat.MessageDelta{MessageID: "M", Kind: kind, Text: text},
	}
}

// sameAsLibrary holds the hand-laid delta against what encoding/json makes of it.
func sameAsLibrary(t *testing.T, e *chat.Event) {
	t.Helper()
	d := e.Body.(chat.MessageDelta)
	frame := deltaFrame{head: newHead("message.delta", e), MessageID: d.MessageID, Text: d.Text}
	if d.Kind == chat.DeltaReasoning {
		frame.Kind = d.Kind
	}
	want := appendJSON(nil, frame)
	if got := AppendEvent(nil, e); !bytes.Equal(got, want) {
		t.Errorf("the delta %q is\n%s, want\n%s", d.Text, got, want)
	}
}

func TestDeltaIsWhatEncodingJSONMakes(t *testing.T) {
	every := make([]rune, 0, 0x3000)
	for r := range rune(0x3000) {
		every = append(every, r)
	}
	for _, text := range []string{
		"", "plain", `"quoted\"`, "\x00\x01\x1f\b\f\n\r\t\x7f", "\u2028\u2029", "\xff\xc0a", "😀", "<b>&", string(every),
	} {
		sameAsLibrary(t, delta(text, chat.DeltaText, 5, 5))
		sameAsLibrary(t, delta(text, chat.DeltaReasoning, 2, 5))
		sameAsLibrary(t, delta(text, chat.DeltaText, 1, 1))
	}
}

func FuzzDeltaEncoding(f *testing.F) {
	f.Add("a\"b\\\u2028\xff", int64(1), int64(2))
	f.Fuzz(func(t *testing.T, text string, from, seq int64) {
		if from > 0 && seq >= from {
			sameAsLibrary(t, delta(text, chat.DeltaText, from, seq))
		}
	})
}

func TestFrames(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 60_000_000, time.FixedZone("", 3600))
	const written = `"2026-01-02T02:04:05.060Z"`
	alice := chat.Author{ID: "u1", Name: "Alice"}
	tests := []struct {
		body chat.EventBody
		want string
	}{
		{
			chat.MessageCreated{Message: chat.Message{ID: "m", Role: chat.RoleUser, Text: "<hi>", Status: chat.StatusComplete, CreatedAt: at, Author: &alice, AnswerID: "secret", N: 7}},
			`{"type":"message.created","session_id":"S","seq":9,"from":7,"message":{"id":"m","role":"user","text":"<hi>","status":"complete","created_at":` + written + `,"author":{"id":"u1","name":"Alice"}}}`,
		},
		{
			chat.MessageCompleted{MessageID: "m", Status: chat.StatusFailed, DurationMS: 12, Length: 3, Error: &chat.Error{Code: chat.CodeLLMTimeout, Message: "slow", Cause: errors.New("hidden")}},
			`{"type":"message.completed","session_id":"S","seq":9,"from":7,"message_id":"m","status":"failed","duration_ms":12,"length":3,"error":{"code":"llm_timeout","message":"slow","retryable":true}}`,
		},
		{chat.SessionUpdated{HelpRequested: new(false)}, `{"type":"session.updated","session_id":"S","seq":9,"from":7,"help_requested":false}`},
		{chat.AgentJoined{Author: alice}, `{"type":"agent.joined","session_id":"S","seq":9,"from":7,"author":{"id":"u1","name":"Alice"}}`},
		{chat.AgentLeft{Author: alice}, `{"type":"agent.left","session_id":"S","seq":9,"from":7,"author":{"id":"u1","name":"Alice"}}`},
		{chat.SessionEnded{Reason: chat.EndedByAge}, `{"type":"session.ended","session_id":"S","seq":9,"from":7,"reason":"expired"}`},
	}
	for _, test := range tests {
		got := AppendEvent([]byte("x"), &chat.Event{SessionID: "S", From: 7, Seq: 9, Body: test.body})
		if string(got) != "x"+test.want {
			t.Errorf("%T is written as\n%s, want\nx%s", test.body, got, test.want)
		}
	}
	notices := []struct {
		notice chat.Notice
		want   string
	}{
		{chat.Pong{}, `{"type":"pong","ref":"r"}`},
		{chat.ErrorNotice{Err: &chat.Error{Code: chat.CodeRateLimited, Message: "slow down", RetryAfter: 1500 * time.Millisecond}}, `{"type":"error","ref":"r","error":{"code":"rate_limited","message":"slow down","retryable":true,"retry_after_ms":1500}}`},
		{chat.Typing{Author: alice, Active: true}, `{"type":"typing","ref":"r","author":{"id":"u1","name":"Alice"},"active":true}`},
		{chat.ConnectionLimit{Limit: 10, Current: 10}, `{"type":"connection.limit","ref":"r","limit":10,"current":10}`},
		{chat.AuthExpiring{ExpiresAt: at}, `{"type":"auth.expiring","ref":"r","expires_at":` + written + `}`},
		{chat.AuthRefreshed{ExpiresAt: at}, `{"type":"auth.refreshed","ref":"r","expires_at":` + written + `}`},
		{chat.ServerDraining{ReconnectAfter: time.Second}, `{"type":"server.draining","ref":"r","reconnect_after_ms":1000}`},
		{
			chat.SessionOpened{Session: chat.Session{ID: "S", Model: "m", Status: chat.SessionStatusActive, CreatedAt: at, LastActiveAt: at}, Epoch: "E", Seq: 4, ConnectionID: "C"},
			`{"type":"session.opened","ref":"r","session":{"id":"S","title":"","model":"m","status":"active","created_at":` + written + `,"last_active_at":` + written + `,"help_requested":false},"epoch":"E","seq":4,"resumed":false,"reset":false,"has_more":false,"connection_id":"C"}`,
		},
	}
	for _, test := range notices {
		if got := AppendNotice(nil, test.notice, "r"); string(got) != test.want {
			t.Errorf("%T is written as\n%s, want\n%s", test.notice, got, test.want)
		}
	}
}

func BenchmarkAppendDelta(b *testing.B) {
	e := delta(" token", chat.DeltaText, 41, 42)
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendEvent(buf[:0], e)
	}
}
