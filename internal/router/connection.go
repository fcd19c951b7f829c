package router

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/auth"
	"github.com/parley-chat/parley/internal/session"
)

// Transport carries the frames of one connection. Its methods do not block and may be called at any time, also after
// the connection has ended.
type Transport interface {
	// Wake says that Next of the connection has something to give.
	Wake()
	// Close cancels the connection's commands and begins to close it with a WebSocket close code.
	Close(code int, reason string)
	// Done is closed when the last goroutine of the connection has ended.
	Done() <-chan struct{}
}

// maxAnswers is how many answers may wait to be written before the connection's own reader has to wait.
const maxAnswers = 16

// Connection is one client's place in the router: who it is, which session it is bound to, and what it has to be told.
type Connection struct {
	id        string
	address   netip.Addr
	network   netip.Prefix // the part of the address by which connections are limited
	since     time.Time
	userID    string    // the same for the life of the connection
	transport Transport // set once, by Connect, under outMu

	mu        sync.RWMutex // guards the field below
	sessionID string

	userMu   sync.Mutex // guards the fields below
	user     chat.User
	expiring *time.Timer
	expired  *time.Timer

	// Owned by the commands of the connection, of which one runs at a time, and by Disconnect, which comes after the
	// last.
	bound *binding

	// Guarded by the router's lock.
	connected  bool
	replacedIn string // the session whose seat a newer connection has taken from it

	outMu    sync.Mutex // guards the fields below
	answers  []answer
	notices  []chat.Notice // the newest of each kind
	space    chan struct{} // signalled when answers were taken
	farewell *closing      // to be said when all is written
	isClosed bool

	// Owned by the transport's writer.
	reading *binding
}

// binding ties a connection to a session. The part of it that moves, the cursor, is the writer's.
type binding struct {
	session *session.Session
	as      chat.AttachAs
	stop    func() // ends the session's notifications
	cursor  session.Cursor
}

// answer is what waits for the writer, in order.
type answer struct {
	notice chat.Notice
	ref    string
	again  *chat.Event // a receipt to send once more, if the cursor has passed it
	bind   *binding    // from here on the writer reads this session's log
	unbind bool        // from here on it reads none
}

type closing struct {
	code   int
	reason string
}

// Outgoing is the next thing to write: an event, a notice with the ref of what it answers, or a close frame.
type Outgoing struct {
	Event  *chat.Event
	Notice chat.Notice
	Ref    string
	Close  int // a WebSocket close code; 0: none
	Reason string
}

// ID returns the connection's ID, which logs and session.opened carry.
func (c *Connection) ID() string { return c.id }

// SessionID returns the ID of the session that the connection is bound to; "" for none.
func (c *Connection) SessionID() string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.sessionID
}

// SetSessionID says which session the connection is bound to.
func (c *Connection) SetSessionID(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessionID = id
}

// User returns who speaks, by the connection's latest token.
func (c *Connection) User() chat.User {
	c.userMu.Lock()
	defer c.userMu.Unlock()
	return c.user
}

// Answer queues the direct answer to a frame. Where too many wait already it blocks, until some are written or ctx
// ends.
func (c *Connection) Answer(ctx context.Context, n chat.Notice, ref string) {
	c.enqueue(ctx, answer{notice: n, ref: ref})
}

func (c *Connection) enqueue(ctx context.Context, a answer) {
	for {
		c.outMu.Lock()
		if c.isClosed {
			c.outMu.Unlock()
			return
		}
		if len(c.answers) < maxAnswers {
			c.answers = append(c.answers, a)
			c.outMu.Unlock()
			c.transport.Wake()
			return
		}
		c.outMu.Unlock()
		select {
		case <-c.space:
		case <-ctx.Done():
			return
		}
	}
}

// tell queues a notice that nobody asked for. It never blocks: a newer notice takes the place of an older one of its
// kind.
func (c *Connection) tell(n chat.Notice) {
	c.outMu.Lock()
	replaced := false
	for i, old := range c.notices {
		if sameKind(old, n) {
			c.notices[i], replaced = n, true
			break
		}
	}
	if !replaced && !c.isClosed {
		c.notices = append(c.notices, n)
	}
	t := c.transport
	c.outMu.Unlock()
	if t != nil { // else its upgrade is under way, and Connect will wake it
		t.Wake()
	}
}

func sameKind(a, b chat.Notice) bool {
	switch a := a.(type) {
	case chat.Typing:
		b, ok := b.(chat.Typing)
		return ok && a.Author.ID == b.Author.ID
	case chat.ConnectionLimit:
		_, ok := b.(chat.ConnectionLimit)
		return ok
	case chat.AuthExpiring:
		_, ok := b.(chat.AuthExpiring)
		return ok
	case chat.ServerDraining:
		_, ok := b.(chat.ServerDraining)
		return ok
	}
	return false
}

// closeWhenRead closes the connection once everything was written that waits, and no response is in progress in its
// session.
func (c *Connection) closeWhenRead(code int, reason string) {
	c.outMu.Lock()
	c.farewell = &closing{code, reason}
	c.outMu.Unlock()
	c.transport.Wake()
}

// Next gives the next thing to write; false: there is nothing for now, and Wake will be called when there is. It is
// for the transport's writer alone.
func (c *Connection) Next() (Outgoing, bool) {
	for {
		a, farewell, ok := c.take()
		if !ok {
			return c.nextEvent(farewell)
		}
		switch {
		case a.unbind:
			c.reading = nil
		case a.again != nil:
			if c.reading != nil && c.reading.cursor.Passed(a.again.Seq) {
				return Outgoing{Event: a.again}, true
			}
		default:
			if a.bind != nil {
				c.reading = a.bind
			}
			return Outgoing{Notice: a.notice, Ref: a.ref}, true
		}
	}
}

// Farewell gives what is still to be told to a connection that closes: answers and notices, but no events, which the
// client will get when it comes back. It is for the transport's writer alone.
func (c *Connection) Farewell() (Outgoing, bool) {
	for {
		a, _, ok := c.take()
		if !ok {
			return Outgoing{}, false
		}
		if a.notice != nil && a.bind == nil {
			return Outgoing{Notice: a.notice, Ref: a.ref}, true
		}
	}
}

// take gives what waits outside of the log, answers first.
func (c *Connection) take() (a answer, farewell *closing, ok bool) {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	switch {
	case len(c.answers) > 0:
		a = c.answers[0]
		c.answers[0] = answer{}
		c.answers = c.answers[1:]
		select {
		case c.space <- struct{}{}:
		default:
		}
	case len(c.notices) > 0:
		a = answer{notice: c.notices[0]}
		c.notices = c.notices[1:]
	default:
		return a, c.farewell, false
	}
	return a, nil, true
}

func (c *Connection) nextEvent(farewell *closing) (Outgoing, bool) {
	responding := false
	if c.reading != nil {
		// Asked before the log is read: what ends afterwards wakes the writer once more.
		responding = c.reading.session.Responding()
		e, ok, err := c.reading.session.Read(&c.reading.cursor)
		switch {
		case ok:
			if end, ok := e.Body.(chat.SessionEnded); ok {
				c.ended(end)
			}
			return Outgoing{Event: &e}, true
		case err != nil, c.reading.session.Lost():
			// It can be read again once it is opened again.
			return Outgoing{Close: CloseRestart, Reason: "open the session again"}, true
		}
	}
	if farewell != nil && !responding {
		return Outgoing{Close: farewell.code, Reason: farewell.reason}, true
	}
	return Outgoing{}, false
}

// ended lets go of a session whose last event was read. A user whose session somebody else ended is sent away.
func (c *Connection) ended(end chat.SessionEnded) {
	if c.reading.as == chat.AsUser && end.Reason != chat.EndedByUser {
		c.closeWhenRead(CloseSessionEnded, "the session has ended")
	}
	c.reading.stop() // nothing follows, and the log's text can go
	c.reading = nil
}

// close drops what waits to be written.
func (c *Connection) close() {
	c.outMu.Lock()
	c.isClosed, c.answers, c.notices = true, nil, nil
	c.outMu.Unlock()
	c.userMu.Lock()
	stopTimer(c.expiring)
	stopTimer(c.expired)
	c.userMu.Unlock()
}

func stopTimer(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}

// expiryWarning is how long before its token's expiry a connection is warned.
const expiryWarning = time.Minute

// setUser says who speaks, and sees to it that the connection does not outlive the token.
func (c *Connection) setUser(u chat.User) {
	c.userMu.Lock()
	defer c.userMu.Unlock()
	c.user = u
	stopTimer(c.expiring)
	stopTimer(c.expired)
	left := time.Until(u.ExpiresAt)
	if left <= 0 {
		left += auth.Leeway // by another clock it has not expired yet
	}
	c.expiring = time.AfterFunc(left-expiryWarning, func() { c.tell(chat.AuthExpiring{ExpiresAt: u.ExpiresAt}) })
	c.expired = time.AfterFunc(left, func() { c.transport.Close(CloseTokenExpired, "the token has expired") })
}
