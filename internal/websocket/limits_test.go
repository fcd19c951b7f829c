package websocket

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
)

// inbox is what a client was sent.
type inbox struct {
	kinds     []string // of its text frames
	closeCode int
	done      chan struct{} // closed when the server has closed
}

// collect reads in the background, and answers the close frame.
func (p *peer) collect() *inbox {
	in := &inbox{done: make(chan struct{})}
	go func() {
		defer close(in.done)
		for {
			f, err := readFrame(p.conn)
			if err != nil {
				return
			}
			switch f.Header.OpCode {
			case ws.OpText:
				var frame struct{ Type string }
				if err := json.Unmarshal(f.Payload, &frame); err != nil {
					p.t.Errorf("the server sends %q", f.Payload)
				}
				in.kinds = append(in.kinds, frame.Type)
			case ws.OpClose:
				code, _ := ws.ParseCloseFrameData(f.Payload)
				in.closeCode = int(code)
				_ = ws.WriteFrame(p.conn, ws.MaskFrame(ws.NewCloseFrame(f.Payload)))
			}
		}
	}()
	return in
}

// flood sends a frame again and again, until the server has closed or so many are sent, and gives their number.
func (p *peer) flood(frame ws.Frame, most int) int {
	data := ws.MustCompileFrame(ws.MaskFrame(frame))
	for n := range most {
		if _, err := p.conn.Write(data); errors.Is(err, io.ErrClosedPipe) {
			return n
		}
	}
	return most
}

func TestFramesPerSecondAreLimited(t *testing.T) {
	empty := ws.NewFrame(ws.OpContinuation, false, nil)
	for name, frame := range map[string]ws.Frame{
		"messages": ws.NewTextFrame([]byte(`{"type":"typing","active":true}`)), "pings": ws.NewPingFrame(nil),
		"pongs": ws.NewPongFrame(nil), "empty fragments": empty,
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(t *testing.T, h *house, p *peer) {
				p.text(`{"type":"session.open"}`)
				p.expect("session.opened")
				time.Sleep(10 * time.Second) // the bucket is full, and no fuller than that
				in := p.collect()
				used := 0
				if name == "empty fragments" {
					p.send(ws.NewFrame(ws.OpText, false, nil))
					used++
				}
				if n := p.flood(frame, frameBurst-used); n != frameBurst-used {
					t.Fatalf("it is closed after %d frames", n)
				}
				synctest.Wait()
				time.Sleep(time.Second)
				if n := p.flood(frame, framesPerSecond); n != framesPerSecond {
					t.Fatalf("a second later it is closed after %d frames", n)
				}
				p.flood(frame, 1) // one too many
				<-in.done
				if in.closeCode != closePolicy || strings.Count(h.log.String(), "too many frames") != 1 {
					t.Errorf("it is closed with %d, and logged: %s", in.closeCode, h.log)
				}
			})
		})
	}
}

func TestFramesAtTheSustainedRatePass(t *testing.T) {
	test(t, func(t *testing.T, _ *house, p *peer) {
		in := p.collect()
		for range 30 {
			if n := p.flood(ws.NewTextFrame([]byte(`{"type":"ping"}`)), framesPerSecond); n != framesPerSecond {
				t.Fatalf("it is closed after %d frames", n)
			}
			time.Sleep(time.Second)
		}
		p.send(ws.NewCloseFrame(nil))
		<-in.done
		if len(in.kinds) != 30*framesPerSecond {
			t.Errorf("%d pings are answered", len(in.kinds))
		}
	})
}

func TestClientThatOnlyErrsIsClosed(t *testing.T) {
	for name, frame := range map[string]string{
		"invalid frames": `{"type":"nonsense"}`, "refused commands": `{"type":"session.leave"}`,
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(t *testing.T, h *house, p *peer) {
				in := p.collect()
				p.flood(ws.NewTextFrame([]byte(frame)), maxErrors+1)
				<-in.done
				if len(in.kinds) != maxErrors+1 || in.closeCode != closePolicy {
					t.Errorf("%d errors are answered, then it is closed with %d", len(in.kinds), in.closeCode)
				}
				if strings.Count(h.log.String(), "too many frames were refused") != 1 {
					t.Errorf("the log says %s", h.log)
				}
			})
		})
	}
}

func TestClientThatErrsNowAndThenIsNotClosed(t *testing.T) {
	test(t, func(t *testing.T, _ *house, p *peer) {
		for range 3 { // before there is a ping to answer
			for range maxErrors {
				p.text(`{"type":"nonsense"}`)
				p.expect("error")
				p.text(`{"type":"ping"}`)
				p.expect("pong")
			}
			time.Sleep(errorWindow)
		}
	})
}
