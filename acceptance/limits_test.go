//go:build unix

package acceptance_test

import (
	"fmt"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// A hundred responses that hang at once each end once, and leave nothing behind.
func TestHundredHangs(t *testing.T) {
	const people = 100
	up := startUpstream(t)
	s := startServer(t, up.scripted("first_token_timeout: 1s\nretry: {max_attempts: 1}\nbreaker: {failures: 1000}", "hang"))
	readers := make([]*client, people)
	for i := range readers {
		readers[i] = s.dial(token(fmt.Sprint("user", i)))
		readers[i].open()
	}
	idle := s.lowest("go_goroutines")
	for _, c := range readers {
		c.send("message.send", "message_id", "q", "text", "hi")
	}
	up.await(t, "requests", people)
	for _, c := range readers {
		end := c.until("message.completed")
		if end.str("status") != "failed" || end.str("error", "code") != timedOut {
			t.Errorf("a response that hangs ends as %v", end)
		}
		c.quiet()
		if c.countCompleted() != 1 {
			t.Errorf("its reader is sent %v", c.seen)
		}
	}
	up.await(t, "cancelled", people)
	s.awaitMetrics(map[string]string{
		`parley_llm_requests_total{outcome="timeout_first_token",provider="up",target="hang"}`: fmt.Sprint(people),
		"parley_responses_in_progress": "0",
	})
	s.settles("go_goroutines", idle)
}

// Each limit of a provider is a cause of its own, in the log and in the figures, and a provider may have its own.
func TestLimitsOfProviders(t *testing.T) {
	const figure = `parley_llm_requests_total{outcome="timeout_%s",provider="%s",target="%s"}`
	up := startUpstream(t)
	mute := fmt.Sprintf("id: mute, type: openai, base_url: 'https://%s/v1', connect_timeout: 500ms", silentAddr(t))
	for _, c := range []struct {
		limit, script string
		settings      string // of all providers
		provider      string // in the place of up
		text          string
	}{
		{limit: "connect", script: "words-3", provider: mute},
		{limit: "connect", script: "words-3", settings: "connect_timeout: 500ms\n",
			provider: fmt.Sprintf("id: mute, type: openai, base_url: 'https://%s/v1'", silentAddr(t))},
		{limit: "first_token", script: "hang", settings: "first_token_timeout: 500ms\n"},
		{limit: "first_token", script: "hang", provider: up.provider("mute", "first_token_timeout: 500ms")},
		{limit: "first_token", script: "pings-after-0-50ms", settings: "first_token_timeout: 500ms\n"},
		{limit: "idle", script: "stall-after-3", settings: "idle_timeout: 500ms\n", text: llmtest.Text(3)},
		{limit: "idle", script: "stall-after-3", provider: up.provider("mute", "idle_timeout: 500ms"), text: llmtest.Text(3)},
		{limit: "stream", script: "paced-1000-100ms", settings: "stream_timeout: 1s\n"},
		{limit: "stream", script: "paced-1000-100ms", provider: up.provider("mute", "stream_timeout: 1s")},
	} {
		t.Run(c.limit+" "+c.script, func(t *testing.T) {
			provider := c.provider
			if provider == "" {
				provider = up.provider("mute")
			}
			s := startServer(t, section("retry: {max_attempts: 1}\n"+c.settings, []string{provider}, model("m", "mute/"+c.script)))
			reader := s.dial(token("alice"))
			reader.open()
			end := reader.ask("q", "hi")
			id := end.str("message_id")
			text := reader.text[id]
			if c.limit == "stream" && text != "" && len(text) < len(llmtest.Text(20)) {
				text = c.text // so many words as there was time for
			}
			if end.str("status") != "failed" || end.str("error", "code") != timedOut || text != c.text {
				t.Errorf("the response ends as %v with %q", end, reader.text[id])
			}
			if m := s.stored(reader)[id]; m.str("message", "text") != reader.text[id] {
				t.Errorf("it is stored as %v", m)
			}
			if entry := s.awaitEntry("a response timed out", "message", id); entry["limit"] != c.limit {
				t.Errorf("the log says %v", entry)
			}
			s.awaitMetrics(map[string]string{fmt.Sprintf(figure, c.limit, "mute", c.script): "1"})
		})
	}
}

// A model whose provider is given longer than the others waits longer.
func TestLimitOfAProviderMayBeLonger(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("first_token_timeout: 200ms\nidle_timeout: 200ms\nstream_timeout: 300ms\nconnect_timeout: 200ms\n"+
		"retry: {max_attempts: 1}\n",
		[]string{up.provider("up", "first_token_timeout: 1m", "idle_timeout: 1m", "stream_timeout: 1m", "connect_timeout: 1m")},
		model("paced-4-400ms", "up/paced-4-400ms")))
	c := s.dial(token("alice"))
	c.open()
	end := c.ask("q", "hi")
	if got := c.text[end.str("message_id")]; end.str("status") != "complete" || got != llmtest.Text(4) {
		t.Errorf("the response ends as %v with %q", end, got)
	}
}
