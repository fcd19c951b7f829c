package websocket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/journal"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/router"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// models is a provider that answers with the last message's text, a thousand times.
type models struct{}

func (models) Stream(_ context.Context, r chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(yield func(chat.Chunk, error) bool) {
		for range 1000 {
			if !yield(chat.Chunk{Text: r.Messages[len(r.Messages)-1].Text}, nil) {
				return
			}
		}
		yield(chat.Chunk{FinishReason: chat.FinishStop}, nil)
	}
}

type verifier struct{}

func (verifier) Verify(token string) (chat.User, error) {
	return chat.User{ID: token, ExpiresAt: time.Now().Add(24 * time.Hour)}, nil
}

// house is a Handler with all that stands under it.
type house struct {
	*Handler
	router   *router.Router
	sessions *session.Manager
	journal  *journal.Journal
	log      *bytes.Buffer
}

func newHouse(t testing.TB) *house {
	h := &house{log: &bytes.Buffer{}}
	log := slog.New(slog.NewTextHandler(h.log, nil))
	store := storetest.NewMemory()
	var err error
	h.journal, err = journal.Open(journal.Config{Path: t.TempDir(), MaxBytes: 64 << 20, StoreID: store.ID()}, log)
	if err != nil {
		t.Fatal(err)
	}
	h.sessions = session.NewManager(session.Config{
		CheckpointInterval: time.Second,
		IdleTimeout:        time.Hour, GracePeriod: time.Hour, CleanupInterval: time.Minute, LeaseTimeout: time.Hour,
	}, store, h.journal, llmtest.NewPool(models{}, nil, "m"), log)
	h.router = router.New(router.Config{}, h.sessions, verifier{}, log)
	h.Handler = New(Config{
		MaxMessageBytes: 1000, PingInterval: 25 * time.Second, PongTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
	}, h.router, nil, log) // no request comes through the gate here
	return h
}

func (h *house) close() {
	h.router.Close(context.Background())
	h.Wait()
	_ = h.sessions.Close(context.Background())
	_ = h.journal.Close()
}

// peer is the client's end of a connection. It is a pipe, so nothing is written that the peer does not read.
type peer struct {
	t    *testing.T
	conn net.Conn
}

func (h *house) connect(t *testing.T) *peer {
	t.Helper()
	client, err := h.router.Admit(chat.User{ID: "alice", ExpiresAt: time.Now().Add(24 * time.Hour)}, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	h.connections.Go(newConn(h.Handler, theirs, client, nil).serve)
	return &peer{t, ours}
}

// send sends a frame as a client does: masked.
func (p *peer) send(f ws.Frame) {
	p.t.Helper()
	if _, err := p.conn.Write(ws.MustCompileFrame(ws.MaskFrame(f))); err != nil {
		p.t.Fatalf("sending: %v", err)
	}
}

func (p *peer) text(s string) { p.t.Helper(); p.send(ws.NewTextFrame([]byte(s))) }

func readFrame(r io.Reader) (ws.Frame, error) {
	h, err := ws.ReadHeader(r)
	if err != nil {
		return ws.Frame{}, err
	}
	payload := make([]byte, h.Length)
	_, err = io.ReadFull(r, payload)
	return ws.Frame{Header: h, Payload: payload}, err
}

func (p *peer) read() (ws.OpCode, string) {
	p.t.Helper()
	f, err := readFrame(p.conn)
	if err != nil {
		p.t.Fatalf("reading: %v", err)
	}
	if f.Header.Masked || !f.Header.Fin || f.Header.Rsv != 0 {
		p.t.Errorf("the server sends the header %+v", f.Header)
	}
	return f.Header.OpCode, string(f.Payload)
}

// expect reads a text frame and gives what it says.
func (p *peer) expect(kind string) map[string]any {
	p.t.Helper()
	op, data := p.read()
	var f map[string]any
	if op != ws.OpText || json.Unmarshal([]byte(data), &f) != nil || f["type"] != kind {
		p.t.Fatalf("the server sends %v %q, want a frame %s", op, data, kind)
	}
	return f
}

// closed reads a close frame, answers it, and reads to the end.
func (p *peer) closed(code int) {
	p.t.Helper()
	op, data := p.read()
	if op != ws.OpClose {
		p.t.Fatalf("the server sends %v %q, want it to close", op, data)
	}
	got, reason := ws.ParseCloseFrameData([]byte(data))
	if int(got) != code {
		p.t.Errorf("the server closes with %d %q, want %d", got, reason, code)
	}
	if code != 0 {
		_ = ws.WriteFrame(p.conn, ws.MaskFrame(ws.NewCloseFrame([]byte(data)))) // it may be gone already
	}
	if rest, err := io.ReadAll(p.conn); len(rest) > 0 {
		p.t.Errorf("after the close frame come %q (%v)", rest, err)
	}
}

func test(t *testing.T, f func(t *testing.T, h *house, p *peer)) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		defer h.close()
		p := h.connect(t)
		defer p.conn.Close()
		f(t, h, p)
	})
}

func TestBigMessages(t *testing.T) {
	limit := 1000
	head, tail := `{"type":"ping","x":"`, `"}`
	fits := head + strings.Repeat("x", limit-len(head)-len(tail)) + tail
	for name, parts := range map[string][]string{"whole": {fits + " "}, "in fragments": {fits, " "}} {
		t.Run(name, func(t *testing.T) {
			test(t, func(_ *testing.T, _ *house, p *peer) {
				p.text(fits)
				p.expect("pong")
				go func() {
					for i, part := range parts {
						op := ws.OpContinuation
						if i == 0 {
							op = ws.OpText
						}
						_ = ws.WriteFrame(p.conn, ws.MaskFrame(ws.NewFrame(op, i == len(parts)-1, []byte(part))))
					}
				}()
				if e := p.expect("error")["error"].(map[string]any); e["code"] != "message_too_large" {
					p.t.Errorf("the error is %v", e)
				}
				p.closed(1009)
			})
		})
	}
}

func TestPingAndPong(t *testing.T) {
	test(t, func(_ *testing.T, _ *house, p *peer) {
		for range 3 {
			start := time.Now()
			if op, _ := p.read(); op != ws.OpPing {
				p.t.Errorf("the server sends %v", op)
			}
			if d := time.Since(start); d > 25*time.Second {
				p.t.Errorf("the ping comes after %v", d)
			}
			p.send(ws.NewPongFrame(nil))
		}
		if op, _ := p.read(); op != ws.OpPing {
			p.t.Errorf("the server sends %v", op)
		}
		start := time.Now()
		p.closed(closeUnresponsive)
		if d := time.Since(start).Round(time.Second); d != 10*time.Second {
			p.t.Errorf("without a pong it closes after %v", d)
		}
	})
}

func TestReaderThatTakesNothingIsClosed(t *testing.T) {
	test(t, func(t *testing.T, h *house, p *peer) {
		p.text(`{"type":"session.open"}`)
		p.expect("session.opened")
		p.text(`{"type":"message.send","message_id":"q","text":"hi"}`)
		start := time.Now()
		for h.router.Connections() > 0 {
			time.Sleep(time.Second / 10)
		}
		if d := time.Since(start); d < 9*time.Second || d > 12*time.Second {
			t.Errorf("it is closed after %v", d)
		}
		if !strings.Contains(h.log.String(), "the client takes nothing") {
			t.Errorf("the log says %s", h.log)
		}
	})
}

func TestSlowReaderIsNotClosed(t *testing.T) {
	test(t, func(t *testing.T, _ *house, p *peer) {
		p.text(`{"type":"session.open"}`)
		p.expect("session.opened")
		p.text(`{"type":"message.send","message_id":"q","text":"` + strings.Repeat("hi", 300) + `"}`)
		// Each byte is progress; a frame of several KiB takes far longer than the write timeout.
		got := make([]byte, 20)
		for range 60 {
			time.Sleep(5 * time.Second)
			if _, err := io.ReadFull(p.conn, got); err != nil {
				t.Fatalf("a slow reader: %v", err)
			}
		}
	})
}

func TestDeltasThatWaitAreJoined(t *testing.T) {
	test(t, func(t *testing.T, _ *house, p *peer) {
		p.text(`{"type":"session.open"}`)
		p.expect("session.opened")
		p.text(`{"type":"message.send","message_id":"q","text":"word "}`)
		p.expect("message.created")
		synctest.Wait()
		p.expect("message.created")
		text, frames := "", 0
		for {
			op, data := p.read()
			var f map[string]any
			if op != ws.OpText || json.Unmarshal([]byte(data), &f) != nil {
				t.Fatalf("the server sends %v %q", op, data)
			}
			if f["type"] == "message.completed" {
				break
			}
			if f["type"] != "message.delta" {
				continue // the session's title
			}
			text += f["text"].(string)
			frames++
		}
		// How many deltas had come before the writer began to wait is the scheduler's affair; the rest is one frame.
		if text != strings.Repeat("word ", 1000) || frames >= 1000 {
			t.Errorf("%d frames make %d bytes", frames, len(text))
		}
	})
}

func TestServerThatClosesWaitsForNobodyLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		p := h.connect(t)
		defer p.conn.Close()
		start := time.Now()
		h.close() // the peer reads nothing, not even the close frame
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("closing took %v", d)
		}
	})
}

func TestR07_4_RefusedMessagesAreLoggedWithoutTheirText(t *testing.T) {
	test(t, func(t *testing.T, h *house, p *peer) {
		for _, data := range []string{
			`{"type":"message.send","message_id":"bad id","text":"my secret"}`, `{"type":"my secret"}`, `my secret`,
		} {
			p.text(data)
			p.expect("error")
		}
		for _, want := range []string{"message refused", "type=message.send", "field=message_id", "size=", "reason=", "user=alice", "connection=", "code=unknown_type", "code=invalid_json"} {
			if !strings.Contains(h.log.String(), want) {
				t.Errorf("the log has no %q: %s", want, h.log)
			}
		}
		if strings.Contains(h.log.String(), "my secret") {
			t.Errorf("the log tells the text: %s", h.log)
		}
	})
}

func TestFrameLengths(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 65535, 65536, 70000} {
		payload := bytes.Repeat([]byte("x"), n)
		buf := appendFrame([]byte("before"), ws.OpText, func(b []byte) []byte { return append(b, payload...) })
		f, err := readFrame(bytes.NewReader(buf[len("before"):]))
		if err != nil || !bytes.Equal(f.Payload, payload) || f.Header.OpCode != ws.OpText {
			t.Errorf("a frame of %d bytes is read as %+v (%v)", n, f.Header, err)
		}
		if len(buf) != len("before")+ws.HeaderSize(f.Header)+n {
			t.Errorf("a frame of %d bytes has %d", n, len(buf))
		}
	}
}

func TestReaderGivesWhatCameWithTheHandshakeFirst(t *testing.T) {
	r := reader{src: strings.NewReader(" and the rest"), early: []byte("early")}
	got, err := io.ReadAll(&r)
	if string(got) != "early and the rest" || err != nil {
		t.Errorf("the reader gives %q (%v)", got, err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("at the end it gives %v", err)
	}
}

// panicky is a router with a mistake in it, which shows in frames that ask for it.
type panicky struct{ *router.Router }

func (p panicky) Do(ctx context.Context, c *router.Connection, cmd chat.Command, ref string) error {
	if ref == "panic" {
		var nowhere *chat.User
		_ = nowhere.Name
	}
	return p.Router.Do(ctx, c, cmd, ref)
}

func TestAPanicEndsItsConnectionAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		defer h.close()
		h.Handler.router = panicky{h.router}
		p, other := h.connect(t), h.connect(t)
		defer p.conn.Close()
		defer other.conn.Close()
		p.text(`{"type":"ping","ref":"panic","x":"nobody's business"}`)
		p.closed(1011)
		other.text(`{"type":"ping"}`)
		other.expect("pong")
		if log := h.log.String(); !strings.Contains(log, "a command panicked") || !strings.Contains(log, "nil pointer") ||
			!strings.Contains(log, "conn_test.go") || strings.Contains(log, "nobody's business") {
			t.Errorf("the log says %s", log)
		}
	})
}
