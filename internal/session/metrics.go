package session

import (
	"cmp"
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-chat/parley/chat"
)

// metrics are what the manager counts. Their labels hold what is configured, and outcomes: they are bounded.
type metrics struct {
	messages   *prometheus.CounterVec
	responses  *prometheus.CounterVec
	failures   *prometheus.CounterVec
	firstToken *prometheus.HistogramVec
	whole      *prometheus.HistogramVec
	lost       prometheus.Counter
}

// What stands for a provider where nobody was asked, and for a model that is not configured any more.
const (
	noProvider   = "none"
	unknownModel = "unknown"
)

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	seconds := func(name, help string, buckets ...float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{"model"})
	}
	m := &metrics{
		messages: counter("parley_messages_stored_total", "Messages that the storage took, by role; a response when it begins.", "role"),
		responses: counter("parley_responses_total", "Responses that have ended, by how.",
			"status", "model", "provider"),
		failures: counter("parley_response_failures_total", "Responses that failed, by the error's code.", "code"),
		firstToken: seconds("parley_response_first_token_seconds", "Time from the request to the first token.",
			0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 40),
		whole: seconds("parley_response_seconds", "Time from the request to the end of a complete response.",
			0.5, 1, 2, 5, 10, 20, 40, 80, 160),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_sessions_lost_total",
			Help: "Sessions that were given up: the journal failed, or another server took them, or they were erased.",
		}),
	}
	// These are there from the start: what appears with its first event has risen from nothing.
	for _, role := range []chat.Role{chat.RoleUser, chat.RoleAssistant, chat.RoleAgent, chat.RoleSystem} {
		m.messages.WithLabelValues(string(role))
	}
	for _, code := range []chat.Code{
		chat.CodeLLMUnavailable, chat.CodeLLMTimeout, chat.CodeLLMRejected, chat.CodeContentFiltered,
		chat.CodeStorageUnavailable, chat.CodeInternal,
	} {
		m.failures.WithLabelValues(string(code))
	}
	return m
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.messages, m.responses, m.failures, m.firstToken, m.whole, m.lost}
}

// Describe implements [prometheus.Collector].
func (m *Manager) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.metrics.all() {
		c.Describe(ch)
	}
}

// Collect implements [prometheus.Collector].
func (m *Manager) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.metrics.all() {
		c.Collect(ch)
	}
}

// insertMessage stores a new message, and counts it.
func (m *Manager) insertMessage(ctx context.Context, sessionID string, by chat.Claim, msg chat.Message) error {
	err := m.store.InsertMessage(ctx, sessionID, by, msg)
	if err == nil {
		m.metrics.messages.WithLabelValues(string(msg.Role)).Inc()
	}
	return err
}

// count counts a response that has ended.
func (t *turn) count(final chat.Message) {
	m, model := t.session.manager.metrics, final.Model
	if !t.session.manager.models.Has(model) {
		model = unknownModel // the session is older than the configuration
	}
	m.responses.WithLabelValues(string(final.Status), model, cmp.Or(final.Provider, noProvider)).Inc()
	if final.Error != nil {
		m.failures.WithLabelValues(string(final.Error.Code)).Inc()
	}
	if t.firstToken > 0 {
		m.firstToken.WithLabelValues(model).Observe(t.firstToken.Seconds())
	}
	if final.Status == chat.StatusComplete {
		m.whole.WithLabelValues(model).Observe(float64(final.DurationMS) / 1000)
	}
}
