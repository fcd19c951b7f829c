//go:build unix

package acceptance_test

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

func TestR05_1_TheServerServesBeforeItIsToldToStop(t *testing.T) {
	s := startServer(t, eliza)
	var health map[string]string
	getJSON(t, s.operations+"/healthz", &health)
	if health["status"] != "ok" {
		t.Errorf("the server's health is %v", health)
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("the server exits with %d", code)
	}
}

func TestR05_2_TheRoutesAreRegistered(t *testing.T) {
	s := startServer(t, eliza, "server: {addr: 127.0.0.1:0, operations_addr: 127.0.0.1:0, path_prefix: /chat}\n")
	for path, want := range map[string]int{"/chat/": 200, "/chat/ws": 401, "/": 404, "/ws": 404} {
		resp, err := http.Get("http://" + s.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s is answered with %d, want %d", path, resp.StatusCode, want)
		}
	}
	for path, want := range map[string]string{"/readyz": "ready", "/metrics": "parley_connections 0"} {
		resp, err := http.Get(s.operations + path)
		if err != nil {
			t.Fatal(err)
		}
		var body strings.Builder
		_ = resp.Write(&body)
		resp.Body.Close()
		if resp.StatusCode != 200 || !strings.Contains(body.String(), want) {
			t.Errorf("%s says %s", path, body.String())
		}
	}
}

func TestR05_3_TheConfiguredPortIsListenedOn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	dir, path := configuration(t, eliza, "server: {addr: \""+addr+"\", operations_addr: \"\"}\n")
	s := &server{t: t, dir: dir, config: path}

	s.launch("serve", "--config", path)
	if code := s.wait(); code != 1 {
		t.Errorf("with its port in use the server exits with %d", code)
	}
	log := strings.Join(s.log(), "\n")
	if strings.Contains(log, "listening") || !strings.Contains(log, "server.addr") {
		t.Errorf("with its port in use it says %s", log)
	}

	l.Close()
	s.launch("serve", "--config", path)
	if got := s.awaitLog("listening")["addr"]; got != addr {
		t.Errorf("the server listens on %v, want %s", got, addr)
	}
}

func TestR05_4_SIGTERMLetsResponsesEnd(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("gate-20"))
	idle, busy := s.dial(token("alice")), s.dial(token("bob"))
	idle.open()
	busy.open()
	busy.send("message.send", "message_id", "q", "text", "hi")
	up.release(t, 5)
	busy.until("message.delta")

	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if f := idle.next(); f.str("type") != "server.draining" || f.num("reconnect_after_ms") == 0 {
		t.Errorf("the idle connection is told %v", f)
	}
	idle.closedWith(1012)
	busy.until("server.draining")
	if _, resp, err := s.tryDial(token("carol"), nil); err == nil || problem(t, resp) != "503 server_draining" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a new connection gets %v", resp)
	}
	up.release(t, 15)
	end := busy.until("message.completed")
	if got := busy.text[end.str("message_id")]; got != llmtest.Text(20) || end.str("status") != "complete" {
		t.Errorf("the response ends as %v with %q", end, got)
	}
	busy.closedWith(1012)
	if code := s.wait(); code != 0 {
		t.Errorf("the server exits with %d", code)
	}
}

func TestR05_5_ListeningIsLoggedWithTheAddress(t *testing.T) {
	s := startServer(t, eliza)
	var first map[string]any
	if err := json.Unmarshal([]byte(s.log()[0]), &first); err != nil {
		t.Fatalf("the log begins with %q", s.log()[0])
	}
	addr, _ := s.awaitLog("listening")["addr"].(string)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatalf("at %q, which is logged, nobody listens: %v", addr, err)
	}
	conn.Close()
}

func TestForcedShutdownKeepsTheText(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("stall-after-5"), "server: {addr: 127.0.0.1:0, operations_addr: 127.0.0.1:0, shutdown_timeout: 2s}\n")
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q", "text", "hi")
	for len(c.order) < 2 || c.text[c.order[1]] != llmtest.Text(5) {
		c.next()
	}
	if code := s.stop(syscall.SIGTERM); code != 3 {
		t.Errorf("with a response that hangs the server exits with %d", code)
	}
	if end := c.until("message.completed"); end.str("status") != "interrupted" {
		t.Errorf("the response ends as %v", end)
	}
	c.closedWith(1012)
	s.start()
	d := s.dial(token("alice"))
	d.open("session_id", c.session)
	d.until("message.created")
	if f := d.until("message.created"); f.str("message", "status") != "interrupted" || f.str("message", "text") != llmtest.Text(5) {
		t.Errorf("after the restart the response is %v", f)
	}
}
