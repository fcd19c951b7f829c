package websocket

import (
	"errors"
	"io"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/parley-chat/parley/chat"
)

// reader reads a socket through a buffer that is big enough for a header and a small message.
type reader struct {
	src   io.Reader
	early []byte // what had come with the handshake
	buf   [256]byte
	r, w  int
	given uint64 // bytes in all
}

func (b *reader) Read(p []byte) (int, error) {
	n, err := b.read(p)
	b.given += uint64(n)
	return n, err
}

func (b *reader) read(p []byte) (int, error) {
	if len(b.early) > 0 {
		n := copy(p, b.early)
		if b.early = b.early[n:]; len(b.early) == 0 {
			b.early = nil
		}
		return n, nil
	}
	if b.r == b.w {
		if len(p) >= len(b.buf) {
			return b.src.Read(p)
		}
		n, err := b.src.Read(b.buf[:])
		if n == 0 {
			return 0, err
		}
		b.r, b.w = 0, n
	}
	n := copy(p, b.buf[b.r:b.w])
	b.r += n
	return n, nil
}

// buffers are for messages on their way in.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled is the largest buffer that is kept for another message.
const maxPooled = 64 << 10

// protocolError ends a connection with a close code.
type protocolError struct {
	code   int
	reason string
}

func (e *protocolError) Error() string { return e.reason }

// readLoop reads messages and has them carried out, one after another, until the connection has ended.
func (c *conn) readLoop() {
	buf := buffers.Get().(*[]byte)
	defer func() { release(buf) }()
	for {
		// An idle connection holds no buffer.
		release(buf)
		buf = nil
		header, err := c.readHeader(false)
		if err == nil {
			buf = buffers.Get().(*[]byte)
			*buf, err = c.readMessage(header, (*buf)[:0])
		}
		var wrong *protocolError
		switch {
		case errors.As(err, &wrong):
			c.log().Info("protocol violation", "code", wrong.code, "reason", wrong.reason)
			c.Close(wrong.code, wrong.reason)
			c.goroutines.Wait() // the close frame is out, or cannot be sent
			c.drainInput()
			return
		case err != nil:
			return
		case c.isClosing():
			continue // the client has to answer the close frame; what else it says comes too late
		}
		c.busy.Store(true)
		finished := make(chan struct{})
		c.goroutines.Go(func() {
			defer close(finished)
			defer c.recover()
			c.receive(*buf)
		})
		<-finished
		c.hear()
		c.busy.Store(false)
	}
}

func release(buf *[]byte) {
	if buf != nil && cap(*buf) <= maxPooled {
		*buf = (*buf)[:0]
		buffers.Put(buf)
	}
}

// drainInput waits for the client to close, within the time that a closing connection has: closing the socket while
// there is something unread would reset it, and the close frame would be lost on its way (RFC 6455 §7.1.1).
func (c *conn) drainInput() {
	_ = c.net.SetReadDeadline(time.Now().Add(closeGrace))
	_, _ = io.CopyN(io.Discard, c.net, 1<<20)
}

// readHeader reads the header of the next data frame; control frames in between are answered. Its error is a
// *protocolError, or the end of the connection.
func (c *conn) readHeader(fragmented bool) (ws.Header, error) {
	state := ws.StateServerSide
	if fragmented {
		state = state.Set(ws.StateFragmented)
	}
	for {
		start := c.in.given
		h, err := ws.ReadHeader(&c.in)
		switch {
		case errors.Is(err, ws.ErrHeaderLengthMSB), errors.Is(err, ws.ErrHeaderLengthUnexpected):
			return h, &protocolError{closeProtocolError, "malformed frame length"}
		case err != nil:
			return h, err
		}
		c.hear()
		if c.in.given-start != uint64(ws.HeaderSize(h)) {
			// §5.2: "the minimal number of bytes MUST be used to encode the length". The codec does not mind.
			return h, &protocolError{closeProtocolError, "frame length not in its shortest form"}
		}
		if err := ws.CheckHeader(h, state); err != nil {
			return h, &protocolError{closeProtocolError, err.Error()}
		}
		if !c.frames.take(time.Now()) {
			return h, &protocolError{closePolicy, "too many frames"}
		}
		switch {
		case h.OpCode.IsControl():
			if err := c.control(h); err != nil {
				return h, err
			}
		case h.OpCode == ws.OpBinary:
			return h, &protocolError{closeUnsupported, "binary messages are not spoken here"}
		default:
			return h, nil
		}
	}
}

// readMessage reads the message that a header begins, with all its fragments (RFC 6455 §5.4), into buf.
func (c *conn) readMessage(h ws.Header, buf []byte) ([]byte, error) {
	for {
		if h.Length > int64(c.h.cfg.MaxMessageBytes-len(buf)) {
			c.h.metrics.errors.WithLabelValues(string(chat.CodeMessageTooLarge)).Inc()
			c.client.Answer(c.ctx, chat.ErrorNotice{Err: chat.NewError(chat.CodeMessageTooLarge,
				"the frame is larger than websocket.max_message_bytes")}, "")
			return buf, &protocolError{closeTooBig, "message too big"}
		}
		var err error
		if buf, err = c.readPayload(h, buf); err != nil {
			return buf, err
		}
		if h.Fin {
			break
		}
		if h, err = c.readHeader(true); err != nil {
			return buf, err
		}
	}
	if !utf8.Valid(buf) {
		return buf, &protocolError{closeInvalidUTF8, "a text message has to be UTF-8"}
	}
	return buf, nil
}

// readPayload appends a frame's payload to buf. The buffer grows with what arrives, not with what is announced.
func (c *conn) readPayload(h ws.Header, buf []byte) ([]byte, error) {
	const step = 4 << 10
	start := len(buf)
	for left := int(h.Length); left > 0; {
		n := min(left, step)
		buf = slices.Grow(buf, n)
		piece := buf[len(buf) : len(buf)+n]
		if _, err := io.ReadFull(&c.in, piece); err != nil {
			return buf, err
		}
		c.hear()
		ws.Cipher(piece, h.Mask, len(buf)-start)
		buf = buf[:len(buf)+n]
		left -= n
	}
	return buf, nil
}

// control reads and answers a control frame (RFC 6455 §5.5).
func (c *conn) control(h ws.Header) error {
	var space [ws.MaxControlFramePayloadSize]byte
	payload := space[:h.Length]
	if _, err := io.ReadFull(&c.in, payload); err != nil {
		return err
	}
	ws.Cipher(payload, h.Mask, 0)
	switch h.OpCode {
	case ws.OpPing:
		c.mu.Lock()
		c.pong = append(make([]byte, 0, len(payload)), payload...) // §5.5.3: the latest ping is enough
		c.wake()
		c.mu.Unlock()
	case ws.OpClose:
		return c.closed(payload)
	}
	return nil
}

// closed answers the client's close frame (RFC 6455 §5.5.1), and returns io.EOF when it was well-formed.
func (c *conn) closed(body []byte) error {
	answer := closeFrame{byClient: true}
	if len(body) > 0 {
		code, reason := ws.ParseCloseFrameData(body)
		switch {
		case len(body) == 1 || !validCloseCode(code):
			return &protocolError{closeProtocolError, "malformed close frame"}
		case !utf8.ValidString(reason):
			return &protocolError{closeInvalidUTF8, "a close frame's reason has to be UTF-8"}
		}
		answer.code = int(code)
	}
	c.mu.Lock()
	c.startClosing(answer)
	c.mu.Unlock()
	c.goroutines.Wait() // the writer's last frame is the close frame
	return io.EOF
}

// validCloseCode reports whether an endpoint may send a close code (RFC 6455 §7.4 and IANA's registry of WebSocket
// close codes). Browsers answer with the code they were sent, 1012 among them.
func validCloseCode(code ws.StatusCode) bool {
	return code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
}
