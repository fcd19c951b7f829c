package llmtest

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Server is an upstream in the test's own process.
type Server struct {
	*Handler
	BaseURL string // what a provider is configured with
}

// NewServer starts an upstream on a loopback address. It is stopped when the test ends.
func NewServer(tb testing.TB) *Server {
	tb.Helper()
	h := NewHandler()
	server := httptest.NewServer(h)
	tb.Cleanup(func() {
		h.Close()
		server.Close()
	})
	return &Server{Handler: h, BaseURL: server.URL + "/v1"}
}

// Pipes serves handler over pipes in memory, as the bubbles of testing/synctest need it, until the test ends. It returns
// how to dial it, whatever the address.
func Pipes(tb testing.TB, handler http.Handler) func(ctx context.Context, network, addr string) (net.Conn, error) {
	tb.Helper()
	listener := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: handler}
	go server.Serve(listener)
	tb.Cleanup(func() { server.Close() })
	return listener.dial
}

// pipes is a net.Listener.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
