package llm_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

func retrying(attempts int, initial, most time.Duration) func(*llm.Config) {
	return func(c *llm.Config) {
		c.Retry = llm.Retry{MaxAttempts: attempts, InitialBackoff: initial, MaxBackoff: most}
	}
}

func TestTransientFailureIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		provider := acts(fails(errDown), fails(nil), says("Hello"))
		pool := poolOf(t, retrying(3, time.Second, time.Minute), to("a", provider))
		r := hear(t.Context(), pool)
		r.isWhole(t, "Hello", "a")
		if r.pairs != 3 || provider.asked() != 3 {
			t.Errorf("there are %d pairs after %d requests", r.pairs, provider.asked())
		}
		if r.took < 1500*time.Millisecond || r.took > 3*time.Second {
			t.Errorf("it took %v", r.took)
		}
		if n := metric(t, pool, "parley_llm_retries_total", "provider", "a", "target", "its-a"); n != 2 {
			t.Errorf("%v retries are counted", n)
		}
		if u, c := requests(t, pool, "a", "unavailable"), requests(t, pool, "a", "complete"); u != 2 || c != 1 {
			t.Errorf("%d failures and %d answers are counted", u, c)
		}
	})
}

func TestAttemptsAreCountedForEachTarget(t *testing.T) {
	for _, attempts := range []int{-1, 0, 1, 2, 5} {
		synctest.Test(t, func(t *testing.T) {
			first, second := acts(fails(errDown)), acts(fails(errDown))
			pool := poolOf(t, retrying(attempts, time.Second, time.Second), to("a", first), to("b", second))
			r := hear(t.Context(), pool)
			want := max(attempts, 1)
			if first.asked() != want || second.asked() != want || !errors.Is(r.err, errDown) || r.first != "b" {
				t.Errorf("with %d attempts asked were %d and %d; %v", attempts, first.asked(), second.asked(), r.err)
			}
		})
	}
}

// The n-th wait lies between half of and the whole doubled step, which does not grow beyond the most.
func TestBackoffDoublesUpToTheMost(t *testing.T) {
	least, longest := time.Hour, time.Duration(0)
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			var at []time.Time
			note := func(_ context.Context, yield func(chat.Chunk, error) bool) {
				at = append(at, time.Now())
				yield(chat.Chunk{}, errDown)
			}
			hear(t.Context(), poolOf(t, retrying(6, time.Second, 5*time.Second), to("a", acts(note))))
			for i, step := range []time.Duration{1, 2, 4, 5, 5} {
				wait := at[i+1].Sub(at[i])
				if step *= time.Second; wait < step/2 || wait > step {
					t.Errorf("wait %d is %v, want %v to %v", i+1, wait, step/2, step)
				}
				if i == 4 {
					least, longest = min(least, wait), max(longest, wait)
				}
			}
		})
	}
	if least > 3*time.Second || longest < 4500*time.Millisecond {
		t.Errorf("of 200 waits the shortest is %v and the longest %v: they are not spread", least, longest)
	}
}

func TestRetryAfter(t *testing.T) {
	tests := []struct {
		name          string
		retryAfter    time.Duration
		others        bool
		least, most   time.Duration // of the time that it takes
		first, second int           // requests
		fails         bool
	}{
		{"waits as long as it is told to", 4 * time.Second, false, 4 * time.Second, 4 * time.Second, 2, 0, false},
		{"waits for its own step where that is longer", 100 * time.Millisecond, false, time.Second / 2, time.Second, 2, 0, false},
		{"waits for the most", 5 * time.Second, false, 5 * time.Second, 5 * time.Second, 2, 0, false},
		{"does not wait for longer", 5*time.Second + 1, false, 0, 0, 1, 0, true},
		{"takes the next target instead", 4 * time.Second, true, 0, 0, 1, 1, false},
		{"waits for its own step beside another target", 100 * time.Millisecond, true, time.Second / 2, time.Second, 2, 0, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, second := acts(fails(overloaded(test.retryAfter)), says("Hello")), acts(says("Hello"))
				targets := []llm.Target{to("a", first)}
				if test.others {
					targets = append(targets, to("b", second))
				}
				r := hear(t.Context(), poolOf(t, retrying(2, time.Second, 5*time.Second), targets...))
				if r.took < test.least || r.took > test.most {
					t.Errorf("it took %v, want %v to %v", r.took, test.least, test.most)
				}
				if first.asked() != test.first || second.asked() != test.second {
					t.Errorf("asked were %d and %d, want %d and %d", first.asked(), second.asked(), test.first, test.second)
				}
				shown, _ := errors.AsType[*chat.Error](r.err)
				if test.fails && (shown == nil || shown.RetryAfter != test.retryAfter) || !test.fails && r.text != "Hello" {
					t.Errorf("got %+v", r)
				}
			})
		})
	}
}

// Who leaves while a target is left alone is gone at once, and the error is the context's.
func TestCancelledWhileBackingOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		provider, second := acts(fails(errDown)), acts(says("Hello"))
		pool := poolOf(t, retrying(3, time.Minute, time.Minute), to("a", provider), to("b", second))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		r := hear(ctx, pool)
		if !errors.Is(r.err, context.Canceled) || codeOf(r.err) != "" || r.took != time.Second {
			t.Errorf("got %v after %v", r.err, r.took)
		}
		if r.pairs != 1 || provider.asked() != 1 || second.asked() != 0 {
			t.Errorf("there are %d pairs; asked were %d and %d", r.pairs, provider.asked(), second.asked())
		}
		if requests(t, pool, "a", "unavailable") != 1 || metric(t, pool, "parley_llm_retries_total") != 0 {
			t.Error("the failure is not counted as what it was")
		}
	})
}

// The time for a whole response includes waiting and all attempts.
func TestWholeTimeIncludesRetries(t *testing.T) {
	tests := []struct {
		name     string
		provider *acting
		requests int
	}{
		{"in a wait", acts(fails(errDown)), 1},
		{"in a second attempt", acts(after(9*time.Second, fails(errDown)), hangs()), 2},
		{"in the text of a second attempt", acts(after(9*time.Second, fails(errDown)), hangs(chat.Chunk{Text: "He"})), 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				backoff := time.Minute
				if test.requests > 1 {
					backoff = time.Second / 2
				}
				target := to("a", test.provider)
				target.Timeouts = llm.Timeouts{Stream: 10 * time.Second, Idle: time.Minute}
				pool := poolOf(t, retrying(3, backoff, backoff), target)
				r := hear(t.Context(), pool)
				r.hitLimit(t, upstream.LimitStream, 10*time.Second)
				if r.took != 10*time.Second || r.first != "a" {
					t.Errorf("it took %v; the provider is %q", r.took, r.first)
				}
				if test.provider.asked() != test.requests || test.provider.open() != 0 {
					t.Errorf("it was asked %d times", test.provider.asked())
				}
			})
		})
	}
}
