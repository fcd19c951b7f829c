package llm

import (
	"context"
	"errors"
	"strings"

	"github.com/parley-chat/parley/chat"
)

// Moderator decides whether a user's message may go to a model.
type Moderator interface {
	// Check returns nil where it may. A [chat.Error] of the code content_filtered says that it may not; any other error
	// is the end of the response too.
	Check(ctx context.Context, request chat.Request, text string) error
}

// moderate has the moderator look at what no provider has been given yet, and returns the messages that one may be given.
// Of the newest question a refusal is the error. Older ones are from a time when an agent had the session, or the
// moderation gave no verdict: they are asked about together, and left out together where they are refused.
func (p *Pool) moderate(ctx context.Context, request chat.Request) ([]chat.PromptMessage, error) {
	if p.moderator == nil {
		return request.Messages, nil
	}
	newest := -1
	var older []string
	for i, m := range request.Messages {
		if m.Role == chat.RoleUser {
			newest = i
		}
	}
	for i, m := range request.Messages {
		if m.Unasked && i != newest {
			older = append(older, m.Text)
		}
	}
	if newest >= 0 {
		if err := p.moderator.Check(ctx, request, request.Messages[newest].Text); err != nil {
			return nil, err
		}
	}
	if len(older) == 0 {
		return request.Messages, nil
	}
	err := p.moderator.Check(ctx, request, strings.Join(older, "\n\n"))
	switch {
	case err == nil:
		return request.Messages, nil
	case !errors.Is(err, chat.NewError(chat.CodeContentFiltered, "")):
		return nil, err
	}
	var passed []chat.PromptMessage
	for i, m := range request.Messages {
		if i == newest || !m.Unasked {
			passed = append(passed, m)
		}
	}
	return passed, nil
}
