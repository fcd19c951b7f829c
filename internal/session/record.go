package session

import (
	"context"

	"github.com/parley-chat/parley/chat"
)

// Update changes the session's title, its model or both: stored first, then shown. The model counts from the next
// turn on. An unknown model is an error of code model_not_found.
func (s *Session) Update(ctx context.Context, title, model *string) error {
	if model != nil && !s.manager.models.Has(*model) {
		return chat.NewError(chat.CodeModelNotFound, "there is no such model")
	}
	return s.updateRecord(ctx, func(r *chat.Session) []chat.EventBody {
		var changed chat.SessionUpdated
		if title != nil && *title != r.Title {
			r.Title, changed.Title = *title, title
		}
		if model != nil && *model != r.Model {
			r.Model, changed.Model = *model, model
		}
		if changed == (chat.SessionUpdated{}) {
			return nil
		}
		return []chat.EventBody{changed}
	})
}

// RequestHelp asks for a human.
func (s *Session) RequestHelp(ctx context.Context, reason string) error {
	return s.updateRecord(ctx, func(r *chat.Session) []chat.EventBody {
		if r.HelpRequested && r.HelpReason == reason {
			return nil
		}
		r.HelpRequested, r.HelpReason = true, reason
		return []chat.EventBody{chat.SessionUpdated{HelpRequested: new(true)}}
	})
}

// Join has an agent take the session over: from now on no model answers. It settles a request for help. Where the
// agent holds the session already, nothing happens; where another does, it is takeover_conflict.
func (s *Session) Join(ctx context.Context, agent chat.Author) error {
	var conflict error
	err := s.updateRecord(ctx, func(r *chat.Session) []chat.EventBody {
		if r.AssistedBy != nil {
			if r.AssistedBy.ID != agent.ID {
				conflict = chat.NewError(chat.CodeTakeoverConflict, "another agent has taken the session over")
			}
			return nil
		}
		r.AssistedBy = &agent
		events := []chat.EventBody{chat.AgentJoined{Author: agent}}
		if r.HelpRequested {
			r.HelpRequested, r.HelpReason = false, ""
			events = append(events, chat.SessionUpdated{HelpRequested: new(false)})
		}
		return events
	})
	if err != nil {
		return err
	}
	return conflict
}

// LeaveAgent ends the agent's takeover, if it has one.
func (s *Session) LeaveAgent(ctx context.Context, agentID string) error {
	return s.updateRecord(ctx, func(r *chat.Session) []chat.EventBody {
		if r.AssistedBy == nil || r.AssistedBy.ID != agentID {
			return nil
		}
		agent := *r.AssistedBy
		r.AssistedBy = nil
		return []chat.EventBody{chat.AgentLeft{Author: agent}}
	})
}

// updateRecord lets edit change the record, stores it, and then appends the events that edit gave. Where storing
// fails the record is as before. No events: nothing changed, nothing is stored.
func (s *Session) updateRecord(ctx context.Context, edit func(*chat.Session) []chat.EventBody) error {
	if err := s.lockRecord(ctx); err != nil {
		return err
	}
	defer s.unlockRecord()

	s.mu.Lock()
	if err := s.usable(); err != nil {
		s.mu.Unlock()
		return err
	}
	before := s.record
	events := edit(&s.record)
	if len(events) > 0 {
		s.record.LastActiveAt = chat.Now()
	}
	s.mu.Unlock()
	if len(events) == 0 {
		return nil
	}
	if err := s.storeRecord(ctx); err != nil {
		s.mu.Lock()
		s.record = before
		s.mu.Unlock()
		return err
	}
	s.change(func() {
		for _, body := range events {
			s.log.addOther(body)
		}
	})
	return nil
}

// lockRecord waits until no other change of the record is under way.
func (s *Session) lockRecord(ctx context.Context) error {
	select {
	case s.recordGate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Session) unlockRecord() { <-s.recordGate }

// storeRecord stores the record as it is. The record's gate is held.
func (s *Session) storeRecord(ctx context.Context) error {
	ctx, cancel := storeContext(ctx)
	defer cancel()
	if err := s.manager.store.UpdateSession(ctx, s); err != nil {
		return storageError(err)
	}
	return nil
}

// touch stores when the session was last active.
func (s *Session) touch(ctx context.Context) error {
	if err := s.lockRecord(ctx); err != nil {
		return err
	}
	defer s.unlockRecord()
	s.mu.Lock()
	s.record.LastActiveAt = chat.Now()
	ended := s.record.Status == chat.SessionStatusEnded
	s.mu.Unlock()
	if ended {
		return nil
	}
	return s.storeRecord(ctx)
}

// End ends the session for good. A response in progress is cancelled first; its text is kept. Where the end cannot be
// stored the session goes on.
func (s *Session) End(ctx context.Context, reason chat.EndReason) error {
	s.mu.Lock()
	if err := s.usable(); err != nil {
		s.mu.Unlock()
		return err
	}
	s.ending = true
	s.mu.Unlock()

	err := s.end(ctx, reason)
	s.mu.Lock()
	s.ending = false
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.manager.remove(s)
	return nil
}

func (s *Session) end(ctx context.Context, reason chat.EndReason) error {
	if err := s.stopTurn(ctx, errCancelled); err != nil {
		return err
	}
	if err := s.lockRecord(ctx); err != nil {
		return err
	}
	defer s.unlockRecord()
	s.mu.Lock()
	before := s.record
	s.record.Status, s.record.EndReason = chat.SessionStatusEnded, reason
	s.record.AssistedBy, s.record.LastActiveAt = nil, chat.Now()
	s.mu.Unlock()
	if err := s.storeRecord(ctx); err != nil {
		s.mu.Lock()
		s.record = before
		s.mu.Unlock()
		return err
	}
	s.change(func() {
		s.log.addOther(chat.SessionEnded{Reason: reason})
		s.dropEndedLog()
	})
	return nil
}
