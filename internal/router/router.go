// Package router knows who is connected, decides who may do what, and hands each command to its session. It keeps one
// user connection a session: a second one replaces the first.
package router

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/forwarded"
	"github.com/parley-chat/parley/internal/ratelimit"
	"github.com/parley-chat/parley/internal/session"
)

// The close codes of the protocol that the router gives (RFC 6455 §7.4.2: 4000 to 4999 are private).
const (
	CloseRestart      = 1012
	CloseTokenExpired = 4401
	CloseForbidden    = 4403
	CloseReplaced     = 4409
	CloseSessionEnded = 4410
)

// takeoverGrace is how long a takeover lives on whose connection was lost.
const takeoverGrace = 30 * time.Second

// Verifier checks a token and tells whose it is.
type Verifier interface {
	Verify(token string) (chat.User, error)
}

// Config is what connections are limited by, and who is told of what staff do. A zero field means none.
type Config struct {
	MaxConnections           int
	MaxConnectionsPerUser    int
	MaxConnectionsPerAddress int                        // of an address's network: see [forwarded.Network]
	Messages                 *ratelimit.Limiter[string] // of each user's commands that cost something
	Audit                    Audit                      // of what staff do
	Revoked                  func(chat.User) bool       // whether a user's token was revoked
}

// Audit keeps a record of an action of staff, and carries it out: see [audit.Log.Do].
type Audit interface {
	Do(ctx context.Context, record chat.AuditRecord, action func(context.Context) error) error
}

// Router is the meeting place of connections and sessions.
type Router struct {
	cfg      Config
	sessions *session.Manager
	verifier Verifier
	log      *slog.Logger
	replaced atomic.Uint64 // connections, by newer ones

	mu       sync.Mutex                          // guards the fields below
	slots    int                                 // connections and upgrades under way
	users    map[string]map[*Connection]struct{} // who has them, by user ID
	networks map[netip.Prefix]int                // how many of the slots each network has
	rooms    map[string]*room                    // by session ID
	draining bool
	closed   bool
	changed  chan struct{} // closed and replaced when a connection has gone

	takeovers     sync.WaitGroup  // those whose agent was lost and may come back
	takeoverCtx   context.Context // ends with the router
	stopTakeovers context.CancelFunc
}

// New makes a Router. [Router.Close] ends it.
func New(cfg Config, sessions *session.Manager, verifier Verifier, log *slog.Logger) *Router {
	r := &Router{
		cfg: cfg, sessions: sessions, verifier: verifier, log: log,
		users: make(map[string]map[*Connection]struct{}), networks: make(map[netip.Prefix]int),
		rooms: make(map[string]*room), changed: make(chan struct{}),
	}
	r.takeoverCtx, r.stopTakeovers = context.WithCancel(context.Background())
	return r
}

// Admit takes a slot for a connection of the user's, before its upgrade. Either [Router.Connect] follows, or
// [Router.Disconnect] gives the slot back. Over a limit it is connection_limit, and the user's other connections are
// told; while the server drains it is server_draining.
func (r *Router) Admit(user chat.User, address netip.Addr) (*Connection, error) {
	network := forwarded.Network(address)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining {
		return nil, chat.NewError(chat.CodeServerDraining, "the server is about to restart")
	}
	if r.cfg.MaxConnections > 0 && r.slots >= r.cfg.MaxConnections {
		return nil, chat.NewError(chat.CodeConnectionLimit, "the server has no room for another connection")
	}
	if most := r.cfg.MaxConnectionsPerUser; most > 0 && len(r.users[user.ID]) >= most {
		r.notifyConnectionLimit(user.ID, most)
		return nil, chat.NewError(chat.CodeConnectionLimit, "you have too many connections open")
	}
	if most := r.cfg.MaxConnectionsPerAddress; most > 0 && r.networks[network] >= most {
		return nil, chat.NewError(chat.CodeConnectionLimit, "there are too many connections from your address")
	}
	c := &Connection{
		id: chat.NewID(), address: address, network: network, since: chat.Now(), userID: user.ID, user: user,
		space: make(chan struct{}, 1),
	}
	r.slots++
	r.networks[network]++
	if r.users[user.ID] == nil {
		r.users[user.ID] = make(map[*Connection]struct{})
	}
	r.users[user.ID][c] = struct{}{}
	return c, nil
}

// notifyConnectionLimit tells the connections of a user that another one was refused. The lock is held throughout;
// telling a connection never blocks.
func (r *Router) notifyConnectionLimit(userID string, limit int) {
	for c := range r.users[userID] {
		c.tell(chat.ConnectionLimit{Limit: limit, Current: len(r.users[userID])})
	}
}

// Connect brings an admitted connection to life.
func (r *Router) Connect(c *Connection, t Transport) {
	c.outMu.Lock()
	c.transport = t
	c.outMu.Unlock()
	c.setUser(c.User())
	r.mu.Lock()
	c.connected = true
	draining, closed := r.draining, r.closed
	r.mu.Unlock()
	r.log.Debug("connected", "connection", c.id, "user", c.userID, "address", c.address)
	switch {
	case closed:
		t.Close(CloseRestart, "the server restarts")
	case draining:
		r.sendAway(c)
	}
	r.closeIfRevoked(c) // it may have been since its token was checked
	t.Wake()
}

// Disconnect gives back all that a connection holds. It comes after the connection's last command and its last Next,
// or instead of Connect.
func (r *Router) Disconnect(c *Connection) {
	r.lose(c)
	c.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slots--
	if r.networks[c.network]--; r.networks[c.network] == 0 {
		delete(r.networks, c.network)
	}
	if delete(r.users[c.userID], c); len(r.users[c.userID]) == 0 {
		delete(r.users, c.userID)
	}
	if m, ok := r.rooms[c.replacedIn]; ok {
		delete(m.replaced, c)
		r.dropEmpty(c.replacedIn)
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// Connections gives the number of connections, upgrades under way included.
func (r *Router) Connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.slots
}

// Replacements gives how many connections were replaced by newer ones.
func (r *Router) Replacements() uint64 { return r.replaced.Load() }

// Draining reports whether the server is going down.
func (r *Router) Draining() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.draining
}

// StartDraining sends every connection away: at once where nothing is in progress, else after the response has ended.
// No connection is admitted any more.
func (r *Router) StartDraining() {
	r.mu.Lock()
	if r.draining {
		r.mu.Unlock()
		return
	}
	r.draining = true
	all := r.connected()
	r.mu.Unlock()
	for _, c := range all {
		r.sendAway(c)
	}
}

// Drain waits until the last connection has gone, or until ctx ends, and returns the number that is left then.
func (r *Router) Drain(ctx context.Context) (left int) {
	for {
		r.mu.Lock()
		left, changed := r.slots, r.changed
		r.mu.Unlock()
		if left == 0 {
			return 0
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return left
		}
	}
}

// connected gives all connections but those whose upgrade is under way, which will see for themselves that the server
// drains. The lock is held.
func (r *Router) connected() []*Connection {
	all := make([]*Connection, 0, r.slots)
	for _, mine := range r.users {
		for c := range mine {
			if c.connected {
				all = append(all, c)
			}
		}
	}
	return all
}

// Close cuts every connection and waits until they are gone, as long as ctx lasts. It returns how many are left then.
// Each that is cut is logged, and each that is left.
func (r *Router) Close(ctx context.Context) (left int) {
	r.mu.Lock()
	r.draining, r.closed = true, true
	cut := r.connected()
	r.mu.Unlock()
	for _, c := range cut {
		c.transport.Close(CloseRestart, "the server restarts")
	}
	r.logConnections("cut", cut)
	if left := r.Drain(ctx); left > 0 {
		r.mu.Lock()
		stuck := r.connected()
		r.mu.Unlock()
		r.logConnections("left: it does not end", stuck)
		return left
	}
	r.stopTakeovers()
	r.takeovers.Wait()
	return 0
}

func (r *Router) logConnections(what string, all []*Connection) {
	for _, c := range all {
		r.log.Warn("the shutdown forces a connection", "what", what, "connection", c.id, "user", c.userID, "session", c.SessionID(), "address", c.address.String())
	}
}
