//go:build unix

package acceptance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// frame is what the server sends, as a client sees it.
type frame map[string]any

func (f frame) str(path ...string) string {
	s, _ := f.at(path...).(string)
	return s
}

func (f frame) num(path ...string) int64 {
	n, _ := f.at(path...).(float64)
	return int64(n)
}

func (f frame) at(path ...string) any {
	var v any = map[string]any(f)
	for _, name := range path {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

// client is a connection that speaks the protocol and holds what it says, by the page of the protocol alone.
type client struct {
	t    testing.TB
	conn *websocket.Conn

	session string
	epoch   string
	last    int64 // the highest seq
	text    map[string]string
	status  map[string]string
	order   []string // of the messages
	seen    []frame
}

// dial connects with a token in the Authorization header.
func (s *server) dial(token string) *client {
	s.t.Helper()
	c, resp, err := s.tryDial(token, nil)
	if err != nil {
		s.t.Fatalf("connecting: %v (%v)", err, resp)
	}
	return c
}

func (s *server) tryDial(token string, header http.Header) (*client, *http.Response, error) {
	s.t.Helper()
	conn, resp, err := dialAt(s.t, s.addr, token, header)
	if err != nil {
		return nil, resp, err
	}
	return newClient(s.t, conn), resp, nil
}

// dialAt connects to a server, or to what stands before it. The connection is closed when the test ends.
func dialAt(t testing.TB, addr, token string, header http.Header) (*websocket.Conn, *http.Response, error) {
	if header == nil {
		header = http.Header{}
	}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, "ws://"+addr+"/ws", &websocket.DialOptions{
		HTTPHeader: header, Subprotocols: []string{"parley.v1"},
	})
	if err != nil {
		return nil, resp, err
	}
	conn.SetReadLimit(-1)
	t.Cleanup(func() { conn.CloseNow() })
	return conn, resp, nil
}

func newClient(t testing.TB, conn *websocket.Conn) *client {
	return &client{t: t, conn: conn, text: make(map[string]string), status: make(map[string]string)}
}

// send sends a frame; kv are names and values.
func (c *client) send(kind string, kv ...any) {
	c.t.Helper()
	if err := c.trySend(kind, kv...); err != nil {
		c.t.Fatalf("sending %s: %v", kind, err)
	}
}

// trySend sends a frame on a connection that may be lost.
func (c *client) trySend(kind string, kv ...any) error {
	f := frame{"type": kind}
	for i := 0; i < len(kv); i += 2 {
		f[kv[i].(string)] = kv[i+1]
	}
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return c.write(string(data))
}

func (c *client) sendRaw(data string) {
	c.t.Helper()
	if err := c.write(data); err != nil {
		c.t.Fatalf("sending %.80s: %v", data, err)
	}
}

func (c *client) write(data string) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	return c.conn.Write(ctx, websocket.MessageText, []byte(data))
}

// next gives the next frame, and holds what it says.
func (c *client) next() frame {
	c.t.Helper()
	f, err := c.read(patience)
	if err != nil {
		c.t.Fatalf("reading: %v", err)
	}
	return f
}

// read gives the next frame of a connection that may be lost. It may be called on any goroutine.
func (c *client) read(within time.Duration) (frame, error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), within)
	defer cancel()
	kind, data, err := c.conn.Read(ctx)
	if err != nil {
		return nil, err
	}
	var f frame
	if err := json.Unmarshal(data, &f); err != nil || kind != websocket.MessageText {
		// coder/websocket takes a connection that ends between two reads of a payload for the message's end.
		if _, _, lost := c.conn.Read(ctx); lost != nil && kind == websocket.MessageText {
			return nil, io.ErrUnexpectedEOF
		}
		c.t.Errorf("the server sends %v %q: %v", kind, data, err)
		return nil, errors.New("the server sends what is no frame")
	}
	c.hold(f)
	return f, nil
}

// hold applies the one rule to every sequenced frame, and keeps the texts.
func (c *client) hold(f frame) {
	c.t.Helper()
	c.seen = append(c.seen, f)
	seq, sequenced := f["seq"].(float64)
	if f.str("type") == "session.opened" {
		if f["reset"] == true {
			c.forget()
		}
		c.session, c.epoch = f.str("session", "id"), f.str("epoch")
		return
	}
	if !sequenced || f["repeat"] == true {
		return
	}
	from := int64(seq)
	if n, ok := f["from"].(float64); ok {
		from = int64(n)
	}
	if from != c.last+1 {
		c.t.Errorf("after seq %d comes %v", c.last, f)
	}
	if f.str("session_id") != c.session {
		c.t.Errorf("a frame of session %q comes in %q", f.str("session_id"), c.session)
	}
	c.last = int64(seq)
	switch f.str("type") {
	case "message.created":
		id, text := f.str("message", "id"), f.str("message", "text")
		if held, ok := c.text[id]; ok && !strings.HasPrefix(text, held) {
			c.t.Errorf("message %s is %q, which does not begin with %q", id, text, held)
		} else if !ok {
			c.order = append(c.order, id)
		}
		c.text[id], c.status[id] = text, f.str("message", "status")
	case "message.delta":
		if f["kind"] == nil {
			c.text[f.str("message_id")] += f.str("text")
		}
	case "message.completed":
		id := f.str("message_id")
		if c.status[id] != "streaming" {
			c.t.Errorf("message %s is completed and was %q", id, c.status[id])
		}
		c.status[id] = f.str("status")
		if n := f.num("length"); n != int64(len(c.text[id])) {
			c.t.Errorf("message %s has %d bytes, the client holds %d", id, n, len(c.text[id]))
		}
	}
}

func (c *client) forget() {
	c.last, c.text, c.status, c.order = 0, make(map[string]string), make(map[string]string), nil
}

// until reads until a frame of a type comes.
func (c *client) until(kind string) frame {
	c.t.Helper()
	for {
		if f := c.next(); f.str("type") == kind {
			return f
		}
	}
}

// untilWords reads until the session's first answer, its second message, has n words.
func (c *client) untilWords(n int) {
	c.t.Helper()
	for len(c.order) < 2 || len(strings.Fields(c.text[c.order[1]])) < n {
		c.next()
	}
}

// open opens a session, and gives the answer.
func (c *client) open(kv ...any) frame {
	c.t.Helper()
	c.send("session.open", append(kv, "ref", "open")...)
	f := c.next()
	if f.str("type") != "session.opened" || f.str("ref") != "open" {
		c.t.Fatalf("session.open is answered with %v", f)
	}
	return f
}

// resume takes the place of a client whose connection is gone.
func (c *client) resume(old *client) frame {
	c.t.Helper()
	c.session, c.epoch, c.last = old.session, old.epoch, old.last
	c.text, c.status, c.order = old.text, old.status, old.order
	return c.open("session_id", old.session, "after", old.last, "epoch", old.epoch)
}

// ask sends a message and reads to the end of the answer, which it gives.
func (c *client) ask(id, text string) frame {
	c.t.Helper()
	c.send("message.send", "message_id", id, "text", text)
	return c.until("message.completed")
}

// refused sends a raw frame and gives the error that answers it.
func (c *client) refused(data string) frame {
	c.t.Helper()
	c.sendRaw(data)
	f := c.next()
	if f.str("type") != "error" {
		c.t.Fatalf("%.80s is answered with %v", data, f)
	}
	return f
}

// sendRefused sends a frame and gives the error that answers it, passing over what else comes.
func (c *client) sendRefused(kind string, kv ...any) frame {
	c.t.Helper()
	c.send(kind, kv...)
	return c.until("error")
}

// closedWith reads until the server closes, and checks the close code.
func (c *client) closedWith(code int) {
	c.t.Helper()
	for {
		_, err := c.read(patience)
		if err == nil {
			continue
		}
		if got := websocket.CloseStatus(err); int(got) != code {
			c.t.Errorf("the connection ends with %v, want close code %d", err, code)
		}
		return
	}
}

// quiet makes sure that the connection is alive and that nothing waits on it but a pong.
func (c *client) quiet() {
	c.t.Helper()
	c.send("ping", "ref", "quiet")
	if f := c.next(); f.str("type") != "pong" || f.str("ref") != "quiet" {
		c.t.Errorf("there is %v", f)
	}
}

// problem gives the code of a refused request.
func problem(t testing.TB, resp *http.Response) string {
	t.Helper()
	if resp == nil {
		t.Fatal("there is no answer")
	}
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("the refusal has the type %q", got)
	}
	var p struct {
		Code   string `json:"code"`
		Status int    `json:"status"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		t.Fatalf("the refusal: %v", err)
	}
	if p.Status != resp.StatusCode {
		t.Errorf("the problem says status %d, the answer %d", p.Status, resp.StatusCode)
	}
	return fmt.Sprintf("%d %s", p.Status, p.Code)
}
