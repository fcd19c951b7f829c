package llm

import (
	"context"
	"errors"

	"github.com/parley-chat/parley/chat"
)

// Moderator decides whether a user's message may go to a model.
type Moderator interface {
	// Check returns nil where it may. A [chat.Error] of the code content_filtered says that it may not; any other error
	// is the end of the response too.
	Check(ctx context.Context, request chat.Request, text string) error
}

// moderate has the moderator look at what no provider has been given yet, and returns the messages that one may be given.
// Of the newest question a refusal is the error. An older one that is refused is left out: it is from a time when an agent
// had the session, or the moderation gave no verdict.
func (p *Pool) moderate(ctx context.Context, request chat.Request) ([]chat.PromptMessage, error) {
	if p.moderator == nil {
		return request.Messages, nil
	}
	newest := -1
	for i, m := range request.Messages {
		if m.Role == chat.RoleUser {
			newest = i
		}
	}
	var passed []chat.PromptMessage
	for i, m := range request.Messages {
		if i == newest || m.Role == chat.RoleUser && m.Unasked {
			err := p.moderator.Check(ctx, request, m.Text)
			if refused := errors.Is(err, chat.NewError(chat.CodeContentFiltered, "")); refused && i != newest {
				continue
			}
			if err != nil {
				return nil, err
			}
		}
		passed = append(passed, m)
	}
	return passed, nil
}
