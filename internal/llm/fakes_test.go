package llm_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// act is how a provider answers one request.
type act func(ctx context.Context, yield func(chat.Chunk, error) bool)

// acting is a provider that answers each request by the next of its acts, and every one after these by the last.
type acting struct {
	mu       sync.Mutex // guards the fields below
	acts     []act
	requests []chat.Request
	running  int
	most     int // that ran at the same time
}

func acts(all ...act) *acting { return &acting{acts: all} }

func (a *acting) Stream(ctx context.Context, request chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(yield func(chat.Chunk, error) bool) {
		a.mu.Lock()
		next := a.acts[0]
		if len(a.acts) > 1 {
			a.acts = a.acts[1:]
		}
		a.requests = append(a.requests, request)
		a.running++
		a.most = max(a.most, a.running)
		a.mu.Unlock()
		defer func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.running--
		}()
		next(ctx, yield)
	}
}

// now has the provider answer in another way.
func (a *acting) now(all ...act) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.acts = all
}

func (a *acting) asked() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.requests)
}

func (a *acting) open() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.running
}

// says gives the pieces and the end mark.
func says(pieces ...string) act {
	return func(_ context.Context, yield func(chat.Chunk, error) bool) {
		for _, p := range pieces {
			if !yield(chat.Chunk{Text: p}, nil) {
				return
			}
		}
		if !yield(chat.Chunk{FinishReason: chat.FinishStop}, nil) {
			return
		}
		yield(chat.Chunk{Usage: &chat.Usage{InputTokens: 5, OutputTokens: len(pieces)}}, nil)
	}
}

// fails gives the pieces and an error; nil: it is cut off.
func fails(err error, pieces ...string) act {
	return func(_ context.Context, yield func(chat.Chunk, error) bool) {
		for _, p := range pieces {
			if !yield(chat.Chunk{Text: p}, nil) {
				return
			}
		}
		if err != nil {
			yield(chat.Chunk{}, err)
		}
	}
}

// hangs gives the chunks and then nothing more until it is cancelled.
func hangs(chunks ...chat.Chunk) act {
	return func(ctx context.Context, yield func(chat.Chunk, error) bool) {
		for _, c := range chunks {
			if !yield(c, nil) {
				return
			}
		}
		<-ctx.Done()
		yield(chat.Chunk{}, ctx.Err())
	}
}

// after does the next act after a while.
func after(d time.Duration, next act) act {
	return func(ctx context.Context, yield func(chat.Chunk, error) bool) {
		select {
		case <-time.After(d):
			next(ctx, yield)
		case <-ctx.Done():
			yield(chat.Chunk{}, ctx.Err())
		}
	}
}

// paced gives a piece each interval, and the end mark with the last one.
func paced(interval time.Duration, pieces ...string) act {
	return func(ctx context.Context, yield func(chat.Chunk, error) bool) {
		for i, p := range pieces {
			select {
			case <-time.After(interval):
			case <-ctx.Done():
				yield(chat.Chunk{}, ctx.Err())
				return
			}
			chunk := chat.Chunk{Text: p}
			if i == len(pieces)-1 {
				chunk.FinishReason = chat.FinishStop
			}
			if !yield(chunk, nil) {
				return
			}
		}
	}
}

// What a provider's errors look like.
var (
	errDown     = chat.NewError(chat.CodeLLMUnavailable, "down")
	errRejected = chat.NewError(chat.CodeLLMRejected, "no")
	errFiltered = chat.NewError(chat.CodeContentFiltered, "shame")
	errSetup    = chat.NewError(chat.CodeLLMRejected, "who are you").WithCause(upstream.ErrMisconfigured)
)

func overloaded(retryAfter time.Duration) *chat.Error {
	err := *errDown
	err.RetryAfter = retryAfter
	return &err
}

func to(id string, p chat.Provider) llm.Target {
	return llm.Target{ProviderID: id, Provider: p, Model: "its-" + id}
}

// journalled is a log that can be read.
type journalled struct {
	mu sync.Mutex // guards the field below
	b  bytes.Buffer
}

func (j *journalled) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journalled) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// poolOf makes a pool of one model "m", on these targets; edit may be nil.
func poolOf(t *testing.T, edit func(*llm.Config), targets ...llm.Target) *llm.Pool {
	t.Helper()
	pool, _ := loggingPool(t, edit, targets...)
	return pool
}

func loggingPool(t *testing.T, edit func(*llm.Config), targets ...llm.Target) (*llm.Pool, *journalled) {
	t.Helper()
	config := llm.Config{
		Models:  []llm.Model{{ID: "m", Targets: targets}},
		Breaker: llm.Breaker{Failures: 1000, Delay: time.Minute},
	}
	if edit != nil {
		edit(&config)
	}
	log := &journalled{}
	pool, err := llm.NewPool(config, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return pool, log
}

// reply is what a reader got of the pool.
type reply struct {
	text     string
	provider []string // each that was named, in order
	first    string   // the one that the first pair named
	finish   chat.FinishReason
	usage    *chat.Usage
	err      error
	pairs    int
	took     time.Duration
}

func hear(ctx context.Context, pool *llm.Pool) reply { return hearModel(ctx, pool, "m") }

func hearModel(ctx context.Context, pool *llm.Pool, model string) (r reply) {
	start := time.Now()
	for chunk, err := range pool.Stream(ctx, chat.Request{
		Model: model, Messages: []chat.PromptMessage{{ID: "q", Role: chat.RoleUser, Text: "Hi"}},
	}) {
		if r.err != nil {
			panic("a pair after the error")
		}
		r.pairs++
		if chunk.Provider != "" {
			r.provider = append(r.provider, chunk.Provider)
		}
		if r.pairs == 1 {
			r.first = chunk.Provider
		}
		r.text += chunk.Text
		if chunk.FinishReason != "" {
			r.finish = chunk.FinishReason
		}
		if chunk.Usage != nil {
			r.usage = chunk.Usage
		}
		r.err = err
	}
	r.took = time.Since(start)
	return r
}

// isWhole checks that an answer is whole and comes from one provider.
func (r reply) isWhole(t *testing.T, text, provider string) {
	t.Helper()
	if r.err != nil || r.text != text || r.finish != chat.FinishStop {
		t.Errorf("the answer is %q (%s, %v), want %q", r.text, r.finish, r.err, text)
	}
	if r.first != provider || !slices.Equal(r.provider, []string{provider}) {
		t.Errorf("it comes from %q, want %q in the first pair alone", r.provider, provider)
	}
}

// hitLimit checks that a reply ends with a timeout.
func (r reply) hitLimit(t *testing.T, limit string, after time.Duration) {
	t.Helper()
	timeout, ok := errors.AsType[*upstream.Timeout](r.err)
	if !ok || timeout.Limit != limit || timeout.After != after || codeOf(r.err) != chat.CodeLLMTimeout {
		t.Errorf("the error is %v, want llm_timeout for %s after %v", r.err, limit, after)
	}
}

func codeOf(err error) chat.Code {
	if shown, ok := errors.AsType[*chat.Error](err); ok {
		return shown.Code
	}
	return ""
}

// metric gives the sum of a collector's metric over all series that have these labels, given as name, value, ….
func metric(t *testing.T, c prometheus.Collector, name string, labels ...string) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			matched := 0
			for _, l := range m.GetLabel() {
				for i := 0; i < len(labels); i += 2 {
					if l.GetName() == labels[i] && l.GetValue() == labels[i+1] {
						matched++
					}
				}
			}
			if matched == len(labels)/2 {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// requests gives how many requests to a provider ended with an outcome; "" for any.
func requests(t *testing.T, pool *llm.Pool, provider, outcome string) int {
	t.Helper()
	labels := []string{"provider", provider}
	if outcome != "" {
		labels = append(labels, "outcome", outcome)
	}
	return int(metric(t, pool, "parley_llm_requests_total", labels...))
}

// breakerIs checks that of the states of a target's circuit breaker just one is set.
func breakerIs(t *testing.T, pool *llm.Pool, provider, state string) {
	t.Helper()
	for _, s := range []string{"closed", "half_open", "open"} {
		want := 0.0
		if s == state {
			want = 1
		}
		if got := metric(t, pool, "parley_llm_breaker_state", "provider", provider, "state", s); got != want {
			t.Errorf("the breaker of %s has %s = %v, want it %s", provider, s, got, state)
		}
	}
}
