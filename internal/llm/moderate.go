package llm

import (
	"context"
	"errors"
	"sync"

	"go.opentelemetry.io/otel/trace"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/telemetry"
)

// Moderator decides whether a user's message may go to a model.
type Moderator interface {
	// Check returns nil where it may. A [chat.Error] of the code content_filtered says that it may not; any other error
	// is the end of the response too.
	Check(ctx context.Context, request chat.Request, text string) error
}

// moderate has the moderator look at what no provider has been given yet, and returns the messages that one may be given.
// Of the newest question a refusal is the error. Older ones are from a time when an agent had the session, or the
// moderation gave no verdict: each of them is asked about once, and left out where it is refused.
func (p *Pool) moderate(ctx context.Context, request chat.Request) ([]chat.PromptMessage, error) {
	if p.moderator == nil {
		return request.Messages, nil
	}
	newest := -1
	for i, m := range request.Messages {
		if m.Role == chat.RoleUser && m.ID != "" { // without an ID they are the server's own words
			newest = i
		}
	}
	// At the same time: a moderator that takes its time does so once.
	errs := make([]error, len(request.Messages))
	turns := make(chan struct{}, maxModerations)
	var asking sync.WaitGroup
	for i, m := range request.Messages {
		if i != newest && !m.Unasked {
			continue
		}
		asking.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			errs[i] = p.check(ctx, request, m, i == newest)
		})
	}
	asking.Wait()
	if newest >= 0 && errs[newest] != nil {
		return nil, errs[newest]
	}
	var passed []chat.PromptMessage
	for i, m := range request.Messages {
		switch {
		case errs[i] == nil:
			passed = append(passed, m)
		case !isFiltered(errs[i]):
			return nil, errs[i]
		}
	}
	return passed, nil
}

// maxModerations is how many questions about one prompt are under way at the same time.
const maxModerations = 16

// check asks about one message. A refusal of one that is not the newest is remembered: it must not slip through when the
// moderator is down, nor cost a question each time.
func (p *Pool) check(ctx context.Context, request chat.Request, m chat.PromptMessage, newest bool) error {
	key := request.SessionID + "/" + m.ID
	if err, known := p.verdicts.get(key); known && !newest {
		return err
	}
	ctx, span := p.tracer.Start(ctx, "moderation", trace.SpanKindClient, trace.SpanContext{})
	defer span.End()
	err := p.moderator.Check(ctx, request, m.Text)
	if shown, ok := errors.AsType[*chat.Error](err); ok {
		telemetry.Fail(span, shown.Code)
	}
	if !newest && (err == nil || isFiltered(err)) {
		p.verdicts.put(key, err)
	}
	return err
}

func isFiltered(err error) bool { return errors.Is(err, chat.NewError(chat.CodeContentFiltered, "")) }

// verdicts remembers the latest verdicts of a moderator, at least so many as a generation holds.
type verdicts struct {
	mu            sync.Mutex // guards the fields below
	young, former map[string]error
}

// verdictsInGeneration bounds the memory: two generations, about 100 bytes a verdict.
const verdictsInGeneration = 10_000

func (v *verdicts) get(key string) (err error, known bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err, known = v.young[key]; !known {
		err, known = v.former[key]
	}
	return err, known
}

func (v *verdicts) put(key string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.young == nil || len(v.young) >= verdictsInGeneration {
		v.former, v.young = v.young, make(map[string]error)
	}
	v.young[key] = err
}
