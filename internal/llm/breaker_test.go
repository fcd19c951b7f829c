package llm_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

func breaking(failures int, delay time.Duration) func(*llm.Config) {
	return func(c *llm.Config) { c.Breaker = llm.Breaker{Failures: failures, Delay: delay} }
}

// The story of a breaker: it opens, the target is passed over, one request tries it, and it closes.
func TestBreakerOpensAndHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := acts(fails(errDown)), acts(says("Hello"))
		pool, log := loggingPool(t, breaking(3, time.Minute), to("a", first), to("b", second))
		for range 3 {
			breakerIs(t, pool, "a", "closed")
			hear(t.Context(), pool).isWhole(t, "Hello", "b")
		}
		breakerIs(t, pool, "a", "open")
		breakerIs(t, pool, "b", "closed")
		time.Sleep(time.Minute - 1)
		hear(t.Context(), pool).isWhole(t, "Hello", "b")
		if first.asked() != 3 {
			t.Errorf("the target was asked %d times, want 3", first.asked())
		}
		time.Sleep(time.Nanosecond)
		hear(t.Context(), pool).isWhole(t, "Hello", "b") // the trial fails
		breakerIs(t, pool, "a", "open")
		if first.asked() != 4 {
			t.Errorf("the target was asked %d times, want 4", first.asked())
		}
		first.now(says("Hi"))
		time.Sleep(time.Minute)
		hear(t.Context(), pool).isWhole(t, "Hi", "a")
		breakerIs(t, pool, "a", "closed")
		for _, change := range []string{"from=closed to=open", "from=open to=half-open", "from=half-open to=open", "from=half-open to=closed"} {
			if !strings.Contains(log.String(), change) {
				t.Errorf("the log does not tell %q", change)
			}
		}
	})
}

// Failures count in a row only.
func TestSuccessEndsTheRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		provider := acts(fails(errDown), fails(errDown), says("Hello"), fails(errDown), fails(errDown), says("Hello"))
		pool := poolOf(t, breaking(3, time.Minute), to("a", provider))
		for range 6 {
			hear(t.Context(), pool)
		}
		breakerIs(t, pool, "a", "closed")
		if provider.asked() != 6 {
			t.Errorf("it was asked %d times", provider.asked())
		}
	})
}

// What opens a breaker, and what does not.
func TestWhatTheBreakerCounts(t *testing.T) {
	text := chat.Chunk{Text: "well"}
	limits := llm.Timeouts{FirstToken: time.Second, Idle: time.Second, Stream: 3 * time.Second}
	wordy := paced(900*time.Millisecond, "a", "b", "c", "d", "e")
	tests := []struct {
		name  string
		act   act
		opens bool
	}{
		{"down", fails(errDown), true},
		{"overloaded", fails(overloaded(time.Second)), true},
		{"cut off", fails(nil), true},
		{"silent", hangs(), true},
		{"down after the first token", fails(errDown, "well"), true},
		{"cut off after the first token", fails(nil, "well"), true},
		{"silent after the first token", hangs(text), true},
		{"too long an answer", wordy, false},
		{"rejected", fails(errRejected), false},
		{"filtered", fails(errFiltered), false},
		{"misconfigured", fails(errSetup), false},
		{"rejected after the first token", fails(errRejected, "well"), false},
		{"whole", says("well"), false},
		{"whole, then silent", hangs(chat.Chunk{Text: "well", FinishReason: chat.FinishStop}), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				provider := acts(test.act)
				target := to("a", provider)
				target.Timeouts = limits
				pool := poolOf(t, breaking(3, time.Hour), target)
				for i := range 4 {
					if test.opens && i == 3 {
						breakerIs(t, pool, "a", "open")
					} else {
						breakerIs(t, pool, "a", "closed")
					}
					hear(t.Context(), pool)
				}
			})
		})
	}
}

// A target whose breaker opens is not asked again by the request that opened it.
func TestRetriesEndWhenTheBreakerOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := acts(fails(errDown))
		pool := poolOf(t, func(c *llm.Config) {
			c.Breaker = llm.Breaker{Failures: 2, Delay: time.Hour}
			c.Retry = llm.Retry{MaxAttempts: 5, InitialBackoff: time.Second, MaxBackoff: time.Second}
		}, to("a", first), to("b", acts(says("Hello"))))
		hear(t.Context(), pool).isWhole(t, "Hello", "b")
		if first.asked() != 2 {
			t.Errorf("it was asked %d times, want 2", first.asked())
		}
	})
}

func TestAllBreakersOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := acts(fails(errDown)), acts(fails(errDown))
		pool := poolOf(t, breaking(1, time.Minute), to("a", first), to("b", second))
		hear(t.Context(), pool)
		time.Sleep(15 * time.Second)
		r := hear(t.Context(), pool)
		shown, ok := errors.AsType[*chat.Error](r.err)
		if !ok || shown.Code != chat.CodeLLMUnavailable || shown.RetryAfter != 45*time.Second || r.pairs != 1 || r.first != "" {
			t.Errorf("got %+v", r)
		}
		if first.asked()+second.asked() != 2 || r.took != 0 {
			t.Errorf("they were asked %d times in %v", first.asked()+second.asked(), r.took)
		}
	})
}

// The wait that is told is the shortest.
func TestSoonestBreakerIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := acts(says("Hello")), acts(fails(errDown))
		pool := poolOf(t, func(c *llm.Config) {
			c.Breaker = llm.Breaker{Failures: 1, Delay: time.Minute}
			c.Models = append(c.Models, llm.Model{ID: "other", Targets: []llm.Target{to("b", second)}})
		}, to("a", first), to("b", second))
		hearModel(t.Context(), pool, "other") // opens b
		time.Sleep(20 * time.Second)
		first.now(fails(errDown))
		hear(t.Context(), pool) // opens a
		r := hear(t.Context(), pool)
		if shown, ok := errors.AsType[*chat.Error](r.err); !ok || shown.RetryAfter != 40*time.Second {
			t.Errorf("got %v", r.err)
		}
	})
}

// Models that run on the same target share what is known of it.
func TestModelsShareABreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		provider := acts(fails(errDown))
		elsewhere := to("a", provider)
		elsewhere.Model = "another"
		pool := poolOf(t, func(c *llm.Config) {
			c.Breaker = llm.Breaker{Failures: 1, Delay: time.Minute}
			c.Models = append(c.Models,
				llm.Model{ID: "twin", Targets: []llm.Target{to("a", provider)}},
				llm.Model{ID: "cousin", Targets: []llm.Target{elsewhere}})
		}, to("a", provider))
		hear(t.Context(), pool)
		hearModel(t.Context(), pool, "twin")
		if provider.asked() != 1 {
			t.Errorf("after a failure of one model the other asked the same target")
		}
		hearModel(t.Context(), pool, "cousin")
		if provider.asked() != 2 {
			t.Errorf("another model of the provider is not asked")
		}
	})
}

// While a breaker is half-open one request tries the target, and the others pass it over.
func TestHalfOpenAdmitsOneTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := acts(fails(errDown), after(10*time.Second, says("Hi")))
		pool := poolOf(t, breaking(1, time.Minute), to("a", first), to("b", acts(says("Hello"))))
		hear(t.Context(), pool)
		time.Sleep(time.Minute)
		trial := make(chan reply)
		go func() { trial <- hear(t.Context(), pool) }()
		synctest.Wait()
		breakerIs(t, pool, "a", "half_open")
		for range 5 {
			hear(t.Context(), pool).isWhole(t, "Hello", "b")
		}
		(<-trial).isWhole(t, "Hi", "a")
		if first.asked() != 2 {
			t.Errorf("it was asked %d times, want 2", first.asked())
		}
		breakerIs(t, pool, "a", "closed")
	})
}

// A trial heals the breaker with its first token, not with the end of a long answer.
func TestFirstTokenHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := acts(fails(errDown), paced(time.Minute, "a", "b", "c"))
		pool := poolOf(t, breaking(1, time.Minute), to("a", first), to("b", acts(says("Hello"))))
		hear(t.Context(), pool)
		time.Sleep(time.Minute)
		trial := make(chan reply)
		go func() { trial <- hear(t.Context(), pool) }()
		time.Sleep(time.Minute - 1)
		breakerIs(t, pool, "a", "half_open")
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		breakerIs(t, pool, "a", "closed")
		first.now(says("Hi"))
		hear(t.Context(), pool).isWhole(t, "Hi", "a")
		(<-trial).isWhole(t, "abc", "a")
	})
}

// A trial whose reader leaves says nothing of the target: the next one comes after the delay.
func TestCancelledTrialDoesNotStick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := acts(fails(errDown), hangs(), says("Hi"))
		pool := poolOf(t, breaking(1, time.Minute), to("a", first), to("b", acts(says("Hello"))))
		hear(t.Context(), pool)
		time.Sleep(time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if r := hear(ctx, pool); !errors.Is(r.err, context.Canceled) {
			t.Errorf("got %v", r.err)
		}
		hear(t.Context(), pool).isWhole(t, "Hello", "b")
		time.Sleep(time.Minute)
		hear(t.Context(), pool).isWhole(t, "Hi", "a")
		breakerIs(t, pool, "a", "closed")
	})
}

// What becomes of a request that was admitted before the breaker opened decides nothing while another one tries the
// target.
func TestTheTrialAloneDecides(t *testing.T) {
	text := chat.Chunk{Text: "well"}
	for name, late := range map[string]act{
		"it is left":                       hangs(),
		"it is left after its first token": hangs(text),
		"it fails":                         after(65*time.Second, fails(errDown)),
		"it fails after its first token":   after(65*time.Second, fails(errDown, "well")),
		"it is whole":                      after(65*time.Second, says("late")),
		"it is refused":                    after(65*time.Second, fails(errRejected)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first := acts(late, fails(errDown), after(10*time.Second, says("Hi")))
				pool := poolOf(t, breaking(1, time.Minute), to("a", first), to("b", acts(says("Hello"))))
				ctx, cancel := context.WithTimeout(t.Context(), 66*time.Second)
				defer cancel()
				old := make(chan reply)
				go func() { old <- hear(ctx, pool) }() // admitted while all is well
				synctest.Wait()
				hear(t.Context(), pool).isWhole(t, "Hello", "b")
				time.Sleep(time.Minute)
				trial := make(chan reply)
				go func() { trial <- hear(t.Context(), pool) }()
				<-old
				breakerIs(t, pool, "a", "half_open")
				hear(t.Context(), pool).isWhole(t, "Hello", "b")
				(<-trial).isWhole(t, "Hi", "a")
				breakerIs(t, pool, "a", "closed")
			})
		})
	}
}

// A trial whose first token has closed the breaker says nothing of a later one.
func TestTrialThatIsOverDecidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := acts(fails(errDown), paced(40*time.Second, "a", "b", "c"), fails(errDown), hangs())
		pool := poolOf(t, breaking(1, time.Minute), to("a", first), to("b", acts(says("Hello"))))
		hear(t.Context(), pool)
		time.Sleep(time.Minute)
		long := make(chan reply)
		go func() { long <- hear(t.Context(), pool) }()
		time.Sleep(41 * time.Second) // it has closed the breaker
		hear(t.Context(), pool).isWhole(t, "Hello", "b")
		time.Sleep(time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		trial := make(chan reply)
		go func() { trial <- hear(ctx, pool) }()
		synctest.Wait()
		breakerIs(t, pool, "a", "half_open")
		(<-long).isWhole(t, "abc", "a")
		breakerIs(t, pool, "a", "half_open")
		cancel()
		<-trial
	})
}

// Who has given a first token is there, also for a reader who leaves then.
func TestReaderWhoLeavesEndsTheRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		provider := acts(fails(errDown), fails(errDown), hangs(chat.Chunk{Text: "well"}), fails(errDown), fails(errDown), hangs(), fails(errDown))
		pool := poolOf(t, breaking(3, time.Hour), to("a", provider))
		for range 6 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			hear(ctx, pool)
			cancel()
		}
		breakerIs(t, pool, "a", "closed")
		hear(t.Context(), pool) // of the one who left without a token nothing is known
		breakerIs(t, pool, "a", "open")
	})
}

// A target that says nothing at all for the whole time has failed.
func TestSilenceForTheWholeTimeCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := to("a", acts(hangs()))
		target.Timeouts.Stream = time.Second
		pool := poolOf(t, breaking(1, time.Hour), target)
		hear(t.Context(), pool).hitLimit(t, upstream.LimitStream, time.Second)
		breakerIs(t, pool, "a", "open")
	})
}
