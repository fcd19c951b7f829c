package llm

import (
	"log/slog"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
)

// Breaker is when a target is not asked any more: after so many failures in a row, for so long. Then one request may
// try it; its first token closes the breaker.
type Breaker struct {
	Failures int // below 1: 1
	Delay    time.Duration
}

// target is a [Target] in the pool.
type target struct {
	Target
	breaker circuitbreaker.CircuitBreaker[any]
	metrics *metrics
	log     *slog.Logger
}

func newTarget(t Target, b Breaker, m *metrics, log *slog.Logger) *target {
	log = log.With("provider", t.ProviderID, "target", t.Model)
	breaker := circuitbreaker.NewBuilder[any]().
		WithFailureThreshold(uint(max(b.Failures, 1))).
		WithSuccessThreshold(1).
		WithDelay(b.Delay).
		OnStateChanged(func(e circuitbreaker.StateChangedEvent) {
			m.setBreaker(t, e.NewState)
			log.Warn("a circuit breaker changed", "from", e.OldState.String(), "to", e.NewState.String())
		}).
		Build()
	m.begin(t)
	return &target{Target: t, breaker: breaker, metrics: m, log: log}
}

// settle tells the breaker what became of a request that it admitted. begun: there was a first token; trial: the breaker
// was half-open, and has not been told of one.
func (t *target) settle(o outcome, begun, trial bool) {
	switch {
	case !trial && t.breaker.IsHalfOpen():
		// The trial alone decides; this request is from before.
	case o == outcomeUnavailable, o.isTimeout() && (!begun || o != outcomeOverlong):
		t.breaker.RecordFailure()
	case begun, o != outcomeCancelled:
		t.breaker.RecordSuccess() // whoever refuses is there, too
	case trial:
		// Nobody waited for the trial. The next one may come after the delay; without a word there would be none.
		t.breaker.RecordFailure()
	}
}
