package ui_test

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/ui"
)

// frame is a frame of the protocol, either way.
type frame map[string]any

// fakeServer serves the page and speaks the protocol's server side, as far as the page uses it: sessions are logs, and
// connections are cursors over them. A test decides what is answered, and when the line breaks.
type fakeServer struct {
	*httptest.Server
	t      *testing.T
	answer func(turn *fakeTurn, question string)
	closed chan struct{} // the test is over
	wg     sync.WaitGroup

	patience context.Context // ends when the test has waited long enough

	mu       sync.Mutex // guards the fields below
	sessions map[string]*fakeSession
	conns    map[*fakeConn]bool
	refusing bool     // upgrades are refused
	holding  bool     // no session is opened
	held     []func() // would open the sessions
	models   []frame  // as the list has them; nil: there is no list to be had
	received []frame  // from clients, pings left out
	waiting  []chan struct{}
	nextID   int
}

type fakeConn struct {
	net.Conn
	session *fakeSession
	cursor  int
	skip    int // so many events are not sent
}

// newFakeServer starts a server whose answers are given by answer, each in a goroutine of its own.
func newFakeServer(t *testing.T, answer func(turn *fakeTurn, question string)) *fakeServer {
	t.Helper()
	patience, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	s := &fakeServer{
		t: t, patience: patience, answer: answer, closed: make(chan struct{}),
		sessions: map[string]*fakeSession{}, conns: map[*fakeConn]bool{},
		models: []frame{{"id": "eliza", "name": "Eliza", "default": true}},
	}
	mux := http.NewServeMux()
	// Everything stands below a prefix: a page with an absolute URL in it would not work.
	mux.HandleFunc("GET /chat/ws", s.serveWebSocket)
	mux.HandleFunc("GET /chat/api/v1/models", s.serveModels)
	mux.Handle("/chat/", http.StripPrefix("/chat", ui.New(ui.Options{Admit: func(_ http.ResponseWriter, r *http.Request) error {
		if strings.HasPrefix(r.Header.Get("Authorization"), "Bearer expired.") {
			return chat.NewError(chat.CodeUnauthenticated, "expired")
		}
		return nil
	}})))
	s.Server = httptest.NewServer(mux)
	t.Cleanup(func() {
		close(s.closed)
		s.cut(1001)
		s.Close()
		s.wg.Wait()
	})
	return s
}

// link is the page's address with a token for the user.
func (s *fakeServer) link(user string) string {
	return s.URL + "/chat/#token=" + fakeToken("valid", user)
}

func fakeToken(kind, user string) string {
	claims, _ := json.Marshal(frame{"sub": user, "exp": 4102444800})
	return kind + "." + base64.RawURLEncoding.EncodeToString(claims) + ".c2ln"
}

func (s *fakeServer) serveModels(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.models == nil:
		http.Error(w, "there is no list", http.StatusBadGateway)
	case !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer valid."):
		http.Error(w, "no token", http.StatusUnauthorized)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(frame{"items": s.models}) // It fails where the page has gone.
	}
}

// offer sets the models, each an ID and a name; the first is the default. Without any there is no list to be had.
func (s *fakeServer) offer(models ...[2]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.models = nil
	for i, m := range models {
		s.models = append(s.models, frame{"id": m[0], "name": m[1], "default": i == 0})
	}
}

func (s *fakeServer) has(model string) bool {
	return slices.ContainsFunc(s.models, func(m frame) bool { return m["id"] == model })
}

func (s *fakeServer) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	refusing := s.refusing || strings.Contains(r.Header.Get("Sec-Websocket-Protocol"), "parley.bearer.expired.")
	s.mu.Unlock()
	if refusing {
		http.Error(w, "refused", http.StatusServiceUnavailable)
		return
	}
	upgrader := ws.HTTPUpgrader{Protocol: func(offered string) bool { return offered == "parley.v1" }}
	conn, _, _, err := upgrader.Upgrade(r, w)
	if err != nil {
		return
	}
	c := &fakeConn{Conn: conn}
	s.mu.Lock()
	s.conns[c] = true
	s.mu.Unlock()
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		s.read(c)
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		_ = conn.Close()
	}()
}

func (s *fakeServer) read(c *fakeConn) {
	for {
		data, err := wsutil.ReadClientText(c)
		if err != nil {
			return
		}
		var f frame
		if json.Unmarshal(data, &f) != nil {
			return
		}
		s.mu.Lock()
		s.handle(c, f)
		for _, waiting := range s.waiting {
			close(waiting)
		}
		s.waiting = nil
		s.mu.Unlock()
	}
}

// handle, and all that it calls, runs under the lock. Frames are small and the page reads: writing does not block.
func (s *fakeServer) handle(c *fakeConn, f frame) {
	kind, _ := f["type"].(string)
	if kind == "ping" {
		c.write(frame{"type": "pong"})
		return
	}
	s.received = append(s.received, f)
	switch kind {
	case "session.open":
		if s.holding {
			s.held = append(s.held, func() { s.open(c, f) })
			return
		}
		s.open(c, f)
	case "message.send":
		c.session.send(f["message_id"].(string), f["text"].(string))
	case "session.update":
		s.update(c, f)
	case "response.cancel":
		if turn := c.session.turn; turn != nil {
			close(turn.cancelled)
		}
	case "response.retry":
		last := c.session.messages[len(c.session.messages)-1]
		question := c.session.messages[len(c.session.messages)-2]
		c.session.begin(question, last.fields["id"].(string))
	}
}

func (s *fakeServer) update(c *fakeConn, f frame) {
	model, _ := f["model"].(string)
	if !s.has(model) {
		c.fail(f, "model_not_found", "there is no such model")
		return
	}
	c.session.update(frame{"model": model})
}

func (s *fakeServer) open(c *fakeConn, f frame) {
	id, _ := f["session_id"].(string)
	model, _ := f["model"].(string)
	session := s.sessions[id]
	switch {
	case id != "" && session == nil:
		c.fail(f, "session_not_found", "there is no such session")
		return
	case id == "" && model != "" && !s.has(model):
		c.fail(f, "model_not_found", "there is no such model")
		return
	case session == nil:
		session = s.addSession(model)
	}
	for other := range s.conns {
		if other != c && other.session == session {
			other.session = nil
			other.close(4409)
		}
	}
	c.session, c.cursor = session, 0
	after, resumed := f["after"].(float64)
	resumed = resumed && f["epoch"] == session.epoch
	opened := frame{
		"type": "session.opened", "ref": f["ref"], "session": session.fields, "epoch": session.epoch,
		"seq": len(session.events), "resumed": resumed, "reset": !resumed && f["after"] != nil, "has_more": false,
		"connection_id": "c1",
	}
	if session.turn != nil {
		opened["in_progress"] = session.turn.message.fields["id"]
	}
	c.write(opened)
	if resumed {
		c.cursor = int(after)
	} else {
		session.replay(c)
	}
	session.follow(c)
}

func (s *fakeServer) addSession(model string) *fakeSession {
	if model == "" && len(s.models) > 0 {
		model = s.models[0]["id"].(string)
	}
	s.nextID++
	id := fmt.Sprintf("SESSION%d", s.nextID)
	now := stamp(time.Now())
	session := &fakeSession{server: s, id: id, epoch: "e1", fields: frame{
		"id": id, "title": "", "model": cmp.Or(model, "eliza"), "status": "active", "created_at": now, "last_active_at": now,
		"help_requested": false,
	}}
	s.sessions[id] = session
	return session
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// cut breaks every connection: with the close code, or without any where it is 0.
func (s *fakeServer) cut(code ws.StatusCode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.close(code)
	}
}

// skip makes every connection miss the next n events.
func (s *fakeServer) skip(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.skip = n
	}
}

// notify sends a frame that belongs to no log to every connection.
func (s *fakeServer) notify(f frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.write(f)
	}
}

// hold keeps the answers to session.open back, or lets them go.
func (s *fakeServer) hold(holding bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holding = holding
	for _, open := range s.held {
		open()
	}
	s.held = nil
}

// change changes fields of a session, as somebody else would.
func (s *fakeServer) change(session string, fields frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[session].update(fields)
}

func (s *fakeServer) refuse(refusing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusing = refusing
}

// forget makes the server lose all its sessions.
func (s *fakeServer) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.sessions)
}

// frames are the received frames of a type.
func (s *fakeServer) frames(kind string) []frame {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []frame
	for _, f := range s.received {
		if f["type"] == kind {
			found = append(found, f)
		}
	}
	return found
}

// await waits until n frames of a type have been received, and returns the last.
func (s *fakeServer) await(kind string, n int) frame {
	s.t.Helper()
	for {
		s.mu.Lock()
		arrived := make(chan struct{})
		s.waiting = append(s.waiting, arrived)
		s.mu.Unlock()
		if found := s.frames(kind); len(found) >= n {
			return found[n-1]
		}
		select {
		case <-arrived:
		case <-s.patience.Done():
			s.t.Fatalf("waiting for %d frames of type %s: %v", n, kind, s.patience.Err())
		}
	}
}

// fail refuses a frame for good.
func (c *fakeConn) fail(f frame, code, message string) {
	c.write(frame{"type": "error", "ref": f["ref"], "error": frame{"code": code, "message": message, "retryable": false}})
}

func (c *fakeConn) write(f frame) {
	data, err := json.Marshal(f)
	if err != nil {
		panic(err)
	}
	_ = wsutil.WriteServerText(c, data) // It fails where a test has cut the line.
}

func (c *fakeConn) close(code ws.StatusCode) {
	if code != 0 {
		_ = ws.WriteFrame(c, ws.NewCloseFrame(ws.NewCloseFrameBody(code, "")))
	}
	_ = c.Close()
}
