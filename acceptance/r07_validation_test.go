//go:build unix

package acceptance_test

import (
	"strings"
	"testing"
)

// bad are frames that the protocol does not allow, with the code and the field that answer them.
var bad = []struct{ frame, code, field string }{
	{`{`, "invalid_json", ""},
	{`[]`, "invalid_json", ""},
	{`"ping"`, "invalid_json", ""},
	{`{}`, "invalid_message", "type"},
	{`{"type":"nonsense"}`, "unknown_type", ""},
	{`{"type":"message.send","message_id":"a"}`, "invalid_message", "text"},
	{`{"type":"message.send","message_id":"a","text":7}`, "invalid_message", "text"},
	{`{"type":"message.send","message_id":"a","text":" \u0000\n"}`, "invalid_message", "text"},
	{`{"type":"message.send","message_id":"ä","text":"hi"}`, "invalid_message", "message_id"},
	{`{"type":"message.send","message_id":"a","text":"hi","replaces":"nothing"}`, "invalid_message", "replaces"},
	{`{"type":"session.open","history":1000}`, "invalid_message", "history"},
	{`{"type":"session.open","as":"god"}`, "invalid_message", "as"},
	{`{"type":"session.open","as":"agent","session_id":"x"}`, "forbidden", ""},
	{`{"type":"session.open","model":"unknown"}`, "model_not_found", ""},
	{`{"type":"session.update","model":"unknown"}`, "model_not_found", ""},
	{`{"type":"response.retry"}`, "invalid_request", ""},
	{`{"type":"auth.refresh","token":"x"}`, "unauthenticated", ""},
	{`{"type":"typing","active":"yes"}`, "invalid_message", "active"},
}

func TestR07_1_EveryMessageIsValidatedBeforeItDoesAnything(t *testing.T) {
	s := startServer(t, eliza)
	c := s.dial(token("alice"))
	opened := c.open()
	for _, x := range bad {
		f := c.refused(x.frame)
		if f.str("error", "code") != x.code || f.str("error", "field") != x.field || f.str("error", "message") == "" {
			t.Errorf("%s is answered with %v", x.frame, f)
		}
	}
	c.quiet()
	c.ask("q", "hello")
	if c.session != opened.str("session", "id") || len(c.order) != 2 {
		t.Errorf("the bad frames have changed the conversation: %v", c.order)
	}
}

func TestR07_3_TheMessageIsSanitised(t *testing.T) {
	s := startServer(t, eliza)
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q", "text", "a\u0000b\u202ec\u0085 <b>&amp;</b>\r\n\tif x < y && z { e\u0301 }")
	if got, want := c.next().str("message", "text"), "abc <b>&amp;</b>\n\tif x < y && z { e\u0301 }"; got != want {
		t.Errorf("the text is %q, want %q", got, want)
	}
}

func TestR07_4_FailuresAreLoggedWithoutTheText(t *testing.T) {
	s := startServer(t, eliza)
	c := s.dial(token("alice"))
	c.open()
	c.refused(`{"type":"message.send","message_id":"my secret","text":"my secret"}`)
	entry := s.awaitLog("message refused")
	for key, want := range map[string]any{"type": "message.send", "field": "message_id", "code": "invalid_message", "user": "alice", "size": 67.0} {
		if entry[key] != want {
			t.Errorf("the log has %s = %v, want %v", key, entry[key], want)
		}
	}
	if entry["reason"] == "" || entry["connection"] == nil || strings.Contains(strings.Join(s.log(), ""), "my secret") {
		t.Errorf("the log says %v", entry)
	}
}

func TestR07_5_TheSanitisedTextIsWhatEverybodySees(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("echo"))
	c := s.dial(token("alice"))
	c.open()
	end := c.ask("q", "red\u0007 \u202eblue")
	const clean = "red blue"
	if got := c.text["q"]; got != clean {
		t.Errorf("the client sees %q", got)
	}
	if got := up.requests(t)[0].Messages[0].Content; got != clean {
		t.Errorf("the model is asked %q", got)
	}
	if got := c.text[end.str("message_id")]; got != clean {
		t.Errorf("the model answers %q", got)
	}
	// Sent again as it was typed it is the same message; so it is stored as it was cleaned.
	c.send("message.send", "message_id", "q", "text", "red\u0007 \u202eblue")
	if f := c.next(); f["repeat"] != true || f.str("message", "text") != clean {
		t.Errorf("sent again it is answered with %v", f)
	}
}
