package llm_test

import (
	"context"
	"errors"
	"iter"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

// Each limit strikes at exactly its time, says which it was, and ends the request.
func TestLimits(t *testing.T) {
	limits := llm.Timeouts{FirstToken: 5 * time.Second, Idle: 3 * time.Second, Stream: 10 * time.Second}
	pings := func(ctx context.Context, yield func(chat.Chunk, error) bool) {
		for {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				yield(chat.Chunk{}, ctx.Err())
				return
			}
			if !yield(chat.Chunk{Usage: &chat.Usage{InputTokens: 1}}, nil) {
				return
			}
		}
	}
	text := chat.Chunk{Text: "well"}
	tests := []struct {
		name     string
		timeouts llm.Timeouts
		act      act
		limit    string
		after    time.Duration
		took     time.Duration
		text     string
	}{
		{"no first token", limits, hangs(), upstream.LimitFirstToken, 5 * time.Second, 5 * time.Second, ""},
		{"usage and state are no token", limits, hangs(chat.Chunk{Usage: &chat.Usage{}}, chat.Chunk{State: "s"}),
			upstream.LimitFirstToken, 5 * time.Second, 5 * time.Second, ""},
		{"pings are no tokens", limits, pings, upstream.LimitFirstToken, 5 * time.Second, 5 * time.Second, ""},
		{"silence after the first", limits, hangs(text), upstream.LimitIdle, 3 * time.Second, 3 * time.Second, "well"},
		{"silence after reasoning", limits, hangs(chat.Chunk{Reasoning: "hm"}), upstream.LimitIdle, 3 * time.Second, 3 * time.Second, ""},
		{"silence later", limits, after(4*time.Second, hangs(text, text)), upstream.LimitIdle, 3 * time.Second, 7 * time.Second, "wellwell"},
		{"no end", limits, paced(2200*time.Millisecond, "a", "b", "c", "d", "e", "f"), upstream.LimitStream, 10 * time.Second, 10 * time.Second, "abcd"},
		{"no end of pings", llm.Timeouts{Stream: 10 * time.Second}, pings, upstream.LimitStream, 10 * time.Second, 10 * time.Second, ""},
		{"only the whole", llm.Timeouts{Stream: 10 * time.Second}, hangs(text), upstream.LimitStream, 10 * time.Second, 10 * time.Second, "well"},
		{"only idle", llm.Timeouts{Idle: 3 * time.Second}, after(time.Hour, hangs(text)), upstream.LimitIdle, 3 * time.Second, time.Hour + 3*time.Second, "well"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				provider := acts(test.act)
				target := to("a", provider)
				target.Timeouts = test.timeouts
				pool := poolOf(t, nil, target)
				r := hear(t.Context(), pool)
				r.hitLimit(t, test.limit, test.after)
				if r.took != test.took || r.text != test.text || r.first != "a" {
					t.Errorf("it took %v and gave %q of %q", r.took, r.text, r.first)
				}
				if provider.open() != 0 || requests(t, pool, "a", "timeout_"+test.limit) != 1 {
					t.Errorf("%d requests are open, %d of 1 counted as %s", provider.open(), requests(t, pool, "a", "timeout_"+test.limit), test.limit)
				}
			})
		})
	}
}

func TestNoLimitStrikesInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := to("a", acts(paced(3*time.Second-1, "a", "b", "c")))
		target.Timeouts = llm.Timeouts{FirstToken: 3 * time.Second, Idle: 3 * time.Second, Stream: 9 * time.Second}
		hear(t.Context(), poolOf(t, nil, target)).isWhole(t, "abc", "a")
	})
}

// A reader may take its time: idle is only the provider.
func TestSlowReaderIsNotAnIdleProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := to("a", acts(paced(time.Second/2, "a", "b", "c")))
		target.Timeouts = llm.Timeouts{FirstToken: time.Second, Idle: time.Second}
		pool := poolOf(t, nil, target)
		text := ""
		for chunk, err := range pool.Stream(t.Context(), chat.Request{Model: "m"}) {
			if err != nil {
				t.Fatal(err)
			}
			text += chunk.Text
			time.Sleep(time.Minute)
		}
		if text != "abc" {
			t.Errorf("got %q", text)
		}
	})
}

// With its finish reason an answer is whole, whatever becomes of what may follow.
func TestNothingSpoilsAWholeAnswer(t *testing.T) {
	finish := chat.Chunk{Text: "Hello", FinishReason: chat.FinishStop}
	broken := func(_ context.Context, yield func(chat.Chunk, error) bool) {
		if yield(finish, nil) {
			yield(chat.Chunk{}, errDown)
		}
	}
	for name, last := range map[string]act{
		"silence":  hangs(finish),
		"an error": broken,
		"nothing":  func(_ context.Context, yield func(chat.Chunk, error) bool) { yield(finish, nil) },
		"late usage": func(ctx context.Context, yield func(chat.Chunk, error) bool) {
			paced(2*time.Second, "x", "y")(ctx, yield)
		},
	} {
		if name == "late usage" {
			last = func(ctx context.Context, yield func(chat.Chunk, error) bool) {
				if !yield(finish, nil) {
					return
				}
				after(time.Minute, says())(ctx, yield)
			}
		}
		for _, limits := range []llm.Timeouts{{Idle: time.Second}, {Stream: time.Second}} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					provider := acts(last)
					target := to("a", provider)
					target.Timeouts = limits
					pool := poolOf(t, func(c *llm.Config) { c.Breaker.Failures = 1 }, target)
					r := hear(t.Context(), pool)
					r.isWhole(t, "Hello", "a")
					if r.took > time.Second || provider.open() != 0 {
						t.Errorf("it took %v", r.took)
					}
					if requests(t, pool, "a", "complete") != 1 {
						t.Error("it is not counted as complete")
					}
					breakerIs(t, pool, "a", "closed")
				})
			})
		}
	}
}

// The end of a reader's context after the end mark is no error either.
func TestCancelledAfterTheEndMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := poolOf(t, nil, to("a", acts(hangs(chat.Chunk{Text: "Hello", FinishReason: chat.FinishStop}))))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		hear(ctx, pool).isWhole(t, "Hello", "a")
	})
}

func TestEachTargetHasItsOwnLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := to("a", acts(hangs())), to("b", acts(hangs())), to("c", acts(paced(20*time.Second, "x", "y")))
		a.Timeouts = llm.Timeouts{FirstToken: 2 * time.Second, Stream: 10 * time.Second}
		b.Timeouts = llm.Timeouts{FirstToken: 7 * time.Second, Stream: 10 * time.Second}
		c.Timeouts = llm.Timeouts{FirstToken: 30 * time.Second, Stream: time.Minute}
		r := hear(t.Context(), poolOf(t, nil, a, b, c))
		r.isWhole(t, "xy", "c")
		if r.took != 49*time.Second {
			t.Errorf("it took %v", r.took)
		}
	})
}

// The whole response has the time of the target with the most, if all have a limit.
func TestWholeTimeOfAModel(t *testing.T) {
	tests := []struct {
		name          string
		first, second time.Duration
		limit, took   time.Duration
	}{
		{"the second's", 10 * time.Second, 15 * time.Second, 15 * time.Second, 15 * time.Second},
		{"the first's", 15 * time.Second, 10 * time.Second, 15 * time.Second, 15 * time.Second},
		{"only one is limited", 10 * time.Second, 0, time.Hour, 10*time.Second + time.Hour},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := to("a", acts(after(8*time.Second, fails(errDown)))), to("b", acts(hangs(chat.Chunk{Text: "well"})))
				a.Timeouts.Stream, b.Timeouts.Stream = test.first, test.second
				limit := upstream.LimitStream
				if test.second == 0 {
					a = to("a", acts(hangs()))
					a.Timeouts.Stream = test.first
					b.Timeouts.Idle = time.Hour
					limit = upstream.LimitIdle
				}
				r := hear(t.Context(), poolOf(t, nil, a, b))
				if test.name == "the first's" {
					// What is left of it is less than the second's own.
					test.took = 15 * time.Second
				}
				r.hitLimit(t, limit, test.limit)
				if r.took != test.took {
					t.Errorf("it took %v, want %v", r.took, test.took)
				}
			})
		})
	}
}

// A hundred requests hang at once: each ends, in time, with one llm_timeout.
func TestAHundredHangs(t *testing.T) {
	for name, act := range map[string]act{"before the first token": hangs(), "after it": hangs(chat.Chunk{Text: "well"})} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				provider := acts(act)
				target := to("a", provider)
				target.Timeouts = llm.Timeouts{FirstToken: 5 * time.Second, Idle: 5 * time.Second, Stream: time.Minute}
				pool := poolOf(t, nil, target)
				var replies sync.WaitGroup
				var mu sync.Mutex
				ends := make(map[chat.Code]int)
				for range 100 {
					replies.Go(func() {
						r := hear(t.Context(), pool)
						mu.Lock()
						defer mu.Unlock()
						ends[codeOf(r.err)]++
						if r.took != 5*time.Second {
							t.Errorf("it took %v", r.took)
						}
					})
				}
				replies.Wait()
				if ends[chat.CodeLLMTimeout] != 100 || provider.most != 100 || provider.open() != 0 {
					t.Errorf("the ends are %v; %d ran at once, %d still do", ends, provider.most, provider.open())
				}
			})
		})
	}
}

// Once an answer is over its limits do not reach a provider any more that kept the context.
func TestLimitsEndWithTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept context.Context
		target := to("a", acts(func(ctx context.Context, yield func(chat.Chunk, error) bool) {
			kept = ctx
			says("Hello")(ctx, yield)
		}))
		target.Timeouts = llm.Timeouts{FirstToken: time.Second, Idle: time.Second, Stream: time.Second}
		hear(t.Context(), poolOf(t, nil, target)).isWhole(t, "Hello", "a")
		time.Sleep(time.Minute)
		if !errors.Is(context.Cause(kept), context.Canceled) {
			t.Errorf("it ended for %v", context.Cause(kept))
		}
	})
}

// untidy is a provider that notes when its sequence was left.
type untidy struct{ released chan struct{} }

func (u untidy) Stream(context.Context, chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(yield func(chat.Chunk, error) bool) {
		defer close(u.released)
		for yield(chat.Chunk{Text: "x"}, nil) {
		}
	}
}

// When the pool's sequence has ended the provider's has, too.
func TestLeavingReleasesTheProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		provider := untidy{make(chan struct{})}
		pool := poolOf(t, nil, to("a", provider))
		for range pool.Stream(t.Context(), chat.Request{Model: "m"}) {
			break
		}
		select {
		case <-provider.released:
		default:
			t.Error("the provider goes on")
		}
		if requests(t, pool, "a", "cancelled") != 1 {
			t.Error("it is not counted as cancelled")
		}
	})
}
