package ratelimit_test

import (
	"io"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/parley-chat/parley/internal/ratelimit"
)

// model is the limiter as one would write it without a thought of what it costs.
type model struct {
	limit  int
	window time.Duration
	events map[string][]time.Time
}

// within gives the events of a key that are in the window after d from now.
func (m *model) within(key string, d time.Duration) []time.Time {
	return slices.DeleteFunc(slices.Clone(m.events[key]), func(t time.Time) bool { return time.Since(t)+d >= m.window })
}

func (m *model) allowed(key string) bool { return len(m.within(key, 0)) < m.limit }

func (m *model) decision(key string, allowed bool) ratelimit.Decision {
	now := m.within(key, 0)
	d := ratelimit.Decision{
		Allowed: allowed, Limit: m.limit, Remaining: max(0, m.limit-len(now)), Window: m.window,
	}
	if len(now) > 0 {
		d.Reset = m.window - time.Since(now[len(now)-1])
	}
	if !allowed {
		d.RetryAfter = m.window
		for _, t := range now {
			if leaves := m.window - time.Since(t); len(m.within(key, leaves)) < m.limit {
				d.RetryAfter = leaves
				break
			}
		}
	}
	return d
}

func (m *model) Allow(key string) ratelimit.Decision {
	allowed := m.allowed(key)
	if allowed {
		m.events[key] = append(m.events[key], time.Now())
	}
	return m.decision(key, allowed)
}

func (m *model) Check(key string) ratelimit.Decision { return m.decision(key, m.allowed(key)) }

func (m *model) Charge(key string) ratelimit.Decision {
	allowed := m.allowed(key)
	if m.limit > 0 {
		now := append(m.within(key, 0), time.Now())
		m.events[key] = now[max(0, len(now)-m.limit):]
	}
	return m.decision(key, allowed)
}

func (m *model) SetRate(limit int, window time.Duration) {
	for key := range m.events {
		m.events[key] = m.within(key, 0)
	}
	m.limit, m.window = limit, window
}

func (m *model) keys() int {
	n := 0
	for key := range maps.Keys(m.events) {
		if len(m.within(key, 0)) > 0 {
			n++
		}
	}
	return n
}

func TestLimiterDecidesAsTheModelDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { rapid.Check(timeless{t}, againstModel) })
}

// timeless hides the test's deadline, for which one must not ask in a bubble.
type timeless struct{ rapid.TB }

func againstModel(t *rapid.T) {
	rates := func(t *rapid.T) (int, time.Duration) {
		return rapid.IntRange(0, 6).Draw(t, "limit"), time.Duration(rapid.IntRange(1, 40).Draw(t, "window"))
	}
	limit, window := rates(t)
	m := &model{limit: limit, window: window, events: make(map[string][]time.Time)}
	interval := time.Duration(rapid.IntRange(1, 100).Draw(t, "interval"))
	l := ratelimit.New[string](config(limit, window, interval, io.Discard))
	defer l.Stop()
	key := rapid.SampledFrom([]string{"a", "b", "c", "d"})
	decide := func(name string, real, model func(string) ratelimit.Decision) func(*rapid.T) {
		return func(t *rapid.T) {
			k := key.Draw(t, "key")
			if got, want := real(k), model(k); got != want {
				t.Fatalf("%s(%s) gives %+v, want %+v", name, k, got, want)
			}
		}
	}
	t.Repeat(map[string]func(*rapid.T){
		"allow":  decide("Allow", l.Allow, m.Allow),
		"allow2": decide("Allow", l.Allow, m.Allow),
		"check":  decide("Check", l.Check, m.Check),
		"charge": decide("Charge", l.Charge, m.Charge),
		"advance": func(t *rapid.T) {
			time.Sleep(time.Duration(rapid.IntRange(1, 50).Draw(t, "by")))
		},
		"advance to a boundary": func(t *rapid.T) {
			d := m.Check(key.Draw(t, "key"))
			early := time.Duration(rapid.IntRange(0, 1).Draw(t, "early"))
			time.Sleep(max(0, rapid.SampledFrom([]time.Duration{d.RetryAfter, d.Reset, m.window}).Draw(t, "by")-early))
		},
		"rate": func(t *rapid.T) {
			limit, window := rates(t)
			l.SetRate(limit, window)
			m.SetRate(limit, window)
		},
		"cleanup": func(t *rapid.T) {
			if got, want := l.Cleanup().Keys, m.keys(); got != want {
				t.Fatalf("a cleanup leaves %d keys, want %d", got, want)
			}
		},
	})
}
