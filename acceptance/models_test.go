//go:build unix

package acceptance_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/ui/uitest"
)

// call makes a request of the HTTP API, with a token where one is given.
func (s *server) call(method, path, token string) *http.Response {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.addr+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := (&http.Client{Timeout: patience}).Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// listed gives the list of models as it is answered: their IDs, the default one with a star.
func (s *server) listed(path, token string) string {
	s.t.Helper()
	resp := s.call("GET", path, token)
	var list struct {
		Items []struct {
			ID, Name string
			Default  bool
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s is answered with %s: %v", path, resp.Status, err)
	}
	var ids []string
	for _, m := range list.Items {
		if m.Name != m.ID { // as the harness configures them
			s.t.Errorf("model %s has the name %q", m.ID, m.Name)
		}
		if m.Default {
			m.ID += "*"
		}
		ids = append(ids, m.ID)
	}
	return strings.Join(ids, " ")
}

func TestModelsAreListed(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("echo", "words-3"))
	if got := s.listed("/api/v1/models", token("alice")); got != "echo* words-3" {
		t.Errorf("the models are %s", got)
	}
	for _, c := range []struct{ method, path, token, want string }{
		{"GET", "/api/v1/models", "", "401 unauthenticated"},
		{"GET", "/api/v1/models", token("alice") + "x", "401 unauthenticated"},
		{"GET", "/api/v1/models?token=" + token("alice"), "", "400 invalid_request"},
		{"DELETE", "/api/v1/models", token("alice"), "405 invalid_request"},
		{"OPTIONS", "/api/v1/models", token("alice"), "405 invalid_request"},
		{"GET", "/api/v1/nothing", token("alice"), "404 invalid_request"},
		{"POST", "/api/v2", token("alice"), "404 invalid_request"},
	} {
		if got := problem(t, s.call(c.method, c.path, c.token)); got != c.want {
			t.Errorf("%s %.20s is answered with %s, want %s", c.method, c.path, got, c.want)
		}
	}

	below := startServer(t, up.models("echo"), "server: {addr: 127.0.0.1:0, operations_addr: 127.0.0.1:0, path_prefix: /chat}\n")
	if got := below.listed("/chat/api/v1/models", token("alice")); got != "echo*" {
		t.Errorf("under a prefix the models are %s", got)
	}
}

func TestModelsAreListedWhileTheServerDrains(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("gate-5"))
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q", "text", "hi")
	up.await(t, "requests", 1)
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.until("server.draining")
	if got := s.listed("/api/v1/models", token("alice")); got != "gate-5*" {
		t.Errorf("while the server drains the models are %s", got)
	}
	up.release(t, 5)
	if code := s.wait(); code != 0 {
		t.Errorf("the server exits with %d", code)
	}
}

// A model that is chosen while a response is in progress is the next one's.
func TestModelOfTheNextResponse(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("gate-4", "words-3"))
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q1", "text", "hi")
	up.release(t, 1)
	c.until("message.delta")

	refusal := c.sendRefused("session.update", "model", "nothing", "ref", "u1")
	if refusal.str("error", "code") != "model_not_found" || refusal.str("ref") != "u1" {
		t.Errorf("a model that there is not is answered with %v", refusal)
	}
	c.send("session.update", "model", "words-3")
	if f := c.until("session.updated"); f.str("model") != "words-3" {
		t.Errorf("the session's change is told as %v", f)
	}
	up.release(t, 3)
	first := c.until("message.completed")
	if c.text[first.str("message_id")] != llmtest.Text(4) || first.str("status") != "complete" {
		t.Errorf("the response in progress ends as %v with %q", first, c.text[first.str("message_id")])
	}

	c.send("message.send", "message_id", "q2", "text", "and now?")
	c.until("message.created") // the receipt
	if f := c.until("message.created"); f.str("message", "model") != "words-3" {
		t.Errorf("the next response begins as %v", f)
	}
	second := c.until("message.completed")
	if got := c.text[second.str("message_id")]; got != llmtest.Text(3) {
		t.Errorf("the next response is %q", got)
	}
	if asked := up.requests(t); len(asked) != 2 || asked[0].Model != "gate-4" || asked[1].Model != "words-3" {
		t.Errorf("the upstream was asked %v", asked)
	}

	d := s.dial(token("alice"))
	if opened := d.open("session_id", c.session, "history", 10); opened.str("session", "model") != "words-3" {
		t.Errorf("opened again the session is %v", opened)
	}
	models := make(map[string]string)
	for len(models) < 2 {
		if m := d.until("message.created"); m.str("message", "role") == "assistant" {
			models[m.str("message", "reply_to")] = m.str("message", "model")
		}
	}
	if models["q1"] != "gate-4" || models["q2"] != "words-3" {
		t.Errorf("the messages' models are %v", models)
	}
}

func TestModelOfANewSession(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("echo", "words-3"))
	c := s.dial(token("alice"))
	if f := c.refused(`{"type":"session.open","model":"nothing","ref":"o"}`); f.str("error", "code") != "model_not_found" {
		t.Errorf("a model that there is not is answered with %v", f)
	}
	if opened := c.open("model", "words-3"); opened.str("session", "model") != "words-3" {
		t.Errorf("the session is opened as %v", opened)
	}
	end := c.ask("q", "hi")
	if got := c.text[end.str("message_id")]; got != llmtest.Text(3) {
		t.Errorf("the answer is %q", got)
	}
}

func TestBrowserChoosesAModel(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("words-3", "words-5"), "server: {addr: 127.0.0.1:0, operations_addr: 127.0.0.1:0, path_prefix: /chat}\n")
	b := uitest.Open(t)
	b.Visit("http://" + s.addr + "/chat/#token=" + token("alice"))
	b.UntilOpen()
	b.Until(`document.querySelector('#choose').value === 'words-3'`)
	b.Do("choose", chromedp.SendKeys(chromedp.CSS("#choose"), "words-5"))
	b.Until(`document.querySelector('#choose').value === 'words-5'`)
	b.Say("Hello")
	b.Until(longer(finished, 1))
	if asked := up.requests(t); len(asked) != 1 || asked[0].Model != "words-5" {
		t.Errorf("the upstream was asked %v", asked)
	}
	b.Reload()
	b.Until(`document.querySelector('#choose').value === 'words-5'`)
}
