//go:build unix

package acceptance_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
)

func TestR14_1_EveryConnectionIsToldOfTheOneRefused(t *testing.T) {
	s := startServer(t, eliza, "websocket: {max_connections_per_user: 5}\n")
	stranger := s.dial(token("bob"))
	var mine []*client
	for range 5 {
		mine = append(mine, s.dial(token("alice")))
	}
	mine[0].open() // bound or not
	for range 3 {
		_, resp, err := s.tryDial(token("alice"), nil)
		if err == nil || problem(t, resp) != "429 connection_limit" || resp.Header.Get("Retry-After") == "" {
			t.Errorf("a connection too many gets %v", resp)
		}
		for i, c := range mine {
			if f := c.next(); f.str("type") != "connection.limit" || f.num("limit") != 5 || f.num("current") != 5 {
				t.Errorf("connection %d is told %v", i, f)
			}
		}
	}
	stranger.quiet()
	mine[0].ask("q", "hello")
}

// Refusals, comings, goings and replacements at once: the connections that are told may be on their way out.
func TestR14_5_RefusalsWhileConnectionsComeAndGo(t *testing.T) {
	const limit, crowd, rounds = 4, 8, 40
	s := startServer(t, eliza, fmt.Sprintf("websocket: {max_connections_per_user: %d}\n", limit))
	steady := s.dial(token("alice"))
	session := steady.open().str("session", "id")
	var refused, admitted sync.Map
	var coming sync.WaitGroup
	for who := range crowd {
		coming.Go(func() {
			for round := range rounds {
				c, resp, err := s.tryDial(token("alice"), nil)
				if err != nil {
					if resp == nil || resp.StatusCode != http.StatusTooManyRequests {
						t.Errorf("an upgrade fails with %v: %v", resp, err)
					}
					refused.Store([2]int{who, round}, true)
					continue
				}
				admitted.Store([2]int{who, round}, true)
				_ = c.trySend("session.open", "session_id", session, "as", "user") // two of them fight
				c.conn.CloseNow()
			}
		})
	}
	coming.Wait()
	if count(&refused) == 0 || count(&admitted) == 0 {
		t.Errorf("%d connections were refused and %d admitted", count(&refused), count(&admitted))
	}
	told := false
	for {
		f, err := steady.read(patience)
		if err != nil {
			if websocket.CloseStatus(err) != 4409 {
				t.Errorf("the first connection ends with %v", err)
			}
			break
		}
		told = told || f.str("type") == "connection.limit"
	}
	t.Logf("%d refused, %d admitted; the first connection was told: %v", count(&refused), count(&admitted), told)
	s.settles("parley_connections", 0)
	s.fills("alice", limit)
}

func count(m *sync.Map) (n int) {
	m.Range(func(any, any) bool { n++; return true })
	return n
}

// fills makes sure that a user can have so many connections, and not one more.
func (s *server) fills(user string, limit int) {
	s.t.Helper()
	for i := range limit {
		if _, resp, err := s.tryDial(token(user), nil); err != nil {
			s.t.Fatalf("connection %d of %d gets %v: %v", i+1, limit, resp, err)
		}
	}
	if _, resp, err := s.tryDial(token(user), nil); err == nil || problem(s.t, resp) != "429 connection_limit" {
		s.t.Errorf("a connection over the limit of %d gets %v", limit, resp)
	}
}

func TestFailedAttemptsHoldNoSlot(t *testing.T) {
	const each, limit = 60, 10
	s := startServer(t, eliza, fmt.Sprintf("websocket: {max_connections_per_user: %d, max_connections: %d}\n", limit, limit))
	bearer := "Authorization: Bearer " + token("alice")
	upgrade := "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
	key := "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	lines := func(l ...string) string { return "GET /ws HTTP/1.1\r\nHost: x\r\n" + strings.Join(l, "") + "\r\n" }
	whole := lines(upgrade, key, bearer+"\r\n")
	attempts := []struct {
		name, request string
		vanish        bool // without reading the answer
	}{
		{"no token", lines(upgrade, key), false},
		{"a bad token", lines(upgrade, key, "Authorization: Bearer x\r\n"), false},
		{"a bad key", lines(upgrade, "Sec-WebSocket-Key: x\r\n", bearer+"\r\n"), false},
		{"another subprotocol", lines(upgrade, key, bearer, "\r\nSec-WebSocket-Protocol: x\r\n"), false},
		{"a foreign page", lines(upgrade, key, bearer, "\r\nOrigin: https://evil.example\r\n"), false},
		{"half a handshake", whole[:len(whole)/2], true},
		{"a client that vanishes", whole, true},
		{"a client that vanishes with a frame", whole + "\x81\x85\x00\x00\x00\x00hello", true},
		{"a body that nobody reads", strings.Replace(whole, "\r\n\r\n", "\r\nContent-Length: 100000\r\n\r\n", 1), true},
	}
	goroutines := s.lowest("go_goroutines")
	for range each {
		for _, a := range attempts {
			conn, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write([]byte(a.request)) // it may be refused before its end
			if a.vanish {
				conn.(*net.TCPConn).SetLinger(0)
			} else if n, err := conn.Read(make([]byte, 16)); err != nil || n == 0 {
				t.Errorf("%s is answered with %v", a.name, err)
			}
			conn.Close()
		}
	}
	s.settles("parley_connections", 0)
	s.settles("go_goroutines", goroutines)
	s.fills("alice", limit)
	for range 100 { // refused for the limit, the server's and the user's
		for _, user := range []string{"alice", "bob"} {
			if _, resp, err := s.tryDial(token(user), nil); err == nil || problem(t, resp) != "429 connection_limit" {
				t.Fatalf("a connection too many gets %v", resp)
			}
		}
	}
	if n := s.figure("parley_connections"); n != limit {
		t.Errorf("there are %v connections, %d are open", n, limit)
	}
}
