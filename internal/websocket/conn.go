package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/router"
	"github.com/parley-chat/parley/internal/telemetry"
	"github.com/parley-chat/parley/internal/wire"
)

// The close codes that this package gives (RFC 6455 §7.4.1; 4000 to 4999 are private).
const (
	closeProtocolError = 1002
	closeUnsupported   = 1003
	closeInvalidUTF8   = 1007
	closePolicy        = 1008
	closeTooBig        = 1009
	closeInternal      = 1011
	closeUnresponsive  = 4408
)

// How long a closing connection is given.
const (
	closeWriteTimeout = 500 * time.Millisecond // to take the close frame
	closeGrace        = 500 * time.Millisecond // to answer it
	replacedGrace     = 100 * time.Millisecond // the same, while a newer connection waits
)

// errClosing is the cause for which a connection's commands are cancelled.
var errClosing = errors.New("the connection is closing")

// conn is one WebSocket connection. Its reader is the goroutine that owns it: serve, which waits for the others. A
// writer runs only while there is something to write. It implements [router.Transport].
type conn struct {
	h      *Handler
	net    net.Conn
	client *router.Connection
	ctx    context.Context // of the client's commands
	cancel context.CancelCauseFunc
	done   chan struct{}

	// Owned by the read loop, and by the command that it waits for.
	in     reader
	frames frameBucket
	errors errorTimes

	heard atomic.Int64 // when the client was last heard of, in nanoseconds after clockStart
	busy  atomic.Bool  // a command is being carried out: nobody reads

	goroutines sync.WaitGroup // the writer and the command

	mu       sync.Mutex // guards the fields below
	writing  bool       // there is a writer
	dirty    bool       // and there is more for it
	pong     []byte     // a ping's payload that is to be answered; nil: none
	pingDue  bool
	pingedAt time.Time // when the last ping was written that is not answered yet; zero: none
	timer    *time.Timer
	closing  *closeFrame
	deadline time.Time // of writes, as it was last set
}

type closeFrame struct {
	code     int // 0: a close frame without a body
	reason   string
	byClient bool // it was the client that closed
}

var _ router.Transport = (*conn)(nil)

func newConn(h *Handler, n net.Conn, client *router.Connection, buffered []byte) *conn {
	c := &conn{h: h, net: n, client: client, done: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.in = reader{src: n, early: buffered}
	return c
}

// serve runs the connection to its end.
func (c *conn) serve() {
	defer close(c.done)
	c.h.metrics.opened.Inc()
	c.hear()
	c.mu.Lock()
	c.timer = time.AfterFunc(c.h.cfg.PingInterval, c.tick)
	c.mu.Unlock()
	c.h.router.Connect(c.client, c)

	c.readLoop()

	c.mu.Lock()
	c.h.metrics.ended(c.closing)
	if c.closing == nil {
		c.closing = &closeFrame{}
	}
	c.writing = true // so that no writer starts any more
	c.timer.Stop()
	c.mu.Unlock()
	c.cancel(errClosing)
	_ = c.socket().Close() // what is to be told was told; this frees the socket and ends the writer
	c.goroutines.Wait()
	c.h.router.Disconnect(c.client)
	c.log().Debug("disconnected")
}

// socket gives the connection below TLS, if there is one: to close that takes no time, whereas TLS would first tell a
// client that reads nothing (RFC 8446 §6.1).
func (c *conn) socket() net.Conn {
	if secure, ok := c.net.(*tls.Conn); ok {
		return secure.NetConn()
	}
	return c.net
}

func (c *conn) log() *slog.Logger {
	return c.h.log.With("connection", c.client.ID(), "user", c.client.User().ID, "session", c.client.SessionID())
}

// Done implements [router.Transport].
func (c *conn) Done() <-chan struct{} { return c.done }

// Wake implements [router.Transport].
func (c *conn) Wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake()
}

// wake starts a writer, or tells the one that runs that there is more. The lock is held.
func (c *conn) wake() {
	c.dirty = true
	if !c.writing {
		c.writing = true
		c.goroutines.Go(c.writeLoop)
	}
}

// Close implements [router.Transport]: it cancels the connection's commands, has the writer write a close frame, and
// bounds how long all of it may take.
func (c *conn) Close(code int, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.startClosing(closeFrame{code: code, reason: reason})
}

// startClosing closes as Close does; the first one to close says why. The lock is held.
func (c *conn) startClosing(f closeFrame) {
	if c.closing != nil {
		return
	}
	c.closing = &f
	c.cancel(errClosing)
	// A failure means that the socket is gone, and then the read loop ends by itself.
	_ = c.net.SetWriteDeadline(time.Now().Add(closeWriteTimeout))
	c.wake()
}

func (c *conn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing != nil
}

// hear notes a sign of life.
func (c *conn) hear() { c.heard.Store(int64(time.Since(clockStart))) }

// clockStart is what hear counts from: a time of the monotonic clock.
var clockStart = time.Now()

// tick pings a client that is due, and gives up one that has not answered.
func (c *conn) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing != nil {
		return
	}
	interval, timeout := c.h.cfg.PingInterval, c.h.cfg.PongTimeout
	switch {
	case c.pingDue, c.writing, c.busy.Load():
		// The ping waits behind what is being written, or nobody reads: what else bounds those will do.
		c.timer.Reset(timeout)
	case c.pingedAt.IsZero():
		c.pingDue = true
		c.wake()
		c.timer.Reset(timeout)
	case c.heard.Load() >= int64(c.pingedAt.Sub(clockStart)):
		c.pingedAt = time.Time{}
		c.timer.Reset(max(interval-timeout, time.Millisecond))
	default:
		c.startClosing(closeFrame{code: closeUnresponsive, reason: "no pong"})
	}
}

// receive carries out one message. It runs on a goroutine of its own, so that the read loop's stack stays small.
func (c *conn) receive(data []byte) {
	frame, err := wire.Decode(data)
	if err == nil {
		err = frame.Validate()
	}
	if err == nil {
		err = frame.Sanitize()
	}
	if err != nil {
		shown := chat.AsError(err)
		c.log().Info("message refused", "type", frame.Type, "size", frame.Size, "code", shown.Code,
			"field", shown.Field, "reason", shown.Message)
		c.answerError(shown, frame.Ref)
		return
	}
	began := time.Now()
	if err := c.h.router.Do(c.ctx, c.client, frame.Command(), frame.Ref); err != nil {
		c.refuse(frame, began, err)
	}
}

// recover ends the connection of a command that panicked, so that it is not the end of all the others. What is logged has
// nothing of what was sent.
func (c *conn) recover() {
	cause := recover()
	if cause == nil {
		return
	}
	what := fmt.Sprintf("%T", cause)
	if err, ok := cause.(runtime.Error); ok {
		what = err.Error()
	}
	c.log().Error("a command panicked", "panic", what, "stack", string(debug.Stack()))
	c.Close(closeInternal, "something went wrong on the server")
}

// refuse answers a command that failed. It is logged as what it is: the client's business, or the server's.
func (c *conn) refuse(frame *wire.Frame, began time.Time, err error) {
	if errors.Is(err, errClosing) {
		return
	}
	shown, level, ctx := chat.AsError(err), slog.LevelInfo, c.ctx
	if telemetry.IsServers(shown.Code) {
		level = slog.LevelError
		ctx = c.trace(frame, began, shown.Code)
	}
	telemetry.Log(ctx, c.log()).Log(ctx, level, "command refused", "type", frame.Type, "code", shown.Code, "field", shown.Field,
		"error", err)
	c.answerError(telemetry.Mark(ctx, shown), frame.Ref)
}

// trace tells of a command that the server could not carry out. It returns the context of the span.
func (c *conn) trace(frame *wire.Frame, began time.Time, code chat.Code) context.Context {
	if !c.h.cfg.Tracer.On() {
		return c.ctx
	}
	return c.h.cfg.Tracer.Refused(c.ctx, frame.Type, began, code,
		telemetry.Command.String(frame.Type),
		telemetry.Connection.String(c.client.ID()),
		telemetry.SessionID.String(c.client.SessionID()),
		telemetry.EndUser.String(c.client.User().ID),
	)
}

// answerError tells a client what is wrong with its frame. One that errs too often is told that, too, and sent away.
func (c *conn) answerError(e *chat.Error, ref string) {
	c.h.metrics.errors.WithLabelValues(string(e.Code)).Inc()
	c.client.Answer(c.ctx, chat.ErrorNotice{Err: e}, ref)
	if isClients(e.Code) && c.errors.add(time.Now()) {
		c.log().Info("too many frames were refused", "code", closePolicy, "last", e.Code)
		c.Close(closePolicy, "too many errors")
	}
}

func (f *closeFrame) grace() time.Duration {
	if f.code == router.CloseReplaced {
		return replacedGrace
	}
	return closeGrace
}
