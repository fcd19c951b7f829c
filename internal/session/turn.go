package session

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/trace"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/llm/upstream"
	"github.com/parley-chat/parley/internal/telemetry"
)

// The causes for which a turn's context ends.
var (
	errCancelled = errors.New("the response was cancelled")
	errShutdown  = errors.New("the server is shutting down")
	errLost      = errors.New("the session was given up")
)

// turn is one response being written. It belongs to its session, not to the connection that asked for it.
type turn struct {
	session *Session
	cancel  context.CancelCauseFunc
	ctx     context.Context
	done    chan struct{}     // closed when the response is completed, or was never begun
	answer  chat.Message      // as it begins
	grant   *llm.Grant        // of the user's budget; nil: there is none
	cause   trace.SpanContext // of who asked for it

	msg *message // in the log, from the start of the turn on; guarded by the session's lock

	// Owned by the turn's goroutine.
	started    time.Time
	span       trace.Span
	firstToken time.Duration
	finish     chat.FinishReason
	usage      *chat.Usage
	counted    bool // the usage is that of the whole answer
	prompt     []chat.PromptMessage
	state      string // what the provider wants to be kept with the session
}

// reserveTurn makes the turn that will answer a message; until it is started or abandoned no other can begin, and a
// drain waits for it. asked is the context of who asks, which the turn outlives. grant is what it may cost; without an error the turn settles it. The lock is held.
func (s *Session) reserveTurn(asked context.Context, replyTo, replaces string, grant *llm.Grant) (*turn, error) {
	if !s.manager.beginTurn() {
		return nil, errDraining()
	}
	ctx, cancel := context.WithCancelCause(s.manager.ctx)
	s.turn = &turn{
		session: s, ctx: ctx, cancel: cancel, done: make(chan struct{}), grant: grant,
		cause: telemetry.CauseOf(asked),
		answer: chat.Message{
			ID: chat.NewID(), N: s.takeN(), Role: chat.RoleAssistant, Status: chat.StatusStreaming,
			Model: s.record.Model, ReplyTo: replyTo, Replaces: replaces,
		},
	}
	return s.turn, nil
}

// startTurn publishes the beginning of the response and lets the turn run. The lock is held.
func (s *Session) startTurn(t *turn) {
	t.answer.CreatedAt = chat.Now()
	t.msg = s.addMessage(t.answer)
	s.holds++
	go t.run()
}

// abandonTurn gives up a turn that was reserved and not started. The lock is held.
func (s *Session) abandonTurn(t *turn) {
	t.cancel(nil)
	t.grant.Settle(chat.Usage{})
	s.turn = nil
	close(t.done)
	s.manager.endTurn()
}

// Cancel stops the response in progress, if there is one and it is the one named; "" names any. It does not wait.
func (s *Session) Cancel(messageID string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.turn != nil && (messageID == "" || messageID == s.turn.answer.ID) {
		s.turn.cancel(errCancelled)
	}
}

func (t *turn) run() {
	defer t.session.manager.endTurn()
	defer t.session.Release()
	defer t.cancel(nil)
	t.started = time.Now()
	t.startSpan()
	storing := t.session.manager.storing
	saving, stopSaving := context.WithCancel(storing)
	defer stopSaving()
	stop := make(chan struct{})
	var saver sync.WaitGroup
	inserted := false
	saver.Go(func() { inserted = t.save(saving, stop) })
	err := t.stream()
	ending, cancel := context.WithTimeout(storing, endPatience)
	defer cancel()
	defer context.AfterFunc(ending, stopSaving)()
	close(stop)
	saver.Wait()
	if inserted { // else the store has other worries
		t.nameByWords(ending, err)
	}
	t.complete(ending, err, inserted)
}

// endPatience is for how long the end of a response waits for the store, so that it is there when it is shown. A store
// that takes longer is given the end afterwards; until then the journal has it.
const endPatience = 500 * time.Millisecond

// stream asks the model and appends what it answers. It returns nil for a whole answer only.
func (t *turn) stream() error {
	request, err := t.request()
	if err != nil {
		return err
	}
	if cause := context.Cause(t.ctx); cause != nil {
		return cause // before anybody was asked
	}
	for chunk, err := range t.session.manager.models.Stream(t.ctx, request) {
		if chunk.Provider != "" {
			t.answeredBy(chunk.Provider)
		}
		switch cause := context.Cause(t.ctx); {
		case t.finish != "" && (cause != nil || err != nil):
			return nil // the answer is whole; only its usage is not known
		case cause != nil:
			return cause
		case err != nil:
			return err
		}
		t.take(chunk)
	}
	switch cause := context.Cause(t.ctx); {
	case t.finish != "":
		return nil
	case cause != nil:
		return cause
	default:
		return chat.NewError(chat.CodeLLMUnavailable, "the answer was cut off")
	}
}

// request is what the model is asked.
func (t *turn) request() (request chat.Request, err error) {
	s := t.session
	s.mu.RLock()
	history, record, states := s.log.history(), s.record, s.states
	s.mu.RUnlock()
	if t.prompt, err = s.manager.models.Prompt(t.answer.Model, record.Metadata, history); err != nil {
		return request, err
	}
	request = chat.Request{
		SessionID: s.id,
		UserID:    record.UserID,
		MessageID: t.answer.ID,
		Model:     t.answer.Model,
		Messages:  t.prompt,
		States:    states,
	}
	if t.grant != nil {
		request.Parameters.MaxOutputTokens = t.grant.MaxOutputTokens
	}
	return request, nil
}

func (t *turn) take(c chat.Chunk) {
	if c.FinishReason != "" {
		t.finish = c.FinishReason
	}
	if c.Usage != nil {
		t.usage, t.counted = c.Usage, t.finish != ""
	}
	if c.State != "" {
		t.state = c.State
	}
	if c.Text == "" && c.Reasoning == "" {
		return
	}
	if t.firstToken == 0 {
		t.firstToken = time.Since(t.started)
		t.span.AddEvent(telemetry.EventFirstToken)
	}
	s, behind := t.session, false
	s.change(func() {
		if s.turn != t || s.lost != nil {
			return
		}
		for part := range split(c.Reasoning) {
			s.addDelta(t.msg, chat.DeltaReasoning, part)
		}
		for part := range split(c.Text) {
			s.addDelta(t.msg, chat.DeltaText, part)
		}
		behind = s.log.end-s.log.shown > maxUnwritten
	})
	if behind {
		// The disk is slower than the model. An error is the end of the turn, which shows there.
		_ = s.awaitWritten(t.ctx)
	}
}

// maxUnwritten is how many events of a response may wait for the journal before the model has to wait too.
const maxUnwritten = 256

func (t *turn) answeredBy(provider string) {
	t.session.mu.Lock()
	defer t.session.mu.Unlock()
	t.msg.Provider = provider
}

// split cuts text into pieces of at most maxDelta bytes, between characters.
func split(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for len(text) > maxDelta {
			cut := maxDelta
			for cut > maxDelta-utf8.UTFMax && !utf8.RuneStart(text[cut]) {
				cut--
			}
			if !yield(text[:cut]) {
				return
			}
			text = text[cut:]
		}
		if text != "" {
			yield(text)
		}
	}
}

// save stores the response as it begins and, from time to time, as far as it has come, until stop; what it does then
// ends with ctx. It reports whether the store has the response.
func (t *turn) save(ctx context.Context, stop <-chan struct{}) (inserted bool) {
	s := t.session
	m, saved := t.answer, 0
	ticker := time.NewTicker(s.manager.cfg.CheckpointInterval)
	defer ticker.Stop()
	for {
		if size := len(m.Text) + len(m.Reasoning); !inserted || size > saved {
			switch err := t.storeWithin(ctx, m, inserted); {
			case err != nil:
				t.log().Warn("storing a response in progress failed", "error", err)
			default:
				inserted, saved = true, size
			}
		}
		select {
		case <-stop:
			return inserted
		case <-ticker.C:
		}
		s.mu.RLock()
		m = t.msg.whole()
		s.mu.RUnlock()
	}
}

// complete ends the response: stored first, then shown, exactly once. Where the store has not taken it when ctx ends the
// journal keeps the response until a checkpoint has stored it. Where the session is lost it is only stored.
func (t *turn) complete(ctx context.Context, err error, inserted bool) {
	s := t.session
	// What the store says at the end must be what the journal has.
	_ = s.awaitWritten(s.manager.storing)
	s.mu.RLock()
	final := t.msg.whole()
	s.mu.RUnlock()
	final.Status, final.FinishReason, final.Error = t.outcome(err)
	final.Error = telemetry.Mark(t.ctx, final.Error)
	final.Usage = t.spent(final)
	final.FirstTokenMS, final.DurationMS = milliseconds(t.firstToken), milliseconds(time.Since(t.started))

	t.count(final)
	record := t.account(final)
	failed := t.store(ctx, final, inserted)
	if failed == nil {
		failed = s.addUsage(ctx, record)
	}
	if failed != nil {
		t.log().Error("storing a response failed: the journal has it until the storage takes it", "error", failed)
	}
	lost := false
	s.change(func() {
		if lost = s.lost != nil; !lost {
			s.addCompleted(t.msg, final)
			if failed != nil {
				t.msg.unstored, t.msg.cost = true, record
			}
			s.lastMessage = chat.Now()
		}
		t.keepState(final.Provider)
		s.turn = nil
	})
	t.endSpan(final)
	close(t.done)
	if lost {
		s.manager.remove(s)
		return
	}
	t.checkpoint(final)
	t.nameByModel(final)
	first, total := s.ResponseTimes()
	t.log().Debug("a response has ended", "status", final.Status, "first_token_ms", final.FirstTokenMS,
		"duration_ms", final.DurationMS, "responses", total.Count, "first_token_p50_ms", first.P50,
		"first_token_p95_ms", first.P95, "p50_ms", total.P50, "p95_ms", total.P95)
}

// checkpoint stores how far the session has come, now that the response is over.
func (t *turn) checkpoint(final chat.Message) {
	s := t.session
	err := s.awaitWritten(s.manager.storing)
	if err == nil {
		err = s.checkpoint(s.manager.storing, func(draft *chat.Session) { t.addTo(draft, final) })
	}
	if err != nil {
		t.log().Warn("storing how far a session has come failed: it is tried again", "error", err)
		s.manager.storeLater(s)
	}
}

// addTo adds to the session's record what the response makes of it.
func (t *turn) addTo(draft *chat.Session, final chat.Message) {
	draft.ResponseTimes = chat.AddResponseTime(draft.ResponseTimes,
		chat.ResponseTime{FirstTokenMS: final.FirstTokenMS, TotalMS: final.DurationMS}, t.session.manager.cfg.MaxResponseTimes)
}

// keepState keeps what the provider wants to be kept, before the next response can begin. The lock is held.
func (t *turn) keepState(provider string) {
	s := t.session
	if t.state == "" || s.states[provider] == t.state {
		return
	}
	states := maps.Clone(s.states)
	if states == nil {
		states = make(map[string]string)
	}
	states[provider] = t.state
	s.states = states
}

// storeWithin is store for as long as a single operation may take.
func (t *turn) storeWithin(ctx context.Context, m chat.Message, inserted bool) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return t.store(ctx, m, inserted)
}

// store stores the response as m, inserting it where that was not done yet.
func (t *turn) store(ctx context.Context, m chat.Message, inserted bool) error {
	s, store := t.session, t.session.manager.store
	if !inserted {
		err := s.manager.insertMessage(ctx, s.id, s.claim, m)
		if errors.Is(err, chat.ErrStale) {
			s.lose(errBusy(err))
		} else if errors.Is(err, chat.ErrNotFound) {
			_ = s.vanish(err)
		}
		if !errors.Is(err, chat.ErrExists) {
			return err
		}
		// An earlier attempt was done although its answer was lost.
	}
	return store.UpdateMessage(ctx, s.id, s.claim, m)
}

// storeEnds stores the ends of responses that the store did not take when they came.
func (s *Session) storeEnds() error {
	s.mu.RLock()
	var ends []*message
	for _, msg := range s.log.messages {
		if msg.unstored {
			ends = append(ends, msg)
		}
	}
	s.mu.RUnlock()
	for _, msg := range ends {
		if err := s.storeEnd(msg); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) storeEnd(msg *message) error {
	ctx, cancel := s.manager.storeContext()
	defer cancel()
	s.mu.RLock()
	final := msg.whole()
	s.mu.RUnlock()
	store := s.manager.store
	err := s.manager.insertMessage(ctx, s.id, s.claim, final)
	if errors.Is(err, chat.ErrStale) {
		err := errBusy(err)
		s.lose(err)
		return err
	}
	if errors.Is(err, chat.ErrNotFound) {
		return s.vanish(err)
	}
	if errors.Is(err, chat.ErrExists) {
		err = store.UpdateMessage(ctx, s.id, s.claim, final)
	}
	if errors.Is(err, chat.ErrStale) {
		// An earlier attempt was done although its answer was lost, or the number is another message's.
		if _, err = store.Message(ctx, s.id, final.ID); errors.Is(err, chat.ErrNotFound) {
			s.change(func() { msg.N = s.takeN() }) // for the next attempt
		}
	}
	if err != nil {
		return storageError(err)
	}
	s.mu.RLock()
	cost := msg.cost
	s.mu.RUnlock()
	if err := s.addUsage(ctx, cost); err != nil {
		return storageError(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	msg.unstored, msg.cost = false, nil
	return nil
}

// outcome says how a response ends for which the stream ended with err.
func (t *turn) outcome(err error) (chat.Status, chat.FinishReason, *chat.Error) {
	switch {
	case err == nil:
		return chat.StatusComplete, t.finish, nil
	case errors.Is(err, errCancelled):
		return chat.StatusCancelled, chat.FinishCancelled, nil
	case errors.Is(err, errShutdown):
		return chat.StatusInterrupted, "", nil
	case errors.Is(err, errLost):
		return chat.StatusFailed, "", chat.NewError(chat.CodeStorageUnavailable, "the answer could not be shown any further")
	}
	shown := chat.AsError(err)
	if shown.Code == chat.CodeLLMTimeout {
		limit := ""
		if timeout, ok := errors.AsType[*upstream.Timeout](err); ok {
			limit = timeout.Limit
		}
		t.log().Warn("a response timed out", "limit", limit, "error", err)
	} else {
		t.log().Warn("a response failed", "code", string(shown.Code), "error", err)
	}
	return chat.StatusFailed, "", shown
}

// log is for what happens to this response.
func (t *turn) log() *slog.Logger {
	t.session.mu.RLock()
	provider := t.msg.Provider
	t.session.mu.RUnlock()
	return telemetry.Log(t.ctx, t.session.logger()).With("message", t.answer.ID, "model", t.answer.Model, "provider", provider, "after", time.Since(t.started).Round(time.Millisecond).String())
}

// milliseconds rounds up, so that what took any time at all is not told as nothing.
func milliseconds(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}
