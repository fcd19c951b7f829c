package websocket

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/router"
)

// A client may close with any of two thousand codes: they make no series of their own.
func TestCloseCodesAreFew(t *testing.T) {
	m := newMetrics()
	for code := range 5000 {
		m.ended(&closeFrame{code: code, byClient: true})
	}
	m.ended(nil)
	for _, code := range serverCodes {
		m.ended(&closeFrame{code: code})
	}
	series := make(chan prometheus.Metric, 5000)
	m.closed.Collect(series)
	if got, most := len(series), len(serverCodes)+5; got != most {
		t.Errorf("there are %d series, want %d", got, most)
	}
	for want, f := range map[string]*closeFrame{
		"1006": nil, "1005": {byClient: true}, "1000": {code: 1000, byClient: true}, "1001": {code: 1001, byClient: true},
		"other": {code: router.CloseReplaced, byClient: true}, "4409": {code: router.CloseReplaced},
	} {
		if got := f.label(); got != want {
			t.Errorf("%+v is told as %s, want %s", f, got, want)
		}
	}
}

func TestJoinedDeltasAreCounted(t *testing.T) {
	var c tally
	for _, e := range []*chat.Event{
		{From: 1, Seq: 1, Body: chat.MessageCreated{}},
		{From: 2, Seq: 2, Body: chat.MessageDelta{}},
		{From: 3, Seq: 9, Body: chat.MessageDelta{}},
		{From: 10, Seq: 10, Body: chat.MessageCompleted{}},
	} {
		c.add(e)
	}
	if want := (tally{deltas: 8, frames: 2}); c != want {
		t.Errorf("they are %+v, want %+v", c, want)
	}
	if n := testing.AllocsPerRun(100, func() { c.add(&chat.Event{From: 1, Seq: 1}) }); n > 0 {
		t.Errorf("counting one allocates %v times", n)
	}
}
