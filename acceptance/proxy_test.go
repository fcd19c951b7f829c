//go:build unix

package acceptance_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
)

// direction is a way through a proxy.
type direction int

const (
	upstreamward direction = iota // from the client to the server
	downstream                    // from the server to the client
)

// ending is how a proxy cuts a connection.
type ending int

const (
	withRST ending = iota // what is under way is lost
	withFIN               // what is under way arrives
)

// noLimit lets any number of bytes pass.
const noLimit = -1

// proxy is a bad network between clients and a server, on loopback: it loses connections, at any byte, and it stops.
type proxy struct {
	t       testing.TB
	addr    string // where clients connect to
	running sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	target string
	links  map[*link]struct{}
	limits [2]int64 // bytes that may still pass in each direction before all is cut
	how    ending   // of the cut at a limit
	passed [2]int64 // bytes so far
	cuts   int      // at limits
	stall  chan struct{}
	closed bool
}

// link is one connection through a proxy.
type link struct {
	client, server *net.TCPConn
	cut            chan struct{} // closed when it is cut
	once           sync.Once
}

// startProxy starts a proxy before a server. It ends, with all its goroutines, when the test does.
func startProxy(t testing.TB, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{
		t: t, addr: listener.Addr().String(), target: target, links: make(map[*link]struct{}),
		limits: [2]int64{noLimit, noLimit},
	}
	p.running.Go(func() { p.accept(listener) })
	t.Cleanup(func() {
		listener.Close()
		p.close()
		p.running.Wait()
	})
	return p
}

func (p *proxy) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for l := range p.links {
		l.end(withRST)
		l.client.Close() // where it has ended with a FIN before
		l.server.Close()
	}
}

// cut cuts every connection now.
func (p *proxy) cut(how ending) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.end(how)
	}
}

// cutAfter cuts every connection, once, as soon as n more bytes have passed in a direction; with 0, instead of the
// next byte. It takes the place of what was said before for that direction; noLimit takes it back.
func (p *proxy) cutAfter(d direction, n int64, how ending) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limits[d], p.how = n, how
}

// stop lets nothing through to the clients any more, and takes nothing from the server, until flow is called: a phone
// in a tunnel.
func (p *proxy) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stall == nil {
		p.stall = make(chan struct{})
	}
}

func (p *proxy) flow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stall != nil {
		close(p.stall)
		p.stall = nil
	}
}

// figures gives the bytes that have passed to the clients, and the number of cuts at limits.
func (p *proxy) figures() (bytes int64, cuts int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.passed[downstream], p.cuts
}

func (p *proxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		target := p.target
		p.mu.Unlock()
		server, err := smallDialer.Dial("tcp", target)
		if err != nil {
			client.Close() // to the client the server is not there
			continue
		}
		l := &link{client: client.(*net.TCPConn), server: server.(*net.TCPConn), cut: make(chan struct{})}
		if !p.add(l) {
			l.end(withRST)
			return
		}
		p.running.Go(func() { p.carry(l) })
	}
}

// smallDialer makes connections with the segments of the internet and a small window. Those of loopback are so large
// that a server could get rid of megabytes to a client that reads nothing.
var smallDialer = net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
	var errs [2]error
	err := c.Control(func(fd uintptr) {
		errs[0] = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400)
		errs[1] = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 16<<10)
	})
	return errors.Join(err, errs[0], errs[1])
}}

func (p *proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.links[l] = struct{}{}
	return true
}

// carry carries bytes both ways until both have ended.
func (p *proxy) carry(l *link) {
	var up sync.WaitGroup
	up.Go(func() { p.pump(l, upstreamward, l.server, l.client) })
	p.pump(l, downstream, l.client, l.server)
	up.Wait()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
	l.client.Close()
	l.server.Close()
}

func (p *proxy) pump(l *link, d direction, dst, src *net.TCPConn) {
	buf := make([]byte, 16<<10)
	for p.awaitFlow(l, d) {
		n, err := src.Read(buf)
		if n > 0 && p.awaitFlow(l, d) {
			allowed, limited, how := p.take(d, n)
			_, _ = dst.Write(buf[:allowed]) // a failure shows at the other pump's read
			if limited {
				p.cut(how)
			}
		}
		if errors.Is(err, io.EOF) {
			dst.CloseWrite()
			return
		}
		if err != nil {
			l.end(withRST)
			return
		}
	}
	_, _ = io.Copy(io.Discard, src) // after a FIN: until the other end has closed, too
}

// awaitFlow waits while the way is blocked; false: the link was cut.
func (p *proxy) awaitFlow(l *link, d direction) bool {
	p.mu.Lock()
	stall := p.stall
	p.mu.Unlock()
	if d == upstreamward || stall == nil {
		stall = opened
	}
	select {
	case <-l.cut:
		return false
	default:
	}
	select {
	case <-stall:
		return true
	case <-l.cut:
		return false
	}
}

// opened is a channel that is closed.
var opened = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// take says how many of n bytes may pass, and whether all has to be cut after them.
func (p *proxy) take(d direction, n int) (allowed int, limited bool, how ending) {
	p.mu.Lock()
	defer p.mu.Unlock()
	allowed = n
	if limit := p.limits[d]; limit != noLimit {
		allowed = int(min(int64(n), limit))
		p.limits[d] -= int64(allowed)
		if limited = p.limits[d] == 0; limited {
			p.limits = [2]int64{noLimit, noLimit}
			p.cuts++
		}
	}
	p.passed[d] += int64(allowed)
	return allowed, limited, p.how
}

// end cuts the link; the first one to do so says how.
func (l *link) end(how ending) {
	l.once.Do(func() {
		close(l.cut)
		for _, c := range []*net.TCPConn{l.client, l.server} {
			if how == withFIN {
				c.CloseWrite()
				continue
			}
			c.SetLinger(0)
			c.Close()
		}
	})
}

// The tests stand on the proxy, so it is tested itself.
func TestProxyCutsAtTheByte(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { // answers with what it is told
				io.Copy(conn, conn)
				conn.Close()
			})
		}
	})
	defer serving.Wait()
	defer listener.Close()
	p := startProxy(t, listener.Addr().String())
	said := bytes.Repeat([]byte("0123456789"), 10_000)
	for _, n := range []int64{0, 1, 16<<10 - 1, 16 << 10, 99_999} {
		p.cutAfter(downstream, n, withFIN)
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		var writing sync.WaitGroup
		writing.Go(func() { _, _ = conn.Write(said) }) // it is cut off
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(got, said[:n]) {
			t.Errorf("cut after %d bytes there come %d, %v", n, len(got), err)
		}
		conn.Close()
		writing.Wait()
	}
	if bytes, cuts := p.figures(); cuts != 5 || bytes != 1+(16<<10-1)+16<<10+99_999 {
		t.Errorf("%d cuts after %d bytes", cuts, bytes)
	}
}
