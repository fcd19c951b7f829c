package router_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/router"
	"github.com/parley-chat/parley/internal/session"
)

// linger keeps the connection from ending until it is let go.
func (p *peer) linger() (letGo func()) {
	p.turn <- struct{}{}
	return func() { <-p.turn }
}

func TestR03_1_ASecondConnectionClosesTheFirst(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		bystander := h.connect("alice")
		bystander.must(chat.OpenSession{As: chat.AsUser})
		old := h.connect("alice")
		old.must(chat.OpenSession{As: chat.AsUser})
		id := old.conn.SessionID()
		for range 3 {
			next := h.connect("alice")
			next.must(chat.OpenSession{SessionID: id, As: chat.AsUser})
			if old.code() != router.CloseReplaced || next.code() != 0 {
				t.Errorf("the old one is closed with %d, the new one with %d", old.code(), next.code())
			}
			old = next
		}
		if bystander.code() != 0 {
			t.Errorf("a connection of another session is closed with %d", bystander.code())
		}
	})
}

func TestR03_2_ClosingCancelsWhatTheConnectionDoes(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		old, agent := h.connect("alice"), h.connect("ann agent")
		old.must(chat.OpenSession{As: chat.AsUser})
		id := old.conn.SessionID()
		agent.must(chat.OpenSession{SessionID: id, As: chat.AsAgent})
		h.delay.Store(int64(9 * time.Second))
		go func() { _ = agent.do(chat.UpdateSession{Title: new("a")}) }() // it is under way in the store
		synctest.Wait()
		h.delay.Store(0)
		waiting := make(chan error, 1)
		go func() { waiting <- old.do(chat.UpdateSession{Title: new("b")}) }()
		synctest.Wait()
		start := time.Now()
		next := h.connect("alice")
		next.must(chat.OpenSession{SessionID: id, As: chat.AsUser})
		if took := time.Since(start); took > 0 {
			t.Errorf("the new connection has waited for %v", took)
		}
		synctest.Wait() // until the command's goroutine has told
		select {
		case err := <-waiting:
			if err == nil {
				t.Error("a command of a closed connection was carried out")
			}
		default:
			t.Error("the command of a closed connection still runs")
		}
		select {
		case <-old.done:
		default:
			t.Error("the writer of a closed connection still runs")
		}
		time.Sleep(time.Minute)
	})
}

func TestR03_3_ReplacementIsLogged(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		old, next := h.connect("alice"), h.connect("alice")
		old.must(chat.OpenSession{As: chat.AsUser})
		id := old.conn.SessionID()
		next.must(chat.OpenSession{SessionID: id, As: chat.AsUser})
		want := fmt.Sprintf(`level=INFO msg="connection replaced" session=%s user=alice old=%s new=%s`, id, old.conn.ID(), next.conn.ID())
		if strings.Count(h.log.String(), want) != 1 {
			t.Errorf("the log says %s, want %s", h.log, want)
		}
	})
}

func TestR03_4_ReplacementWaitsForTheGoroutines(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		old, next := h.connect("alice"), h.connect("alice")
		old.must(chat.OpenSession{As: chat.AsUser})
		id := old.conn.SessionID()
		letGo := old.linger()
		opened := make(chan error)
		go func() { opened <- next.do(chat.OpenSession{SessionID: id, As: chat.AsUser}) }()
		time.Sleep(time.Hour / 2)
		if old.code() != router.CloseReplaced {
			t.Errorf("the old one is closed with %d", old.code())
		}
		next.expect("")
		letGo()
		if err := <-opened; err != nil {
			t.Errorf("opening gives %v", err)
		}
		next.expect("SessionOpened")
	})
}

func TestR03_4_AReplacementThatIsCutShortLeavesTheSeat(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		old, next, last := h.connect("alice"), h.connect("alice"), h.connect("alice")
		old.must(chat.OpenSession{As: chat.AsUser})
		id := old.conn.SessionID()
		letGo := old.linger()
		opened := make(chan error)
		go func() { opened <- next.do(chat.OpenSession{SessionID: id, As: chat.AsUser}) }()
		synctest.Wait()
		next.cancel()
		if err := <-opened; err == nil {
			t.Error("the waiting connection has opened the session")
		}
		go func() { opened <- last.do(chat.OpenSession{SessionID: id, As: chat.AsUser}) }()
		synctest.Wait()
		last.expect("") // the first one is still there
		letGo()
		if err := <-opened; err != nil {
			t.Errorf("opening gives %v", err)
		}
		last.expect("SessionOpened")
	})
}

func TestR03_5_AClosedConnectionReleasesAllItHeld(t *testing.T) {
	test(t, router.Config{MaxConnectionsPerUser: 1}, func(t *testing.T, h *house) {
		for _, end := range []func(p *peer){
			func(p *peer) { p.hangUp() },
			func(p *peer) { p.Close(1000, ""); <-p.done },
			func(p *peer) { p.must(chat.LeaveSession{}); p.hangUp() },
			func(p *peer) { p.must(chat.EndSession{}); p.hangUp() },
			func(p *peer) { time.Sleep(59*time.Minute + 30*time.Second); p.hangUp() }, // its token is about to expire
		} {
			p := h.connect("alice") // the only slot is free again
			p.must(chat.OpenSession{As: chat.AsUser})
			p.must(chat.SendMessage{MessageID: "q", Text: "hi"})
			end(p)
			if h.Connections() != 0 || h.Rooms() != 0 {
				t.Errorf("there are %d connections in %d rooms", h.Connections(), h.Rooms())
			}
			p.told()
			time.Sleep(3 * time.Hour) // nobody holds the session any more; no timer of the connection fires
			if stats := h.sessions.MemoryStats(); stats != (session.MemoryStats{}) {
				t.Errorf("in memory are %+v", stats)
			}
			p.expect("")
		}
	})
}

func TestSessionThatEndsWhileItsOpenerWaits(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		old, next, agent := h.connect("alice"), h.connect("alice"), h.connect("ann agent")
		old.must(chat.OpenSession{As: chat.AsUser})
		id := old.conn.SessionID()
		agent.must(chat.OpenSession{SessionID: id, As: chat.AsAgent})
		letGo := old.linger()
		opened := make(chan error)
		go func() { opened <- next.do(chat.OpenSession{SessionID: id, As: chat.AsUser}) }()
		synctest.Wait()
		agent.must(chat.EndSession{})
		synctest.Wait()
		letGo()
		refused(t, <-opened, chat.CodeSessionEnded)
		next.expect("")
	})
}

func TestConnectionThatLostItsSessionIsToldNoMoreOfIt(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		alice, carol, bea, beaToo := h.connect("alice"), h.connect("carol"), h.connect("bea agent"), h.connect("bea agent")
		alice.must(chat.OpenSession{As: chat.AsUser})
		carol.must(chat.OpenSession{As: chat.AsUser})
		seat := chat.OpenSession{SessionID: carol.conn.SessionID(), As: chat.AsAgent}
		bea.must(seat)
		beaToo.must(chat.OpenSession{SessionID: alice.conn.SessionID(), As: chat.AsObserver})
		beaToo.expect("SessionOpened")
		letGo := bea.linger()
		opened := make(chan error)
		go func() { opened <- beaToo.do(seat) }()
		synctest.Wait()
		carol.must(chat.EndSession{}) // while it waits for the seat, it has left the other session
		letGo()
		if err := <-opened; !errors.Is(err, chat.NewError(chat.CodeSessionEnded, "")) {
			t.Errorf("opening gives %v", err)
		}
		alice.must(chat.SendMessage{MessageID: "q", Text: "hi"})
		beaToo.must(chat.Ping{})
		beaToo.expect("Pong")
	})
}
