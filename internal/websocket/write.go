package websocket

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"github.com/parley-chat/parley/internal/wire"
)

// writeSize is how much one write to the socket carries at the most: frames are gathered up to it, and a larger frame
// goes out in pieces of it, so that progress can be seen.
const writeSize = 16 << 10

// tlsWriteSize is the same over TLS, where a write that timed out in its middle cannot go on: what a client has to take
// within the write timeout.
const tlsWriteSize = 1 << 10

// outBuffers are for frames on their way out. They may grow a little beyond writeSize, by the last frame.
var outBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

// writeLoop writes what waits until nothing does, or until the close frame is written.
func (c *conn) writeLoop() {
	pooled := outBuffers.Get().(*[]byte)
	buf := *pooled
	defer func() {
		if cap(buf) <= maxPooled {
			*pooled = buf[:0]
			outBuffers.Put(pooled)
		}
	}()
	for {
		var last *closeFrame
		buf, last = c.gather(buf[:0])
		if len(buf) == 0 && c.rest() {
			return
		}
		if rest, err := c.write(buf, last != nil); err != nil {
			c.giveUp(rest, err)
			return
		}
		if last != nil {
			// The client is given a while to answer; a failure here means that the socket is gone already.
			_ = c.net.SetReadDeadline(time.Now().Add(last.grace()))
			return
		}
	}
}

// rest ends the writer, unless there is more to write. Once the connection is closing no other one starts.
func (c *conn) rest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dirty {
		return false
	}
	c.writing = c.closing != nil
	return true
}

// gather appends the frames that wait to buf, up to about writeSize; the close frame is the last.
func (c *conn) gather(buf []byte) ([]byte, *closeFrame) {
	c.mu.Lock()
	c.dirty = false
	closing, pong, ping := c.closing, c.pong, c.pingDue
	c.pong, c.pingDue = nil, false
	if ping {
		c.pingedAt = time.Now()
	}
	c.mu.Unlock()
	if pong != nil {
		buf = appendFrame(buf, ws.OpPong, func(b []byte) []byte { return append(b, pong...) })
	}
	if ping {
		buf = appendFrame(buf, ws.OpPing, func(b []byte) []byte { return b })
	}
	var carried tally
	next := c.client.Next
	if closing != nil {
		next = c.client.Farewell
	}
	for closing != nil || len(buf) < writeSize {
		out, ok := next()
		if !ok {
			break
		}
		switch {
		case out.Close != 0:
			c.Close(out.Close, out.Reason)
			closing, next = &closeFrame{code: out.Close, reason: out.Reason}, c.client.Farewell
		case out.Event != nil:
			carried.add(out.Event)
			buf = appendFrame(buf, ws.OpText, func(b []byte) []byte { return wire.AppendEvent(b, out.Event) })
		default:
			buf = appendFrame(buf, ws.OpText, func(b []byte) []byte { return wire.AppendNotice(b, out.Notice, out.Ref) })
		}
	}
	c.h.metrics.count(carried)
	if closing != nil {
		buf = closing.append(buf)
	}
	return buf, closing
}

// append appends the close frame (RFC 6455 §5.5.1): its body is the code, then the reason.
func (f *closeFrame) append(buf []byte) []byte {
	return appendFrame(buf, ws.OpClose, func(b []byte) []byte {
		if f.code == 0 {
			return b
		}
		return append(b, ws.NewCloseFrameBody(ws.StatusCode(f.code), f.reason)...)
	})
}

// appendFrame appends one unmasked, unfragmented frame (RFC 6455 §5.2) whose payload appendPayload appends. The
// payload's length is known only afterwards, so it is moved behind its header: by 8 bytes at the most.
func appendFrame(buf []byte, op ws.OpCode, appendPayload func([]byte) []byte) []byte {
	const room = 10 // the longest header of an unmasked frame
	start := len(buf)
	buf = append(buf, make([]byte, room)...)
	buf = appendPayload(buf)
	payload := buf[start+room:]
	n := len(payload)
	header := append(buf[start:start:start+room], 0x80|byte(op))
	switch {
	case n <= 125:
		header = append(header, byte(n))
	case n <= 0xffff:
		header = binary.BigEndian.AppendUint16(append(header, 126), uint16(n))
	default:
		header = binary.BigEndian.AppendUint64(append(header, 127), uint64(n))
	}
	copy(buf[start+len(header):], payload)
	return buf[:start+len(header)+n]
}

// write writes all of p, in pieces, for as long as the client takes something. It returns what it could not write.
func (c *conn) write(p []byte, closing bool) (rest []byte, err error) {
	piece := writeSize
	if _, ok := c.net.(*tls.Conn); ok {
		piece = tlsWriteSize
	}
	for len(p) > 0 {
		if !closing {
			c.extendDeadline(time.Now())
		}
		n, err := c.net.Write(p[:min(len(p), piece)])
		p = p[n:]
		if err != nil && (closing || n == 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return p, err
		}
		if err != nil {
			c.mu.Lock()
			c.deadline = time.Time{} // it has passed: the next one is to be set at once
			c.mu.Unlock()
		}
	}
	return nil, nil
}

// extendDeadline gives the client another write timeout. Setting it costs, so it is done once a second at the most.
func (c *conn) extendDeadline(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	deadline := now.Add(c.h.cfg.WriteTimeout)
	if c.closing != nil || deadline.Sub(c.deadline) < min(time.Second, c.h.cfg.WriteTimeout/2) {
		return
	}
	c.deadline = deadline
	_ = c.net.SetWriteDeadline(deadline) // a failure shows at the write
}

// giveUp ends a connection to which rest could not be written. A client that takes nothing is told so, should it begin
// to read in the time that a close frame has.
func (c *conn) giveUp(rest []byte, err error) {
	defer func() { _ = c.socket().Close() }()
	if !errors.Is(err, os.ErrDeadlineExceeded) || c.isClosing() {
		c.cancel(errClosing)
		return
	}
	c.log().Info("the client takes nothing", "code", closeUnresponsive, "timeout", c.h.cfg.WriteTimeout.String())
	c.h.metrics.stuck.Inc()
	stuck := closeFrame{code: closeUnresponsive, reason: "nothing was read"}
	c.Close(stuck.code, stuck.reason)
	_, _ = c.write(stuck.append(rest), true)
}
