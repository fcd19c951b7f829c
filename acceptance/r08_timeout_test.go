//go:build unix

package acceptance_test

import (
	"strings"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// hurried gives the llm section with a stream timeout of a second.
func hurried(up *upstream, models ...string) string {
	return strings.Replace(up.models(models...), "llm:\n", "llm:\n  stream_timeout: 1s\n", 1)
}

func TestR08_1_AStreamHasATimeout(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, hurried(up, "hang"))
	c := s.dial(token("alice"))
	c.open()
	if end := c.ask("q", "hi"); end.num("duration_ms") < 1000 {
		t.Errorf("a response that hangs ends as %v", end)
	}
	c.quiet()
}

func TestR08_2_TheTimeoutCancelsTheRequest(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, hurried(up, "stall-after-3"))
	c := s.dial(token("alice"))
	c.open()
	end := c.ask("q", "hi")
	up.await(t, "cancelled", 1)
	if got := c.text[end.str("message_id")]; got != llmtest.Text(3) {
		t.Errorf("the text so far is %q", got)
	}
}

func TestR08_3_TheTimeoutIsConfigured(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, hurried(up, "gate-3"))
	patient := startServer(t, up.models("gate-3"))
	a, b := s.dial(token("alice")), patient.dial(token("alice"))
	a.open()
	b.open()
	b.send("message.send", "message_id", "q", "text", "hi")
	up.await(t, "requests", 1)
	if end := a.ask("q", "hi"); end.str("status") != "failed" {
		t.Errorf("with a short timeout the response ends as %v", end)
	}
	up.release(t, 3)
	if end := b.until("message.completed"); end.str("status") != "complete" {
		t.Errorf("with a long timeout the response ends as %v", end)
	}
}

func TestR08_4_TheTimeoutIsLogged(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, hurried(up, "hang"))
	c := s.dial(token("alice"))
	c.open()
	end := c.ask("q", "hi")
	entry := s.awaitLog("a response timed out")
	if entry["session"] != c.session || entry["message"] != end.str("message_id") || entry["model"] != "hang" {
		t.Errorf("the log says %v", entry)
	}
}

func TestR08_5_TheClientIsToldOfTheTimeout(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, hurried(up, "hang"))
	c := s.dial(token("alice"))
	c.open()
	end := c.ask("q", "hi")
	if end.str("status") != "failed" || end.str("error", "code") != "llm_timeout" || end.at("error", "retryable") != true {
		t.Errorf("the response ends as %v", end)
	}
	for _, f := range c.seen {
		if f.str("type") == "error" {
			t.Errorf("beside it the client is sent %v", f)
		}
	}
}
