package ratelimit_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/internal/ratelimit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(limit int, window, interval time.Duration, log io.Writer) ratelimit.Config {
	return ratelimit.Config{
		Name: "requests", Limit: limit, Window: window, CleanupInterval: interval,
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// newLimiter makes a limiter that stops with the test.
func newLimiter[K comparable](t testing.TB, limit int, window time.Duration) *ratelimit.Limiter[K] {
	l := ratelimit.New[K](config(limit, window, time.Hour, io.Discard))
	t.Cleanup(l.Stop)
	return l
}

func TestLimitHoldsInEveryWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter[string](t, 2, time.Minute)
		want := func(what string, got, want ratelimit.Decision) {
			t.Helper()
			want.Limit, want.Window = 2, time.Minute
			if got != want {
				t.Errorf("%s: %+v, want %+v", what, got, want)
			}
		}
		want("the first", l.Allow("a"), ratelimit.Decision{Allowed: true, Remaining: 1, Reset: time.Minute})
		time.Sleep(20 * time.Second)
		want("the second", l.Allow("a"), ratelimit.Decision{Allowed: true, Reset: time.Minute})
		want("the third", l.Allow("a"), ratelimit.Decision{RetryAfter: 40 * time.Second, Reset: time.Minute})
		want("another key", l.Allow("b"), ratelimit.Decision{Allowed: true, Remaining: 1, Reset: time.Minute})
		time.Sleep(40*time.Second - 1)
		want("too early", l.Check("a"), ratelimit.Decision{RetryAfter: 1, Reset: 20*time.Second + 1})
		time.Sleep(time.Nanosecond)
		want("in time", l.Check("a"), ratelimit.Decision{Allowed: true, Remaining: 1, Reset: 20 * time.Second})
		want("in time", l.Allow("a"), ratelimit.Decision{Allowed: true, Reset: time.Minute})
		want("again", l.Allow("a"), ratelimit.Decision{RetryAfter: 20 * time.Second, Reset: time.Minute})
		if got, want := l.Stats(), (ratelimit.Stats{Keys: 2, Allowed: 4, Refused: 3}); got != want {
			t.Errorf("the figures are %+v, want %+v", got, want)
		}
	})
}

func TestChargeTakesThePlaceOfTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter[string](t, 2, time.Minute)
		for i, want := range []ratelimit.Decision{
			{Allowed: true, Remaining: 1, Reset: time.Minute},
			{Allowed: true, Reset: time.Minute},
			{RetryAfter: 50 * time.Second, Reset: time.Minute},
			{RetryAfter: 50 * time.Second, Reset: time.Minute},
		} {
			want.Limit, want.Window = 2, time.Minute
			if got := l.Charge("a"); got != want {
				t.Errorf("charge %d: %+v, want %+v", i, got, want)
			}
			time.Sleep(10 * time.Second)
		}
	})
}

func TestNothingIsAllowedUnderALimitOfNothing(t *testing.T) {
	l := newLimiter[string](t, 0, time.Minute)
	for _, decide := range []func(string) ratelimit.Decision{l.Allow, l.Check, l.Charge} {
		if d := decide("a"); d.Allowed || d.RetryAfter != time.Minute || d.Remaining != 0 {
			t.Errorf("it decides %+v", d)
		}
	}
	if s := l.Stats(); s.Keys != 0 {
		t.Errorf("it holds %+v", s)
	}
}

func TestRateChangesWhileItIsInUse(t *testing.T) {
	l := newLimiter[int](t, 10, time.Minute)
	var users sync.WaitGroup
	for g := range 4 {
		users.Go(func() {
			for i := range 2000 {
				l.Allow(i % 7)
				l.Check(g)
				l.Charge(i % 3)
			}
		})
	}
	for i := range 200 {
		l.SetRate(1+i%20, time.Duration(1+i%3)*time.Millisecond)
		l.SetCleanupInterval(time.Duration(1+i%3) * time.Millisecond)
		l.Cleanup()
		l.Stats()
	}
	users.Wait()
}

// Of many at once exactly so many pass as may.
func TestConcurrentEventsAreCountedExactly(t *testing.T) {
	const limit, goroutines, each = 1000, 16, 500
	l := newLimiter[string](t, limit, time.Hour)
	var allowed [3]atomic.Int64
	var users sync.WaitGroup
	for range goroutines {
		users.Go(func() {
			for i := range each * len(allowed) {
				if l.Allow([]string{"a", "b", "c"}[i%len(allowed)]).Allowed {
					allowed[i%len(allowed)].Add(1)
				}
			}
		})
	}
	users.Wait()
	for i := range allowed {
		if n := allowed[i].Load(); n != limit {
			t.Errorf("of key %d %d are allowed, want %d", i, n, limit)
		}
	}
	want := ratelimit.Stats{Keys: 3, Allowed: 3 * limit, Refused: 3 * (goroutines*each - limit)}
	if got := l.Stats(); got != want {
		t.Errorf("the figures are %+v, want %+v", got, want)
	}
}

func TestKnownKeyAllocatesNothing(t *testing.T) {
	names := newLimiter[string](t, 8, time.Nanosecond)
	addresses := newLimiter[netip.Prefix](t, 8, time.Hour)
	prefix := netip.MustParsePrefix("2001:db8::/64")
	for range 100 {
		names.Allow("alice")
		addresses.Charge(prefix)
	}
	if n := testing.AllocsPerRun(1000, func() { names.Allow("alice"); names.Check("alice") }); n != 0 {
		t.Errorf("a known name costs %v allocations", n)
	}
	if n := testing.AllocsPerRun(1000, func() { addresses.Allow(prefix); addresses.Charge(prefix) }); n != 0 {
		t.Errorf("a known address costs %v allocations", n)
	}
}

// logged is a log that several goroutines write and a test reads.
type logged struct {
	mu  sync.Mutex // guards the field below
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
