//go:build unix

package acceptance_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// reply is an answer of the HTTP API.
type reply struct {
	status int
	header http.Header
	body   frame
	raw    string
}

// code says how a request was refused, or that it was not.
func (r reply) code() string {
	if code := r.body.str("code"); code != "" {
		return fmt.Sprintf("%d %s", r.status, code)
	}
	return fmt.Sprint(r.status)
}

// items gives a list's items.
func (r reply) items() (all []frame) {
	items, _ := r.body["items"].([]any)
	for _, item := range items {
		all = append(all, frame(item.(map[string]any)))
	}
	return all
}

// api asks the HTTP API. body is sent as JSON; a string as it is, nil not at all.
func (s *server) api(method, path, token string, body any, header ...string) reply {
	s.t.Helper()
	var sent io.Reader
	if text, ok := body.(string); ok {
		sent = strings.NewReader(text)
	} else if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		sent = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.addr+path, sent)
	if err != nil {
		s.t.Fatal(err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Timeout: patience}
	resp, err := client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	tell(string(raw))
	answer := reply{status: resp.StatusCode, header: resp.Header, raw: string(raw)}
	if len(raw) > 0 && json.Unmarshal(raw, &answer.body) != nil {
		s.t.Errorf("%s %s is answered with what is no JSON: %.200s", method, path, raw)
	}
	if resp.StatusCode >= 400 && resp.Header.Get("Content-Type") != "application/problem+json" {
		s.t.Errorf("%s %s is refused with the type %q", method, path, resp.Header.Get("Content-Type"))
	}
	return answer
}

// pages reads a list to its end, page by page, and gives a field of all its items.
func (s *server) pages(path, token, field string) (all []string) {
	s.t.Helper()
	for cursor := ""; ; {
		r := s.api("GET", path+cursor, token, nil)
		if r.status != 200 {
			s.t.Fatalf("%s: %d %s", path, r.status, r.raw)
		}
		for _, item := range r.items() {
			all = append(all, item.str(field))
		}
		next := r.body.str("next_cursor")
		if next == "" {
			return all
		}
		cursor = "&cursor=" + next
	}
}

func TestAUsersSessionsOverHTTP(t *testing.T) {
	s := startServer(t, eliza)
	alice, bob := token("alice"), token("bob")
	made := s.api("POST", "/api/v1/sessions", alice, map[string]any{"title": " Over\nHTTP ", "metadata": map[string]string{"a": "b"}})
	if made.status != 201 || made.body.str("title") != "Over HTTP" || made.body.str("metadata", "a") != "b" ||
		made.body.str("model") != "eliza" || made.body.str("status") != "active" {
		t.Fatalf("a session is made: %d %s", made.status, made.raw)
	}
	id := made.body.str("id")
	path := "/api/v1/sessions/" + id
	if r := s.api("POST", "/api/v1/sessions", alice, nil); r.status != 201 {
		t.Errorf("without a body: %d %s", r.status, r.raw)
	}

	c := s.dial(alice)
	c.open("session_id", id)
	c.ask("m1", "hello")
	c.ask("m2", "my dog is sad")
	changed := s.api("PATCH", path, alice, map[string]any{"title": "Another"})
	if updated := c.until("session.updated"); changed.status != 200 || changed.body.str("title") != "Another" || updated.str("title") != "Another" {
		t.Errorf("a change: %d %s, and the connection is told %v", changed.status, changed.raw, updated)
	}
	if got := s.api("GET", path, alice, nil); got.status != 200 || got.body.str("title") != "Another" || got.body.str("id") != id {
		t.Errorf("read: %d %s", got.status, got.raw)
	}

	want := slices.Clone(c.order)
	if got := s.pages(path+"/messages?limit=1", alice, "id"); !slices.Equal(got, want) {
		t.Errorf("the messages are %v, the connection has %v", got, want)
	}
	slices.Reverse(want)
	if got := s.pages(path+"/messages?limit=3&order=desc", alice, "id"); !slices.Equal(got, want) {
		t.Errorf("newest first the messages are %v, want %v", got, want)
	}
	if got := s.pages(path+"/messages?limit=1&order=desc&before="+want[1], alice, "id"); !slices.Equal(got, want[2:]) {
		t.Errorf("before the third the messages are %v, want %v", got, want[2:])
	}
	if got := s.pages(path+"/messages?limit=1&before="+want[1], alice, "text"); len(got) != 2 || got[0] != "hello" {
		t.Errorf("before the third, oldest first, the texts are %q", got)
	}
	if got := s.pages("/api/v1/sessions?limit=1", alice, "id"); len(got) != 2 || got[0] != id {
		t.Errorf("alice's sessions are %v", got)
	}
	if got := s.pages("/api/v1/sessions?limit=1", bob, "id"); len(got) != 0 {
		t.Errorf("bob's sessions are %v", got)
	}

	ended := s.api("POST", path+"/end", alice, nil)
	if end := c.until("session.ended"); ended.status != 200 || ended.body.str("status") != "ended" || end.str("reason") != "user" {
		t.Errorf("ended: %d %s, and the connection is told %v", ended.status, ended.raw, end)
	}
	for what, r := range map[string]reply{
		"ended again": s.api("POST", path+"/end", alice, nil), "changed": s.api("PATCH", path, alice, map[string]any{"title": "x"}),
	} {
		if r.code() != "409 session_ended" {
			t.Errorf("an ended session, %s: %s", what, r.raw)
		}
	}
	if got := s.pages("/api/v1/sessions?limit=9&status=ended", alice, "id"); !slices.Equal(got, []string{id}) {
		t.Errorf("the ended sessions are %v", got)
	}
	if r := s.api("DELETE", path, alice, nil); r.status != 204 || r.raw != "" {
		t.Errorf("erased: %d %s", r.status, r.raw)
	}
	if r := s.api("GET", path, alice, nil); r.code() != "404 session_not_found" {
		t.Errorf("an erased session: %s", r.raw)
	}
}

func TestAnothersSessionIsLikeNone(t *testing.T) {
	s := startServer(t, eliza)
	mine := s.api("POST", "/api/v1/sessions", token("alice"), nil).body.str("id")
	for _, who := range []string{token("bob"), token("ann", "admin"), token("gus", "agent")} {
		for _, id := range []string{mine, "nosuchsession", "%00", "..%2f" + mine, strings.Repeat("a", 300)} {
			for _, request := range []struct {
				method, path string
				body         any
			}{
				{"GET", "", nil}, {"PATCH", "", map[string]any{"title": "stolen"}}, {"DELETE", "", nil}, {"POST", "/end", nil}, {"GET", "/messages", nil},
			} {
				if r := s.api(request.method, "/api/v1/sessions/"+id+request.path, who, request.body); r.code() != "404 session_not_found" {
					t.Errorf("%s %q%s: %s", request.method, id, request.path, r.raw)
				}
			}
		}
	}
	if r := s.api("GET", "/api/v1/sessions/"+mine, token("alice"), nil); r.body.str("title") != "" || r.body.str("status") != "active" {
		t.Errorf("after all that the session is %s", r.raw)
	}
}

func TestBadRequestsAreRefusedWithCodeAndField(t *testing.T) {
	s := startServer(t, eliza)
	alice, ann := token("alice"), token("ann", "admin")
	id := s.api("POST", "/api/v1/sessions", alice, nil).body.str("id")
	for _, c := range []struct {
		method, path, token string
		body                any
		code, field         string
	}{
		{"POST", "/api/v1/sessions", alice, "{", "400 invalid_json", ""},
		{"POST", "/api/v1/sessions", alice, "[]", "400 invalid_json", ""},
		{"POST", "/api/v1/sessions", alice, `{"model": 7}`, "400 invalid_message", "model"},
		{"POST", "/api/v1/sessions", alice, `{"model": "nosuch"}`, "400 model_not_found", ""},
		{"POST", "/api/v1/sessions", alice, `{"metadata": {"a": 1}}`, "400 invalid_message", "metadata"},
		{"POST", "/api/v1/sessions", alice, `{"metadata": {"a": "` + strings.Repeat("x", 5000) + `"}}`, "400 invalid_message", "metadata"},
		{"POST", "/api/v1/sessions", alice, `{"title": "` + strings.Repeat("x", 201) + `"}`, "400 invalid_message", "title"},
		{"POST", "/api/v1/sessions", alice, `{"title": "` + strings.Repeat("x", 200_000) + `"}`, "413 message_too_large", ""},
		{"PATCH", "/api/v1/sessions/" + id, alice, nil, "400 invalid_request", ""},
		{"PATCH", "/api/v1/sessions/" + id, alice, `{"title": ["x"]}`, "400 invalid_message", "title"},
		{"GET", "/api/v1/sessions?limit=0", alice, nil, "400 invalid_request", "limit"},
		{"GET", "/api/v1/sessions?limit=201", alice, nil, "400 invalid_request", "limit"},
		{"GET", "/api/v1/sessions?limit=x", alice, nil, "400 invalid_request", "limit"},
		{"GET", "/api/v1/sessions?cursor=x", alice, nil, "400 invalid_request", "cursor"},
		{"GET", "/api/v1/sessions?status=odd", alice, nil, "400 invalid_request", "status"},
		{"GET", "/api/v1/sessions/" + id + "/messages?before=nosuch", alice, nil, "400 invalid_request", "before"},
		{"GET", "/api/v1/admin/sessions?sort=title", ann, nil, "400 invalid_request", "sort"},
		{"GET", "/api/v1/admin/sessions?from=yesterday", ann, nil, "400 invalid_request", "from"},
		{"POST", "/api/v1/admin/sessions/" + id + "/messages", ann, `{"text": "x"}`, "400 invalid_message", "message_id"},
		{"POST", "/api/v1/admin/sessions/" + id + "/messages", ann, `{"message_id": "x", "text": " "}`, "400 invalid_message", "text"},
		{"POST", "/api/v1/admin/sessions/" + id + "/messages", ann, `{"message_id": "x", "text": "y", "role": "user"}`, "400 invalid_message", "role"},
		{"POST", "/api/v1/admin/users/bob/revoke", ann, `{"expires_at": "soon"}`, "400 invalid_message", "expires_at"},
		{"POST", "/api/v1/admin/users/bob/revoke", ann, `{"expires_at": "2001-02-03T04:05:06Z"}`, "400 invalid_message", "expires_at"},
		{"DELETE", "/api/v1/admin/connections", ann, nil, "400 invalid_request", "user_id"},
		{"GET", "/api/v1/admin/connections/nosuch", ann, nil, "404 invalid_request", ""},
		{"GET", "/api/v1/nosuch", alice, nil, "404 invalid_request", ""},
		{"PUT", "/api/v1/sessions", alice, nil, "405 invalid_request", ""},
		{"GET", "/api/v1/sessions?token=" + alice, "", nil, "400 invalid_request", ""},
		{"GET", "/api/v1/sessions", "", nil, "401 unauthenticated", ""},
		{"GET", "/api/v1/sessions", "nonsense", nil, "401 unauthenticated", ""},
	} {
		r := s.api(c.method, c.path, c.token, c.body)
		if r.code() != c.code || r.body.str("field") != c.field {
			t.Errorf("%s %.60s %.40v: %d %s, want %s of field %q", c.method, c.path, c.body, r.status, r.raw, c.code, c.field)
		}
	}
}

func TestTheAPIDescribesItself(t *testing.T) {
	s := startServer(t, eliza, "server: {addr: 127.0.0.1:0, operations_addr: 127.0.0.1:0, path_prefix: /chat}\n")
	r := s.api("GET", "/chat/openapi.json", "", nil)
	if r.status != 200 || !strings.HasPrefix(r.body.str("openapi"), "3.1") {
		t.Fatalf("the document: %d %.200s", r.status, r.raw)
	}
	paths, _ := r.body["paths"].(map[string]any)
	for _, path := range []string{
		"/api/v1/sessions", "/api/v1/sessions/{id}", "/api/v1/sessions/{id}/end", "/api/v1/sessions/{id}/messages", "/api/v1/models",
		"/api/v1/admin/sessions", "/api/v1/admin/sessions/{id}", "/api/v1/admin/sessions/{id}/messages", "/api/v1/admin/sessions/{id}/end",
		"/api/v1/admin/connections", "/api/v1/admin/connections/{id}", "/api/v1/admin/stats", "/api/v1/admin/users/{id}/revoke",
		"/api/v1/admin/users/{id}/data", "/api/v1/admin/audit",
	} {
		if paths[path] == nil {
			t.Errorf("%s is missing", path)
		}
	}
	if r := s.api("GET", "/chat/api/v1/models", token("alice"), nil); r.status != 200 {
		t.Errorf("under the prefix: %d %s", r.status, r.raw)
	}
}

// One list of origins serves both the WebSocket and the HTTP API.
func TestPagesOfAllowedOriginsMayUseTheAPI(t *testing.T) {
	s := startServer(t, eliza, "websocket: {allowed_origins: [\"https://app.example.com\"]}\n")
	const app, evil = "https://app.example.com", "https://evil.example"
	asked := s.api("OPTIONS", "/api/v1/sessions", "", nil, "Origin", app, "Access-Control-Request-Method", "POST",
		"Access-Control-Request-Headers", "authorization")
	if asked.status != 204 || asked.header.Get("Access-Control-Allow-Origin") != app ||
		!strings.Contains(asked.header.Get("Access-Control-Allow-Headers"), "Authorization") ||
		!strings.Contains(asked.header.Get("Access-Control-Allow-Methods"), "DELETE") {
		t.Errorf("the browser's question is answered with %d %v", asked.status, asked.header)
	}
	if r := s.api("GET", "/api/v1/sessions", token("alice"), nil, "Origin", app); r.status != 200 ||
		r.header.Get("Access-Control-Allow-Origin") != app || !slices.Contains(r.header.Values("Vary"), "Origin") {
		t.Errorf("a page of the list: %d %v", r.status, r.header)
	}
	if r := s.api("OPTIONS", "/api/v1/sessions", "", nil, "Origin", evil, "Access-Control-Request-Method", "POST"); r.code() != foreign ||
		r.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("a foreign page's question: %d %v", r.status, r.header)
	}
	for _, origin := range []string{evil, "null"} {
		if r := s.api("GET", "/api/v1/sessions", token("alice"), nil, "Origin", origin); r.code() != foreign {
			t.Errorf("a page of %s: %d %s", origin, r.status, r.raw)
		}
	}
	// As with an image of another site's page: it is not counted against who looks at the page.
	if r := s.api("GET", "/api/v1/sessions", "", nil, "Sec-Fetch-Site", "cross-site"); r.code() != foreign {
		t.Errorf("another site's image: %d %s", r.status, r.raw)
	}
	if r := s.api("POST", "/api/v1/sessions", token("alice"), `{"title": "x"}`, "Content-Type", "application/x-www-form-urlencoded"); r.status != 201 {
		t.Errorf("JSON under another name, as curl sends it: %d %s", r.status, r.raw)
	}
	if r := s.api("GET", "/api/v1/sessions", token("alice"), nil, "Origin", "http://"+s.addr); r.status != 200 {
		t.Errorf("its own page: %d %s", r.status, r.raw)
	}
}

// Behind a trusted proxy the page's origin is compared with the host and the scheme that the browser sees.
func TestBehindATrustedProxyTheForwardedHostCounts(t *testing.T) {
	forwarded := []string{"Origin", "https://chat.example.com", "X-Forwarded-Host", "chat.example.com", "X-Forwarded-Proto", "https"}
	for proxies, want := range map[string]string{`[]`: foreign, `["127.0.0.0/8"]`: "200", `["10.0.0.0/8"]`: foreign} {
		s := startServer(t, eliza, "server: {addr: 127.0.0.1:0, operations_addr: 127.0.0.1:0, trusted_proxies: "+proxies+"}\n")
		if r := s.api("GET", "/api/v1/sessions", token("alice"), nil, forwarded...); r.code() != want {
			t.Errorf("trusting %s: %s, want %s", proxies, r.code(), want)
		}
	}
}

// A response in progress is read as far as it is stored: at each checkpoint.
func TestAConversationCanBeReadWhileItIsWritten(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("stall-after-3"), "storage: {checkpoint_interval: 20ms, sqlite: {path: parley.db}}\n")
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "m1", "text", "go")
	c.untilWords(3)
	deadline := time.Now().Add(patience)
	for {
		messages := s.api("GET", "/api/v1/sessions/"+c.session+"/messages", token("alice"), nil).items()
		if len(messages) == 2 && messages[1].str("status") == "streaming" && messages[1].str("text") == c.text[c.order[1]] {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("while the answer is written the messages are %v", messages)
		}
	}
	c.send("response.cancel")
	c.until("message.completed")
}
