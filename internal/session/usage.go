package session

import (
	"cmp"
	"context"
	"errors"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
)

// unlimitedOutput is for how many tokens of an answer budgets are reserved where the model's own limit is not known. It
// becomes the limit.
const unlimitedOutput = 8192

// grant reserves what answering the user's newest message may cost; text is one that is not in the log yet. nil without
// an error: there are no budgets.
func (s *Session) grant(ctx context.Context, text string) (*llm.Grant, error) {
	m := s.manager
	if m.cfg.Budget == nil {
		return nil, nil
	}
	s.mu.RLock()
	history, record := s.log.history(), s.record
	s.mu.RUnlock()
	if text != "" {
		history = append(history, chat.Message{Role: chat.RoleUser, Text: text, Status: chat.StatusComplete})
	}
	output := m.models.MaxOutputTokens(record.Model)
	if output == 0 {
		output = unlimitedOutput
	}
	prompt, err := m.models.Prompt(record.Model, record.Metadata, history)
	if err != nil {
		return nil, err
	}
	return s.reserve(ctx, prompt, output)
}

// reserve reserves what a model may cost that is asked a prompt and answers with at most so many tokens.
func (s *Session) reserve(ctx context.Context, prompt []chat.PromptMessage, output int) (*llm.Grant, error) {
	budget := s.manager.cfg.Budget
	if budget == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	// What the server went down under has its cost by then.
	if err := await(ctx, s.manager.caughtUp); err != nil {
		return nil, storageError(err)
	}
	grant, err := budget.Reserve(ctx, s.Record().UserID, llm.EstimatePrompt(prompt), output)
	if _, shown := errors.AsType[*chat.Error](err); err != nil && !shown {
		err = storageError(err)
	}
	return grant, err
}

// spent gives what the response cost: what the provider says, and an estimate of what it does not say; nil where nobody
// was asked, or nobody answered. Who stops a response before its first word pays for the question, if a provider was
// asked.
func (t *turn) spent(final chat.Message) *chat.Usage {
	silent := final.Text == "" && final.Reasoning == ""
	switch {
	case t.usage != nil && t.counted && (t.usage.OutputTokens > 0 || silent):
		return t.usage
	case t.finish == "" && silent && (final.Status != chat.StatusCancelled || final.Provider == ""):
		return t.usage
	}
	u := chat.Usage{
		InputTokens:  llm.EstimatePrompt(t.prompt),
		OutputTokens: llm.EstimateTokens(final.Reasoning) + llm.EstimateTokens(final.Text),
		Estimated:    true,
	}
	if t.usage != nil { // as far as it knew
		u.InputTokens = cmp.Or(t.usage.InputTokens, u.InputTokens)
		u.OutputTokens = max(u.OutputTokens, t.usage.OutputTokens)
	}
	return &u
}

// account settles the user's budget, and gives the record of what the response cost; nil: nothing.
func (t *turn) account(final chat.Message) *chat.UsageRecord {
	if final.Usage == nil {
		t.grant.Settle(chat.Usage{})
		return nil
	}
	t.grant.Settle(*final.Usage)
	record := t.session.Record()
	return t.session.manager.usageRecord(&record, final)
}

// usageRecord says what an answer with usage cost the user of a session.
func (m *Manager) usageRecord(of *chat.Session, answer chat.Message) *chat.UsageRecord {
	return &chat.UsageRecord{
		SessionID: of.ID, MessageID: answer.ID, UserID: of.UserID, Model: answer.Model, At: answer.CreatedAt,
		Usage: *answer.Usage, CostMicros: m.models.Account(answer.Model, *answer.Usage),
	}
}

// usage sums what the responses cost that ended in the log after a seq and up to another.
func (l *eventLog) usage(after, upTo int64) (sum chat.Usage) {
	for _, m := range l.messages {
		if m.Usage != nil && m.last > after && m.last <= upTo {
			sum = sum.Add(*m.Usage)
		}
	}
	return sum
}

// addUsage stores what a response cost, if anything.
func (s *Session) addUsage(ctx context.Context, record *chat.UsageRecord) error {
	s.mu.RLock()
	erased := s.erased
	s.mu.RUnlock()
	if record == nil || erased {
		return nil
	}
	return s.manager.store.AddUsage(ctx, *record)
}

// accountFor stores what a response cost that the server went down under, or shortly after. What an interrupted one
// cost nobody has told: it is estimated. The session's sum gets it with the next checkpoint.
func (l *loading) accountFor(ctx context.Context, answer *chat.Message) error {
	m := l.manager
	if answer.Status == chat.StatusInterrupted && answer.Usage == nil && answer.Text+answer.Reasoning != "" {
		var before []chat.Message
		for _, stored := range l.stored {
			if stored.N < answer.N {
				before = append(before, stored)
			}
		}
		prompt, err := m.models.Prompt(answer.Model, l.record.Metadata, before)
		if err != nil {
			m.log.Warn("what an interrupted response cost is estimated too low", "session", l.record.ID, "user", l.record.UserID,
				"error", err)
		}
		answer.Usage = &chat.Usage{
			InputTokens:  llm.EstimatePrompt(prompt),
			OutputTokens: llm.EstimateTokens(answer.Reasoning) + llm.EstimateTokens(answer.Text),
			Estimated:    true,
		}
	}
	if answer.Usage == nil {
		return nil
	}
	if err := m.store.AddUsage(ctx, *m.usageRecord(&l.record, *answer)); err != nil {
		return storageError(err)
	}
	return nil
}
