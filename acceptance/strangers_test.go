//go:build unix

package acceptance_test

import (
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"testing"
)

// Whoever may not open a session can neither tell that there is one, nor take it from the server that has it.
func TestStrangersLearnNothingOnAnotherServer(t *testing.T) {
	first := startServer(t, eliza)
	second := startServer(t, eliza, "storage: {sqlite: {path: "+filepath.Join(first.dir, "parley.db")+"}, journal: {path: "+t.TempDir()+"}}\n")
	c := first.dial(token("alice"))
	c.open()
	stranger := second.dial(token("eve"))
	for _, id := range []string{c.session, "NOSUCHSESSION"} {
		if f := stranger.sendRefused("session.open", "session_id", id); f.str("error", "code") != "session_not_found" {
			t.Errorf("a stranger who opens %s is answered with %v", id, f)
		}
		for method, path := range map[string]string{"PATCH": "", "DELETE": "", "POST": "/end", "GET": ""} {
			if r := second.api(method, "/api/v1/sessions/"+id+path, token("eve"), map[string]string{"title": "x"}); r.code() != "404 session_not_found" {
				t.Errorf("%s of %s by a stranger: %s", method, id, r.raw)
			}
		}
	}
	if f := second.dial(token("alice")).sendRefused("session.open", "session_id", c.session); f.str("error", "code") != "session_busy" {
		t.Errorf("its owner is answered with %v", f)
	}
	c.ask("m1", "hello")
}

// A request that is refused holds nobody up, although the rest of it never comes.
func TestRefusedRequestsDoNotHoldUpTheEnd(t *testing.T) {
	s := startServer(t, eliza, shutdownWithin("20s"))
	for range 3 {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /api/v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{")
		answer := make([]byte, 64)
		if n, err := conn.Read(answer); err != nil || string(answer[:min(n, 12)]) != "HTTP/1.1 401" {
			t.Errorf("half a request without a token is answered with %q, %v", answer[:n], err)
		}
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("the server exits with %d", code)
	}
}
