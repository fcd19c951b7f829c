package websocket

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/router"
)

// metrics are what the handler counts. Their labels hold codes of the protocol, of which there are a few: those that
// clients make up are one.
type metrics struct {
	opened  prometheus.Counter
	refused *prometheus.CounterVec
	closed  *prometheus.CounterVec
	stuck   prometheus.Counter
	errors  *prometheus.CounterVec
	deltas  prometheus.Counter
	frames  prometheus.Counter // that carried them
}

// codeUpgradeFailed stands for a request that was let in, and whose connection was lost before it was one.
const codeUpgradeFailed chat.Code = "upgrade_failed"

// refusals are the codes that an upgrade may be refused with.
var refusals = []chat.Code{
	chat.CodeInvalidRequest, chat.CodeServerDraining, chat.CodeRateLimited, chat.CodeOriginForbidden,
	chat.CodeUnauthenticated, chat.CodeConnectionLimit, chat.CodeInternal, codeUpgradeFailed,
}

// What a connection ended with that has no code on the wire (RFC 6455 §7.4.1), and what clients closed with that the
// protocol has no meaning for.
const (
	closedNormally  = 1000
	closedGoingAway = 1001
	closedNoStatus  = 1005
	closedLost      = 1006
	closedOther     = "other"
)

// serverCodes are the close codes that the server gives.
var serverCodes = []int{
	closeProtocolError, closeUnsupported, closeInvalidUTF8, closePolicy, closeTooBig, router.CloseRestart,
	router.CloseTokenExpired, router.CloseForbidden, closeUnresponsive, router.CloseReplaced, router.CloseSessionEnded,
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	byCode := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"code"})
	}
	m := &metrics{
		opened:  counter("parley_connections_opened_total", "WebSocket connections that were opened."),
		refused: byCode("parley_connections_refused_total", "Upgrades that were refused, by the error's code."),
		closed:  byCode("parley_connections_closed_total", "WebSocket connections that have ended, by the close code."),
		stuck:   counter("parley_slow_readers_closed_total", "Connections closed because their client took nothing."),
		errors:  byCode("parley_frame_errors_total", "Frames of clients that were answered with an error, by its code."),
		deltas:  counter("parley_deltas_sent_total", "Pieces of responses that were sent, by themselves or joined."),
		frames:  counter("parley_delta_frames_sent_total", "Frames that carried pieces of responses."),
	}
	// All are there from the start: what appears with its first event has risen from nothing.
	for _, code := range refusals {
		m.refused.WithLabelValues(string(code))
	}
	for _, code := range append([]int{closedNormally, closedGoingAway, closedNoStatus, closedLost}, serverCodes...) {
		m.closed.WithLabelValues(strconv.Itoa(code))
	}
	m.closed.WithLabelValues(closedOther)
	for _, code := range []chat.Code{chat.CodeInternal, chat.CodeStorageUnavailable, chat.CodeRateLimited} {
		m.errors.WithLabelValues(string(code))
	}
	return m
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.opened, m.refused, m.closed, m.stuck, m.errors, m.deltas, m.frames}
}

// Describe implements [prometheus.Collector].
func (h *Handler) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range h.metrics.all() {
		c.Describe(ch)
	}
}

// Collect implements [prometheus.Collector].
func (h *Handler) Collect(ch chan<- prometheus.Metric) {
	for _, c := range h.metrics.all() {
		c.Collect(ch)
	}
}

// ended counts a connection that has ended with a close frame; nil: without one.
func (m *metrics) ended(f *closeFrame) {
	m.closed.WithLabelValues(f.label()).Inc()
}

// label names what a connection ended with. A client may close with some two thousand codes, of which two say something.
func (f *closeFrame) label() string {
	switch {
	case f == nil:
		return strconv.Itoa(closedLost)
	case f.code == 0:
		return strconv.Itoa(closedNoStatus)
	case f.byClient && f.code != closedNormally && f.code != closedGoingAway:
		return closedOther
	}
	return strconv.Itoa(f.code)
}

// tally is what one gathering of frames carried.
type tally struct{ deltas, frames int64 }

// add adds an event: one frame may carry a run of deltas.
func (s *tally) add(e *chat.Event) {
	if _, ok := e.Body.(chat.MessageDelta); ok {
		s.deltas += e.Seq - e.From + 1
		s.frames++
	}
}

func (m *metrics) count(s tally) {
	if s.frames > 0 {
		m.deltas.Add(float64(s.deltas))
		m.frames.Add(float64(s.frames))
	}
}
