package llm

import (
	"errors"
	"strings"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

// metrics are what the pool counts. Their labels hold what is configured, and outcomes: they are bounded.
type metrics struct {
	attempts *prometheus.CounterVec
	retries  *prometheus.CounterVec
	hedges   *prometheus.CounterVec
	breaker  *prometheus.GaugeVec
	tokens   *prometheus.CounterVec
	cost     *prometheus.CounterVec
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &metrics{
		attempts: counter("parley_llm_requests_total", "Requests to providers, by what became of them.",
			"provider", "target", "outcome"),
		retries: counter("parley_llm_retries_total", "Requests that repeat one which failed before its first token.",
			"provider", "target"),
		hedges: counter("parley_llm_hedges_total", "Requests that were sent because another took its time.",
			"provider", "target"),
		breaker: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "parley_llm_breaker_state", Help: "1 for the present state of a target's circuit breaker, 0 for the others.",
		}, []string{"provider", "target", "state"}),
		tokens: counter("parley_llm_tokens_total", "Tokens of responses, the estimated ones included.", "model", "kind"),
		cost:   counter("parley_llm_cost_total", "Price of responses, in the unit of the configured prices.", "model"),
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.attempts, m.retries, m.hedges, m.breaker, m.tokens, m.cost}
}

// Describe implements [prometheus.Collector].
func (p *Pool) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range p.metrics.all() {
		c.Describe(ch)
	}
}

// Collect implements [prometheus.Collector].
func (p *Pool) Collect(ch chan<- prometheus.Metric) {
	for _, c := range p.metrics.all() {
		c.Collect(ch)
	}
}

func (m *metrics) setBreaker(t Target, state circuitbreaker.State) {
	for _, s := range []circuitbreaker.State{
		circuitbreaker.ClosedState, circuitbreaker.HalfOpenState, circuitbreaker.OpenState,
	} {
		value := 0.0
		if s == state {
			value = 1
		}
		m.breaker.WithLabelValues(t.ProviderID, t.Model, strings.ReplaceAll(s.String(), "-", "_")).Set(value)
	}
}

// begin has the figures of a target from the start: what appears with its first event has risen from nothing.
func (m *metrics) begin(t Target) {
	m.setBreaker(t, circuitbreaker.ClosedState)
	m.retries.WithLabelValues(t.ProviderID, t.Model)
	m.hedges.WithLabelValues(t.ProviderID, t.Model)
	for _, o := range []outcome{outcomeComplete, outcomeUnavailable, outcomeRejected, outcomeError} {
		m.attempts.WithLabelValues(t.ProviderID, t.Model, string(o))
	}
}

// beginModel is begin for a model's.
func (m *metrics) beginModel(model Model) {
	m.tokens.WithLabelValues(model.ID, "input")
	m.tokens.WithLabelValues(model.ID, "output")
	if model.Price.Input > 0 || model.Price.Output > 0 {
		m.cost.WithLabelValues(model.ID)
	}
}

// outcome is what became of an attempt, as metrics and the log call it.
type outcome string

const (
	outcomeComplete    outcome = "complete"
	outcomeCancelled   outcome = "cancelled"
	outcomeUnavailable outcome = "unavailable"
	outcomeRejected    outcome = "rejected"
	outcomeFiltered    outcome = "filtered"
	outcomeError       outcome = "error"
	outcomeOverlong    outcome = timeoutPrefix + upstream.LimitStream
)

// timeoutPrefix stands before the limit that was exceeded.
const timeoutPrefix = "timeout_"

func (o outcome) isTimeout() bool { return strings.HasPrefix(string(o), timeoutPrefix) }

// outcomeOf names what an attempt ended with. What is no [chat.Error] is the end of its context, or of its reader.
func outcomeOf(err error) outcome {
	if err == nil {
		return outcomeComplete
	}
	if timeout, ok := errors.AsType[*upstream.Timeout](err); ok {
		return outcome(timeoutPrefix + timeout.Limit)
	}
	shown, ok := errors.AsType[*chat.Error](err)
	if !ok {
		return outcomeCancelled
	}
	switch shown.Code {
	case chat.CodeLLMUnavailable, chat.CodeLLMTimeout:
		return outcomeUnavailable
	case chat.CodeLLMRejected:
		return outcomeRejected
	case chat.CodeContentFiltered:
		return outcomeFiltered
	}
	return outcomeError
}

// maxTokens is more than any response costs.
const maxTokens = 1 << 30

// plausible gives a usage as it can be: what an upstream says is its own, and sums are made of it.
func plausible(u chat.Usage) *chat.Usage {
	u.InputTokens = min(max(u.InputTokens, 0), maxTokens)
	u.OutputTokens = min(max(u.OutputTokens, 0), maxTokens)
	return &u
}

// Account counts what a response cost, and returns its price in millionths of the unit of the model's prices: 0 where
// it has none.
func (p *Pool) Account(modelID string, u chat.Usage) (costMicros int64) {
	m := p.model(modelID)
	if m == nil {
		return 0 // not configured any more
	}
	p.metrics.tokens.WithLabelValues(m.ID, "input").Add(float64(u.InputTokens))
	p.metrics.tokens.WithLabelValues(m.ID, "output").Add(float64(u.OutputTokens))
	// A price for a million tokens is so many millionths for one.
	cost := float64(u.InputTokens)*m.Price.Input + float64(u.OutputTokens)*m.Price.Output
	if cost > 0 {
		p.metrics.cost.WithLabelValues(m.ID).Add(cost / 1e6)
	}
	return int64(cost + 0.5)
}
