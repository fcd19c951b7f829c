package router

import (
	"context"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/audit"
	"github.com/parley-chat/parley/internal/session"
)

// room is who is connected to one session.
type room struct {
	user      *Connection
	agent     *Connection
	observers map[*Connection]struct{}
	replaced  map[*Connection]struct{} // sent away from a seat, and not gone yet
	absence   *absence                 // of an agent whose connection was lost
}

// absence is the wait for a lost agent to come back.
type absence struct {
	agentID string
	end     context.CancelFunc
}

func newRoom() *room {
	return &room{observers: make(map[*Connection]struct{}), replaced: make(map[*Connection]struct{})}
}

func (m *room) empty() bool {
	return m.user == nil && m.agent == nil && len(m.observers) == 0 && len(m.replaced) == 0 && m.absence == nil
}

// room gives the room of a session, a new one where nobody is in it. The lock is held.
func (r *Router) room(sessionID string) *room {
	m, ok := r.rooms[sessionID]
	if !ok {
		m = newRoom()
		r.rooms[sessionID] = m
	}
	return m
}

// dropEmpty forgets a room that nobody is in. The lock is held.
func (r *Router) dropEmpty(sessionID string) {
	if m, ok := r.rooms[sessionID]; ok && m.empty() {
		delete(r.rooms, sessionID)
	}
}

// open binds the connection to a session, new or not. Everything is checked and loaded before anybody is sent away.
func (r *Router) open(ctx context.Context, c *Connection, cmd chat.OpenSession, ref string) error {
	user := c.User()
	if cmd.As != chat.AsUser && (cmd.SessionID == "" || !user.IsStaff()) {
		return chat.NewError(chat.CodeForbidden, "only an agent or an admin may attach to a session in this way")
	}
	s, err := r.find(ctx, user, cmd)
	if err != nil {
		return err
	}
	b := &binding{session: s, as: cmd.As}
	if cmd.As == chat.AsUser {
		return r.bind(ctx, c, b, cmd, ref)
	}
	action, done := audit.ActionObserve, false
	if cmd.As == chat.AsAgent {
		action = audit.ActionTakeOver
	}
	err = r.audited(ctx, c, action, s, func(ctx context.Context) error {
		done = true
		return r.bind(ctx, c, b, cmd, ref)
	})
	if !done {
		s.Release()
	}
	return err
}

// bind binds the connection to a session that it holds, or releases that.
func (r *Router) bind(ctx context.Context, c *Connection, b *binding, cmd chat.OpenSession, ref string) error {
	s := b.session
	if err := r.prepare(ctx, c, b, cmd); err != nil {
		s.Release()
		return err
	}
	r.leave(c, b)
	if err := r.takeSeat(ctx, c, b); err != nil {
		s.Release()
		c.enqueue(ctx, answer{unbind: true})
		return err
	}
	return r.attach(ctx, c, b, cmd, ref)
}

// find gives the session that the command names, held, or a new one.
func (r *Router) find(ctx context.Context, user chat.User, cmd chat.OpenSession) (*session.Session, error) {
	if cmd.SessionID == "" {
		return r.sessions.Create(user.ID, cmd.Model, cmd.Metadata)
	}
	return r.sessions.Open(ctx, cmd.SessionID, func(s *chat.Session) bool {
		return s.UserID == user.ID || cmd.As != chat.AsUser && user.IsStaff()
	})
}

// prepare does what can be refused, before anybody is sent away.
func (r *Router) prepare(ctx context.Context, c *Connection, b *binding, cmd chat.OpenSession) error {
	if _, _, err := b.session.Attach(cmd.After, cmd.Epoch, 0); err != nil {
		return err
	}
	switch {
	case cmd.As == chat.AsAgent:
		return b.session.Join(ctx, c.User().Author())
	case cmd.As == chat.AsUser && cmd.SessionID != "" && cmd.Model != "":
		return b.session.Update(ctx, nil, &cmd.Model)
	}
	return nil
}

// attach lets the connection's writer read the session's log from its cursor on.
func (r *Router) attach(ctx context.Context, c *Connection, b *binding, cmd chat.OpenSession, ref string) error {
	// Before it gets its place: from here on the log stays, also when the session ends.
	b.stop = b.session.Notify(c.transport.Wake)
	cursor, opened, err := b.session.Attach(cmd.After, cmd.Epoch, cmd.History)
	if err != nil {
		b.stop()
		r.vacate(c, b, leaves)
		b.session.Release()
		c.enqueue(ctx, answer{unbind: true})
		return err
	}
	opened.ConnectionID = c.id
	b.cursor = cursor
	c.bound = b
	c.enqueue(ctx, answer{notice: opened, ref: ref, bind: b})
	c.SetSessionID(b.session.ID()) // from here on it can be told of others typing
	return nil
}

// takeSeat takes the connection's seat in the session's room and waits until whoever sat there has gone. The wait ends
// with ctx, so that two connections that take each other's seats cannot wait for ever. Where it fails the seat is
// given back.
func (r *Router) takeSeat(ctx context.Context, c *Connection, b *binding) error {
	before, err := r.sit(ctx, c, b)
	if err != nil {
		return err
	}
	for _, old := range before {
		select {
		case <-old.transport.Done():
		case <-ctx.Done():
			r.vacate(c, b, isLost)
			return context.Cause(ctx)
		}
	}
	if b.as != chat.AsAgent {
		return nil
	}
	// Once more, now that the seat is taken: the takeover may have ended since.
	if err := b.session.Join(ctx, c.User().Author()); err != nil {
		r.vacate(c, b, leaves)
		return err
	}
	return nil
}

// sit gives the connection its seat in the session's room. It sends away who sat there, and returns everybody who has
// to be gone before the seat is free. A connection that is being closed itself gets no seat.
func (r *Router) sit(ctx context.Context, c *Connection, b *binding) (before []*Connection, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	id := b.session.ID()
	m := r.room(id)
	seat := &m.user
	switch b.as {
	case chat.AsObserver:
		m.observers[c] = struct{}{}
		return nil, nil
	case chat.AsAgent:
		seat = &m.agent
		if m.absence != nil {
			m.absence.end()
			m.absence = nil
		}
	}
	if old := *seat; old != nil {
		m.replaced[old] = struct{}{}
		old.replacedIn = id
		r.replaced.Add(1)
		old.transport.Close(CloseReplaced, "replaced by a newer connection")
		r.log.Info("connection replaced", "session", id, "user", c.userID, "old", old.id, "new", c.id)
	}
	*seat = c
	for old := range m.replaced {
		before = append(before, old)
	}
	return before, nil
}

// departure is how a connection gives up its seat.
type departure int

const (
	leaves  departure = iota // on its own wish: a takeover ends
	isLost                   // a takeover goes on for a while, in which the agent may come back
	returns                  // it will sit there again at once
)

// leave ends the connection's tie to its session, if there is one, on its own wish, before it is bound to next, if
// that is not nil.
func (r *Router) leave(c *Connection, next *binding) {
	if b := c.unbind(); b != nil {
		how := leaves
		if next != nil && next.session == b.session && next.as == b.as {
			how = returns
		}
		r.vacate(c, b, how)
		b.session.Release()
	}
}

// lose ends the tie of a connection that has gone.
func (r *Router) lose(c *Connection) {
	if b := c.unbind(); b != nil {
		r.vacate(c, b, isLost)
		b.session.Release()
	}
}

func (c *Connection) unbind() *binding {
	b := c.bound
	if b != nil {
		c.bound = nil
		b.stop()
		c.SetSessionID("")
	}
	return b
}

// vacate takes the connection out of its seat. Whoever has taken that meanwhile keeps it.
func (r *Router) vacate(c *Connection, b *binding, how departure) {
	agent, missing := r.stand(c, b, how)
	switch {
	case missing != nil:
		r.takeovers.Go(missing)
	case agent && how == leaves:
		r.endTakeover(b.session, c.userID)
	}
}

// stand empties the connection's seat, and reports whether it sat there as the agent. For an agent who is lost it
// gives the wait for the return, which is to be run.
func (r *Router) stand(c *Connection, b *binding, how departure) (agent bool, missing func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := b.session.ID()
	m, ok := r.rooms[id]
	if !ok {
		return false, nil
	}
	if m.user == c {
		m.user = nil
	}
	if m.agent == c {
		m.agent, agent = nil, true
	}
	delete(m.observers, c)
	if agent && how == isLost {
		ctx, end := context.WithCancel(r.takeoverCtx)
		gone := &absence{agentID: c.userID, end: end}
		m.absence = gone
		b.session.Hold()
		missing = func() { r.awaitReturn(ctx, b.session, gone) }
	}
	r.dropEmpty(id)
	return agent, missing
}

// awaitReturn ends the takeover of an agent who was lost, unless the agent is back in time.
func (r *Router) awaitReturn(ctx context.Context, s *session.Session, gone *absence) {
	defer s.Release()
	defer gone.end()
	timer := time.NewTimer(takeoverGrace)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
	}
	r.mu.Lock()
	m, ok := r.rooms[s.ID()]
	missing := ok && m.absence == gone
	if missing {
		m.absence = nil
		r.dropEmpty(s.ID())
	}
	r.mu.Unlock()
	if missing {
		r.endTakeover(s, gone.agentID)
	}
}

// endTakeover ends the agent's takeover of a session, unless the agent sits there again.
func (r *Router) endTakeover(s *session.Session, agentID string) {
	err := s.LeaveAgent(context.Background(), agentID, func() bool { return r.assists(s.ID(), agentID) })
	if err != nil {
		r.log.Warn("the end of a takeover could not be stored", "session", s.ID(), "user", s.Record().UserID,
			"agent", agentID, "error", err)
	}
}

// assists reports whether an agent sits in a session's room, or may come back to it.
func (r *Router) assists(sessionID, agentID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, ok := r.rooms[sessionID]
	return ok && (m.agent != nil && m.agent.userID == agentID || m.absence != nil && m.absence.agentID == agentID)
}
