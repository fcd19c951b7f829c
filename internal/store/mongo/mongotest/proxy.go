package mongotest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
)

// proxy stands between clients and an upstream. A client's connection has one of its own to the upstream, and a goroutine
// that does one command after the other.
type proxy struct {
	upstream upstream
	listener net.Listener
	ctx      context.Context // ends what waits
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	closed   bool
	refusing bool
	clients  map[net.Conn]net.Conn // to the upstream's side of each; nil: it is not connected yet
	frozen   chan struct{}         // closed at the thaw; nil: not frozen
	executed map[string]int        // commands by name
	faults   []*injected           // the oldest first
}

func newProxy(up upstream) (*proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for clients: %w", err)
	}
	p := &proxy{
		upstream: up,
		listener: listener,
		clients:  make(map[net.Conn]net.Conn),
		executed: make(map[string]int),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(p.accept)
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// close ends all connections at once, and returns when nothing of the proxy runs any more. A command that the upstream
// is executing is left to it.
func (p *proxy) close() {
	p.cancel()
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	conns := slices.AppendSeq(slices.Collect(maps.Keys(p.clients)), maps.Values(p.clients))
	p.mu.Unlock()
	closeAll(conns)
	p.wg.Wait()
}

func closeAll(conns []net.Conn) {
	for _, conn := range conns {
		if conn != nil {
			conn.Close()
		}
	}
}

func (p *proxy) cut() {
	p.mu.Lock()
	conns := slices.Collect(maps.Keys(p.clients))
	p.mu.Unlock()
	closeAll(conns)
}

func (p *proxy) refuse(refuse bool) {
	p.mu.Lock()
	p.refusing = refuse
	p.mu.Unlock()
	if refuse {
		p.cut()
	}
}

func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen == nil {
		p.frozen = make(chan struct{})
	}
}

func (p *proxy) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen != nil {
		close(p.frozen)
		p.frozen = nil
	}
}

func (p *proxy) commands() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.executed)
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil && p.ctx.Err() != nil {
			return
		}
		if err != nil {
			continue // the client has gone already
		}
		if !p.admit(client) {
			client.(*net.TCPConn).SetLinger(0) // a reset, not an end
			client.Close()
			continue
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

// admit says whether a connection may be, and keeps it.
func (p *proxy) admit(client net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.refusing {
		return false
	}
	p.clients[client] = nil
	return true
}

// connect connects a client with the upstream.
func (p *proxy) connect(client net.Conn) (net.Conn, error) {
	server, err := new(net.Dialer).DialContext(p.ctx, "tcp", p.upstream.addr)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		server.Close()
		return nil, net.ErrClosed
	}
	p.clients[client] = server
	return server, nil
}

func (p *proxy) forget(client net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.clients, client)
}

// serve does the commands of one client until something goes wrong, or is to. The client sees its connection closed.
func (p *proxy) serve(client net.Conn) {
	defer p.forget(client)
	defer client.Close()
	server, err := p.connect(client)
	if err != nil {
		return
	}
	defer server.Close()
	for err == nil {
		err = p.relay(client, server)
	}
}

func (p *proxy) relay(client, server net.Conn) error {
	request, err := readMessage(client)
	if err != nil {
		return err
	}
	c, err := parseCommand(request)
	if err != nil {
		return err
	}
	reply, err := p.do(&c, server)
	if err != nil || c.silent {
		return err
	}
	_, err = client.Write(reply)
	return err
}

// do gives the answer to a command, unless a fault has another idea.
func (p *proxy) do(c *command, server net.Conn) (message, error) {
	if err := p.awaitThaw(); err != nil {
		return nil, err
	}
	execute := func() (message, error) { return p.execute(c, server) }
	f := p.strike(c)
	if f == nil {
		return execute()
	}
	if f.OnHit != nil {
		f.OnHit()
	}
	return f.Action(&call{command: c, ctx: p.ctx, released: f.released, execute: execute})
}

func (p *proxy) execute(c *command, server net.Conn) (message, error) {
	done, err := p.takeTurn(c)
	if err != nil {
		return nil, err
	}
	defer done()
	if _, err := server.Write(c.message); err != nil {
		return nil, err
	}
	reply, err := readMessage(server)
	if err != nil {
		return nil, err
	}
	if reply.responseTo() != c.requestID() {
		return nil, fmt.Errorf("the request %d was answered with a reply to %d", c.requestID(), reply.responseTo())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.executed[c.name]++
	return reply, nil
}

// takeTurn waits until the command may run, and gives what is to be called afterwards.
func (p *proxy) takeTurn(c *command) (done func(), err error) {
	// A server may wait with its answer to a hello for as long as nothing about it changes.
	if p.upstream.turn == nil || c.name == "ping" || slices.Contains(hellos, c.name) {
		return func() {}, p.awaitThaw()
	}
	done = func() { <-p.upstream.turn }
	for {
		if err := p.awaitThaw(); err != nil {
			return nil, err
		}
		select {
		case p.upstream.turn <- struct{}{}:
		case <-p.ctx.Done():
			return nil, p.ctx.Err()
		}
		if p.thawed() == nil {
			return done, nil
		}
		done() // the proxies of other tests are not frozen
	}
}

// thawed is closed at the thaw; nil: the proxy is not frozen.
func (p *proxy) thawed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frozen
}

func (p *proxy) awaitThaw() error {
	for {
		thawed := p.thawed()
		if thawed == nil {
			return p.ctx.Err()
		}
		select {
		case <-thawed:
		case <-p.ctx.Done():
			return p.ctx.Err()
		}
	}
}
