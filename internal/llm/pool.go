// Package llm is what the server knows of language models: the [Pool] that has a model's targets answer, whatever
// becomes of the first of them; the prompt that is made of a conversation; and the [Budget] of those who ask. The
// packages under it each speak to one kind of provider; they are wired to the pool from above, and the pool knows them
// as [chat.Provider] only.
package llm

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"slices"
	"text/template"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/upstream"
	"github.com/parley-chat/parley/internal/telemetry"
)

// Config is which models there are, and how they are asked.
type Config struct {
	Models        []Model
	Default       string // the ID of the model that is used where nobody chose one; empty: the first
	HistoryTokens int    // of the conversation sent along, as [EstimateTokens] counts them
	Retry         Retry
	HedgeAfter    time.Duration // without a first token for so long the next target is asked as well; 0: never
	Breaker       Breaker
	Moderator     Moderator         // nil: none
	Tracer        *telemetry.Tracer // nil: there are no traces
}

// Model is a model as people choose it.
type Model struct {
	ID           string
	Name         string   // for people
	Targets      []Target // where it runs, in order of preference
	SystemPrompt string   // a template: see [ParseSystemPrompt]; empty: none
	Parameters   chat.Parameters
	Price        Price
}

// Target is a model at a provider.
type Target struct {
	ProviderID string
	Kind       string // of the provider's API, for traces; empty: not told
	Address    string // host or host:port of it, for traces; empty: there is none
	Provider   chat.Provider
	Model      string // the provider's name for it
	Timeouts   Timeouts
}

// Timeouts are how long a target may take. 0 is no limit.
type Timeouts struct {
	FirstToken time.Duration // from the request to the first text or reasoning
	Idle       time.Duration // between two chunks
	Stream     time.Duration // a whole response
}

// Retry is how a target is asked again after it failed before the first token for a reason that may pass.
type Retry struct {
	MaxAttempts    int // of each target, the first one included; below 1: 1
	InitialBackoff time.Duration
	MaxBackoff     time.Duration
}

// Price is what a million tokens cost, in whatever unit the operator counts.
type Price struct{ Input, Output float64 }

// Pool is all configured models as one [chat.Provider]: the model of a request is a configured ID. It never changes
// and is safe for concurrent use.
type Pool struct {
	models     []model
	fallback   string
	history    int
	retry      Retry
	hedgeAfter time.Duration
	moderator  Moderator
	verdicts   verdicts
	metrics    *metrics
	tracer     *telemetry.Tracer
	log        *slog.Logger
}

var _ chat.Provider = (*Pool)(nil)

// model is a [Model] in the pool.
type model struct {
	Model
	system  *template.Template
	targets []*target
	timeout time.Duration // of a whole response, whoever gives it; 0: none
}

// NewPool returns a pool of models. The error names every model that lacks its ID or a target, has an ID twice, or a
// system prompt that is no template; there must be at least one. Targets that are the same share a circuit breaker.
func NewPool(config Config, log *slog.Logger) (*Pool, error) {
	if err := checkModels(config); err != nil {
		return nil, fmt.Errorf("pool of models: %w", err)
	}
	p := &Pool{
		fallback: config.Default, history: config.HistoryTokens, retry: config.Retry, hedgeAfter: config.HedgeAfter,
		moderator: config.Moderator, metrics: newMetrics(), tracer: config.Tracer, log: log,
	}
	p.retry.MaxAttempts = max(p.retry.MaxAttempts, 1)
	if p.fallback == "" {
		p.fallback = config.Models[0].ID
	}
	shared := make(map[string]*target)
	for _, m := range config.Models {
		entry := model{Model: m, system: template.Must(ParseSystemPrompt(m.SystemPrompt))}
		limited := true
		for _, t := range m.Targets {
			key := t.ProviderID + "/" + t.Model
			if shared[key] == nil {
				shared[key] = newTarget(t, config.Breaker, p.metrics, log)
			}
			entry.targets = append(entry.targets, shared[key])
			entry.timeout = max(entry.timeout, t.Timeouts.Stream)
			limited = limited && t.Timeouts.Stream > 0
		}
		if !limited {
			entry.timeout = 0
		}
		p.models = append(p.models, entry)
		p.metrics.beginModel(m)
	}
	return p, nil
}

func checkModels(config Config) error {
	var problems []error
	if len(config.Models) == 0 {
		problems = append(problems, errors.New("no models"))
	}
	seen := make(map[string]bool, len(config.Models))
	for i, m := range config.Models {
		if m.ID == "" {
			problems = append(problems, fmt.Errorf("model %d has no ID", i+1))
		}
		if seen[m.ID] {
			problems = append(problems, fmt.Errorf("model %q is there twice", m.ID))
		}
		seen[m.ID] = true
		if len(m.Targets) == 0 {
			problems = append(problems, fmt.Errorf("model %q has no targets", m.ID))
		}
		for _, target := range m.Targets {
			if target.Provider == nil {
				problems = append(problems, fmt.Errorf("model %q: no provider %q", m.ID, target.ProviderID))
			}
		}
		if _, err := ParseSystemPrompt(m.SystemPrompt); err != nil {
			problems = append(problems, fmt.Errorf("model %q: %w", m.ID, err))
		}
	}
	if config.Default != "" && !seen[config.Default] {
		problems = append(problems, fmt.Errorf("no model %q, the default", config.Default))
	}
	return errors.Join(problems...)
}

// Models returns all models in their order.
func (p *Pool) Models() []Model {
	models := make([]Model, len(p.models))
	for i, m := range p.models {
		models[i] = m.Model
	}
	return models
}

// Has reports whether there is a model of this ID.
func (p *Pool) Has(id string) bool { return p.model(id) != nil }

// Default returns the ID of the model that is used where nobody chose one.
func (p *Pool) Default() string { return p.fallback }

// MaxOutputTokens returns how long an answer of a model may be; 0: it has no limit of its own, or is not configured.
func (p *Pool) MaxOutputTokens(id string) int {
	if m := p.model(id); m != nil {
		return m.Parameters.MaxOutputTokens
	}
	return 0
}

// model gives the model of an ID; nil: there is none.
func (p *Pool) model(id string) *model {
	i := slices.IndexFunc(p.models, func(m model) bool { return m.ID == id })
	if i < 0 {
		return nil
	}
	return &p.models[i]
}

func errNoModel() error { return chat.NewError(chat.CodeModelNotFound, "there is no such model") }

// Stream implements [chat.Provider]. Parameters that the request leaves open are those of the model.
//
// The targets of the model are asked in their order. One that fails before its first token, for a reason that may pass,
// is asked again after a while, and then the next one; one whose circuit breaker is open is passed over. After the
// first token there is no other target: who reads would get the beginning of one answer and the end of another.
//
// The first pair says which provider answers, also where it is an error. Errors beside those of the providers:
// model_not_found; llm_timeout where a limit of the target is exceeded, with an [upstream.Timeout] as its cause;
// llm_unavailable where all circuit breakers are open; and what the moderator says.
func (p *Pool) Stream(ctx context.Context, request chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(yield func(chat.Chunk, error) bool) {
		m := p.model(request.Model)
		if m == nil {
			yield(chat.Chunk{}, errNoModel())
			return
		}
		ctx, cancel := m.withTimeout(ctx)
		defer cancel()
		request.Parameters = m.parameters(request.Parameters)
		messages, err := p.moderate(ctx, request)
		if err != nil {
			yield(chat.Chunk{}, failure(ctx, err))
			return
		}
		request.Messages = messages
		a, err := p.first(ctx, m, request)
		if a == nil {
			yield(chat.Chunk{}, err)
			return
		}
		defer a.close()
		a.target.describe(ctx)
		provider := a.target.ProviderID
		err = a.answer(func(chunk chat.Chunk) bool {
			chunk.Provider, provider = provider, ""
			if chunk.Usage != nil {
				chunk.Usage = plausible(*chunk.Usage)
			}
			return yield(chunk, nil)
		})
		a.tell(err)
		if err != nil && !errors.Is(err, errLeft) {
			yield(chat.Chunk{Provider: provider}, failure(ctx, err)) // the time may have ended between two attempts
		}
	}
}

// withTimeout gives the context of a whole response.
func (m *model) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if m.timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, m.timeout, &upstream.Timeout{Limit: upstream.LimitStream, After: m.timeout})
}

// parameters fills in what a request leaves open.
func (m *model) parameters(p chat.Parameters) chat.Parameters {
	if p.Temperature == nil {
		p.Temperature = m.Parameters.Temperature
	}
	if p.MaxOutputTokens == 0 {
		p.MaxOutputTokens = m.Parameters.MaxOutputTokens
	}
	return p
}

// first asks the targets until one of them gives its first token, and returns that attempt. Where none does it returns
// the last one's; nil where none was asked, with the reason.
func (p *Pool) first(ctx context.Context, m *model, request chat.Request) (*attempt, error) {
	var last *attempt
	for i, t := range m.targets {
		a := p.try(ctx, t, m.targets[i+1:], request)
		if a == nil {
			continue
		}
		if last = a; a.err == nil || !a.othersMay() {
			break
		}
		if i+1 < len(m.targets) {
			a.passedOver("another target")
		}
	}
	if last != nil {
		return last, nil
	}
	if err := failure(ctx, nil); err != nil {
		return nil, err
	}
	return nil, m.allOpen()
}

// try asks one target, and again where its failure may pass. It returns the last attempt, closed if it failed; nil where
// the target's circuit breaker is open, or the time is over before it is asked.
func (p *Pool) try(ctx context.Context, t *target, others []*target, request chat.Request) (last *attempt) {
	for n := 1; ctx.Err() == nil && t.breaker.TryAcquirePermit(); n++ {
		last = p.ask(ctx, t, others, request, n)
		if last.err == nil {
			break
		}
		last.close()
		if !last.transient() || n >= p.retry.MaxAttempts || !p.backoff(ctx, last, n, len(others) > 0) {
			break
		}
	}
	return last
}

// backoff waits before a target is asked again. It reports false where that is not worth it: the target has taken its
// time, and there is another; the upstream wants to be left alone for longer than another target takes, or than anybody
// waits; or the time is over.
func (p *Pool) backoff(ctx context.Context, failed *attempt, n int, others bool) bool {
	wait := p.retry.MaxBackoff
	if shift := n - 1; shift < 30 {
		wait = min(wait, p.retry.InitialBackoff<<shift)
	}
	wait = wait/2 + rand.N(wait/2+1)
	if others && errors.Is(failed.err, chat.NewError(chat.CodeLLMTimeout, "")) {
		return false // nobody waits for the same once more who need not
	}
	if after := chat.AsError(failed.err).RetryAfter; after > wait {
		if others || after > p.retry.MaxBackoff {
			return false
		}
		wait = after
	}
	failed.passedOver("again in " + wait.Round(time.Millisecond).String())
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		p.metrics.retries.WithLabelValues(failed.target.ProviderID, failed.target.Model).Inc()
		return true
	case <-ctx.Done():
		return false
	}
}

// allOpen is the error where every target's circuit breaker is open.
func (m *model) allOpen() error {
	err := chat.NewError(chat.CodeLLMUnavailable, "the model cannot be reached right now")
	for _, t := range m.targets {
		if wait := t.breaker.RemainingDelay(); err.RetryAfter == 0 || wait > 0 && wait < err.RetryAfter {
			err.RetryAfter = wait
		}
	}
	return err.WithCause(errors.New("the circuit breakers of all its targets are open"))
}

// ask begins an attempt at a target. Where hedging is on and the first token takes its time it begins one at another
// target too, and the first that gives a token has won; where neither does, or the target refuses the request, it returns
// the target's own. n counts the attempts at the target.
func (p *Pool) ask(ctx context.Context, t *target, others []*target, request chat.Request, n int) *attempt {
	own := p.attempt(ctx, t, request, n, false)
	if p.hedgeAfter <= 0 || len(others) == 0 {
		own.begin()
		return own
	}
	ownDone := inBackground(own.begin)
	hedge := time.NewTimer(p.hedgeAfter)
	defer hedge.Stop()
	select {
	case <-ownDone:
		return own
	case <-hedge.C:
	}
	i := slices.IndexFunc(others, func(t *target) bool { return t.breaker.TryAcquirePermit() })
	if i < 0 {
		<-ownDone
		return own
	}
	p.metrics.hedges.WithLabelValues(others[i].ProviderID, others[i].Model).Inc()
	rival := p.attempt(ctx, others[i], request, 1, true)
	rivalDone := inBackground(rival.begin)
	winner, loser := own, rival
	select {
	case <-ownDone:
		if own.err != nil && own.othersMay() {
			if <-rivalDone; rival.err == nil {
				winner, loser = rival, own
			}
		}
	case <-rivalDone:
		if rival.err == nil {
			winner, loser = rival, own
		} else {
			<-ownDone
		}
	}
	loser.end(nil)
	<-ownDone
	<-rivalDone
	loser.close()
	return winner
}

// inBackground runs f, whose end closes done.
func inBackground(f func()) (done <-chan struct{}) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f()
	}()
	return ended
}
