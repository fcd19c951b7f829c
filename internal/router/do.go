package router

import (
	"context"
	"errors"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/audit"
)

// Do carries out one command of a connection's; ref is the frame's, for the answer. The commands of one connection
// come one after another. ctx ends with the connection.
//
// An error is for the client, by way of [chat.AsError].
func (r *Router) Do(ctx context.Context, c *Connection, cmd chat.Command, ref string) error {
	if err := r.charge(c, cmd); err != nil {
		return err
	}
	if open, ok := cmd.(chat.OpenSession); ok {
		return r.open(ctx, c, open, ref)
	}
	needsSession := true
	switch cmd.(type) {
	case chat.Ping, chat.RefreshAuth:
		needsSession = false
	}
	if needsSession && c.bound == nil {
		return chat.NewError(chat.CodeSessionNotOpen, "open a session first")
	}
	if err := c.checkSession(cmd); err != nil {
		return err
	}
	switch cmd := cmd.(type) {
	case chat.Ping:
		c.Answer(ctx, chat.Pong{}, ref)
		return nil
	case chat.RefreshAuth:
		return r.refresh(ctx, c, cmd, ref)
	}
	return r.doBound(ctx, c, cmd)
}

// charge counts a command that costs something, of whichever type, against what its user may ask for.
func (r *Router) charge(c *Connection, cmd chat.Command) error {
	switch cmd.(type) {
	case chat.OpenSession, chat.SendMessage, chat.RetryResponse, chat.UpdateSession, chat.RequestHelp:
	default:
		return nil
	}
	if r.cfg.Messages == nil {
		return nil
	}
	d := r.cfg.Messages.Allow(c.userID)
	if d.Allowed {
		return nil
	}
	err := chat.NewError(chat.CodeRateLimited, "you are too fast: wait a moment")
	err.RetryAfter = d.RetryAfter
	return err
}

// doBound carries out a command that needs a session.
func (r *Router) doBound(ctx context.Context, c *Connection, cmd chat.Command) error {
	b := c.bound
	if b.session.Record().Status == chat.SessionStatusEnded {
		return chat.NewError(chat.CodeSessionEnded, "the session has ended")
	}
	if !allowed(b.as, cmd) {
		return chat.NewError(chat.CodeForbidden, "this connection may not do that in this session")
	}
	switch cmd := cmd.(type) {
	case chat.LeaveSession:
		r.leave(c, nil)
		c.enqueue(ctx, answer{unbind: true})
		return nil
	case chat.SendMessage:
		return r.send(ctx, c, cmd)
	case chat.CancelResponse:
		b.session.Cancel(cmd.MessageID)
		return nil
	case chat.RetryResponse:
		return b.session.Retry(ctx, cmd.Interrupt)
	case chat.UpdateSession:
		return b.session.Update(ctx, cmd.Title, cmd.Model)
	case chat.EndSession:
		if b.as == chat.AsUser {
			return b.session.End(ctx, chat.EndedByUser)
		}
		return r.audited(ctx, c, audit.ActionEndSession, b.session, func(ctx context.Context) error {
			return b.session.End(ctx, chat.EndedByAdmin)
		})
	case chat.RequestHelp:
		return b.session.RequestHelp(ctx, cmd.Reason)
	case chat.SetTyping:
		r.passTyping(c, b, cmd.Active)
		return nil
	}
	return errors.New("router: a command that nobody carries out")
}

// checkSession makes sure that the session which a command names, if it names one, is the bound one.
func (c *Connection) checkSession(cmd chat.Command) error {
	named, ok := cmd.(interface{ Session() string })
	if !ok || named.Session() == "" || named.Session() == c.SessionID() {
		return nil
	}
	return chat.NewError(chat.CodeSessionMismatch, "the frame is for another session than the bound one")
}

// allowed says what each part in a session may do. Opening, leaving, pinging and refreshing are everybody's.
func allowed(as chat.AttachAs, cmd chat.Command) bool {
	switch cmd.(type) {
	case chat.LeaveSession:
		return true
	case chat.SendMessage, chat.CancelResponse, chat.UpdateSession, chat.EndSession, chat.SetTyping:
		return as == chat.AsUser || as == chat.AsAgent
	case chat.RetryResponse, chat.RequestHelp:
		return as == chat.AsUser
	}
	return false
}

func (r *Router) send(ctx context.Context, c *Connection, cmd chat.SendMessage) error {
	role := chat.RoleUser
	if c.bound.as == chat.AsAgent {
		role = chat.RoleAgent
	}
	again, err := c.bound.session.Send(ctx, c.User().Author(), role, cmd)
	if again != nil {
		c.enqueue(ctx, answer{again: again})
	}
	return err
}

// passTyping tells the other side of a session that this one is typing. Observers see both.
func (r *Router) passTyping(c *Connection, b *binding, active bool) {
	n := chat.Typing{Author: c.User().Author(), Active: active}
	id := b.session.ID()
	tell := func(o *Connection) {
		if o != nil && o != c && o.SessionID() == id { // one that sits already may not have opened yet
			o.tell(n)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if m, ok := r.rooms[id]; ok {
		tell(m.user)
		tell(m.agent)
		for o := range m.observers {
			tell(o)
		}
	}
}

// refresh gives the connection a new token of the same user. A part in a session that its roles no longer allow ends.
func (r *Router) refresh(ctx context.Context, c *Connection, cmd chat.RefreshAuth, ref string) error {
	user, err := r.verifier.Verify(cmd.Token)
	if err != nil {
		return err
	}
	if user.ID != c.userID {
		return chat.NewError(chat.CodeForbidden, "the token is another user's")
	}
	c.setUser(user)
	r.closeIfRevoked(c) // it may have been since the token was checked
	if b := c.bound; b != nil && b.as != chat.AsUser && !user.IsStaff() {
		r.leave(c, nil)
		c.enqueue(ctx, answer{unbind: true})
	}
	c.Answer(ctx, chat.AuthRefreshed{ExpiresAt: user.ExpiresAt}, ref)
	return nil
}
