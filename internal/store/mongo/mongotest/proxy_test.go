package mongotest_test

import (
	"maps"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/wiremessage"

	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
)

var (
	insert = doc("insert", "messages")
	find   = doc("find", "messages")
	ping   = doc("ping", 1)
	hello  = doc("hello", 1)
	wait   = doc("wait", 1)
)

func TestCommandsPassAndAreCounted(t *testing.T) {
	f := newFake(t)
	s := mongotest.StartAt(t, f.uri(), nil)
	one, two := dial(t, s), dial(t, s)
	one.do(insert)
	two.do(insert)
	one.do(find)
	one.id++
	one.write(query(one.id, encode(doc("isMaster", 1))))
	one.answer()
	want := map[string]int{"insert": 2, "find": 1, "isMaster": 1}
	if got := s.Commands(); !maps.Equal(got, want) {
		t.Errorf("counted %v, not %v", got, want)
	}
}

func TestEveryRequestAsksForOneReply(t *testing.T) {
	f := newFake(t)
	s := mongotest.StartAt(t, f.uri(), nil)
	c := dial(t, s)
	c.id++
	c.write(msg(c.id, 0, wiremessage.ExhaustAllowed, encode(hello)))
	c.answer()
	if flags := f.lastFlags(); flags != 0 {
		t.Errorf("the server saw the flags %b", flags)
	}

	c.id++
	c.write(msg(c.id, 0, wiremessage.MoreToCome, encode(insert))) // wants no reply
	c.do(find)                                                    // gets its own
	if got := s.Commands(); got["insert"] != 1 {
		t.Errorf("executed %v", got)
	}
}

func TestGarbageClosesTheConnection(t *testing.T) {
	f := newFake(t)
	s := mongotest.StartAt(t, f.uri(), nil)
	c := dial(t, s)
	c.write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	c.ended()
	f.untouched(t)
}

func TestClientsOfAServerThatIsNotThereAreClosed(t *testing.T) {
	f := newFake(t)
	s := mongotest.StartAt(t, f.uri(), nil)
	f.listener.Close()
	dial(t, s).ended()
}

func TestFreezeHoldsEverything(t *testing.T) {
	f := newFake(t)
	s := mongotest.StartAt(t, f.uri(), nil)
	before := dial(t, s)
	before.do(find)
	f.next(t)

	s.Freeze()
	s.Freeze()
	before.send(hello)
	after := dial(t, s)
	after.send(insert)
	gone := dial(t, s)
	gone.send(doc("update", "messages"))
	gone.conn.Close()
	f.untouched(t)

	s.Thaw()
	s.Thaw()
	before.answer()
	after.answer()
	names := map[string]bool{f.next(t): true, f.next(t): true, f.next(t): true}
	if !names["hello"] || !names["insert"] || !names["update"] {
		t.Errorf("the server got %v", names)
	}
}

func TestCutClosesConnectionsNotCommands(t *testing.T) {
	f := newFake(t)
	s := mongotest.StartAt(t, f.uri(), nil)
	idle, busy := dial(t, s), dial(t, s)
	idle.do(find)
	f.next(t)
	hit := make(chan struct{})
	_, remove := s.Inject(mongotest.Fault{Command: "insert", Action: mongotest.Hold, OnHit: func() { close(hit) }})
	busy.send(insert)
	<-hit

	s.Cut()
	idle.ended()
	busy.ended()
	dial(t, s).do(find)
	f.next(t)
	f.untouched(t)
	remove()
	if name := f.next(t); name != "insert" {
		t.Errorf("the server got %s", name)
	}
}

func TestRefuse(t *testing.T) {
	f := newFake(t)
	s := mongotest.StartAt(t, f.uri(), nil)
	c := dial(t, s)
	c.do(find)
	s.Refuse(true)
	c.ended()
	for range 3 {
		if conn, err := connect(t, s); err == nil { // else it was reset already
			(&client{t: t, conn: conn}).ended()
		}
	}
	s.Refuse(false)
	dial(t, s).do(find)
}

func TestOneCommandAtATime(t *testing.T) {
	f := newFake(t)
	turn := make(chan struct{}, 1)
	var wg sync.WaitGroup
	for range 2 {
		s := mongotest.StartAt(t, f.uri(), turn)
		for range 4 {
			c := dial(t, s)
			wg.Go(func() {
				for range 5 {
					c.do(insert)
				}
			})
		}
	}
	wg.Wait()
	if n := f.atOnce(); n != 1 {
		t.Errorf("%d commands ran at once", n)
	}
}

func TestWhatWaitsKeepsNobodysTurn(t *testing.T) {
	f := newFake(t)
	turn := make(chan struct{}, 1)
	busy, other := mongotest.StartAt(t, f.uri(), turn), mongotest.StartAt(t, f.uri(), turn)

	// A server that executes a command still says hello.
	one, two := dial(t, busy), dial(t, busy)
	one.send(wait)
	f.next(t)
	two.do(hello)
	two.do(ping)

	// A frozen one that wanted the turn lets others have it.
	two.send(insert)
	busy.Freeze()
	close(f.release)
	one.answer()
	dial(t, other).do(find)
	busy.Thaw()
	two.answer()

	// So does one whose command a fault holds.
	_, remove := busy.Inject(mongotest.Fault{Command: "insert", Action: mongotest.Hold})
	two.send(insert)
	dial(t, other).do(find)
	remove()
	two.answer()
}

func TestClosingEndsWhatWaits(t *testing.T) {
	f := newFake(t)
	turn := make(chan struct{}, 1)
	var clients []*client
	outer := t
	t.Run("the test that ends", func(t *testing.T) {
		s, icy := mongotest.StartAt(t, f.uri(), turn), mongotest.StartAt(t, f.uri(), turn)
		idle, held, queued, unanswered := dial(outer, s), dial(outer, s), dial(outer, s), dial(outer, s)
		frozen := dial(outer, icy)
		clients = []*client{idle, held, queued, unanswered, frozen}
		hit := make(chan struct{})
		s.Inject(mongotest.Fault{Command: "update", Action: mongotest.Hold, OnHit: func() { close(hit) }})
		held.send(doc("update", "messages"))
		<-hit
		icy.Freeze()
		frozen.send(find)
		unanswered.send(wait)
		if name := f.next(t); name != "wait" {
			t.Errorf("the server got %s", name)
		}
		queued.send(insert)
	})
	for _, c := range clients {
		c.ended()
	}
	f.untouched(t)
	if len(turn) != 0 {
		t.Error("the turn was not given back")
	}
}
