package websocket

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/router"
)

// tape is a connection whose client's bytes are known beforehand. They come in pieces of random sizes.
type tape struct {
	net.Conn // nothing else is asked of it
	stream   string
	sizes    *rand.Rand

	mu     sync.Mutex // guards the fields below
	sent   []byte     // by the server
	closed bool
}

func (c *tape) Read(p []byte) (int, error) {
	if c.stream == "" {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 1+c.sizes.IntN(40))], c.stream)
	c.stream = c.stream[n:]
	return n, nil
}

func (c *tape) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	c.sent = append(c.sent, p...)
	return len(p), nil
}

func (c *tape) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func (c *tape) SetReadDeadline(time.Time) error  { return nil }
func (c *tape) SetWriteDeadline(time.Time) error { return nil }

// ponger is a router that answers every command with a pong.
type ponger struct{ *router.Router }

func (ponger) Do(ctx context.Context, c *router.Connection, _ chat.Command, ref string) error {
	c.Answer(ctx, chat.Pong{}, ref)
	return nil
}

const fuzzLimit = 300 // of a message, in bytes

// play begins a connection with a client's stream, of which some came with the handshake.
func play(t *testing.T, stream string, seed uint64) (*conn, *tape) {
	log := slog.New(slog.DiscardHandler)
	r := ponger{router.New(router.Config{}, nil, verifier{}, log)}
	h := New(Config{
		MaxMessageBytes: fuzzLimit, PingInterval: time.Hour, PongTimeout: time.Hour, WriteTimeout: time.Hour,
	}, r, nil, log)
	client, err := r.Admit(chat.User{ID: "alice", ExpiresAt: time.Now().Add(24 * time.Hour)}, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	sizes := rand.New(rand.NewPCG(seed, 0))
	early := sizes.IntN(len(stream) + 1)
	tp := &tape{stream: stream[early:], sizes: sizes}
	return newConn(h, tp, client, []byte(stream[:early])), tp
}

// interpret is what a client's stream means, by RFC 6455 alone: its messages, and how it ends. That is "" where it just
// ends, else the server's close frame.
func interpret(s string) (messages []string, end string) {
	var message string
	fragmented := false
	for {
		if len(s) < 2 {
			return messages, ""
		}
		first, op, isMasked, n := s[0], s[0]&0xf, s[1]&maskBit != 0, uint64(s[1]&0x7f)
		size := map[uint64]int{126: 4, 127: 10}[n]
		size = max(size, 2)
		body := size
		if isMasked {
			body += 4
		}
		if len(s) < body {
			return messages, ""
		}
		switch size {
		case 4:
			n = uint64(binary.BigEndian.Uint16([]byte(s[2:])))
		case 10:
			n = binary.BigEndian.Uint64([]byte(s[2:]))
		}
		control := op >= 8
		switch {
		case n >= 1<<63, len(length([]byte{0}, 0, int(n))) != size, first&(rsv1|rsv2|rsv3) != 0, !isMasked, op > opPong,
			op > opBinary && op < opClose, control && (n > 125 || first&fin == 0), !control && fragmented != (op == opContinuation):
			return messages, "close 1002"
		case op == opBinary:
			return messages, "close 1003"
		case !control && uint64(len(message))+n > fuzzLimit:
			return messages, "close 1009"
		case uint64(len(s)-body) < n:
			return messages, ""
		}
		payload := masked(s[body:body+int(n)], [4]byte([]byte(s[size:body])))
		s = s[body+int(n):]
		switch {
		case op == opClose:
			return messages, answerToClose(payload)
		case control:
			continue
		}
		message, fragmented = message+payload, first&fin == 0
		if fragmented {
			continue
		}
		if !utf8.ValidString(message) {
			return messages, "close 1007"
		}
		messages, message = append(messages, message), ""
	}
}

func answerToClose(body string) string {
	switch {
	case body == "":
		return "close"
	case len(body) == 1, !allowedCode(int(body[0])<<8 | int(body[1])):
		return "close 1002"
	case !utf8.ValidString(body[2:]):
		return "close 1007"
	}
	return fmt.Sprint("close ", int(body[0])<<8|int(body[1]))
}

// FuzzReader gives a connection any stream. Its messages have to be those that the stream means, however it is cut into
// pieces; what the server says to it has to be WebSocket, an answer to each message, and the right end.
func FuzzReader(f *testing.F) {
	for _, seed := range fuzzSeeds() {
		f.Add([]byte(seed), uint64(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		stream := string(data)
		want, end := interpret(stream)
		if len(want) > maxErrors || len(stream) > 6*frameBurst {
			t.Skip("one connection may not send so much")
		}
		checkMessages(t, stream, seed, want)
		c, tp := play(t, stream, seed)
		c.h.connections.Go(c.serve)
		c.h.Wait()
		said := everything(t, string(tp.sent))
		if end == "" {
			return // nobody is there any more to be answered
		}
		answers := len(want)
		if end == "close 1009" {
			answers++
		}
		if got := count(said, "text "); got != answers {
			t.Errorf("%d messages are answered with %q", len(want), said)
		}
		if said[len(said)-1] != end {
			t.Errorf("the server says %q, and should end with %q", said, end)
		}
	})
}

// checkMessages reads a stream as the read loop does.
func checkMessages(t *testing.T, stream string, seed uint64, want []string) {
	c, _ := play(t, stream, seed)
	c.h.router.Connect(c.client, c)
	defer func() {
		c.mu.Lock()
		c.writing = true // no writer starts any more
		c.mu.Unlock()
		c.goroutines.Wait()
		c.h.router.Disconnect(c.client)
	}()
	for i := 0; ; i++ {
		header, err := c.readHeader(false)
		var message []byte
		if err == nil {
			message, err = c.readMessage(header, nil)
		}
		switch {
		case err != nil && i < len(want):
			t.Fatalf("message %d of %q does not come: %v", i, want, err)
		case err != nil:
			return
		case i >= len(want) || string(message) != want[i]:
			t.Fatalf("message %d is %q, want %q", i, message, want)
		case len(message) > fuzzLimit || !utf8.Valid(message):
			t.Fatalf("the message %q is let through", message)
		}
	}
}

// everything describes all frames that a server has sent. After a close frame there is none.
func everything(t *testing.T, sent string) (said []string) {
	for sent != "" {
		one, rest, ok, err := cutFrame(sent)
		if err != nil || !ok {
			t.Fatalf("the server sends %q: %v", sent, err)
		}
		if len(said) > 0 && strings.HasPrefix(said[len(said)-1], "close") {
			t.Fatalf("after the close frame comes %q", one)
		}
		said, sent = append(said, one), rest
	}
	return said
}

func count(said []string, prefix string) (n int) {
	for _, s := range said {
		if strings.HasPrefix(s, prefix) {
			n++
		}
	}
	return n
}

func fuzzSeeds() []string {
	big := strings.Repeat(" ", fuzzLimit-len(ping))
	return []string{
		"", frame(fin|opText, ping) + bye, frame(fin|opText, "{") + frame(fin|opText, `{"type":"session.leave"}`) + bye,
		frame(opText, ping[:5]) + frame(fin|opPing, "ping") + frame(opContinuation, "") + frame(fin|opContinuation, ping[5:]) + bye,
		frame(opText, "\xe2\x82") + frame(fin|opPong, "") + frame(fin|opContinuation, "\xac") + bye,
		frame(fin|opText, "\xe2\x82") + frame(fin|opText, "\xac"),
		frame(fin|opText, ping+big) + frame(fin|opText, ping+big+" "),
		frame(opText, ping+big) + frame(opContinuation, "") + frame(fin|opContinuation, " "),
		frame(fin|opClose, ""), frame(fin|opClose, "\x03"), frame(fin|opClose, closing(1005, "")), frame(fin|opClose, closing(4999, "\xff")),
		frame(fin|opPing, strings.Repeat("p", 125)) + frame(fin|opPing, strings.Repeat("p", 126)),
		unmasked(fin|opText, ping), maskedFrame(fin|opText, ping, [4]byte{}) + bye, frame(fin|opBinary, "x"), frame(fin|rsv1|opText, ping),
		frame(fin|3, ""), frame(fin|opContinuation, ""), frame(opText, "x") + frame(fin|opText, "y"), frame(opPing, ""),
		length16(fin|opText, 5) + masked("hello", maskKey), length64(fin|opText, 200) + strings.Repeat("x", 200),
		length64(fin|opText, 1<<63-1), length64(fin|opText, 1<<63), frame(fin|opText, ping)[:8],
	}
}
