package router

import (
	"context"
	"errors"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/session"
)

// open binds the connection to a session, new or not. Everything is checked and loaded before anything is closed.
func (r *Router) open(ctx context.Context, c *Connection, cmd chat.OpenSession, ref string) error {
	user := c.User()
	if cmd.As != chat.AsUser && (cmd.SessionID == "" || !user.IsStaff()) {
		return chat.NewError(chat.CodeForbidden, "only an agent or an admin may attach to a session in this way")
	}
	s, err := r.find(ctx, user, cmd)
	if err != nil {
		return err
	}
	if err := r.enter(ctx, c, s, cmd, ref); err != nil {
		s.Release()
		return err
	}
	return nil
}

// find gives the session that the command names, held, or a new one.
func (r *Router) find(ctx context.Context, user chat.User, cmd chat.OpenSession) (*session.Session, error) {
	if cmd.SessionID == "" {
		s, err := r.sessions.Create(ctx, user.ID, cmd.Model, cmd.Metadata)
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	return r.sessions.Open(ctx, cmd.SessionID, func(s *chat.Session) bool {
		return s.UserID == user.ID || cmd.As != chat.AsUser && user.IsStaff()
	})
}

// enter takes the connection's seat in the session's room, waits until whoever sat there has gone, and lets the writer
// read the session's log from its cursor.
func (r *Router) enter(ctx context.Context, c *Connection, s *session.Session, cmd chat.OpenSession, ref string) error {
	if err := r.prepare(ctx, c, s, cmd); err != nil {
		return err
	}
	r.leave(ctx, c, c.bound != nil && c.bound.session == s && c.bound.as == cmd.As)
	if err := r.takeSeat(ctx, c, s.ID(), cmd.As); err != nil {
		r.giveSeatBack(ctx, c, s)
		return err
	}
	cursor, opened, err := s.Attach(cmd.After, cmd.Epoch, cmd.History)
	if err != nil {
		r.giveSeatBack(ctx, c, s)
		return err
	}
	opened.ConnectionID = c.id
	c.bound = &binding{session: s, as: cmd.As, cursor: cursor, stop: s.Notify(c.transport.Wake)}
	c.SetSessionID(s.ID())
	c.enqueue(ctx, answer{notice: opened, ref: ref, bind: c.bound})
	return nil
}

// takeSeat waits until whoever sat in the connection's seat has gone. The wait ends with ctx, so that two connections
// that take each other's seats cannot wait for ever.
func (r *Router) takeSeat(ctx context.Context, c *Connection, id string, as chat.AttachAs) error {
	for _, old := range r.sit(c, id, as) {
		select {
		case <-old.transport.Done():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (r *Router) giveSeatBack(ctx context.Context, c *Connection, s *session.Session) {
	if agent := r.leaveSeat(c, s.ID()); agent {
		r.endTakeover(context.WithoutCancel(ctx), s, c.userID)
	}
}

// prepare does what can fail, before anybody is sent away.
func (r *Router) prepare(ctx context.Context, c *Connection, s *session.Session, cmd chat.OpenSession) error {
	if _, _, err := s.Attach(cmd.After, cmd.Epoch, 0); err != nil {
		return err
	}
	switch {
	case cmd.As == chat.AsAgent:
		return s.Join(ctx, c.User().Author())
	case cmd.As == chat.AsUser && cmd.SessionID != "" && cmd.Model != "":
		return s.Update(ctx, nil, &cmd.Model)
	}
	return nil
}

// sit gives the connection its seat in the session's room. It sends away who sat there, and returns everybody who has
// to be gone before the seat is free.
func (r *Router) sit(c *Connection, id string, as chat.AttachAs) (before []*Connection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	place := r.room(id)
	seat := &place.user
	switch as {
	case chat.AsObserver:
		place.observers[c] = struct{}{}
		return nil
	case chat.AsAgent:
		seat = &place.agent
		if place.returning != nil {
			place.returning()
			place.returning = nil
		}
	}
	if old := *seat; old != nil {
		place.leaving[old] = struct{}{}
		old.leavingRoom = id
		old.transport.Close(CloseReplaced, "replaced by a newer connection")
		r.log.Info("connection replaced", "session", id, "user", c.userID, "old", old.id, "new", c.id)
	}
	*seat = c
	for old := range place.leaving {
		before = append(before, old)
	}
	return before
}

// leaveSeat takes the connection out of the session's room, and reports whether it sat there as the agent. Whoever has
// taken its seat meanwhile keeps it.
func (r *Router) leaveSeat(c *Connection, id string) (agent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	place, ok := r.rooms[id]
	if !ok {
		return false
	}
	if place.user == c {
		place.user = nil
	}
	if place.agent == c {
		place.agent, agent = nil, true
	}
	delete(place.observers, c)
	r.dropEmpty(id)
	return agent
}

// leave ends the connection's tie to its session, if there is one, on the connection's own wish. A takeover ends with
// it, unless the connection comes back at once as the same.
func (r *Router) leave(ctx context.Context, c *Connection, comesBack bool) {
	b := r.unbind(c)
	if b == nil {
		return
	}
	defer b.session.Release()
	if agent := r.leaveSeat(c, b.session.ID()); agent && !comesBack {
		r.endTakeover(ctx, b.session, c.userID)
	}
}

// lose ends the tie of a connection that has gone. A takeover goes on for a while, in which the agent may come back.
func (r *Router) lose(c *Connection) {
	b := r.unbind(c)
	if b == nil {
		return
	}
	if agent := r.leaveSeat(c, b.session.ID()); !agent {
		b.session.Release()
		return
	}
	ctx, back := context.WithCancel(r.takeoverCtx)
	r.mu.Lock()
	r.room(b.session.ID()).returning = back
	r.mu.Unlock()
	r.takeovers.Go(func() {
		defer back()
		defer b.session.Release()
		timer := time.NewTimer(takeoverGrace)
		defer timer.Stop()
		select {
		case <-timer.C:
			if ctx.Err() == nil && r.giveUp(b.session.ID()) {
				r.endTakeover(ctx, b.session, c.userID)
			}
		case <-ctx.Done():
		}
	})
}

func (r *Router) unbind(c *Connection) *binding {
	b := c.bound
	if b == nil {
		return nil
	}
	c.bound = nil
	b.stop()
	c.SetSessionID("")
	return b
}

func (r *Router) endTakeover(ctx context.Context, s *session.Session, agentID string) {
	err := s.LeaveAgent(ctx, agentID)
	if err != nil && !errors.Is(err, chat.NewError(chat.CodeSessionEnded, "")) { // which has ended it too
		r.log.Warn("ending a takeover failed", "session", s.ID(), "agent", agentID, "error", err)
	}
}

// giveUp ends the wait for a lost agent; false: the agent is back.
func (r *Router) giveUp(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	place, ok := r.rooms[id]
	if !ok || place.returning == nil {
		return false
	}
	place.returning = nil
	r.dropEmpty(id)
	return true
}
