// Package websocket carries connections of the router over WebSocket (RFC 6455): it upgrades requests, reads frames,
// and writes what the router has to tell. github.com/gobwas/ws is its codec; fragments, control frames, limits and the
// close handshake are its own.
package websocket

import (
	"bufio"
	"context"
	"encoding/base64"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/net/http/httpguts"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/auth"
	"github.com/parley-chat/parley/internal/gate"
	"github.com/parley-chat/parley/internal/router"
	"github.com/parley-chat/parley/internal/telemetry"
	"github.com/parley-chat/parley/internal/wire"
)

// Subprotocol is the one that the server speaks.
const Subprotocol = "parley.v1"

// Router is what the handler needs of the router.
type Router interface {
	Draining() bool
	Admit(user chat.User, address netip.Addr) (*router.Connection, error)
	Connect(c *router.Connection, t router.Transport)
	Disconnect(c *router.Connection)
	Do(ctx context.Context, c *router.Connection, cmd chat.Command, ref string) error
}

// Config is how connections behave. Numbers and durations are positive.
type Config struct {
	MaxMessageBytes int // of one message, all its fragments together
	PingInterval    time.Duration
	PongTimeout     time.Duration
	WriteTimeout    time.Duration // without progress: a reader that takes nothing for so long is closed

	Tracer *telemetry.Tracer // nil: there are no traces
}

// Handler upgrades requests to connections of the router.
type Handler struct {
	cfg    Config
	router Router
	gate   *gate.Gate
	log    *slog.Logger

	metrics     *metrics
	connections sync.WaitGroup
}

// New makes a Handler, for what the gate lets in.
func New(cfg Config, r Router, g *gate.Gate, log *slog.Logger) *Handler {
	return &Handler{cfg: cfg, router: r, gate: g, log: log, metrics: newMetrics()}
}

// Wait waits until the last goroutine of the last connection has ended. No request may come meanwhile.
func (h *Handler) Wait() { h.connections.Wait() }

// ServeHTTP admits the request or refuses it with a problem document, and upgrades it. The connection lives on when it
// returns, so that nothing of the HTTP request stays in memory.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	client, caller, err := h.admit(w, r)
	if err != nil {
		h.refuse(w, r, began, caller, err)
		return
	}
	conn, buffered, err := h.upgrade(w, r)
	if err != nil {
		h.router.Disconnect(client)
		h.metrics.refused.WithLabelValues(string(codeUpgradeFailed)).Inc()
		h.log.Info("upgrade failed", "connection", client.ID(), "user", client.User().ID, "address", h.gate.Address(r).String(), "error", err)
		return
	}
	c := newConn(h, conn, client, buffered)
	c.ctx = telemetry.WithCause(c.ctx, h.cfg.Tracer.Incoming(r.Header))
	h.connections.Go(c.serve)
}

// refuse answers a request that is not let in.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, began time.Time, caller gate.Caller, err error) {
	shown, level, ctx := chat.AsError(err), slog.LevelInfo, r.Context()
	h.metrics.refused.WithLabelValues(string(shown.Code)).Inc()
	switch {
	case shown.Code == chat.CodeRateLimited:
		level = slog.LevelDebug // a flood of requests is none of lines
	case telemetry.IsServers(shown.Code):
		level = slog.LevelError
		ctx = h.cfg.Tracer.Refused(telemetry.WithCause(ctx, h.cfg.Tracer.Incoming(r.Header)), "upgrade", began, shown.Code)
	}
	telemetry.Log(ctx, h.log).Log(ctx, level, "connection refused", "code", shown.Code, "address", h.gate.Address(r).String(),
		"user", caller.User.ID, "error", err)
	w.Header().Set("Sec-WebSocket-Version", "13") // RFC 6455 §4.4: what would be understood
	wire.Refuse(w, r, telemetry.Mark(ctx, shown))
}

// admit checks the request in the protocol's order; on success it holds a slot. Whose request it is, is told as far as
// that is known.
func (h *Handler) admit(w http.ResponseWriter, r *http.Request) (c *router.Connection, caller gate.Caller, err error) {
	if err := auth.RefuseQueryToken(r); err != nil {
		return nil, caller, err
	}
	if h.router.Draining() {
		return nil, caller, chat.NewError(chat.CodeServerDraining, "the server is about to restart")
	}
	if caller, err = h.gate.Enter(r); err != nil {
		return nil, caller, err
	}
	if err := h.gate.Charge(caller, w.Header()); err != nil {
		return nil, caller, err
	}
	if err := checkHandshake(r); err != nil {
		return nil, caller, err
	}
	c, err = h.router.Admit(caller.User, caller.Address)
	return c, caller, err
}

// checkHandshake refuses what is no opening handshake (RFC 6455 §4.2.1), and a client that offers subprotocols but not
// this one.
func checkHandshake(r *http.Request) error {
	invalid := func(message string) error { return chat.NewError(chat.CodeInvalidRequest, message) }
	switch {
	case r.Method != http.MethodGet || r.ProtoMajor != 1 || !r.ProtoAtLeast(1, 1):
		return invalid("a WebSocket opens with a GET request of HTTP/1.1")
	case !hasToken(r.Header, "Connection", "upgrade") || !hasToken(r.Header, "Upgrade", "websocket"):
		return invalid("this address speaks WebSocket only")
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return invalid("only version 13 of the WebSocket protocol is spoken here")
	case !isKey(r.Header.Get("Sec-WebSocket-Key")):
		return invalid("Sec-WebSocket-Key is missing or malformed")
	}
	offered := tokens(r.Header, "Sec-WebSocket-Protocol")
	switch {
	case len(offered) > 0 && !slices.Contains(offered, Subprotocol):
		return invalid("none of the offered subprotocols is " + Subprotocol)
	case slices.ContainsFunc(offered, func(p string) bool { return !httpguts.ValidHeaderFieldName(p) }): // RFC 9110 §5.6.2
		return invalid("an offered subprotocol is not a token")
	}
	return nil
}

// isKey reports whether a Sec-WebSocket-Key is 16 bytes in base64 (RFC 6455 §4.1).
func isKey(s string) bool {
	key, err := base64.StdEncoding.DecodeString(s)
	return err == nil && len(key) == 16
}

func hasToken(h http.Header, name, token string) bool {
	return slices.ContainsFunc(tokens(h, name), func(t string) bool { return strings.EqualFold(t, token) })
}

// tokens gives the comma-separated tokens of all header lines of a name.
func tokens(h http.Header, name string) []string {
	var all []string
	for _, line := range h.Values(name) {
		for token := range strings.SplitSeq(line, ",") {
			if token = strings.TrimSpace(token); token != "" {
				all = append(all, token)
			}
		}
	}
	return all
}

// upgrade answers the handshake and takes the connection over, with what the client has sent already.
func (h *Handler) upgrade(w http.ResponseWriter, r *http.Request) (net.Conn, []byte, error) {
	// checkHandshake has understood these in all the forms that HTTP allows; the codec knows one only.
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	upgrader := ws.HTTPUpgrader{
		Timeout:  h.cfg.WriteTimeout,
		Protocol: func(p string) bool { return p == Subprotocol },
	}
	conn, rw, _, err := upgrader.Upgrade(r, w)
	if err != nil {
		if conn != nil {
			_ = conn.Close() // the handshake's error is the one to tell
		}
		return nil, nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return conn, takeBuffered(rw.Reader), nil
}

func takeBuffered(r *bufio.Reader) []byte {
	n := r.Buffered()
	if n == 0 {
		return nil
	}
	peeked, _ := r.Peek(n) // cannot fail: so much is there
	return slices.Clone(peeked)
}
