//go:build unix

package acceptance_test

import (
	"errors"
	"slices"
	"testing"
)

// phone is a client on a bad network: it loses its connection and comes back from its cursor, as the page of the
// protocol tells clients to. Its methods may be called on any goroutine, and report an error where the connection is
// lost.
type phone struct {
	*client
	addr, token string

	ends              map[string]int     // how often each response's end was told, by its ID
	receipts          map[string][]frame // by the message's ID
	conflicts, losses int
}

func newPhone(t testing.TB, addr, token string) *phone {
	return &phone{
		client: newClient(t, nil), addr: addr, token: token,
		ends: make(map[string]int), receipts: make(map[string][]frame),
	}
}

// come connects and opens the session: a new one, or the one it had, from its cursor.
func (p *phone) come() error {
	if err := p.connect(); err != nil {
		return err
	}
	return p.open()
}

func (p *phone) connect() error {
	conn, _, err := dialAt(p.t, p.addr, p.token, nil)
	if err != nil {
		return p.lost(err)
	}
	p.conn = conn
	return nil
}

func (p *phone) open() error {
	resuming, epoch := p.session != "", p.epoch
	open := []any{"ref", "open"}
	if resuming {
		open = append(open, "session_id", p.session, "after", p.last, "epoch", p.epoch)
	}
	if err := p.trySend("session.open", open...); err != nil {
		return p.lost(err)
	}
	f, err := p.take()
	switch {
	case err != nil:
		return err
	case f.str("type") != "session.opened" || f.str("ref") != "open":
		p.t.Errorf("session.open is answered with %v", f)
		return errors.New("the session is not opened")
	case f["reset"] != false || f["resumed"] != resuming || resuming && p.epoch != epoch:
		p.t.Errorf("a session that was read to seq %d of epoch %s is opened with %v", p.last, epoch, f)
	}
	return nil
}

// take gives the next frame.
func (p *phone) take() (frame, error) {
	f, err := p.read(patience)
	if err != nil {
		return nil, p.lost(err)
	}
	switch f.str("type") {
	case "message.created":
		id, role := f.str("message", "id"), f.str("message", "role")
		if role == "assistant" && f.str("message", "status") != "streaming" {
			p.ends[id]++
		} else if role != "assistant" {
			p.receipts[id] = append(p.receipts[id], f)
		}
	case "message.completed":
		p.ends[f.str("message_id")]++
	case "error":
		p.t.Errorf("the server refuses something: %v", f)
	}
	return f, nil
}

// takeUntil takes frames until something is so, on a connection that must not be lost.
func (p *phone) takeUntil(is func() bool) {
	p.t.Helper()
	for !is() {
		if _, err := p.take(); err != nil {
			p.t.Fatal(err)
		}
	}
}

// settle takes all that the server had to say when it carried out what was sent so far.
func (p *phone) settle() {
	p.t.Helper()
	p.send("ping", "ref", "settle")
	p.takeUntil(func() bool { return p.seen[len(p.seen)-1].str("ref") == "settle" })
}

func (p *phone) lost(err error) error {
	if p.conn != nil {
		p.conn.CloseNow()
	}
	p.losses++
	return err
}

// answers gives the IDs of the responses that it holds.
func (p *phone) answers() []string {
	return slices.DeleteFunc(slices.Clone(p.order), func(id string) bool { return len(p.receipts[id]) > 0 })
}
