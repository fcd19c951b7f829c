//go:build unix

package acceptance_test

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// prompt gives what a request carries, a line a message.
func prompt(r llmtest.Request) string {
	var lines []string
	for _, m := range r.Messages {
		lines = append(lines, m.Role+": "+m.Content)
	}
	return strings.Join(lines, "\n")
}

// last gives the newest request.
func (u *upstream) last(t testing.TB) llmtest.Request {
	t.Helper()
	all := u.requests(t)
	return all[len(all)-1]
}

// What a model is configured with reaches its upstream.
func TestModelHasItsOwnSettings(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("system_prompt: 'You serve {{.Metadata.plan}}.'\ndefault_model: plain\n", []string{up.provider("up")},
		model("own", "up/words-3", "system_prompt: 'Be brief. {{if .Metadata.vip}}Be kind.{{end}}'", "temperature: 0.25", "max_output_tokens: 77"),
		model("plain", "up/words-4"), model("cold", "up/words-5", "temperature: 0")))
	for _, c := range []struct {
		model    string
		metadata map[string]string
		script   string
		system   string
		body     string // of the request, in parts
	}{
		{"own", nil, "words-3", "Be brief.", `"temperature":0.25,"max_tokens":77`},
		{"own", map[string]string{"vip": "1"}, "words-3", "Be brief. Be kind.", `"temperature":0.25,"max_tokens":77`},
		{"", map[string]string{"plan": "gold"}, "words-4", "You serve gold.", ""},
		{"plain", map[string]string{"plan": "{{.Metadata.vip}}", "vip": "x"}, "words-4", "You serve {{.Metadata.vip}}.", ""},
		{"plain", nil, "words-4", "You serve .", ""},
		{"cold", map[string]string{"plan": "Größe\n<&>"}, "words-5", "You serve Größe\n<&>.", `"temperature":0`},
	} {
		reader := s.dial(token("alice"))
		var open []any
		if c.model != "" {
			open = append(open, "model", c.model)
		}
		if c.metadata != nil {
			open = append(open, "metadata", c.metadata)
		}
		reader.open(open...)
		reader.ask("q", "hi")
		asked := up.last(t)
		if asked.Model != c.script || prompt(asked) != "system: "+c.system+"\nuser: hi" {
			t.Errorf("%s with %v: the upstream is asked for %s with %q", c.model, c.metadata, asked.Model, prompt(asked))
		}
		if !strings.Contains(string(asked.Body), c.body) ||
			c.body == "" && (strings.Contains(string(asked.Body), "temperature") || strings.Contains(string(asked.Body), "max_")) {
			t.Errorf("%s: the upstream is asked %s", c.model, asked.Body)
		}
		reader.conn.CloseNow()
	}
}

// A model gets what was said, by whom, and not what never was.
func TestContextOfAConversation(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.scripted("retry: {max_attempts: 1}\n", "echo", "status-400", "words-0", "stall-after-3", "gate-50"))
	c := s.dial(token("alice"))
	c.open("model", "echo")
	use := func(c *client, model string) {
		c.send("session.update", "model", model)
		c.until("session.updated")
	}
	c.ask("q1", "one")
	use(c, "status-400")
	c.ask("q2", "two")
	use(c, "words-0")
	c.ask("q3", "three")
	use(c, "stall-after-3")
	c.send("message.send", "message_id", "q4", "text", "four")
	answer := c.until("message.delta").str("message_id")
	for c.text[answer] != llmtest.Text(3) {
		c.next()
	}
	c.send("response.cancel")
	c.until("message.completed")

	agent := s.dial(token("ann", "agent"))
	agent.open("session_id", c.session, "as", "agent")
	agent.send("message.send", "message_id", "a1", "text", "Let me look.")
	for !slices.Contains(c.order, "a1") {
		c.next()
	}
	c.send("message.send", "message_id", "q5", "text", "five")
	c.until("message.created")
	agent.send("session.leave")
	c.until("agent.left")

	use(c, "gate-50")
	c.send("message.send", "message_id", "q6", "text", "six")
	up.release(t, 4)
	for last := c.order[len(c.order)-1]; c.text[last] != llmtest.Text(4); last = c.order[len(c.order)-1] {
		c.next()
	}
	s.stop(syscall.SIGKILL)
	s.start()
	again := s.dial(token("alice"))
	again.resume(c)
	again.until("message.completed")
	use(again, "echo")
	again.ask("q7", "seven")
	want := strings.Join([]string{
		"user: one", "assistant: one", "user: two", "user: three", "user: four", "assistant: " + llmtest.Text(3),
		"assistant: Name of ann: Let me look.", "user: five", "user: six", "assistant: " + llmtest.Text(4), "user: seven",
	}, "\n")
	if got := prompt(up.last(t)); got != want {
		t.Errorf("the upstream is asked\n%s\nwant\n%s", got, want)
	}
}

// An edited question and a retried answer take the place of the old ones.
func TestContextOfWhatWasReplaced(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.scripted("", "echo"))
	c := s.dial(token("alice"))
	c.open()
	c.ask("q1", "wrong")
	c.send("message.send", "message_id", "q2", "text", "right", "replaces", "q1")
	c.until("message.completed")
	c.send("response.retry")
	c.until("message.completed")
	c.ask("q3", "next")
	if got, want := prompt(up.last(t)), "user: right\nassistant: right\nuser: next"; got != want {
		t.Errorf("the upstream is asked\n%s\nwant\n%s", got, want)
	}
}

// Of a long conversation the newest turns are sent along, each whole.
func TestContextIsCutBetweenTurns(t *testing.T) {
	up := startUpstream(t)
	// A turn of echo costs (4 + 10) tokens twice, the system prompt 4 + 2, the newest question 14.
	s := startServer(t, up.scripted("history_tokens: 76\nsystem_prompt: Be brief\n", "echo"))
	c := s.dial(token("alice"))
	c.open()
	question := func(n int) string { return strings.Repeat(string(rune('a'+n)), 40) }
	for n := range 5 {
		c.ask("q"+string(rune('a'+n)), question(n))
	}
	want := "system: Be brief"
	for n := 2; n < 4; n++ {
		want += "\nuser: " + question(n) + "\nassistant: " + question(n)
	}
	want += "\nuser: " + question(4)
	if got := prompt(up.last(t)); got != want {
		t.Errorf("the upstream is asked\n%s\nwant\n%s", got, want)
	}
	c.ask("long", strings.Repeat("z", 1000))
	if got, want := prompt(up.last(t)), "system: Be brief\nuser: "+strings.Repeat("z", 1000); got != want {
		t.Errorf("beyond all limits the upstream is asked\n%s", got)
	}
}

// No model is asked without the system prompt that its operator wrote, whatever a client gives as metadata.
func TestSystemPromptThatCannotBeMade(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("", []string{up.provider("up")}, model("m", "up/echo",
		"system_prompt: 'Keep to the rules. {{if .Metadata.name}}{{slice .Metadata.name 0 3}}{{end}}'")))
	for _, name := range []string{"alice", "al"} {
		c := s.dial(token("alice"))
		c.open("metadata", map[string]string{"name": name})
		c.ask("q", "hi")
		for _, r := range up.requests(t) {
			if !strings.HasPrefix(prompt(r), "system: Keep to the rules.") {
				t.Errorf("for %q the upstream is asked\n%s", name, prompt(r))
			}
		}
	}
}
