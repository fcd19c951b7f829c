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

// limits are the further limits of a provider, each with a script that exceeds it.
var limits = []struct{ limit, script string }{
	{"first_token", "hang"},
	{"idle", "stall-after-3"},
	{"stream", "paced-1000-100ms"},
}

// limited gives the llm section with one limit of half a second.
func limited(up *upstream, limit, script string) string {
	return up.scripted("retry: {max_attempts: 1}\n"+limit+"_timeout: 500ms\n", script)
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

// Each of the limits does what the criteria ask of the timeout.
func TestR08_1_EveryLimitIsATimeout(t *testing.T) {
	for i, l := range limits {
		t.Run(l.limit, func(t *testing.T) {
			up := startUpstream(t)
			s := startServer(t, limited(up, l.limit, l.script))
			c := s.dial(token("alice"))
			c.open()
			end := c.ask("q", "hi")
			up.await(t, "cancelled", 1) // R8.2
			id := end.str("message_id")
			if end.num("duration_ms") < 500 || end.str("status") != "failed" || end.str("error", "code") != "llm_timeout" {
				t.Errorf("the response ends as %v", end) // R8.1, R8.5
			}
			entry := s.awaitEntry("a response timed out", "message", id) // R8.4
			if entry["session"] != c.session || entry["model"] != l.script || entry["limit"] != l.limit {
				t.Errorf("the log says %v", entry)
			}
			c.quiet()

			other := limits[(i+1)%len(limits)] // R8.3
			patient := startServer(t, strings.Replace(limited(up, other.limit, "gate-3"), "500ms", "1m", 1))
			d := patient.dial(token("alice"))
			d.open()
			up.release(t, 3)
			if end := d.ask("q", "hi"); end.str("status") != "complete" {
				t.Errorf("with a long limit the response ends as %v", end)
			}
		})
	}
}
