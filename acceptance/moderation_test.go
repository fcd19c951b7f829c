//go:build unix

package acceptance_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// moderated gives the section of the upstream's model echo behind a moderation.
func (u *upstream) moderated(settings string) string {
	return u.scripted("moderation: {url: '"+u.url+"/moderate', api_key: "+key+settings+"}\n", "echo", "gate-3")
}

// moderations gives the texts that the moderator was asked about.
func (u *upstream) moderations(t testing.TB) []string {
	t.Helper()
	var all []json.RawMessage
	getJSON(t, u.url+"/moderations", &all)
	var texts []string
	for _, body := range all {
		var question struct{ Text string }
		if err := json.Unmarshal(body, &question); err != nil {
			t.Fatal(err)
		}
		texts = append(texts, question.Text)
	}
	return texts
}

// A message that the moderation refuses goes to no model, neither at once nor with a later one.
func TestModeration(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.moderated(""))
	c := s.dial(token("alice"))
	c.open()
	if end := c.ask("q1", "harmless"); end.str("status") != "complete" || c.text[end.str("message_id")] != "harmless" {
		t.Errorf("an allowed message's response ends as %v", end)
	}
	end := c.ask("q2", "something forbidden")
	if end.str("status") != "failed" || end.str("error", "code") != "content_filtered" || end.at("error", "retryable") != false ||
		strings.Contains(end.str("error", "message"), "scripted") {
		t.Errorf("a refused message's response ends as %v", end)
	}
	if end := c.ask("q3", "go on"); end.str("status") != "complete" {
		t.Errorf("the next message's response ends as %v", end)
	}
	if got, want := prompt(up.last(t)), "user: harmless\nassistant: harmless\nuser: go on"; got != want || len(up.requests(t)) != 2 {
		t.Errorf("of %d requests the last one is\n%s\nwant\n%s", len(up.requests(t)), got, want)
	}
	if got := fmt.Sprint(up.moderations(t)); got != "[harmless something forbidden go on]" {
		t.Errorf("the moderator was asked about %v", got)
	}
	var first struct {
		SessionID string `json:"session_id"`
		UserID    string `json:"user_id"`
		Model     string
	}
	var all []json.RawMessage
	getJSON(t, up.url+"/moderations", &all)
	if err := json.Unmarshal(all[0], &first); err != nil || first.SessionID != c.session || first.UserID != "alice" || first.Model != "echo" {
		t.Errorf("the moderator was asked %s: %v", all[0], err)
	}
	s.awaitMetrics(map[string]string{
		`parley_moderations_total{verdict="allowed"}`: "2", `parley_moderations_total{verdict="refused"}`: "1",
	})
	entry := s.awaitEntry("the moderation refused a message", "session", c.session)
	if entry["reason"] != "scripted" {
		t.Errorf("the log says %v", entry)
	}
	for _, line := range s.log() {
		if strings.Contains(line, "something forbidden") || strings.Contains(line, key) {
			t.Errorf("the log says %s", line)
		}
	}
}

// What a message said that is refused does not name the session.
func TestModerationAndTitles(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.moderated(""))
	c := s.dial(token("alice"))
	c.open()
	c.ask("q1", "something forbidden")
	c.ask("q2", "harmless")
	if title, completed := c.awaitTitle(); title != "harmless" || completed != 1 {
		t.Errorf("after %d responses the title is %q", completed, title)
	}
}

// While the moderation is down, messages are refused, or not, as the operator has chosen.
func TestModerationIsDown(t *testing.T) {
	up := startUpstream(t)
	for _, question := range []string{"a moderator-500", "a moderator-hang"} {
		closed := startServer(t, up.moderated(", timeout: 500ms"))
		c := closed.dial(token("alice"))
		c.open()
		before := len(up.requests(t))
		end := c.ask("q", question)
		if end.str("status") != "failed" || end.str("error", "code") != unavailable || len(up.requests(t)) != before {
			t.Errorf("%s: the response ends as %v", question, end)
		}
		said, _ := json.Marshal(end)
		if strings.Contains(string(said), llmtest.Detail) {
			t.Errorf("the reader is sent %s", said)
		}
		if entry := closed.awaitLog("the moderation gives no verdict"); entry["message_allowed"] != false {
			t.Errorf("the log says %v", entry)
		}
		open := startServer(t, up.moderated(", timeout: 500ms, allow_on_error: true"))
		d := open.dial(token("alice"))
		d.open()
		if end := d.ask("q", question); end.str("status") != "complete" || d.text[end.str("message_id")] != question {
			t.Errorf("%s: the response ends as %v", question, end)
		}
		if entry := open.awaitLog("the moderation gives no verdict"); entry["message_allowed"] != true {
			t.Errorf("the log says %v", entry)
		}
		open.awaitMetrics(map[string]string{`parley_moderations_total{verdict="error"}`: "1"})
	}
}

// What was said to an agent is moderated before a model sees it.
func TestModerationOfWhatAnAgentWasTold(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.moderated(""))
	c := s.dial(token("alice"))
	c.open()
	agent := s.dial(token("ann", "agent"))
	agent.open("session_id", c.session, "as", "agent")
	c.until("agent.joined")
	for _, text := range []string{"something forbidden", "harmless"} {
		c.send("message.send", "message_id", text[:4], "text", text)
		c.until("message.created")
	}
	agent.send("session.leave")
	c.until("agent.left")
	if end := c.ask("q", "go on"); end.str("status") != "complete" {
		t.Errorf("the response ends as %v", end)
	}
	if got, want := prompt(up.last(t)), "user: harmless\nuser: go on"; got != want {
		t.Errorf("the upstream is asked\n%s\nwant\n%s", got, want)
	}
}

// A message whose moderation did not come to a verdict is not sent along with the next one either.
func TestModerationWithoutAVerdict(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.moderated(", timeout: 500ms"))
	for name, ask := range map[string]func(*client){
		"stopped": func(c *client) {
			c.send("message.send", "message_id", "q1", "text", "forbidden, and moderator-hang")
			c.until("message.created")
			c.until("message.created")
			c.send("response.cancel")
			c.until("message.completed")
		},
		"interrupted": func(c *client) {
			c.send("message.send", "message_id", "q1", "text", "forbidden, and moderator-hang")
			c.until("message.created")
			c.until("message.created")
			c.send("message.send", "message_id", "q", "text", "harmless", "interrupt", true)
			c.until("message.completed")
			c.until("message.completed")
		},
		"down": func(c *client) { c.ask("q1", "forbidden, and moderator-500") },
		"slow": func(c *client) { c.ask("q1", "forbidden, and moderator-hang") },
	} {
		c := s.dial(token(name))
		c.open()
		before := len(up.requests(t))
		ask(c)
		c.ask("q2", "go on")
		for _, r := range up.requests(t)[before:] {
			if strings.Contains(prompt(r), "forbidden") {
				t.Errorf("%s: the upstream is asked\n%s", name, prompt(r))
				break
			}
		}
	}
}

// What was said to an agent is asked about once, when a model is about to see it; later questions ask about themselves.
func TestModerationOfManyMessages(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.moderated(""))
	c := s.dial(token("alice"))
	c.open()
	agent := s.dial(token("ann", "agent"))
	agent.open("session_id", c.session, "as", "agent")
	c.until("agent.joined")
	for n := range 20 {
		c.send("message.send", "message_id", fmt.Sprint("to-ann-", n), "text", fmt.Sprint("to Ann ", n))
		c.until("message.created")
	}
	agent.send("session.leave")
	c.until("agent.left")
	for n := range 3 {
		before := len(up.moderations(t))
		c.ask(fmt.Sprint("q", n), fmt.Sprint("question ", n))
		asked := up.moderations(t)[before:]
		want := 1
		if n == 0 {
			want = 21
		}
		if len(asked) != want || n == 0 && !strings.Contains(strings.Join(asked, "\n"), "to Ann 19") {
			t.Errorf("for message %d the moderator is asked %d times: %q", n, len(asked), asked)
		}
	}
}
