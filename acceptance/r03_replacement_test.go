//go:build unix

package acceptance_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

func TestR03_1_ASecondConnectionClosesTheFirst(t *testing.T) {
	s := startServer(t, eliza)
	first, observer := s.dial(token("alice")), s.dial(token("ada", "admin"))
	first.open()
	observer.open("session_id", first.session, "as", "observer")
	elsewhere := s.dial(token("alice"))
	elsewhere.open()

	second := s.dial(token("alice"))
	closed := first.inBackground(func() { first.closedWith(4409) })
	second.open("session_id", first.session)
	<-closed
	second.ask("q", "hello")
	observer.until("message.completed")
	elsewhere.ask("q", "hello") // the user's other session is left alone
}

// inBackground runs f on a goroutine of its own, and gives what is closed at its end.
func (c *client) inBackground(f func()) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f()
	}()
	c.t.Cleanup(func() { <-ended })
	return ended
}

// A connection whose goroutines are all stuck, the writer in its socket and the command behind the writer, loses them
// when it is replaced.
func TestR03_2_ClosingCancelsTheGoroutines(t *testing.T) {
	s := startServer(t, eliza, "websocket: {write_timeout: 1h, ping_interval: 1h}\n")
	network := startProxy(t, s.addr)
	stuck := newPhone(t, network.addr, token("alice"))
	if err := stuck.come(); err != nil {
		t.Fatal(err)
	}
	idle := s.lowest("go_goroutines")
	network.stop()
	for i := range 50 { // receipts of 3 MB, which is more than sockets hold
		stuck.send("message.send", "message_id", fmt.Sprint("long", i), "text", strings.Repeat("x", 60_000), "interrupt", true)
	}
	for range 100 { // and more answers than wait for a writer
		stuck.send("ping")
	}
	s.rises("go_goroutines", idle+2)
	next := s.dial(token("alice"))
	next.open("session_id", stuck.session)
	s.settles("go_goroutines", idle)
	s.awaitMetrics(map[string]string{"parley_connections": "1"})
	next.ask("q", "hello")
}

func TestR03_3_ReplacementIsLogged(t *testing.T) {
	s := startServer(t, eliza)
	first := s.dial(token("alice"))
	old := first.open().str("connection_id")
	closed := first.inBackground(func() { first.closedWith(4409) })
	again := s.dial(token("alice")).open("session_id", first.session).str("connection_id")
	<-closed
	entry := s.awaitLog("connection replaced")
	if entry["session"] != first.session || entry["user"] != "alice" || entry["old"] != old || entry["new"] != again || old == again {
		t.Errorf("connection %s is replaced by %s, the log says %v", old, again, entry)
	}
}

// When session.opened comes the old connection is gone, whether its client reads, has stopped reading, or is in a
// tunnel.
func TestR03_4_TheNewOneWaitsForTheOldOnesEnd(t *testing.T) {
	s := startServer(t, eliza)
	network := startProxy(t, s.addr)
	old := newPhone(t, s.addr, token("alice"))
	if err := old.come(); err != nil {
		t.Fatal(err)
	}
	for i := range 15 {
		switch reader := old.client; {
		case old.addr == network.addr:
			network.stop()
		case i%3 == 0:
			reader.inBackground(func() { reader.closedWith(4409) })
		}
		next := newPhone(t, s.addr, token("alice"))
		if i%3 == 1 {
			next.addr = network.addr
		}
		next.follow(old)
		if err := next.come(); err != nil {
			t.Fatal(err)
		}
		if n := s.figure("parley_connections"); n != 1 {
			t.Errorf("replacement %d is told session.opened while there are %v connections", i, n)
		}
		network.flow()
		old = next
	}
	old.ask("q", "hello")
}

// follow has a phone go on where another one was when it opened the session.
func (p *phone) follow(other *phone) {
	p.session, p.epoch = other.session, other.epoch
}

// A connection that was replaced in one session and has gone on in another one leaves both as they are when it goes.
func TestR03_4_ALateGoodbyeTouchesNobodyElse(t *testing.T) {
	s := startServer(t, eliza)
	wanderer, successor := s.dial(token("alice")), s.dial(token("alice"))
	one := wanderer.open().str("session", "id")
	wanderer.forget()
	two := wanderer.open().str("session", "id")
	successor.open("session_id", one)
	wanderer.quiet() // it was not replaced: it had left by itself
	wanderer.conn.CloseNow()
	s.awaitMetrics(map[string]string{"parley_connections": "1"})
	successor.ask("q", "hello")
	third := s.dial(token("alice"))
	third.open("session_id", two)
	successor.quiet()
	third.ask("q", "hello")
	if _, replaced := s.findLog("connection replaced"); replaced {
		t.Error("a connection was replaced that had left")
	}
}

// A hundred connections take one session from each other at once, while a response is in progress. One is left: it
// gets the response, and nothing of the others stays.
func TestR03_5_ReplacedConnectionsReleaseAllTheyHeld(t *testing.T) {
	const crowd, words = 100, 150
	up := startUpstream(t)
	s := startServer(t, up.models("gate-150"), "websocket: {max_connections_per_user: 200}\n")
	first := newPhone(t, s.addr, token("alice"))
	if err := first.come(); err != nil {
		t.Fatal(err)
	}
	first.send("message.send", "message_id", "q", "text", "hi")
	up.release(t, 10)
	first.takeUntil(func() bool { return len(first.order) == 2 && first.text[first.order[1]] != "" })
	goroutines, files := s.lowest("go_goroutines"), s.lowest("process_open_fds")

	phones := []*phone{first}
	for range crowd {
		p := newPhone(t, s.addr, token("alice"))
		if err := p.connect(); err != nil {
			t.Fatal(err)
		}
		p.follow(first)
		phones = append(phones, p)
	}
	var reading sync.WaitGroup
	gone := make(chan struct{}, len(phones))
	for _, p := range phones {
		reading.Go(func() {
			defer func() { gone <- struct{}{} }()
			p.takeAllAfter(p != first)
		})
	}
	for range crowd {
		up.release(t, 1)
		<-gone
	}
	s.settles("go_goroutines", goroutines)
	s.settles("process_open_fds", files)
	s.settles("parley_connections", 1)
	up.release(t, words-10-crowd)
	reading.Wait()
	var left []*phone
	for _, p := range phones {
		if len(p.ends) > 0 {
			left = append(left, p)
		}
	}
	if len(left) != 1 {
		t.Fatalf("%d connections are left", len(left))
	}
	left[0].settle()
	left[0].holdsOne(t, llmtest.Text(words))
	if n := len(up.requests(t)); n != 1 {
		t.Errorf("there were %d requests", n)
	}
	if n := strings.Count(strings.Join(s.log(), "\n"), `"msg":"connection replaced"`); n != crowd {
		t.Errorf("the log tells of %d replacements", n)
	}
}

// takeAllAfter opens the session, if asked to, and takes what comes until a response has ended or the connection is
// replaced.
func (p *phone) takeAllAfter(open bool) {
	if open {
		if err := p.open(); err != nil {
			p.expectReplaced(err)
			return
		}
	}
	for len(p.ends) == 0 {
		if _, err := p.take(); err != nil {
			p.expectReplaced(err)
			return
		}
	}
}

func (p *phone) expectReplaced(err error) {
	if websocket.CloseStatus(err) != 4409 {
		p.t.Errorf("a connection that should be replaced ends with %v", err)
	}
}
