//go:build unix

package acceptance_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// The main job: two turns with a model in another process, the second of which knows the first.
func TestConversation(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("words-300"), "websocket: {ping_interval: 1s}\n")
	c := s.dial(token("alice"))
	opened := c.open("metadata", map[string]string{"page": "/pricing"})
	if opened["resumed"] != false || opened["reset"] != false || opened.num("seq") != 0 || opened.str("epoch") == "" ||
		opened.str("connection_id") == "" || opened.str("session", "model") != "words-300" ||
		opened.str("session", "metadata", "page") != "/pricing" || opened.str("session", "status") != "active" {
		t.Errorf("the session is opened as %v", opened)
	}
	for turn := 1; turn <= 2; turn++ {
		id := fmt.Sprintf("q%d", turn)
		end := c.ask(id, "question "+id)
		answer := end.str("message_id")
		if end.str("status") != "complete" || end.str("finish_reason") != "stop" || end.num("usage", "output_tokens") == 0 {
			t.Errorf("turn %d ends as %v", turn, end)
		}
		if c.text[answer] != llmtest.Text(300) {
			t.Errorf("turn %d: the text differs from the upstream's: %q", turn, c.text[answer])
		}
	}
	if len(c.order) != 4 {
		t.Errorf("there are the messages %v", c.order)
	}
	requests := up.requests(t)
	var second []string
	for _, m := range requests[1].Messages {
		second = append(second, m.Role+": "+m.Content)
	}
	if want := []string{"user: question q1", "assistant: " + llmtest.Text(300), "user: question q2"}; strings.Join(second, "|") != strings.Join(want, "|") {
		t.Errorf("the second request carries %q", second)
	}
	if requests[0].Authorization != "Bearer upstream-key-9f2c" {
		t.Errorf("the provider's key is sent as %q", requests[0].Authorization)
	}
}

func TestConversationIsThereAfterARestart(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("echo"))
	c := s.dial(token("alice"))
	c.open()
	c.ask("q1", "my colour is blue")
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("the server exits with %d", code)
	}
	s.start()
	again := s.dial(token("alice"))
	if opened := again.resume(c); opened["resumed"] != true || opened["reset"] != false || opened.str("epoch") != c.epoch {
		t.Errorf("after a restart the session is opened as %v", opened)
	}
	again.ask("q2", "and now?")
	if got := again.text[c.order[1]]; got != "my colour is blue" {
		t.Errorf("the first answer is %q", got)
	}
	requests := up.requests(t)
	if n := len(requests[len(requests)-1].Messages); n != 3 {
		t.Errorf("after a restart the model is asked with %d messages", n)
	}
}

func TestResponseGoesOnWithoutItsReader(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("gate-20"))
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q", "text", "hi")
	c.until("message.created")
	up.release(t, 5)
	c.until("message.delta")
	c.conn.CloseNow()
	up.release(t, 5)
	d := s.dial(token("alice"))
	if opened := d.resume(c); opened["resumed"] != true || opened.str("in_progress") != c.order[1] {
		t.Errorf("the session is opened as %v", opened)
	}
	up.release(t, 10)
	end := d.until("message.completed")
	if got := d.text[end.str("message_id")]; got != llmtest.Text(20) || len(up.requests(t)) != 1 {
		t.Errorf("after %d requests the text is %q", len(up.requests(t)), got)
	}

	// A reader that holds nothing gets the whole.
	e := s.dial(token("alice"))
	if opened := e.open("session_id", c.session, "history", 1); opened["has_more"] != true || opened["resumed"] != false {
		t.Errorf("the session is opened as %v", opened)
	}
	whole := e.next()
	if whole.num("from") != 1 || whole.str("message", "text") != llmtest.Text(20) || whole.str("message", "status") != "complete" {
		t.Errorf("the newest message is %v", whole)
	}
}

func TestFreshReaderInTheMiddleOfAResponse(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("gate-20"))
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q", "text", "hi")
	up.release(t, 5)
	c.untilWords(1)
	d := s.dial(token("alice"))
	opened := d.open("session_id", c.session)
	d.until("message.created")
	half := d.until("message.created")
	if half.str("message", "status") != "streaming" || half.str("message", "id") != opened.str("in_progress") ||
		!strings.HasPrefix(half.str("message", "text"), c.text[c.order[1]]) {
		t.Errorf("the response in progress is %v", half)
	}
	c.closedWith(4409)
	up.release(t, 15)
	end := d.until("message.completed")
	if got := d.text[end.str("message_id")]; got != llmtest.Text(20) {
		t.Errorf("the text is %q", got)
	}
}

func TestCancelReachesTheUpstream(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("stall-after-3"))
	c := s.dial(token("alice"))
	c.open()
	c.send("response.cancel") // nothing in progress: nothing
	c.send("message.send", "message_id", "q", "text", "hi")
	c.untilWords(3)
	refusal := c.refused(`{"type":"message.send","message_id":"q2","text":"hello?","ref":"r"}`)
	if refusal.str("error", "code") != "response_in_progress" || refusal.str("ref") != "r" {
		t.Errorf("a second message is answered with %v", refusal)
	}
	c.send("response.cancel")
	end := c.until("message.completed")
	if end.str("status") != "cancelled" || end.str("finish_reason") != "cancelled" {
		t.Errorf("the response ends as %v", end)
	}
	up.await(t, "cancelled", 1)
	c.send("response.retry")
	if again := c.until("message.created"); again.str("message", "replaces") != end.str("message_id") || again.str("message", "reply_to") != "q" {
		t.Errorf("the new answer is %v", again)
	}
	up.await(t, "requests", 2)
	c.send("session.end")
	if f := c.until("session.ended"); f.str("reason") != "user" {
		t.Errorf("the session ends as %v", f)
	}
	up.await(t, "cancelled", 2)
}

func TestEndingsThatProvidersTell(t *testing.T) {
	up := startUpstream(t)
	scripts := []struct{ model, status, reason, code string }{
		{"length-5", "complete", "length", ""},
		{"filter-5", "complete", "content_filter", ""},
		{"end-after-5", "failed", "", "llm_unavailable"},
		{"cut-after-5", "failed", "", "llm_unavailable"},
		{"error-after-5", "failed", "", "llm_unavailable"},
		{"garbage-after-5", "failed", "", "llm_unavailable"},
		{"status-429", "failed", "", "llm_unavailable"},
		{"status-500", "failed", "", "llm_unavailable"},
		{"status-401", "failed", "", "llm_rejected"},
		{"tools", "failed", "", "llm_rejected"},
		{"refused", "failed", "", "content_filtered"},
	}
	var names []string
	for _, x := range scripts {
		names = append(names, x.model)
	}
	s := startServer(t, up.models(names...))
	c := s.dial(token("alice"))
	for _, x := range scripts {
		c.forget()
		c.open("model", x.model)
		end := c.ask("q", "hi")
		if end.str("status") != x.status || end.str("finish_reason") != x.reason || end.str("error", "code") != x.code {
			t.Errorf("%s ends as %v", x.model, end)
		}
		if strings.HasSuffix(x.model, "-5") && c.text[end.str("message_id")] != llmtest.Text(5) {
			t.Errorf("%s: the text is %q", x.model, c.text[end.str("message_id")])
		}
		data, _ := json.Marshal(c.seen)
		if strings.Contains(string(data), llmtest.Detail) {
			t.Errorf("%s: the client sees the upstream's own words: %s", x.model, data)
		}
	}
	c.quiet()
}

func TestSameMessageTwiceIsOneTurn(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("words-3"))
	c := s.dial(token("alice"))
	c.open()
	c.ask("q", "hi")
	last := c.last
	c.send("message.send", "message_id", "q", "text", "hi")
	if f := c.next(); f["repeat"] != true || f.str("message", "id") != "q" || f.num("seq") != 1 || c.last != last {
		t.Errorf("the same message again is answered with %v", f)
	}
	if f := c.refused(`{"type":"message.send","message_id":"q","text":"ho"}`); f.str("error", "code") != "message_conflict" {
		t.Errorf("another text is answered with %v", f)
	}
	c.quiet()
	if n := len(up.requests(t)); n != 1 {
		t.Errorf("there were %d requests", n)
	}
}
