//go:build unix

package acceptance_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// seeded gives randomness whose seed a failing test prints. The same can be had again by PARLEY_TEST_SEED.
func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed, err := strconv.ParseUint(os.Getenv("PARLEY_TEST_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("PARLEY_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func anyEnding(r *rand.Rand) ending { return ending(r.IntN(2)) }

func TestAnswerArrivesExactlyThroughFiftyCuts(t *testing.T) {
	const words, cuts, margin = 2000, 50, 20
	up := startUpstream(t)
	s := startServer(t, up.models("gate-2000"))
	network, random := startProxy(t, s.addr), seeded(t)
	p := newPhone(t, network.addr, token("alice"))
	if err := p.come(); err != nil {
		t.Fatal(err)
	}
	p.send("message.send", "message_id", "q", "text", "hi")
	p.takeUntil(func() bool { return len(p.receipts["q"]) > 0 })

	// Each frame that arrives has the upstream say a few words more, so it is the bytes that decide where a cut falls:
	// within the handshake, the answer to session.open, or the deltas. The last words wait until all cuts have fallen.
	left := words - margin
	for cut := range cuts {
		network.cutAfter(downstream, random.Int64N(4000), anyEnding(random))
		for err := p.come(); err == nil; _, err = p.take() {
			if n := min(1+random.IntN(4), left); n > 0 {
				up.release(t, n)
				left -= n
			} else {
				_ = p.trySend("ping") // if it fails the cut has fallen
			}
		}
		if _, n := network.figures(); n != cut+1 {
			t.Fatalf("after %d cuts the connection is lost without a cut", n)
		}
	}
	if len(p.ends) > 0 {
		t.Fatal("the answer ended before the last cut")
	}
	up.release(t, left+margin)
	if err := p.come(); err != nil {
		t.Fatal(err)
	}
	p.takeUntil(func() bool { return len(p.ends) > 0 })
	p.settle()
	p.holdsOne(t, llmtest.Text(words))
	if n := len(up.requests(t)); n != 1 || p.losses != cuts {
		t.Errorf("%d cuts, %d losses and %d requests", cuts, p.losses, n)
	}
}

// holdsOne makes sure that a phone holds one answer, with a text, whose end it was told once.
func (p *phone) holdsOne(t *testing.T, text string) {
	t.Helper()
	ids := p.answers()
	if len(ids) != 1 {
		t.Fatalf("there are the answers %v", ids)
	}
	if got := p.text[ids[0]]; got != text {
		t.Errorf("the answer has %d bytes and not the %d that the upstream sent: %q", len(got), len(text), got)
	}
	if n := p.ends[ids[0]]; n != 1 || p.status[ids[0]] != "complete" {
		t.Errorf("the answer is %s, which was told %d times", p.status[ids[0]], n)
	}
}

// Connections that are lost while the server writes, at full speed, leave nothing behind.
func TestCutsWhileTheServerWrites(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("words-20000"))
	network, random := startProxy(t, s.addr), seeded(t)
	p := newPhone(t, network.addr, token("alice"))
	if err := p.come(); err != nil {
		t.Fatal(err)
	}
	goroutines := s.lowest("go_goroutines")
	for turn := range 5 {
		p.ends = make(map[string]int)
		if err := p.trySend("message.send", "message_id", fmt.Sprint("q", turn), "text", "hi"); err != nil {
			t.Fatal(err)
		}
		up.await(t, "requests", turn+1)
		for len(p.ends) == 0 {
			network.cutAfter(downstream, random.Int64N(20_000), anyEnding(random))
			for err := p.come(); err == nil && len(p.ends) == 0; {
				_, err = p.take()
			}
		}
		network.cutAfter(downstream, noLimit, withRST)
		if err := p.come(); err != nil {
			t.Fatal(err)
		}
		p.settle()
		for id, n := range p.ends {
			if n != 1 || p.text[id] != llmtest.Text(20_000) {
				t.Errorf("answer %d was ended %d times with %d bytes", turn, n, len(p.text[id]))
			}
		}
	}
	t.Logf("%d losses", p.losses)
	s.settles("parley_connections", 1)
	s.settles("go_goroutines", goroutines+4) // one or two connections to the upstream
}

// A message that is sent again after every loss, wherever its sending was cut, is stored once and answered once.
func TestMessageSentAgainThroughCutsIsOne(t *testing.T) {
	const cuts = 40
	up := startUpstream(t)
	s := startServer(t, up.models("gate-30"))
	network, random := startProxy(t, s.addr), seeded(t)
	p := newPhone(t, network.addr, token("alice"))
	if err := p.come(); err != nil {
		t.Fatal(err)
	}
	question := strings.Repeat("a long question, ", 300)
	for range cuts {
		// The handshake and session.open take about 700 bytes.
		network.cutAfter(upstreamward, random.Int64N(int64(len(question))+1500), anyEnding(random))
		for err := p.come(); err == nil; _, err = p.take() {
			_ = p.trySend("message.send", "message_id", "q", "text", question) // if it fails the cut has fallen
		}
	}
	network.cutAfter(upstreamward, noLimit, withRST)
	if err := p.come(); err != nil {
		t.Fatal(err)
	}
	p.send("message.send", "message_id", "q", "text", question)
	up.release(t, 30)
	p.takeUntil(func() bool { return len(p.ends) > 0 })
	p.settle()
	p.holdsOne(t, llmtest.Text(30))
	p.sameReceipts(t, "q", question)
	if n := len(up.requests(t)); n != 1 || p.losses != cuts {
		t.Errorf("%d cuts, %d losses and %d requests", cuts, p.losses, n)
	}
	s.storesOnce(p.session, "q")
}

// sameReceipts makes sure that all receipts of a message are of the same stored one, and that one of them stood in the
// log.
func (p *phone) sameReceipts(t *testing.T, id, text string) {
	t.Helper()
	inLog := 0
	for _, f := range p.receipts[id] {
		first := p.receipts[id][0]
		if f.num("seq") != first.num("seq") || f.str("message", "created_at") != first.str("message", "created_at") ||
			f.str("message", "text") != text {
			t.Errorf("message %s has the receipts %.200v and %.200v", id, first, f)
		}
		if f["repeat"] != true {
			inLog++
		}
	}
	if inLog != 1 {
		t.Errorf("message %s stands %d times in the log", id, inLog)
	}
}

// storesOnce restarts the server, so that what it holds comes from its store, and makes sure that a session has one
// message with an ID, and one answer to it.
func (s *server) storesOnce(session, id string) {
	s.t.Helper()
	if code := s.stop(syscall.SIGTERM); code != 0 {
		s.t.Errorf("the server exits with %d", code)
	}
	s.start()
	c := s.dial(token("alice"))
	c.open("session_id", session, "history", 200)
	c.quietly()
	questions, answers := 0, 0
	for _, f := range c.seen {
		if f.str("message", "id") == id {
			questions++
		}
		if f.str("message", "reply_to") == id {
			answers++
		}
	}
	if questions != 1 || answers != 1 {
		s.t.Errorf("the store has message %s %d times, with %d answers", id, questions, answers)
	}
}
