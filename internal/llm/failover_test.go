package llm_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
)

// A target that fails before its first token leaves no trace in the answer of the next one.
func TestTheNextTargetAnswers(t *testing.T) {
	usage := chat.Chunk{Usage: &chat.Usage{InputTokens: 77}, State: "of the first"}
	tests := []struct {
		name  string
		first act
		took  time.Duration
	}{
		{"down", fails(errDown), 0},
		{"too many requests", fails(overloaded(time.Minute)), 0},
		{"misconfigured", fails(errSetup), 0},
		{"silent", hangs(), 3 * time.Second},
		{"silent after its usage", hangs(usage), 3 * time.Second},
		{"slow", after(time.Minute, says("late")), 3 * time.Second},
		{"cut off", fails(nil), 0},
		{"cut off after its usage", func(_ context.Context, yield func(chat.Chunk, error) bool) { yield(usage, nil) }, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, second := acts(test.first), acts(says("Hello", ", Alice"))
				a, b := to("a", first), to("b", second)
				a.Timeouts.FirstToken = 3 * time.Second
				pool := poolOf(t, nil, a, b)
				r := hear(t.Context(), pool)
				r.isWhole(t, "Hello, Alice", "b")
				if r.pairs != 4 || r.usage == nil || r.usage.InputTokens != 5 {
					t.Errorf("there are %d pairs; the usage is %+v", r.pairs, r.usage)
				}
				if r.took != test.took {
					t.Errorf("it took %v, want %v", r.took, test.took)
				}
				if first.asked() != 1 || second.asked() != 1 || first.open() != 0 {
					t.Errorf("asked were %d and %d times; of the first %d are open", first.asked(), second.asked(), first.open())
				}
				if second.requests[0].Model != "its-b" || first.requests[0].Model != "its-a" {
					t.Errorf("asked were the models %q and %q", first.requests[0].Model, second.requests[0].Model)
				}
			})
		})
	}
}

// What one target refuses because of what it is asked no other is asked.
func TestRefusalsAreFinal(t *testing.T) {
	for _, refusal := range []*chat.Error{errRejected, errFiltered} {
		t.Run(string(refusal.Code), func(t *testing.T) {
			second := acts(says("Hello"))
			pool := poolOf(t, func(c *llm.Config) { c.Retry.MaxAttempts = 3 }, to("a", acts(fails(refusal))), to("b", second))
			r := hear(t.Context(), pool)
			if !errors.Is(r.err, refusal) || r.pairs != 1 || r.first != "a" {
				t.Errorf("got %+v", r)
			}
			if second.asked() != 0 || requests(t, pool, "a", "") != 1 {
				t.Errorf("asked were %d of a and %d of b", requests(t, pool, "a", ""), second.asked())
			}
		})
	}
}

// Settings that do not fit are no reason to ask again, but one to ask elsewhere.
func TestMisconfiguredTargetIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := acts(fails(errSetup))
		retry := func(c *llm.Config) {
			c.Retry = llm.Retry{MaxAttempts: 5, InitialBackoff: time.Second, MaxBackoff: time.Second}
		}
		hear(t.Context(), poolOf(t, retry, to("a", first), to("b", acts(says("Hello"))))).isWhole(t, "Hello", "b")
		if first.asked() != 1 {
			t.Errorf("it was asked %d times", first.asked())
		}
		r := hear(t.Context(), poolOf(t, retry, to("a", first)))
		if codeOf(r.err) != chat.CodeLLMRejected || r.took != 0 {
			t.Errorf("alone it gives %v after %v", r.err, r.took)
		}
	})
}

// After its first token a target's answer is not continued by another one's.
func TestAfterTheFirstTokenThereIsNoOtherTarget(t *testing.T) {
	reasoning := func(_ context.Context, yield func(chat.Chunk, error) bool) {
		if yield(chat.Chunk{Reasoning: "hm"}, nil) {
			yield(chat.Chunk{}, errDown)
		}
	}
	tests := []struct {
		name  string
		first act
		text  string
		code  chat.Code
		pairs int
	}{
		{"down", fails(errDown, "He", "llo"), "Hello", chat.CodeLLMUnavailable, 3},
		{"cut off", fails(nil, "Hello"), "Hello", chat.CodeLLMUnavailable, 2},
		{"misconfigured", fails(errSetup, "Hello"), "Hello", chat.CodeLLMRejected, 2},
		{"silent", hangs(chat.Chunk{Text: "Hello"}), "Hello", chat.CodeLLMTimeout, 2},
		{"down after its reasoning", reasoning, "", chat.CodeLLMUnavailable, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, second := to("a", acts(test.first)), acts(says("other"))
				a.Timeouts.Idle = time.Second
				pool := poolOf(t, func(c *llm.Config) { c.Retry.MaxAttempts = 3 }, a, to("b", second))
				r := hear(t.Context(), pool)
				if r.text != test.text || codeOf(r.err) != test.code || r.pairs != test.pairs {
					t.Errorf("got %+v", r)
				}
				if !slices.Equal(r.provider, []string{"a"}) || requests(t, pool, "a", "") != 1 || second.asked() != 0 {
					t.Errorf("the providers are %v; b was asked %d times", r.provider, second.asked())
				}
			})
		})
	}
}

// Where all fail the last one's error is told, and whose it is.
func TestAllTargetsFail(t *testing.T) {
	last := chat.NewError(chat.CodeLLMUnavailable, "the last")
	pool, log := loggingPool(t, nil, to("a", acts(fails(errDown))), to("b", acts(fails(errSetup))), to("c", acts(fails(last))))
	r := hear(t.Context(), pool)
	if !errors.Is(r.err, last) || r.pairs != 1 || r.first != "c" {
		t.Errorf("got %+v", r)
	}
	// The last one's failure is the answer: whoever gets that logs it.
	for provider, times := range map[string]int{"provider=a": 1, "provider=b": 1, "provider=c": 0} {
		if strings.Count(log.String(), provider) != times {
			t.Errorf("%s is not in the log %d times:\n%s", provider, times, log)
		}
	}
}

// The log tells a failure when it happens, and how long that one attempt took.
func TestFailureIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool, log := loggingPool(t, nil, to("a", acts(after(time.Second, fails(errDown)))), to("b", acts(after(time.Minute, says("Hello")))))
		done := make(chan reply)
		go func() { done <- hear(t.Context(), pool) }()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := requests(t, pool, "a", "unavailable"); n != 1 || !strings.Contains(log.String(), "after=1s") {
			t.Errorf("while the next one is asked %d failures are counted, and the log says %q", n, log)
		}
		(<-done).isWhole(t, "Hello", "b")
	})
}

// The end of the reader's context is told as such, whatever a provider says then.
func TestCancelledBeforeTheFirstToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := acts(hangs()), acts(says("Hello"))
		pool := poolOf(t, nil, to("a", first), to("b", second))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		r := hear(ctx, pool)
		if !errors.Is(r.err, context.Canceled) || codeOf(r.err) != "" || r.took != time.Second || r.pairs != 1 {
			t.Errorf("got %+v", r)
		}
		if second.asked() != 0 || requests(t, pool, "a", "cancelled") != 1 || first.open() != 0 {
			t.Errorf("the second one was asked %d times", second.asked())
		}
		if r := hear(ctx, pool); !errors.Is(r.err, context.Canceled) || first.asked() != 1 {
			t.Errorf("with a context that has ended: %v, and the first one was asked", r.err)
		}
	})
}

// A target that has taken its time is not waited for a second time where there is another.
func TestTimeoutGoesToTheNextTarget(t *testing.T) {
	for _, others := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			slow := acts(hangs())
			first := to("a", slow)
			first.Timeouts.FirstToken = 30 * time.Second
			targets := []llm.Target{first}
			if others {
				targets = append(targets, to("b", acts(says("Hello"))))
			}
			pool := poolOf(t, func(c *llm.Config) {
				c.Retry = llm.Retry{MaxAttempts: 2, InitialBackoff: time.Second, MaxBackoff: time.Second}
			}, targets...)
			start := time.Now()
			r := hear(t.Context(), pool)
			took, asked := time.Since(start), slow.asked()
			if others && (asked != 1 || took != 30*time.Second || r.err != nil) ||
				!others && (asked != 2 || took < time.Minute || codeOf(r.err) != chat.CodeLLMTimeout) {
				t.Errorf("with others %v it is asked %d times, in %v: %v", others, asked, took, r.err)
			}
		})
	}
}
