//go:build unix

package acceptance_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

func TestTwentySendsOnOneConnectionAreOneTurn(t *testing.T) {
	const sends = 20
	up := startUpstream(t)
	s := startServer(t, up.models("gate-10"))
	p := newPhone(t, s.addr, token("alice"))
	if err := p.come(); err != nil {
		t.Fatal(err)
	}
	for i := range sends { // none waits for the one before; every other one would interrupt a response
		p.send("message.send", "message_id", "q", "text", "hi", "interrupt", i%2 == 1)
	}
	p.settle()
	up.release(t, 10)
	p.takeUntil(func() bool { return len(p.ends) > 0 })
	p.send("message.send", "message_id", "q", "text", "hi")
	p.settle()
	p.sameReceipts(t, "q", "hi")
	p.holdsOne(t, llmtest.Text(10))
	if f := p.sendRefused("message.send", "message_id", "q", "text", "ho", "ref", "r"); f.str("error", "code") != "message_conflict" || f.str("ref") != "r" {
		t.Errorf("another text is answered with %v", f)
	}
	if n := len(up.requests(t)); n != 1 {
		t.Errorf("there were %d requests", n)
	}
	s.storesOnce(p.session, "q")
}

// Twenty connections send one message at once. Each takes the session from the one before, perhaps in the middle of
// storing it.
func TestTwentyConnectionsSendOneMessage(t *testing.T) {
	const crowd = 20
	up := startUpstream(t)
	s := startServer(t, up.models("gate-10"), "websocket: {max_connections_per_user: 50}\n")
	for round := range 5 {
		first := newPhone(t, s.addr, token("alice"))
		if err := first.come(); err != nil {
			t.Fatal(err)
		}
		observer := newPhone(t, s.addr, token("ada", "admin"))
		if err := observer.connect(); err != nil {
			t.Fatal(err)
		}
		observer.client.open("session_id", first.session, "as", "observer")

		phones := race(t, s, first, crowd, func(int) string { return "hi" })
		last := newPhone(t, s.addr, token("alice"))
		last.follow(first)
		if err := last.come(); err != nil {
			t.Fatal(err)
		}
		last.send("message.send", "message_id", "q", "text", "hi")
		up.release(t, 10)
		last.takeUntil(func() bool { return len(last.ends) > 0 })
		observer.takeUntil(func() bool { return len(observer.ends) > 0 })
		last.settle()
		observer.settle()
		for _, p := range []*phone{last, observer} {
			p.holdsOne(t, llmtest.Text(10))
			p.sameReceipts(t, "q", "hi")
		}
		receipts := 0
		for _, p := range phones {
			for _, f := range p.receipts["q"] {
				receipts++
				if f.str("message", "created_at") != last.receipts["q"][0].str("message", "created_at") || f.num("seq") != last.receipts["q"][0].num("seq") {
					t.Errorf("two connections have the receipts %v and %v", f, last.receipts["q"][0])
				}
			}
		}
		t.Logf("round %d: %d receipts", round, receipts)
		if n := len(up.requests(t)); n != round+1 {
			t.Errorf("after %d messages there were %d requests", round+1, n)
		}
		for _, p := range append(phones, first, last, observer) {
			p.conn.CloseNow()
		}
		if round == 4 {
			s.storesOnce(first.session, "q")
		}
	}
}

// attempts is how often a phone in a race takes the session, where another one has taken it away before the receipt.
const attempts = 3

// race has a crowd of connections open a session and send a message q, all at once. Only errors of code
// message_conflict are expected, which p.conflicts counts.
func race(t *testing.T, s *server, first *phone, crowd int, text func(i int) string) []*phone {
	t.Helper()
	phones := make([]*phone, crowd)
	for i := range phones {
		phones[i] = newPhone(t, s.addr, token("alice"))
		if err := phones[i].connect(); err != nil {
			t.Fatal(err)
		}
		phones[i].follow(first)
	}
	var racing sync.WaitGroup
	for i, p := range phones {
		racing.Go(func() {
			for range attempts {
				err := p.sendUnheard(text(i))
				if err == nil {
					return
				}
				p.expectReplaced(err)
				if p.connect() != nil {
					t.Error("a phone cannot connect again")
					return
				}
			}
		})
	}
	racing.Wait()
	return phones
}

// sendUnheard opens the session and sends a message without waiting for anything, then reads what it is told until it
// has a receipt or knows of a conflict.
func (p *phone) sendUnheard(text string) error {
	// Where a write fails, so does the read, with the close code.
	_ = p.trySend("session.open", "session_id", p.session, "after", 0, "epoch", p.epoch)
	_ = p.trySend("message.send", "message_id", "q", "text", text)
	p.forget()
	for len(p.receipts["q"])+p.conflicts == 0 {
		f, err := p.read(patience)
		if err != nil {
			return err
		}
		switch f.str("type") {
		case "message.created":
			if f.str("message", "role") == "user" {
				p.receipts["q"] = append(p.receipts["q"], f)
			}
		case "error":
			if f.str("error", "code") != "message_conflict" {
				p.t.Errorf("in the race there is %v", f)
			}
			p.conflicts++
		}
	}
	return nil
}

// Of two texts that race under one key one is stored, and whoever sent the other one is told so.
func TestTwoTextsUnderOneKey(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("echo"), "websocket: {max_connections_per_user: 50}\n")
	texts := func(i int) string { return []string{"red", "blue"}[i%2] }
	for round := range 5 {
		first := newPhone(t, s.addr, token("alice"))
		if err := first.come(); err != nil {
			t.Fatal(err)
		}
		phones := race(t, s, first, 20, texts)
		last := newPhone(t, s.addr, token("alice"))
		last.follow(first)
		if err := last.come(); err != nil {
			t.Fatal(err)
		}
		last.takeUntil(func() bool { return len(last.ends) > 0 })
		stored := last.text["q"]
		for i, p := range phones {
			if p.conflicts > 0 && texts(i) == stored {
				t.Errorf("%s is stored, and refused as a conflict", stored)
			}
			for _, f := range p.receipts["q"] {
				if f.str("message", "text") != stored {
					t.Errorf("%s is stored, and the receipt is %v", stored, f)
				}
			}
			p.conn.CloseNow()
		}
		last.holdsOne(t, stored)
		first.conn.CloseNow()
		last.conn.CloseNow()
		if n := len(up.requests(t)); n != round+1 {
			t.Errorf("after %d messages there were %d requests", round+1, n)
		}
	}
}

// An agent's connection beside the user's: the key is the session's, so theirs cannot be one message; and an agent's
// own is one, too, however often it is sent.
func TestAgentAndUserUnderOneKey(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("words-5"))
	user, agent := newPhone(t, s.addr, token("alice")), newPhone(t, s.addr, token("ann", "agent"))
	if err := user.come(); err != nil {
		t.Fatal(err)
	}
	if err := agent.connect(); err != nil {
		t.Fatal(err)
	}
	agent.client.open("session_id", user.session, "as", "agent")
	for i := range 20 {
		sender := []*phone{user, agent}[i%2]
		sender.send("message.send", "message_id", fmt.Sprintf("of-%d", i%2), "text", "hi")
	}
	user.settle()
	agent.settle()
	bothHeld := func(p *phone) func() bool { return func() bool { return len(p.order) == 2 } }
	user.takeUntil(bothHeld(user))
	agent.takeUntil(bothHeld(agent))
	for _, id := range []string{"of-0", "of-1"} {
		user.sameReceipts(t, id, "hi")
		agent.sameReceipts(t, id, "hi")
	}
	if f := agent.sendRefused("message.send", "message_id", "of-0", "text", "hi"); f.str("error", "code") != "message_conflict" {
		t.Errorf("the user's message of the agent's is answered with %v", f)
	}
	if f := user.sendRefused("message.send", "message_id", "of-1", "text", "hi"); f.str("error", "code") != "message_conflict" {
		t.Errorf("the agent's message of the user's is answered with %v", f)
	}
	if n := len(up.requests(t)); n != 0 {
		t.Errorf("there were %d requests while an agent had the session", n)
	}
	agent.conn.Close(websocket.StatusNormalClosure, "")
}
