package llm_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

func TestAccount(t *testing.T) {
	tests := []struct {
		model         string
		input, output int
		micros        int64
	}{
		{"priced", 0, 0, 0},
		{"priced", 1_000_000, 0, 3_000_000},
		{"priced", 0, 1_000_000, 15_000_000},
		{"priced", 1000, 100, 4500},
		{"priced", 1, 1, 18},
		{"cheap", 1, 0, 0}, // 0.075: rounded to the nearest
		{"cheap", 7, 0, 1}, // 0.525
		{"cheap", 1_000_000, 1_000_000, 375_000},
		{"dear", 2_000_000_000, 2_000_000_000, 4_000_000_000_000_000},
		{"free", 1000, 1000, 0},
		{"gone", 1000, 1000, 0},
	}
	pool := poolOf(t, func(c *llm.Config) {
		target := []llm.Target{to("a", acts(says("Hello")))}
		c.Models = []llm.Model{
			{ID: "priced", Targets: target, Price: llm.Price{Input: 3, Output: 15}},
			{ID: "cheap", Targets: target, Price: llm.Price{Input: 0.075, Output: 0.3}},
			{ID: "dear", Targets: target, Price: llm.Price{Input: 1e6, Output: 1e6}},
			{ID: "free", Targets: target},
		}
	})
	input, output, cost := make(map[string]int), make(map[string]int), make(map[string]float64)
	for _, test := range tests {
		got := pool.Account(test.model, chat.Usage{InputTokens: test.input, OutputTokens: test.output, Estimated: true})
		if got != test.micros {
			t.Errorf("%d and %d tokens of %s cost %d, want %d", test.input, test.output, test.model, got, test.micros)
		}
		input[test.model] += test.input
		output[test.model] += test.output
		cost[test.model] += float64(test.micros) / 1e6
	}
	for _, m := range []string{"priced", "dear", "free"} {
		i := metric(t, pool, "parley_llm_tokens_total", "model", m, "kind", "input")
		o := metric(t, pool, "parley_llm_tokens_total", "model", m, "kind", "output")
		if int(i) != input[m] || int(o) != output[m] {
			t.Errorf("of %s %v and %v tokens are counted, want %d and %d", m, i, o, input[m], output[m])
		}
		if c := metric(t, pool, "parley_llm_cost_total", "model", m); c-cost[m] > 1e-6 || cost[m]-c > 1e-6 {
			t.Errorf("of %s the cost is %v, want %v", m, c, cost[m])
		}
	}
	if n := metric(t, pool, "parley_llm_tokens_total", "model", "gone"); n != 0 {
		t.Errorf("tokens of a model that is not configured make a series: %v", n)
	}
}

// What became of a request is counted under one outcome.
func TestOutcomes(t *testing.T) {
	tests := []struct {
		act     act
		outcome string
	}{
		{says("Hello"), "complete"},
		{fails(errDown), "unavailable"},
		{fails(errDown, "Hello"), "unavailable"},
		{fails(nil), "unavailable"},
		{fails(chat.NewError(chat.CodeLLMTimeout, "slow").WithCause(&upstream.Timeout{Limit: upstream.LimitConnect})), "timeout_connect"},
		{fails(chat.NewError(chat.CodeLLMTimeout, "they say so")), "unavailable"},
		{fails(errRejected), "rejected"},
		{fails(errSetup), "rejected"},
		{fails(errFiltered, "Hello"), "filtered"},
		{fails(chat.NewError(chat.CodeInternal, "oh")), "error"},
		{hangs(), "timeout_first_token"},
		{hangs(chat.Chunk{Text: "Hello"}), "timeout_idle"},
		{paced(time.Second, "a", "b", "c", "d", "e", "f"), "timeout_stream"},
	}
	for i, test := range tests {
		t.Run(fmt.Sprint(i, test.outcome), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				target := to("a", acts(test.act))
				target.Timeouts = llm.Timeouts{FirstToken: 2 * time.Second, Idle: 2 * time.Second, Stream: 5500 * time.Millisecond}
				pool := poolOf(t, nil, target)
				hear(t.Context(), pool)
				if requests(t, pool, "a", test.outcome) != 1 || requests(t, pool, "a", "") != 1 {
					t.Errorf("%d requests of %d are counted as %s", requests(t, pool, "a", test.outcome), requests(t, pool, "a", ""), test.outcome)
				}
			})
		})
	}
}

// moderator refuses what it is told to; it notes what it is asked.
type moderator struct {
	verdicts map[string]error
	hangs    bool

	mu    sync.Mutex // guards the field below
	asked []string
}

func (m *moderator) Check(ctx context.Context, r chat.Request, text string) error {
	m.mu.Lock()
	m.asked = append(m.asked, r.Model+" "+text)
	m.mu.Unlock()
	if m.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return m.verdicts[text]
}

func prompt(texts ...string) []chat.PromptMessage {
	messages := []chat.PromptMessage{{Role: chat.RoleSystem, Text: "Be brief."}}
	for _, text := range texts {
		m := chat.PromptMessage{ID: text, Role: chat.RoleUser, Text: text}
		switch text[0] {
		case 'A':
			m.Role = chat.RoleAssistant
		case 'U':
			m.Unasked = true
		}
		messages = append(messages, m)
	}
	return messages
}

func TestModeration(t *testing.T) {
	down := chat.NewError(chat.CodeLLMUnavailable, "the moderator is down")
	verdicts := map[string]error{"bad": errFiltered, "U bad": errFiltered, "error": down, "U error": down}
	tests := []struct {
		name   string
		prompt []chat.PromptMessage
		asked  []string // the moderator
		passes []string // empty: the provider is not asked
		code   chat.Code
	}{
		{"the newest is looked at", prompt("one", "A", "two"), []string{"m two"}, []string{"one", "A", "two"}, ""},
		{"an older one was", prompt("bad", "A", "two"), []string{"m two"}, []string{"bad", "A", "two"}, ""},
		{"refused", prompt("one", "A", "bad"), []string{"m bad"}, nil, chat.CodeContentFiltered},
		{"nobody was asked", prompt("U one", "A one", "U two", "three"), []string{"m U one", "m U two", "m three"},
			[]string{"U one", "A one", "U two", "three"}, ""},
		{"an older one is left out", prompt("U one", "U bad", "A bad", "three"), []string{"m U one", "m U bad", "m three"},
			[]string{"U one", "A bad", "three"}, ""},
		{"down", prompt("error"), []string{"m error"}, nil, chat.CodeLLMUnavailable},
		{"down for an older one", prompt("U error", "two"), []string{"m U error", "m two"}, nil, chat.CodeLLMUnavailable},
		{"an unasked newest", prompt("one", "A", "U bad"), []string{"m U bad"}, nil, chat.CodeContentFiltered},
		{"no question", prompt("A"), nil, []string{"A"}, ""},
		{"it answers its own text", prompt("two", "A after it"), []string{"m two"}, []string{"two", "A after it"}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			guard, provider := &moderator{verdicts: verdicts}, acts(says("Hello"))
			pool := poolOf(t, func(c *llm.Config) { c.Moderator = guard }, to("a", provider))
			var end error
			for _, err := range pool.Stream(t.Context(), chat.Request{Model: "m", Messages: test.prompt}) {
				end = err
			}
			if codeOf(end) != test.code {
				t.Errorf("it ends with %v, want %q", end, test.code)
			}
			slices.Sort(guard.asked) // they come at the same time
			slices.Sort(test.asked)
			if fmt.Sprint(guard.asked) != fmt.Sprint(test.asked) {
				t.Errorf("the moderator was asked %q, want %q", guard.asked, test.asked)
			}
			if test.code != "" {
				if provider.asked() != 0 {
					t.Error("the provider was asked")
				}
				return
			}
			var passed []string
			for _, m := range provider.requests[0].Messages[1:] {
				passed = append(passed, m.Text)
			}
			if fmt.Sprint(passed) != fmt.Sprint(test.passes) || provider.requests[0].Messages[0].Role != chat.RoleSystem {
				t.Errorf("the provider was asked %q, want %q", passed, test.passes)
			}
		})
	}
}

// Waiting for the moderator ends with the reader, and with the time for a whole response.
func TestModeratorThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		provider := acts(says("Hello"))
		target := to("a", provider)
		target.Timeouts.Stream = 10 * time.Second
		pool := poolOf(t, func(c *llm.Config) { c.Moderator = &moderator{hangs: true} }, target)
		r := hear(t.Context(), pool)
		r.hitLimit(t, upstream.LimitStream, 10*time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if r := hear(ctx, pool); !errors.Is(r.err, context.Canceled) || r.took != time.Second {
			t.Errorf("cancelled: %v after %v", r.err, r.took)
		}
		if provider.asked() != 0 {
			t.Error("the provider was asked")
		}
	})
}

// What a request leaves open is the model's own.
func TestParameters(t *testing.T) {
	warm, cold := 0.9, 0.1
	tests := []struct {
		name           string
		model, request chat.Parameters
		temperature    *float64
		tokens         int
	}{
		{"none", chat.Parameters{}, chat.Parameters{}, nil, 0},
		{"the model's", chat.Parameters{Temperature: &warm, MaxOutputTokens: 500}, chat.Parameters{}, &warm, 500},
		{"the request's", chat.Parameters{Temperature: &warm, MaxOutputTokens: 500}, chat.Parameters{Temperature: &cold, MaxOutputTokens: 7}, &cold, 7},
		{"one of each", chat.Parameters{Temperature: &warm}, chat.Parameters{MaxOutputTokens: 7}, &warm, 7},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			provider := acts(says("Hello"))
			pool := poolOf(t, func(c *llm.Config) { c.Models[0].Parameters = test.model }, to("a", provider))
			for range pool.Stream(t.Context(), chat.Request{Model: "m", Parameters: test.request}) {
			}
			got := provider.requests[0].Parameters
			if got.Temperature != test.temperature || got.MaxOutputTokens != test.tokens {
				t.Errorf("the provider was asked with %+v", got)
			}
			if pool.MaxOutputTokens("m") != test.model.MaxOutputTokens || pool.MaxOutputTokens("gone") != 0 {
				t.Errorf("the model's limit is told as %d", pool.MaxOutputTokens("m"))
			}
		})
	}
}

// Counters must not go back, and sums not overflow, whatever an upstream says.
func TestUsageIsPlausible(t *testing.T) {
	pool := poolOf(t, nil, to("a", acts(func(_ context.Context, yield func(chat.Chunk, error) bool) {
		_ = yield(chat.Chunk{Text: "Hello", FinishReason: chat.FinishStop}, nil) &&
			yield(chat.Chunk{Usage: &chat.Usage{InputTokens: -5, OutputTokens: math.MaxInt}}, nil)
	})))
	var got chat.Usage
	for chunk, err := range pool.Stream(t.Context(), chat.Request{Model: "m"}) {
		if err != nil {
			t.Fatal(err)
		}
		if chunk.Usage != nil {
			got = *chunk.Usage
		}
	}
	if got.InputTokens != 0 || got.OutputTokens != 1<<30 {
		t.Errorf("the usage is %+v", got)
	}
	pool.Account("m", got)
}

// An older message is asked about once, and stays left out when the moderator has no verdicts any more.
func TestVerdictsAreRemembered(t *testing.T) {
	guard, provider := &moderator{verdicts: map[string]error{"U bad": errFiltered}}, acts(says("Hello"))
	pool := poolOf(t, func(c *llm.Config) { c.Moderator = guard }, to("a", provider))
	for range 3 {
		request := chat.Request{SessionID: "s", Model: "m", Messages: prompt("U one", "U bad", "A", "three")}
		for _, err := range pool.Stream(t.Context(), request) {
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range provider.requests[len(provider.requests)-1].Messages {
			if m.Text == "U bad" {
				t.Error("what was refused goes to the provider")
			}
		}
		guard.verdicts = nil // it is down, and its operator lets everything through
	}
	slices.Sort(guard.asked)
	if want := []string{"m U bad", "m U one", "m three", "m three", "m three"}; !slices.Equal(guard.asked, want) {
		t.Errorf("the moderator was asked %q, want %q", guard.asked, want)
	}
}
