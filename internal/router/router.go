// Package router knows who is connected, decides who may do what, and hands each command to its session. It keeps one
// user connection a session: a second one replaces the first.
package router

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/session"
)

// The close codes of the protocol that the router gives (RFC 6455 §7.4.2: 4000 to 4999 are private).
const (
	CloseRestart      = 1012
	CloseTokenExpired = 4401
	CloseReplaced     = 4409
	CloseSessionEnded = 4410
)

// takeoverGrace is how long a takeover lives on whose connection was lost.
const takeoverGrace = 30 * time.Second

// Verifier checks a token and tells whose it is.
type Verifier interface {
	Verify(token string) (chat.User, error)
}

// Config limits the connections. 0 means no limit.
type Config struct {
	MaxConnections        int
	MaxConnectionsPerUser int
}

// Router is the meeting place of connections and sessions.
type Router struct {
	cfg      Config
	sessions *session.Manager
	verifier Verifier
	log      *slog.Logger

	mu          sync.Mutex // guards the fields below
	slots       int        // connections and upgrades under way
	userSlots   map[string]int
	connections map[string]*Connection
	rooms       map[string]*room // by session ID
	draining    bool
	changed     chan struct{} // closed and replaced when a connection has gone

	takeovers     sync.WaitGroup  // those whose agent was lost and may come back
	takeoverCtx   context.Context // ends with the router
	stopTakeovers context.CancelFunc
}

// room is who is connected to one session.
type room struct {
	user      *Connection
	agent     *Connection
	observers map[*Connection]struct{}
	leaving   map[*Connection]struct{} // replaced, and not gone yet
	returning context.CancelFunc       // ends the wait for a lost agent
}

func newRoom() *room {
	return &room{observers: make(map[*Connection]struct{}), leaving: make(map[*Connection]struct{})}
}

func (r *room) empty() bool {
	return r.user == nil && r.agent == nil && len(r.observers) == 0 && len(r.leaving) == 0 && r.returning == nil
}

// New makes a Router. [Router.Close] ends it.
func New(cfg Config, sessions *session.Manager, verifier Verifier, log *slog.Logger) *Router {
	r := &Router{
		cfg: cfg, sessions: sessions, verifier: verifier, log: log,
		userSlots: make(map[string]int), connections: make(map[string]*Connection),
		rooms: make(map[string]*room), changed: make(chan struct{}),
	}
	r.takeoverCtx, r.stopTakeovers = context.WithCancel(context.Background())
	return r
}

// Admit takes a slot for a connection of the user's, before its upgrade. Either [Router.Connect] follows, or
// [Router.Disconnect] gives the slot back. Over a limit it is connection_limit, and the user's other connections are
// told; while the server drains it is server_draining.
func (r *Router) Admit(user chat.User, address string) (*Connection, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining {
		return nil, chat.NewError(chat.CodeServerDraining, "the server is about to restart")
	}
	if r.cfg.MaxConnections > 0 && r.slots >= r.cfg.MaxConnections {
		return nil, chat.NewError(chat.CodeConnectionLimit, "the server has no room for another connection")
	}
	if most := r.cfg.MaxConnectionsPerUser; most > 0 && r.userSlots[user.ID] >= most {
		r.notifyConnectionLimit(user.ID, most)
		return nil, chat.NewError(chat.CodeConnectionLimit, "you have too many connections open")
	}
	r.slots++
	r.userSlots[user.ID]++
	id := chat.NewID()
	c := &Connection{
		id: id, address: address, userID: user.ID, user: user, since: chat.Now(), space: make(chan struct{}, 1),
		log: r.log.With("connection", id, "user", user.ID),
	}
	r.connections[id] = c
	return c, nil
}

// notifyConnectionLimit tells the connections of a user that another one was refused. The lock is held throughout;
// telling a connection never blocks.
func (r *Router) notifyConnectionLimit(userID string, limit int) {
	for _, c := range r.connections {
		if c.userID == userID {
			c.tell(chat.ConnectionLimit{Limit: limit, Current: r.userSlots[userID]})
		}
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
	draining := r.draining
	r.mu.Unlock()
	c.log.Debug("connected", "address", c.address)
	if draining {
		r.sendAway(c)
	}
	t.Wake()
}

// Disconnect gives back all that a connection holds. It comes after the connection's last command and its last Next,
// or instead of Connect.
func (r *Router) Disconnect(c *Connection) {
	r.lose(c)
	c.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.connections, c.id)
	r.slots--
	if r.userSlots[c.userID]--; r.userSlots[c.userID] == 0 {
		delete(r.userSlots, c.userID)
	}
	if place, ok := r.rooms[c.leavingRoom]; ok {
		delete(place.leaving, c)
		r.dropEmpty(c.leavingRoom)
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// room gives the room of a session, a new one where nobody is in it. The lock is held.
func (r *Router) room(id string) *room {
	place, ok := r.rooms[id]
	if !ok {
		place = newRoom()
		r.rooms[id] = place
	}
	return place
}

// dropEmpty forgets a room that nobody is in. The lock is held.
func (r *Router) dropEmpty(id string) {
	if room, ok := r.rooms[id]; ok && room.empty() {
		delete(r.rooms, id)
	}
}

// Connections gives the number of connections, upgrades under way included.
func (r *Router) Connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.slots
}

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
	all := make([]*Connection, 0, len(r.connections))
	for _, c := range r.connections {
		if c.connected { // who is not yet will see that the server drains
			all = append(all, c)
		}
	}
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

// Close cuts every connection and waits until they are gone.
func (r *Router) Close() {
	r.mu.Lock()
	r.draining = true
	for _, c := range r.connections {
		if c.connected {
			c.transport.Close(CloseRestart, "the server restarts")
		}
	}
	r.mu.Unlock()
	r.Drain(context.Background())
	r.stopTakeovers()
	r.takeovers.Wait()
}
