//go:build unix

package acceptance_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestTokenAsASubprotocol(t *testing.T) {
	s := startServer(t, eliza)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, "ws://"+s.addr+"/ws", &websocket.DialOptions{
		Subprotocols: []string{"parley.v1", "parley.bearer." + token("alice")},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if got := resp.Header.Get("Sec-WebSocket-Protocol"); got != "parley.v1" {
		t.Errorf("the server selects %q", got)
	}
	newClient(t, conn).open()
}

// refusedUpgrade does the handshake by hand, and gives the status and the code of its refusal.
func refusedUpgrade(s *server, target string, headers ...string) string {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n\r\n", target, s.addr, strings.Join(headers, "\r\n"))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return "open"
	}
	return problem(s.t, resp)
}

func TestRefusedUpgrades(t *testing.T) {
	s := startServer(t, eliza, "websocket: {max_connections_per_user: 1}\n")
	handshake := []string{
		"Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
	}
	with := func(more ...string) []string { return append(append([]string(nil), handshake...), more...) }
	bearer := "Authorization: Bearer " + token("alice")
	tests := []struct {
		name, target string
		headers      []string
		want         string
	}{
		{"no subprotocol", "/ws", with(bearer), "open"},
		{"no token", "/ws", handshake, "401 unauthenticated"},
		{"a bad token", "/ws", with("Authorization: Bearer nonsense"), "401 unauthenticated"},
		{"an expired token", "/ws", with("Authorization: Bearer " + tokenFor("alice", -time.Minute)), "401 unauthenticated"},
		{"a token in the query", "/ws?token=" + token("alice"), with(bearer), "400 invalid_request"},
		{"an access token in the query", "/ws?access_token=x", with(bearer), "400 invalid_request"},
		{"another subprotocol", "/ws", with(bearer, "Sec-WebSocket-Protocol: graphql-ws"), "400 invalid_request"},
		{"no handshake", "/ws", []string{bearer}, "400 invalid_request"},
		{"an old version", "/ws", []string{bearer, handshake[0], handshake[1], "Sec-WebSocket-Version: 8", handshake[3]}, "400 invalid_request"},
		{"Connection in two lines", "/ws", []string{bearer, "Connection: keep-alive", "Connection: Upgrade", "Upgrade: other, websocket", handshake[2], handshake[3]}, "open"},
		{"a bad key", "/ws", []string{bearer, handshake[0], handshake[1], handshake[2], "Sec-WebSocket-Key: x"}, "400 invalid_request"},
		{"an origin before a token", "/ws", with("Origin: https://evil.example"), "403 origin_forbidden"},
	}
	for _, test := range tests {
		if got := refusedUpgrade(s, test.target, test.headers...); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
	for _, line := range s.log() {
		if strings.Contains(line, token("alice")[:20]) {
			t.Errorf("a token is logged: %s", line)
		}
	}
	// None of them holds a slot.
	s.dial(token("bob"))
	if _, resp, err := s.tryDial(token("bob"), nil); err == nil || problem(t, resp) != "429 connection_limit" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a connection too many gets %v", resp)
	}
}

func TestLimitIsToldToTheOtherConnections(t *testing.T) {
	s := startServer(t, eliza, "websocket: {max_connections_per_user: 1}\n")
	c := s.dial(token("alice"))
	if _, resp, err := s.tryDial(token("alice"), nil); err == nil || problem(t, resp) != "429 connection_limit" {
		t.Errorf("a connection too many gets %v", resp)
	}
	if f := c.next(); f.str("type") != "connection.limit" || f.num("limit") != 1 || f.num("current") != 1 {
		t.Errorf("the first connection is told %v", f)
	}
	c.conn.Close(websocket.StatusNormalClosure, "")
	for { // until the server has noticed
		if _, _, err := s.tryDial(token("alice"), nil); err == nil {
			return
		}
	}
}

func TestTokenThatExpiresClosesTheConnection(t *testing.T) {
	s := startServer(t, eliza)
	c := s.dial(tokenFor("alice", 2*time.Second))
	if f := c.next(); f.str("type") != "auth.expiring" || f.str("expires_at") == "" {
		t.Errorf("the client is warned with %v", f)
	}
	c.closedWith(4401)

	d := s.dial(tokenFor("alice", 2*time.Second))
	d.send("auth.refresh", "token", token("bob"))
	if f := d.until("error"); f.str("error", "code") != "forbidden" {
		t.Errorf("another's token is answered with %v", f)
	}
	d.send("auth.refresh", "token", token("alice"), "ref", "r")
	if f := d.until("auth.refreshed"); f.str("ref") != "r" || f.str("expires_at") == "" {
		t.Errorf("the refresh is answered with %v", f)
	}
	pace := time.Tick(20 * time.Millisecond)
	for until := time.Now().Add(2500 * time.Millisecond); time.Now().Before(until); <-pace {
		d.quiet()
	}
}

func TestGarbageIsAnsweredOrClosed(t *testing.T) {
	s := startServer(t, eliza)
	bystander := s.dial(token("bob"))
	bystander.open()
	for code, send := range map[int]func(c *client) error{
		1003: func(c *client) error { return c.conn.Write(c.t.Context(), websocket.MessageBinary, []byte("x")) },
		1007: func(c *client) error { return c.conn.Write(c.t.Context(), websocket.MessageText, []byte("\xff\xfe")) },
		1009: func(c *client) error {
			return c.conn.Write(c.t.Context(), websocket.MessageText, make([]byte, 65537))
		},
	} {
		c := s.dial(token("alice"))
		if err := send(c); err != nil {
			t.Fatal(err)
		}
		c.closedWith(code)
	}
	bystander.ask("q", "hello")
}

func TestAgentTakesOver(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("echo"))
	user, agent, observer := s.dial(token("alice")), s.dial(token("ann", "agent")), s.dial(token("ada", "admin"))
	user.open()
	user.send("help.request", "reason", "I am lost")
	if f := user.until("session.updated"); f["help_requested"] != true {
		t.Errorf("the request for help is told as %v", f)
	}
	observer.open("session_id", user.session, "as", "observer")
	opened := agent.open("session_id", user.session, "as", "agent")
	if opened.str("session", "assisted_by", "id") != "ann" {
		t.Errorf("the agent opens %v", opened)
	}
	if f := user.until("agent.joined"); f.str("author", "name") != "Name of ann" {
		t.Errorf("the user is told %v", f)
	}
	agent.send("typing", "active", true)
	if f := user.until("typing"); f["active"] != true || f.str("author", "id") != "ann" {
		t.Errorf("the user is told %v", f)
	}
	agent.send("message.send", "message_id", "a1", "text", "How can I help?")
	if f := user.until("message.created"); f.str("message", "role") != "agent" || f.str("message", "author", "id") != "ann" {
		t.Errorf("the agent's message is %v", f)
	}
	user.send("message.send", "message_id", "q1", "text", "which way?")
	agent.until("message.created")
	if f := agent.until("message.created"); f.str("message", "text") != "which way?" {
		t.Errorf("the agent sees %v", f)
	}
	if f := observer.sendRefused("message.send", "message_id", "o", "text", "hi"); f.str("error", "code") != "forbidden" {
		t.Errorf("an observer who writes is told %v", f)
	}
	agent.send("session.leave")
	user.until("agent.left")
	user.ask("q2", "thank you")
	requests := up.requests(t)
	if len(requests) != 1 || len(requests[0].Messages) != 3 {
		t.Errorf("the model was asked %v", requests)
	}
	if f := s.dial(token("mallory")).sendRefused("session.open", "session_id", user.session, "as", "agent"); f.str("error", "code") != "forbidden" {
		t.Errorf("who is no agent is told %v", f)
	}
}
