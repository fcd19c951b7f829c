package router

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/session"
)

// ConnectionInfo is a connection as staff see it.
type ConnectionInfo struct {
	ID        string
	UserID    string
	Name      string
	Roles     []string
	Address   string
	Since     time.Time
	SessionID string // empty: it is bound to none
}

func (c *Connection) info() ConnectionInfo {
	u := c.User()
	return ConnectionInfo{
		ID: c.id, UserID: u.ID, Name: u.Name, Roles: u.Roles, Address: c.address.String(), Since: c.since,
		SessionID: c.SessionID(),
	}
}

// List describes the connections, in the order of their IDs.
func (r *Router) List() []ConnectionInfo {
	r.mu.Lock()
	all := r.connected()
	r.mu.Unlock()
	infos := make([]ConnectionInfo, 0, len(all))
	for _, c := range all {
		infos = append(infos, c.info())
	}
	slices.SortFunc(infos, func(a, b ConnectionInfo) int { return cmp.Compare(a.ID, b.ID) })
	return infos
}

// CloseConnections closes those connections that are chosen, with 4403, and gives their number. It does not wait for
// their end.
func (r *Router) CloseConnections(chosen func(ConnectionInfo) bool, reason string) (closed int) {
	return r.closeAll(func(c *Connection) bool { return chosen(c.info()) }, reason)
}

// CloseRevoked closes the connections whose tokens were revoked.
func (r *Router) CloseRevoked() {
	if r.cfg.Revoked == nil {
		return
	}
	if n := r.closeAll(func(c *Connection) bool { return r.cfg.Revoked(c.User()) }, revokedReason); n > 0 {
		r.log.Info("connections closed: their tokens were revoked", "connections", n)
	}
}

const revokedReason = "the token was revoked"

// closeIfRevoked closes a connection whose token was revoked.
func (r *Router) closeIfRevoked(c *Connection) {
	if r.cfg.Revoked != nil && r.cfg.Revoked(c.User()) {
		c.transport.Close(CloseForbidden, revokedReason)
	}
}

func (r *Router) closeAll(chosen func(*Connection) bool, reason string) (closed int) {
	r.mu.Lock()
	all := r.connected()
	r.mu.Unlock()
	for _, c := range all {
		if chosen(c) {
			c.transport.Close(CloseForbidden, reason)
			closed++
		}
	}
	return closed
}

// audited carries out what a member of the staff does to a session, with a record of it.
func (r *Router) audited(
	ctx context.Context, c *Connection, action string, s *session.Session, do func(context.Context) error,
) error {
	if r.cfg.Audit == nil {
		return do(ctx)
	}
	actor := c.User()
	return r.cfg.Audit.Do(ctx, chat.AuditRecord{
		ActorID: actor.ID, ActorName: actor.Name, Address: c.address.String(), Action: action,
		UserID: s.Record().UserID, SessionID: s.ID(), ConnectionID: c.id,
	}, do)
}
