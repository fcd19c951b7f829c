package llm

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/upstream"
	"github.com/parley-chat/parley/internal/telemetry"
)

// attempt is one request to one target that its breaker has admitted. It may be begun in one goroutine and go on in
// another, but is never used by two at once.
type attempt struct {
	target  *target
	ctx     context.Context
	end     context.CancelCauseFunc // may be called by anybody
	next    func() (chat.Chunk, error, bool)
	stop    func()
	whole   limit
	started time.Time
	span    trace.Span
	log     *slog.Logger
	trial   bool // a half-open breaker waits for its first token

	head []chat.Chunk // what came up to the first token, that included
	err  error        // what came instead of it
	told bool         // what became of the attempt is recorded
}

// attempt prepares a request to a target: the nth for this response, or one that was begun while another is waited for.
func (p *Pool) attempt(ctx context.Context, t *target, request chat.Request, n int, hedged bool) *attempt {
	request.Model = t.Model
	ctx, span := t.startSpan(ctx, p.tracer, n, hedged)
	a := &attempt{
		target: t, started: time.Now(), span: span, trial: t.breaker.IsHalfOpen(),
		log: telemetry.Log(ctx, t.log).With("session", request.SessionID, "user", request.UserID, "message", request.MessageID),
	}
	a.ctx, a.end = context.WithCancelCause(ctx)
	a.whole = a.limit(upstream.LimitStream, t.Timeouts.Stream)
	a.whole.start()
	a.next, a.stop = iter.Pull2(t.Provider.Stream(a.ctx, request))
	return a
}

// begin sends the request and returns when its first token is there, or why there is none.
func (a *attempt) begin() {
	first := a.limit(upstream.LimitFirstToken, a.target.Timeouts.FirstToken)
	first.start()
	defer first.stop()
	for {
		chunk, err, ok := a.next()
		switch {
		case !ok:
			a.err = upstream.CutOff
			return
		case err != nil:
			a.err = failure(a.ctx, err)
			return
		}
		a.head = append(a.head, chunk)
		if chunk.Text != "" || chunk.Reasoning != "" || chunk.FinishReason != "" {
			if a.trial { // which need not wait for the end of a long answer
				a.trial = false
				a.target.breaker.RecordSuccess()
			}
			return
		}
	}
}

// failure is what a provider's error means whose request had this context: the end of that tells more.
func failure(ctx context.Context, err error) error {
	if timeout, ok := errors.AsType[*upstream.Timeout](context.Cause(ctx)); ok {
		return chat.NewError(chat.CodeLLMTimeout, "the model took too long to answer").WithCause(timeout)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// errLeft means that who reads an answer has left it.
var errLeft = errors.New("left")

// answer gives what came already, and the rest, to emit, until that returns false.
func (a *attempt) answer(emit func(chat.Chunk) bool) error {
	if a.err != nil {
		return a.err
	}
	finished := false
	for _, chunk := range a.head {
		finished = finished || chunk.FinishReason != ""
		if !emit(chunk) {
			return errLeft
		}
	}
	// Only the provider's time counts, not that of who reads.
	idle := a.limit(upstream.LimitIdle, a.target.Timeouts.Idle)
	defer idle.stop()
	for {
		idle.start()
		chunk, err, ok := a.next()
		idle.stop()
		switch {
		case finished && (!ok || err != nil):
			return nil // the answer is whole; no more than its usage is missing
		case !ok:
			return upstream.CutOff
		case err != nil:
			return failure(a.ctx, err)
		}
		finished = finished || chunk.FinishReason != ""
		if !emit(chunk) {
			return errLeft
		}
	}
}

// limit is a time within which a provider has to do something; otherwise its request ends.
type limit struct {
	after time.Duration
	timer *time.Timer // nil: there is no limit
}

func (a *attempt) limit(name string, after time.Duration) limit {
	if after <= 0 {
		return limit{}
	}
	timer := time.AfterFunc(after, func() { a.end(&upstream.Timeout{Limit: name, After: after}) })
	timer.Stop()
	return limit{after, timer}
}

func (l limit) start() {
	if l.timer != nil {
		l.timer.Reset(l.after)
	}
}

func (l limit) stop() {
	if l.timer != nil {
		l.timer.Stop()
	}
}

// close cancels what has not ended, and releases what the attempt holds.
func (a *attempt) close() {
	a.whole.stop()
	a.end(nil)
	a.stop()
	if a.err != nil {
		a.tell(a.err)
	} else {
		a.tell(errLeft)
	}
}

// tell records, once, what became of the attempt: for the breaker and in the metrics.
func (a *attempt) tell(err error) {
	if a.told {
		return
	}
	a.told = true
	t, outcome := a.target, outcomeOf(err)
	t.settle(outcome, a.err == nil, a.trial)
	t.metrics.attempts.WithLabelValues(t.ProviderID, t.Model, string(outcome)).Inc()
	a.endSpan(outcome, err)
}

// passedOver logs why an attempt is not the last one: whoever asked learns nothing of it.
func (a *attempt) passedOver(next string) {
	a.log.Warn("a provider failed", "next", next, "outcome", string(outcomeOf(a.err)), "error", a.err,
		"after", time.Since(a.started).Round(time.Millisecond).String())
}

// transient reports whether the same target may answer the same request next time.
func (a *attempt) transient() bool {
	shown, ok := errors.AsType[*chat.Error](a.err)
	return ok && shown.Code.Retryable()
}

// othersMay reports whether another target may answer the same request.
func (a *attempt) othersMay() bool {
	return a.transient() || errors.Is(a.err, upstream.ErrMisconfigured)
}
