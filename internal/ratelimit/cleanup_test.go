package ratelimit_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/internal/ratelimit"
)

// cleaning makes a limiter of 3 a minute that cleans up in an interval, with what it logs.
func cleaning(t *testing.T, interval time.Duration) (*ratelimit.Limiter[string], *logged) {
	log := &logged{}
	l := ratelimit.New[string](config(3, time.Minute, interval, log))
	t.Cleanup(l.Stop)
	return l, log
}

func TestR11_1_OldEventsAreCleanedUpPeriodically(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, log := cleaning(t, 10*time.Second)
		for round := range 3 {
			l.Allow("alice")
			time.Sleep(time.Minute - 1)
			synctest.Wait()
			if got := l.Stats().Keys; got != 1 {
				t.Fatalf("round %d: before the window has passed %d keys are held", round, got)
			}
			time.Sleep(10*time.Second + 1)
			synctest.Wait()
			if got := l.Stats().Keys; got != 0 {
				t.Errorf("round %d: nobody has cleaned up: %d keys are held", round, got)
			}
		}
		if got := strings.Count(log.String(), "rate limiter cleaned up"); got != 21 {
			t.Errorf("in 210 seconds it has cleaned up %d times", got)
		}
	})
}

func TestR11_2_TheIntervalIsConfigurable(t *testing.T) {
	for _, interval := range []time.Duration{time.Second, time.Minute, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			l, log := cleaning(t, interval)
			count := func() int { synctest.Wait(); return strings.Count(log.String(), "rate limiter cleaned up") }
			time.Sleep(interval - 1)
			if n := count(); n != 0 {
				t.Errorf("every %v: it has cleaned up %d times before", interval, n)
			}
			time.Sleep(4*interval + 1)
			if n := count(); n != 5 {
				t.Errorf("every %v: it has cleaned up %d times after five intervals", interval, n)
			}
			l.SetCleanupInterval(2 * interval)
			time.Sleep(4 * interval)
			if n := count(); n != 7 {
				t.Errorf("every %v, then half as often: it has cleaned up %d times", interval, n)
			}
		})
	}
}

func TestR11_3_WhatIsOlderThanTheWindowGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := cleaning(t, time.Hour)
		l.Allow("gone")
		l.Allow("gone")
		l.Allow("stays")
		time.Sleep(time.Second)
		l.Allow("stays")
		l.Allow("late")
		time.Sleep(time.Minute - time.Second) // the first three are a window old, to the nanosecond
		got := l.Cleanup()
		got.Duration = 0
		if want := (ratelimit.CleanupStats{Keys: 2, RemovedKeys: 1, RemovedEvents: 3}); got != want {
			t.Errorf("the cleanup gives %+v, want %+v", got, want)
		}
		for key, remaining := range map[string]int{"gone": 3, "stays": 2, "late": 2} {
			if d := l.Check(key); d.Remaining != remaining {
				t.Errorf("%s has %d left, want %d", key, d.Remaining, remaining)
			}
		}
		time.Sleep(time.Second)
		got = l.Cleanup()
		got.Duration = 0
		if want := (ratelimit.CleanupStats{RemovedKeys: 2, RemovedEvents: 2}); got != want {
			t.Errorf("the next cleanup gives %+v, want %+v", got, want)
		}
	})
}

func TestR11_4_StatisticsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, log := cleaning(t, time.Hour)
		l.Allow("alice")
		l.Allow("alice")
		l.Cleanup()
		time.Sleep(time.Minute)
		l.Allow("bob")
		l.Cleanup()
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		for i, want := range []string{
			`level=DEBUG msg="rate limiter cleaned up" bucket=requests keys=1 removed_keys=0 removed_events=0 evicted_keys=0 duration=`,
			`level=INFO msg="rate limiter cleaned up" bucket=requests keys=1 removed_keys=1 removed_events=2 evicted_keys=0 duration=`,
		} {
			if len(lines) != 2 || !strings.Contains(lines[i], want) {
				t.Errorf("the log has no %q: %q", want, lines)
			}
		}
		if strings.Contains(log.String(), "alice") {
			t.Errorf("the log names people: %q", lines)
		}
	})
}

func TestR11_5_TheGoroutineEndsWithTheLimiter(t *testing.T) {
	before := goleak.IgnoreCurrent()
	l, log := cleaning(t, time.Nanosecond)
	l.Stop()
	said := len(log.String())
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
	l.Stop() // it may come twice
	for range 3 {
		if !l.Allow("a").Allowed {
			t.Error("a stopped limiter refuses")
		}
	}
	if d := l.Allow("a"); d.Allowed {
		t.Errorf("a stopped limiter decides %+v", d)
	}
	if len(log.String()) != said {
		t.Errorf("a stopped limiter cleans up: %s", log)
	}
}

// A million addresses come once each, and a window later nothing is left of them.
func TestMemoryComesBackAfterAMillionKeys(t *testing.T) {
	const keys = 1_000_000
	synctest.Test(t, func(t *testing.T) {
		l, _ := cleaning(t, time.Hour)
		heap := func() int64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		before := heap()
		for i := range keys {
			l.Allow(fmt.Sprintf("203.0.113.%d", i))
		}
		full := heap()
		if got := l.Stats(); got.Keys != keys || got.Evicted != 0 {
			t.Errorf("it holds %+v", got)
		}
		time.Sleep(time.Minute)
		if c := l.Cleanup(); c.RemovedKeys != keys || c.RemovedEvents != keys || c.Keys != 0 {
			t.Errorf("the cleanup gives %+v", c)
		}
		after := heap()
		t.Logf("%d keys take %d KiB, %d bytes each; a window later %d KiB are left",
			keys, (full-before)>>10, (full-before)/keys, (after-before)>>10)
		if left := after - before; left > (full-before)/100 {
			t.Errorf("of %d bytes %d are left", full-before, left)
		}
		l.Allow("alive") // and it is still the same limiter
	})
}

// Nor does a map keep the room of all who came once when a few are still there.
func TestMemoryFollowsTheKeysThatAreLeft(t *testing.T) {
	const keys, few = 200_000, 2_000
	synctest.Test(t, func(t *testing.T) {
		l, _ := cleaning(t, time.Hour)
		for i := range keys {
			l.Allow(fmt.Sprint(i))
		}
		time.Sleep(time.Minute)
		for i := range few {
			l.Allow(fmt.Sprint(i))
		}
		var m runtime.MemStats
		heap := func() int64 { runtime.GC(); runtime.ReadMemStats(&m); return int64(m.HeapAlloc) }
		full := heap()
		if c := l.Cleanup(); c.Keys != few {
			t.Errorf("the cleanup gives %+v", c)
		}
		freed := full - heap()
		t.Logf("%d keys of %d leave: %d KiB of %d KiB come back", keys-few, keys, freed>>10, full>>10)
		if least := int64(keys-few) * 120; freed < least {
			t.Errorf("%d bytes come back, want %d", freed, least)
		}
		for i := range few {
			if l.Check(fmt.Sprint(i)).Remaining != 2 {
				t.Fatal("a key that stays is forgotten")
			}
		}
	})
}
