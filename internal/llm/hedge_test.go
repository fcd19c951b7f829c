package llm_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
)

func hedging(d time.Duration) func(*llm.Config) { return func(c *llm.Config) { c.HedgeAfter = d } }

func TestHedgingIsOffByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := acts(says("Hello"))
		hear(t.Context(), poolOf(t, nil, to("a", acts(after(time.Hour, says("Hi")))), to("b", second))).isWhole(t, "Hi", "a")
		if second.asked() != 0 {
			t.Error("the second target was asked")
		}
	})
}

func TestHedging(t *testing.T) {
	slow := func(d time.Duration, text string) act { return after(d, says(text)) }
	tests := []struct {
		name           string
		first, second  act
		text, provider string // empty: it fails
		took           time.Duration
		rivals         int // requests to the second
	}{
		{"the first is fast enough", slow(2*time.Second-1, "Hi"), slow(0, "Hello"), "Hi", "a", 2*time.Second - 1, 0},
		{"the second wins", hangs(), slow(time.Second, "Hello"), "Hello", "b", 3 * time.Second, 1},
		{"the first wins", slow(3*time.Second, "Hi"), slow(5*time.Second, "Hello"), "Hi", "a", 3 * time.Second, 1},
		{"the first fails before", after(time.Second, fails(errDown)), slow(4*time.Second, "Hello"), "Hello", "b", 5 * time.Second, 1},
		{"the first fails meanwhile", after(3*time.Second, fails(errDown)), slow(4*time.Second, "Hello"), "Hello", "b", 6 * time.Second, 1},
		{"the second fails", slow(5*time.Second, "Hi"), after(time.Second, fails(errDown)), "Hi", "a", 5 * time.Second, 1},
		{"the second refuses", slow(5*time.Second, "Hi"), after(time.Second, fails(errRejected)), "Hi", "a", 5 * time.Second, 1},
		{"the first refuses", after(3*time.Second, fails(errRejected)), slow(4*time.Second, "Hello"), "", "a", 3 * time.Second, 1},
		{"usage is no token", hangs(chat.Chunk{Usage: &chat.Usage{}}), slow(time.Second, "Hello"), "Hello", "b", 3 * time.Second, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, second := acts(test.first), acts(test.second)
				pool := poolOf(t, hedging(2*time.Second), to("a", first), to("b", second))
				r := hear(t.Context(), pool)
				if test.text != "" {
					r.isWhole(t, test.text, test.provider)
				} else if codeOf(r.err) != chat.CodeLLMRejected || r.first != test.provider {
					t.Errorf("got %v of %q", r.err, r.first)
				}
				if r.took != test.took {
					t.Errorf("it took %v, want %v", r.took, test.took)
				}
				if second.asked() != test.rivals || first.asked() != 1 || first.open()+second.open() != 0 {
					t.Errorf("asked were %d and %d; %d and %d are open", first.asked(), second.asked(), first.open(), second.open())
				}
			})
		})
	}
}

// The loser is cancelled, its breaker not blamed; the metrics tell what happened.
func TestLoserOfAHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := acts(hangs())
		pool := poolOf(t, func(c *llm.Config) {
			c.HedgeAfter, c.Breaker = time.Second, llm.Breaker{Failures: 1, Delay: time.Minute}
		}, to("a", first), to("b", acts(says("Hello"))))
		for range 3 {
			hear(t.Context(), pool).isWhole(t, "Hello", "b")
		}
		breakerIs(t, pool, "a", "closed")
		if requests(t, pool, "a", "cancelled") != 3 || requests(t, pool, "b", "complete") != 3 {
			t.Error("the requests are not counted as what they were")
		}
		if n := metric(t, pool, "parley_llm_hedges_total", "provider", "b"); n != 3 {
			t.Errorf("%v hedges are counted", n)
		}
	})
}

// reluctant gives up late when it is cancelled.
func reluctant(d time.Duration, gone *bool) act {
	return func(ctx context.Context, yield func(chat.Chunk, error) bool) {
		<-ctx.Done()
		time.Sleep(d)
		*gone = true
		yield(chat.Chunk{}, ctx.Err())
	}
}

// The loser is waited for: nothing of it is left when the winner's answer begins.
func TestLoserIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := false
		pool := poolOf(t, hedging(time.Second), to("a", acts(reluctant(time.Second/4, &gone))), to("b", acts(says("Hello"))))
		for range pool.Stream(t.Context(), chat.Request{Model: "m"}) {
			if !gone {
				t.Fatal("the loser is still there")
			}
		}
	})
}

func TestBothOfAHedgeFail(t *testing.T) {
	for _, late := range []time.Duration{time.Second, 3 * time.Second} { // the first is later, and earlier, than the second
		synctest.Test(t, func(t *testing.T) {
			theirs := chat.NewError(chat.CodeLLMUnavailable, "theirs")
			first, second := acts(after(4*time.Second, fails(errDown))), acts(after(late, fails(theirs)))
			pool := poolOf(t, func(c *llm.Config) {
				c.HedgeAfter, c.Retry = 2*time.Second, llm.Retry{MaxAttempts: 2, InitialBackoff: time.Second, MaxBackoff: time.Second}
			}, to("a", first), to("b", second), to("c", acts(says("Hello"))))
			r := hear(t.Context(), pool)
			r.isWhole(t, "Hello", "c")
			if first.asked() != 2 {
				t.Errorf("the first was asked %d times", first.asked())
			}
			if a, b := requests(t, pool, "a", "unavailable"), requests(t, pool, "b", ""); a != 2 || b != second.asked() {
				t.Errorf("counted are %d failures, and %d requests of %d to the second", a, b, second.asked())
			}
		})
	}
}

// A rival whose breaker is open is passed over; with none left the first is waited for.
func TestHedgePassesOverOpenBreakers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second, third := acts(fails(errDown)), acts(says("Hello"))
		pool := poolOf(t, func(c *llm.Config) {
			c.HedgeAfter, c.Breaker = time.Second, llm.Breaker{Failures: 1, Delay: time.Hour}
			c.Models = append(c.Models, llm.Model{ID: "second", Targets: []llm.Target{to("b", second)}},
				llm.Model{ID: "two", Targets: []llm.Target{to("d", acts(after(time.Minute, says("Hi")))), to("b", second)}})
		}, to("a", acts(hangs())), to("b", second), to("c", third))
		hearModel(t.Context(), pool, "second")
		hear(t.Context(), pool).isWhole(t, "Hello", "c")
		r := hearModel(t.Context(), pool, "two")
		r.isWhole(t, "Hi", "d")
		if r.took != time.Minute || second.asked() != 1 {
			t.Errorf("it took %v; the open one was asked %d times", r.took, second.asked()-1)
		}
	})
}

func TestCancelledHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := acts(hangs()), acts(hangs())
		pool := poolOf(t, hedging(time.Second), to("a", first), to("b", second))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(5*time.Second, cancel)
		r := hear(ctx, pool)
		if !errors.Is(r.err, context.Canceled) || r.took != 5*time.Second || first.open()+second.open() != 0 {
			t.Errorf("got %v after %v", r.err, r.took)
		}
		if requests(t, pool, "a", "cancelled") != 1 || requests(t, pool, "b", "cancelled") != 1 {
			t.Error("the two are not counted as cancelled")
		}
	})
}

// Many hedged requests at once, on both sides of the hedge: for the race detector.
func TestManyHedges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := acts(after(time.Second, says("Hi"))), acts(says("Hello"))
		pool := poolOf(t, hedging(time.Second), to("a", first), to("b", second))
		var replies sync.WaitGroup
		for range 50 {
			replies.Go(func() {
				if r := hear(t.Context(), pool); r.err != nil || r.took != time.Second || len(r.provider) != 1 {
					t.Errorf("got %+v", r)
				}
			})
		}
		replies.Wait()
		if first.open()+second.open() != 0 {
			t.Error("some are open")
		}
	})
}
