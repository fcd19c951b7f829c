//go:build unix

package acceptance_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/store/sqlite"
)

// streams is how many responses are in progress at once.
const streams = 200

// shutdownWithin is the server section of a configuration with a deadline for its end.
func shutdownWithin(d string) string {
	return "server: {addr: 127.0.0.1:0, operations_addr: 127.0.0.1:0, shutdown_timeout: " + d + "}\n"
}

// startStreams has so many users ask, each on a connection of its own, and waits until each has the first words.
func startStreams(s *server, n, words int) []*client {
	s.t.Helper()
	all := make([]*client, n)
	var starting sync.WaitGroup
	for i := range all {
		starting.Go(func() {
			c := s.dial(token(fmt.Sprint("user", i)))
			c.open()
			c.send("message.send", "message_id", "q", "text", "hi")
			c.untilWords(words)
			all[i] = c
		})
	}
	starting.Wait()
	if s.t.Failed() {
		s.t.FailNow()
	}
	return all
}

// told says what a connection is told of the server's end: whether it was warned, how its response ended, and the close
// code.
type farewell struct {
	warned bool
	status string
	code   websocket.StatusCode
}

func (c *client) farewell() (f farewell) {
	for {
		frame, err := c.read(patience)
		if err != nil {
			f.code = websocket.CloseStatus(err)
			return f
		}
		switch frame.str("type") {
		case "server.draining":
			f.warned = frame.num("reconnect_after_ms") > 0
		case "message.completed":
			f.status = frame.str("status")
		}
	}
}

func farewells(all []*client) []farewell {
	said := make([]farewell, len(all))
	var reading sync.WaitGroup
	for i, c := range all {
		reading.Go(func() { said[i] = c.farewell() })
	}
	reading.Wait()
	return said
}

func TestR15_5_UntilTheDeadlineResponsesMayEnd(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("gate-20"), shutdownWithin("60s"))
	all := make([]*client, 0, streams)
	for i := range streams {
		c := s.dial(token(fmt.Sprint("user", i)))
		c.open()
		c.send("message.send", "message_id", "q", "text", "hi")
		all = append(all, c)
	}
	up.await(t, "requests", streams)
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.awaitLog("shutting down")
	// Readiness fails first, while the operations listener answers still.
	s.readiness(http.StatusServiceUnavailable)
	up.release(t, 20*streams)
	for i, f := range farewells(all) {
		text := all[i].text[all[i].order[1]]
		if !f.warned || f.status != "complete" || f.code != 1012 || text != llmtest.Text(20) {
			t.Errorf("user %d: %+v with %d bytes", i, f, len(text))
		}
	}
	if code := s.wait(); code != 0 {
		t.Errorf("the server exits with %d", code)
	}
}

// With hung providers the deadline counts; all the rest follows from one such end.
func TestR15_1_TheDeadlineIsRespected(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("stall-after-3"), shutdownWithin("2s"))
	all := startStreams(s, streams, 3)
	began := time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	said := farewells(all)
	code := s.wait()
	t.Logf("with %d hung providers and a deadline of 2s the server has ended after %v", streams, time.Since(began).Round(time.Millisecond))
	if code != 3 {
		t.Errorf("the server exits with %d", code)
	}
	for i, f := range said {
		if !f.warned || f.status != "interrupted" || f.code != 1012 {
			t.Errorf("user %d: %+v", i, f)
		}
	}
	store, err := sqlite.Open(t.Context(), filepath.Join(s.dir, "parley.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	forced := make(map[string]bool)
	for _, line := range s.log() {
		var entry frame
		if json.Unmarshal([]byte(line), &entry) == nil && entry.str("msg") == "the shutdown forces a response" && entry.str("what") == "interrupted" {
			forced[entry.str("session")] = true
		}
	}
	var late []int // whose end the storage did not take in time: the journal has it
	for i, c := range all {
		m, err := store.Message(t.Context(), c.session, c.order[1])
		if err != nil || m.Text != llmtest.Text(3) {
			t.Errorf("user %d: stored is %s %q, %v", i, m.Status, m.Text, err)
		}
		if m.Status != "interrupted" {
			late = append(late, i)
		}
		if !forced[c.session] {
			t.Errorf("the log does not name session %s", c.session)
		}
	}
	if len(late) == 0 {
		return
	}
	t.Logf("of %d the end is in the journal", len(late))
	s.start()
	for _, i := range late {
		again := s.dial(token(fmt.Sprint("user", i)))
		if opened := again.resume(all[i]); opened["resumed"] != true {
			t.Errorf("user %d: after a restart the session is opened with %v", i, opened)
		}
		if m, err := store.Message(t.Context(), all[i].session, all[i].order[1]); err != nil || m.Status != "interrupted" || m.Text != llmtest.Text(3) {
			t.Errorf("user %d: after a restart stored is %s %q, %v", i, m.Status, m.Text, err)
		}
	}
}

// A client that reads nothing, and has more waiting for it than any buffer takes, is cut.
func TestR15_2_RemainingConnectionsAreForced(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models(fmt.Sprint("words-", longAnswer)), "websocket: {write_timeout: 1h, ping_interval: 1h}\n"+shutdownWithin("2s"))
	network := startProxy(t, s.addr)
	a := startLongAnswer(s, network)
	network.stop()
	up.await(t, "finished", 1)
	if code := s.stop(syscall.SIGTERM); code != 3 {
		t.Errorf("the server exits with %d", code)
	}
	entry := s.awaitLog("the shutdown forces a connection")
	if entry["user"] != "alice" || entry["session"] == "" || entry["level"] != "WARN" {
		t.Errorf("the log says %v", entry)
	}
	_ = a
}

func TestR15_4_ForcedShutdownIsLogged(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("stall-after-3"), shutdownWithin("1s"))
	startStreams(s, 2, 3)
	if code := s.stop(syscall.SIGTERM); code != 3 {
		t.Errorf("the server exits with %d", code)
	}
	if entry := s.awaitLog("shutdown forced"); entry["interrupted_responses"] != 2.0 || entry["level"] != "WARN" {
		t.Errorf("the log says %v", entry)
	}
}

// A request of the HTTP API that is under way is answered.
func TestR15_5_RequestsUnderWayAreAnswered(t *testing.T) {
	s := startServer(t, eliza, shutdownWithin("30s"))
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := `{"title": "under way"}`
	fmt.Fprintf(conn, "POST /api/v1/sessions HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		s.addr, token("alice"), len(body), body[:5])
	idle := s.dial(token("bob"))
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	idle.closedWith(1012)
	fmt.Fprint(conn, body[5:])
	answer := make([]byte, 512)
	n, err := conn.Read(answer)
	if err != nil || !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 201 ") {
		t.Errorf("the request is answered with %q, %v", answer[:n], err)
	}
	if code := s.wait(); code != 0 {
		t.Errorf("the server exits with %d", code)
	}
}

func TestASecondSignalEndsItAtOnce(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("stall-after-3"), shutdownWithin("1h"))
	startStreams(s, 1, 3)
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.awaitLog("shutting down")
	if code := s.stop(syscall.SIGTERM); code != 1 {
		t.Errorf("the server exits with %d", code)
	}
}
