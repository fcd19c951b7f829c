// Package retry makes a [chat.Store] that a network lies before as good as one that it does not: what fails for a moment
// is tried again, and a write that was done although its answer was lost is recognised.
package retry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-chat/parley/chat"
)

// Policy says how often and when an operation is tried again. Durations are positive.
type Policy struct {
	MaxAttempts    int           // of an operation, the first included
	InitialBackoff time.Duration // the longest wait before the second attempt; it doubles with each further one
	MaxBackoff     time.Duration // and does not exceed this
	AttemptTimeout time.Duration // of one attempt: a store that hangs is asked again
	Deadline       time.Duration // of all attempts and waits together
}

// The policy's parts that nobody has needed to configure.
const (
	AttemptTimeout = 3 * time.Second
	Deadline       = 10 * time.Second
)

var _ chat.Store = (*Store)(nil)

// Store is a [chat.Store] that tries again. While the store below is down, which it is from when an operation has used
// up its attempts until one succeeds, each operation gets one attempt: so nobody waits long for what will not come, and
// it is noticed when it does.
type Store struct {
	store     chat.Store
	policy    Policy
	transient func(error) bool
	log       *slog.Logger
	down      atomic.Bool
	unwritten atomic.Pointer[error] // why the last write failed for good, as on a full disk; nil: it did not
	retries   *prometheus.CounterVec
	failures  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
}

// New makes a Store on top of another one. transient reports whether an error of that may be gone at the next attempt.
func New(store chat.Store, policy Policy, transient func(error) bool, log *slog.Logger) *Store {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"operation"})
	}
	s := &Store{
		store: store, policy: policy, transient: transient, log: log,
		retries:  counter("parley_storage_retries_total", "Attempts that repeat a failed one, by the operation."),
		failures: counter("parley_storage_failures_total", "Operations that failed although they were repeated."),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "parley_storage_operation_seconds", Help: "Time that an operation took, with its attempts and the waits between them.",
			Buckets: []float64{0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10},
		}, []string{"operation"}),
	}
	for m := range reflect.TypeFor[chat.Store]().Methods() {
		if m.Name != "ID" && m.Name != "Close" { // which are no operations
			// From the start: what appears with its first event has risen from nothing.
			s.retries.WithLabelValues(m.Name)
			s.failures.WithLabelValues(m.Name)
		}
	}
	return s
}

// Open opens a store, and tries again where that fails for a moment. One attempt may take all of the policy's time.
func Open(
	ctx context.Context, policy Policy, transient func(error) bool, log *slog.Logger,
	open func(ctx context.Context) (chat.Store, error),
) (chat.Store, error) {
	policy.AttemptTimeout = policy.Deadline
	return given(ctx, New(nil, policy, transient, log), "Open", open)
}

var downDesc = prometheus.NewDesc("parley_storage_down", "1 while the storage cannot be reached, or takes nothing, else 0.", nil, nil)

// Describe implements [prometheus.Collector].
func (s *Store) Describe(ch chan<- *prometheus.Desc) {
	s.retries.Describe(ch)
	s.failures.Describe(ch)
	s.seconds.Describe(ch)
	ch <- downDesc
}

// Collect implements [prometheus.Collector].
func (s *Store) Collect(ch chan<- prometheus.Metric) {
	s.retries.Collect(ch)
	s.failures.Collect(ch)
	s.seconds.Collect(ch)
	down := 0.0
	if s.down.Load() || s.unwritten.Load() != nil {
		down = 1
	}
	ch <- prometheus.MustNewConstMetric(downDesc, prometheus.GaugeValue, down)
}

// operation is something that is done to the store. check is nil, or says what it means that a repetition, after an
// attempt of which it is not known whether it was done, ended with one of the contract's errors: nil where it was done.
type operation[T any] struct {
	name  string
	write bool
	do    func(ctx context.Context) (T, error)
	check func(ctx context.Context, err error) error
}

// run tries an operation until it succeeds, fails for good, or has used up its attempts or its time. Then the error is
// that of the last attempt.
func run[T any](ctx context.Context, s *Store, op operation[T]) (T, error) {
	whole, cancel := context.WithTimeout(ctx, s.policy.Deadline)
	defer cancel()
	defer s.time(op.name, time.Now())
	for n := 1; ; n++ {
		v, err := attempt(whole, s, op.do)
		if err == nil || !s.mayPass(whole, err) {
			if n > 1 && isContract(err) && op.check != nil {
				err = op.check(whole, err)
			}
			switch {
			case err == nil || isContract(err):
				s.reached(op.name)
				if op.write {
					s.unwritten.Store(nil)
				}
			case op.write && whole.Err() == nil:
				s.unwritten.Store(&err)
			}
			return v, err
		}
		if n >= s.policy.MaxAttempts || s.down.Load() || !s.wait(whole, op.name, n, err) {
			return v, s.failed(ctx, op.name, n, err)
		}
	}
}

// time observes how long an operation took that began at a time.
func (s *Store) time(operation string, started time.Time) {
	s.seconds.WithLabelValues(operation).Observe(time.Since(started).Seconds())
}

// attempt does something once, within the time for that.
func attempt[T any](ctx context.Context, s *Store, do func(ctx context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, s.policy.AttemptTimeout)
	defer cancel()
	return do(ctx)
}

// mayPass reports whether an attempt failed for a reason that may be gone at the next: its own time was up, as opposed
// to the caller's patience, or it is of that kind.
func (s *Store) mayPass(whole context.Context, err error) bool {
	if isContract(err) || errors.Is(whole.Err(), context.Canceled) {
		return false
	}
	return errors.Is(err, context.DeadlineExceeded) || s.transient(err)
}

func isContract(err error) bool {
	return errors.Is(err, chat.ErrExists) || errors.Is(err, chat.ErrStale) || errors.Is(err, chat.ErrNotFound)
}

// backoff gives how long to wait after the n-th attempt: with full jitter, so that those who failed together do not come
// back together (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
func (p Policy) backoff(n int) time.Duration {
	most := p.InitialBackoff
	for range n - 1 {
		if most = 2 * most; most >= p.MaxBackoff {
			break
		}
	}
	return rand.N(min(most, p.MaxBackoff) + 1)
}

// wait waits before the attempt after the n-th; false: there is no time left for one.
func (s *Store) wait(ctx context.Context, name string, n int, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	delay := s.policy.backoff(n)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= delay {
		return false
	}
	s.log.Warn("an operation of the storage is tried again", "operation", name, "attempt", n, "delay", delay.String(),
		"error", err)
	s.retries.WithLabelValues(name).Inc()
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// failed notes that an operation is given up. That a single attempt took longer than the caller's patience says little
// about the store.
func (s *Store) failed(ctx context.Context, name string, n int, err error) error {
	s.failures.WithLabelValues(name).Inc()
	if (n > 1 || ctx.Err() == nil) && !s.down.Swap(true) {
		s.log.Error("the storage cannot be reached", "operation", name, "attempts", n, "error", err)
	}
	if n == 1 {
		return err
	}
	return fmt.Errorf("after %d attempts: %w", n, err)
}

// reached notes that the store has answered.
func (s *Store) reached(name string) {
	if s.down.Load() && s.down.Swap(false) {
		s.log.Info("the storage can be reached again", "operation", name)
	}
}
