//go:build unix

package acceptance_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

const longAnswer = 100_000 // words

// startLongAnswer opens a session of alice's over a network and has a long answer begin there.
func startLongAnswer(s *server, network *proxy) *phone {
	s.t.Helper()
	a := newPhone(s.t, network.addr, token("alice"))
	if err := a.come(); err != nil {
		s.t.Fatal(err)
	}
	a.send("message.send", "message_id", "q", "text", "hi")
	a.takeUntil(func() bool { return len(a.order) == 2 && a.text[a.order[1]] != "" })
	return a
}

// tolerable is a pace at which a client may send two frames each time, for as long as it likes.
const tolerable = 10 * time.Millisecond

// roundTrips pings until told to stop, and at least a few times, and gives how long each pong took, in order of
// length.
func (c *client) roundTrips(stop <-chan struct{}) []time.Duration {
	var took []time.Duration
	for pace := time.Tick(tolerable); ; <-pace {
		select {
		case <-stop:
			if len(took) >= 100 {
				slices.Sort(took)
				return took
			}
		default:
		}
		start := time.Now()
		c.quiet()
		took = append(took, time.Since(start))
		c.seen = c.seen[:0]
	}
}

func p99(sorted []time.Duration) time.Duration { return sorted[len(sorted)*99/100] }

// discard takes what a connection is sent, without a look at it, until it ends.
func discard(ctx context.Context, conn *websocket.Conn) {
	for {
		_, r, err := conn.Reader(ctx)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return
		}
	}
}

// A client stops reading in the middle of a long answer. Another one gets all of its own meanwhile; the server does
// not grow; the stuck one is closed, comes back, and has the exact text in the end.
func TestClientThatStopsReadingHarmsNobody(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models(fmt.Sprint("words-", longAnswer), "echo"), "websocket: {write_timeout: 2s}\n")
	network := startProxy(t, s.addr)
	b := s.dial(token("bob"))
	b.open("model", "echo")
	b.ask("warm", "up")
	goroutines, memory := s.lowest("go_goroutines"), s.memory()

	a := startLongAnswer(s, network)
	network.stop()
	most := memory
	pace := time.Tick(tolerable)
	for i, closed := 0, false; !closed; i++ {
		<-pace
		text := fmt.Sprintf("short question %d", i)
		if end := b.ask(fmt.Sprint("q", i), text); b.text[end.str("message_id")] != text {
			t.Fatalf("the other client is answered %q, it asked %q", b.text[end.str("message_id")], text)
		}
		b.quiet()
		most = max(most, s.memory())
		_, closed = s.findText("the client takes nothing")
	}
	entry := s.awaitLog("the client takes nothing")
	if entry["code"] != 4408.0 || entry["user"] != "alice" {
		t.Errorf("the log says %v", entry)
	}
	up.await(t, "finished", 1)

	// What was under way arrives first. The close code comes last, if the client begins to read soon enough.
	network.flow()
	for err := error(nil); err == nil; _, err = a.take() {
		if code := websocket.CloseStatus(err); code != -1 && code != 4408 {
			t.Errorf("the connection that was stuck ends with %v", err)
		}
	}
	behind := a.last
	if err := a.come(); err != nil {
		t.Fatal(err)
	}
	a.takeUntil(func() bool { return len(a.ends) > 0 })
	a.settle()
	a.holdsOneLong(t)
	most = max(most, s.memory())
	t.Logf("the stuck client was closed at seq %d; the server grew from %.1f to %.1f MiB", behind, memory/(1<<20), most/(1<<20))
	if grown := most - memory; grown >= 64<<20 {
		t.Errorf("the server has grown by %.1f MiB", grown/(1<<20))
	}
	s.settles("parley_connections", 2)
	s.settles("go_goroutines", goroutines+1+2) // the connection that came back, and a second one to the upstream
}

func (p *phone) holdsOneLong(t *testing.T) {
	t.Helper()
	ids := p.answers()
	if len(ids) != 1 || p.text[ids[0]] != llmtest.Text(longAnswer) || p.ends[ids[0]] != 1 {
		t.Errorf("there are the answers %v, %d bytes, told %v times", ids, len(p.text[ids[0]]), p.ends)
	}
}

// What one client's round trips take while another one has a long answer: that reads, or that does not.
func BenchmarkRoundTripBesideASlowReader(b *testing.B) {
	up := startUpstream(b)
	s := startServer(b, up.models(fmt.Sprint("words-", longAnswer)))
	var reads, stalls []time.Duration
	rounds := 0
	for b.Loop() {
		reads = append(reads, besideALongAnswer(b, up, s, rounds, false)...)
		stalls = append(stalls, besideALongAnswer(b, up, s, rounds+1, true)...)
		rounds += 2
	}
	slices.Sort(reads)
	slices.Sort(stalls)
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	b.ReportMetric(ms(p99(reads)), "p99-reading-ms")
	b.ReportMetric(ms(p99(stalls)), "p99-stalled-ms")
	b.ReportMetric(ms(p99(stalls)-p99(reads)), "p99-difference-ms")
	b.ReportMetric(0, "ns/op") // a round is as long as the answer
}

// besideALongAnswer gives the round trips of one client from the begin of another one's answer to its end.
func besideALongAnswer(b *testing.B, up *upstream, s *server, finished int, stalled bool) []time.Duration {
	network := startProxy(b, s.addr)
	slow, other := startLongAnswer(s, network), s.dial(token("bob"))
	other.open()
	ctx, cancel := context.WithCancel(b.Context())
	var reading sync.WaitGroup
	if stalled {
		network.stop()
	} else {
		reading.Go(func() { discard(ctx, slow.conn) })
	}
	end := make(chan struct{})
	reading.Go(func() {
		defer close(end)
		up.await(b, "finished", finished+1)
	})
	took := other.roundTrips(end)
	cancel()
	reading.Wait()
	slow.conn.CloseNow()
	other.conn.CloseNow()
	return took
}
