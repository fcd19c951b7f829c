package mongotest_test

import (
	"bytes"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
)

func TestDropBefore(t *testing.T) {
	f := newFake(t)
	s := mongotest.StartAt(t, f.uri(), nil)
	hits, _ := s.Inject(mongotest.Fault{Command: "insert", Action: mongotest.DropBefore})
	c := dial(t, s)
	c.send(insert)
	c.ended()
	f.untouched(t)
	if hits() != 1 || len(s.Commands()) != 0 {
		t.Errorf("%d hits; executed %v", hits(), s.Commands())
	}
	dial(t, s).do(insert)
}

func TestDropAfter(t *testing.T) {
	f := newFake(t)
	s := mongotest.StartAt(t, f.uri(), nil)
	hits, _ := s.Inject(mongotest.Fault{Command: "insert", Action: mongotest.DropAfter})
	c := dial(t, s)
	c.send(insert)
	c.ended()
	if name := f.next(t); name != "insert" {
		t.Errorf("the server got %s", name)
	}
	if hits() != 1 || s.Commands()["insert"] != 1 {
		t.Errorf("%d hits; executed %v", hits(), s.Commands())
	}
	dial(t, s).do(insert)
}

func TestFail(t *testing.T) {
	f := newFake(t)
	s := mongotest.StartAt(t, f.uri(), nil)
	s.Inject(mongotest.Fault{Command: "insert", Action: mongotest.Fail(11600, "InterruptedAtShutdown", "going down",
		"RetryableWriteError", "NoWritesPerformed")})
	c := dial(t, s)
	c.send(insert)
	var got struct {
		OK          float64  `bson:"ok"`
		Code        int32    `bson:"code"`
		CodeName    string   `bson:"codeName"`
		Message     string   `bson:"errmsg"`
		ErrorLabels []string `bson:"errorLabels"`
	}
	raw := c.answer()
	if err := bson.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if got.OK != 0 || got.Code != 11600 || got.CodeName != "InterruptedAtShutdown" || got.Message != "going down" ||
		len(got.ErrorLabels) != 2 || got.ErrorLabels[1] != "NoWritesPerformed" {
		t.Errorf("got %s", raw)
	}
	f.untouched(t)
	c.do(insert)
}

func TestReply(t *testing.T) {
	f := newFake(t)
	s := mongotest.StartAt(t, f.uri(), nil)
	answer := doc("ok", 1, "n", 1, "writeConcernError", doc("code", 91))
	s.Inject(mongotest.Fault{Command: "insert", Action: mongotest.Reply(answer)})
	s.Inject(mongotest.Fault{Command: "find", Action: mongotest.ReplyAfter(answer)})
	c := dial(t, s)
	for _, command := range []bson.D{insert, find} {
		c.send(command)
		if got := c.answer(); !bytes.Equal(got, encode(answer)) {
			t.Errorf("%v was answered %s", command, got)
		}
	}
	if name := f.next(t); name != "find" {
		t.Errorf("the server got %s", name)
	}
	f.untouched(t)
}

func TestFailOfAnOldHello(t *testing.T) {
	s := mongotest.StartAt(t, newFake(t).uri(), nil)
	s.Inject(mongotest.Fault{Command: "hello", Action: mongotest.Fail(91, "ShutdownInProgress", "going down")})
	c := dial(t, s)
	c.id++
	c.write(query(c.id, encode(doc("isMaster", 1))))
	if got := c.answer(); got.Lookup("code").Int32() != 91 {
		t.Errorf("got %s", got)
	}
}

func TestHoldAndDelayEndWithTheFault(t *testing.T) {
	for name, action := range map[string]mongotest.Action{"Hold": mongotest.Hold, "Delay": mongotest.Delay(time.Hour)} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			s := mongotest.StartAt(t, f.uri(), nil)
			hit := make(chan struct{}, 2)
			hits, remove := s.Inject(mongotest.Fault{Action: action, Times: 2, OnHit: func() { hit <- struct{}{} }})
			one, two := dial(t, s), dial(t, s)
			one.send(insert)
			two.send(insert)
			<-hit
			<-hit
			f.untouched(t)
			remove()
			remove()
			one.answer()
			two.answer()
			if hits() != 2 {
				t.Errorf("%d hits", hits())
			}
		})
	}
}

func TestDelayEndsByItself(t *testing.T) {
	f := newFake(t)
	s := mongotest.StartAt(t, f.uri(), nil)
	const while = 20 * time.Millisecond
	s.Inject(mongotest.Fault{Action: mongotest.Delay(while)})
	c := dial(t, s)
	began := time.Now()
	c.do(insert)
	if took := time.Since(began); took < while {
		t.Errorf("took %v", took)
	}
}

func TestFaultsMatch(t *testing.T) {
	commands := []bson.D{hello, doc("isMaster", 1), ping, doc("endSessions", bson.A{}), insert, find,
		doc("insert", "sessions"), doc("getMore", int64(7), "collection", "sessions"), insert}
	tests := []struct {
		name  string
		fault mongotest.Fault
		want  string // a digit for each of the commands: 1 where the fault is to happen
	}{
		{"the first", mongotest.Fault{}, "000010000"},
		{"any", mongotest.Fault{Times: -1}, "000011111"},
		{"by name", mongotest.Fault{Command: "insert", Times: -1}, "000010101"},
		{"by collection", mongotest.Fault{Collection: "sessions", Times: -1}, "000000110"},
		{"by both", mongotest.Fault{Command: "insert", Collection: "messages", Times: -1}, "000010001"},
		{"hello by any of its names", mongotest.Fault{Command: "isMaster", Times: -1}, "110000000"},
		{"ping, where it is named", mongotest.Fault{Command: "ping", Times: -1}, "001000000"},
		{"some", mongotest.Fault{Times: 2}, "000011000"},
		{"not the first", mongotest.Fault{Skip: 1}, "000001000"},
		{"some of one name, later", mongotest.Fault{Command: "insert", Skip: 1, Times: 5}, "000000101"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := mongotest.StartAt(t, newFake(t).uri(), nil)
			test.fault.Action = mongotest.Fail(8, "UnknownError", "a fault")
			hits, _ := s.Inject(test.fault)
			c := dial(t, s)
			got, want := "", 0
			for i, command := range commands {
				c.send(command)
				if ok := c.answer().Lookup("ok").AsFloat64(); ok == 0 {
					got += "1"
				} else {
					got += "0"
				}
				want += int(test.want[i] - '0')
			}
			if got != test.want || hits() != want {
				t.Errorf("got %s and %d hits, not %s", got, hits(), test.want)
			}
		})
	}
}

func TestTheOldestOfSeveralFaultsHappens(t *testing.T) {
	s := mongotest.StartAt(t, newFake(t).uri(), nil)
	s.Inject(mongotest.Fault{Command: "insert", Action: mongotest.Fail(1, "First", "the first")})
	s.Inject(mongotest.Fault{Times: -1, Action: mongotest.Fail(2, "Second", "the second")})
	c := dial(t, s)
	for i, want := range []int32{1, 2, 2} {
		c.send(insert)
		if got := c.answer(); got.Lookup("code").Int32() != want {
			t.Errorf("%d: got %s", i, got)
		}
	}
}

func TestAFaultIsGoneOnceItIsRemoved(t *testing.T) {
	s := mongotest.StartAt(t, newFake(t).uri(), nil)
	hits, remove := s.Inject(mongotest.Fault{Times: -1, Action: mongotest.DropBefore})
	remove()
	dial(t, s).do(insert)
	if hits() != 0 {
		t.Errorf("%d hits", hits())
	}
}
