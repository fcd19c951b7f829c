//go:build unix

package acceptance_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// app gives the line of a provider of Dify's type.
func (u *upstream) app(id string) string {
	return strings.Replace(u.provider(id), "type: openai", "type: dify", 1)
}

// requestsOf gives the requests in a dialect.
func (u *upstream) requestsOf(t testing.TB, dialect string) []llmtest.Request {
	t.Helper()
	var some []llmtest.Request
	for _, r := range u.requests(t) {
		if r.Dialect == dialect {
			some = append(some, r)
		}
	}
	return some
}

// A conversation of Dify goes on with the session, also after a restart, and begins anew where it cannot.
func TestConversationOfDify(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("system_prompt: Be brief.\n", []string{up.app("app"), up.provider("up")}, model("app", "app/words-3"),
		model("echo", "up/echo")))
	c := s.dial(token("alice"))
	c.open()
	settle := func(end frame) { s.awaitEntry("a response has ended", "message", end.str("message_id")) }
	settle(c.ask("q1", "one"))
	settle(c.ask("q2", "two"))
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("the server exits with %d", code)
	}
	s.start()
	c2 := s.dial(token("alice"))
	c2.resume(c)
	settle(c2.ask("q3", "three"))
	asked := up.requestsOf(t, "dify")
	if asked[0].ConversationID != "" || asked[1].ConversationID == "" || asked[2].ConversationID != asked[1].ConversationID {
		t.Errorf("the conversations are %q, %q and %q", asked[0].ConversationID, asked[1].ConversationID, asked[2].ConversationID)
	}
	if asked[0].Query != "one" || asked[1].Query != "two" || asked[2].Query != "three" || asked[0].User != "alice" ||
		asked[0].Inputs["system_prompt"] != "Be brief." {
		t.Errorf("Dify is asked %+v", asked)
	}

	c2.send("session.update", "model", "echo")
	c2.until("session.updated")
	settle(c2.ask("q4", "four"))
	c2.send("session.update", "model", "app")
	c2.until("session.updated")
	settle(c2.ask("q5", "five"))
	fifth := up.requestsOf(t, "dify")[3]
	if fifth.ConversationID != asked[1].ConversationID || !strings.Contains(fifth.Query, "User: four") ||
		!strings.Contains(fifth.Query, "Assistant: four") || strings.Contains(fifth.Query, "three") || !strings.HasSuffix(fifth.Query, "five") {
		t.Errorf("after another model's answer Dify is asked %+v", fifth)
	}
	c2.send("response.retry")
	c2.until("message.completed")
	sixth := up.requestsOf(t, "dify")[4]
	if sixth.ConversationID != "" || !strings.Contains(sixth.Query, "User: one") || strings.Count(sixth.Query, "five") != 1 {
		t.Errorf("for another answer to the same question Dify is asked %+v", sixth)
	}
}

// A stopped answer is stopped at Dify too.
func TestStopAtDify(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("idle_timeout: 1s\n", []string{up.app("app")}, model("m", "app/stall-after-3")))
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q1", "text", "hi")
	c.until("message.delta")
	c.send("response.cancel")
	if end := c.until("message.completed"); end.str("status") != "cancelled" {
		t.Errorf("the response ends as %v", end)
	}
	up.await(t, "stopped", 1)
	if end := c.ask("q2", "hi"); end.str("error", "code") != timedOut {
		t.Errorf("the response ends as %v", end)
	}
	up.await(t, "stopped", 2)
}

// The next target may be of another type.
func TestFailoverAcrossTypes(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("retry: {max_attempts: 1}\nsystem_prompt: Be brief.\ntitle_model: title\n",
		[]string{up.provider("o"), up.app("d"), strings.Replace(up.provider("a"), "type: openai", "type: anthropic", 1)},
		model("m", "o/status-500, d/status-429, a/words-4", "max_output_tokens: 99", "temperature: 1.5"), model("title", "d/words-2")))
	c := s.dial(token("alice"))
	c.open()
	end := c.ask("q", "hi")
	id := end.str("message_id")
	if end.str("status") != "complete" || c.text[id] != llmtest.Text(4) || s.stored(c)[id].str("message", "provider") != "a" {
		t.Errorf("the response ends as %v with %q", end, c.text[id])
	}
	asked := up.requestsOf(t, "anthropic")[0]
	if asked.System != "Be brief." || asked.MaxTokens != 99 || *asked.Temperature != 1 || prompt(asked) != "user: hi" || asked.APIKey != key {
		t.Errorf("Anthropic is asked %+v", asked)
	}
	if title, _ := c.awaitTitle(); title != llmtest.Text(2) {
		t.Errorf("the title is %q", title)
	}
	if f := c.ask("q2", "and?"); f.str("status") != "complete" {
		t.Errorf("the next response ends as %v", f)
	}
	if got, want := prompt(up.last(t)), "user: hi\nassistant: "+llmtest.Text(4)+"\nuser: and?"; got != want {
		t.Errorf("Anthropic is asked\n%s\nwant\n%s", got, want)
	}
}

// A response that follows at once on another one knows how far that one has brought Dify's conversation.
func TestConversationOfDifyWithoutAPause(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("", []string{up.app("app")}, model("m", "app/words-3")), generous)
	c := s.dial(token("alice"))
	c.open()
	for n := range 30 {
		before := len(up.requests(t))
		c.ask(fmt.Sprint("q", n), "hi")
		c.send("response.retry")
		c.until("message.completed")
		asked := up.requests(t)[before:]
		if asked[0].ConversationID == asked[1].ConversationID && n > 0 {
			t.Fatalf("the retry goes on in the conversation that has the answer already: %q after %q", asked[1].Query, asked[0].Query)
		}
	}
}
