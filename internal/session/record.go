package session

import (
	"context"
	"errors"
	"time"

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

// Join has an agent take the session over: from now on no model answers; a response in progress goes on to its end. It
// settles a request for help. Where the agent holds the session already, nothing happens; where another does, it is
// takeover_conflict.
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
	return errors.Join(err, conflict)
}

// LeaveAgent ends the agent's takeover, if it has one, unless it is wanted: that is asked when no other change of the
// record is under way. The takeover ends even where that cannot be stored, of which the error tells: a takeover in the
// store counts for nothing when the session is loaded.
func (s *Session) LeaveAgent(ctx context.Context, agentID string, wanted func() bool) error {
	if err := s.lockRecord(ctx); err != nil {
		return err
	}
	defer s.unlockRecord()
	draft, places, _ := s.unstored(nil)
	if draft.AssistedBy == nil || draft.AssistedBy.ID != agentID || wanted() {
		return nil
	}
	agent := *draft.AssistedBy
	draft.AssistedBy, draft.LastActiveAt = nil, chat.Now()
	err := s.storeRecord(&draft, places...)
	s.adopt(draft, places, err)
	s.publish(s.Record(), chat.AgentLeft{Author: agent})
	return err
}

// updateRecord lets edit change a draft of the record, stores it, and then shows it, with the events that edit gave.
// Where storing fails nothing changes. No events: nothing is stored.
func (s *Session) updateRecord(ctx context.Context, edit func(*chat.Session) []chat.EventBody) error {
	if err := s.lockRecord(ctx); err != nil {
		return err
	}
	defer s.unlockRecord()
	if err := s.isUsable(); err != nil {
		return err
	}
	// With all that the store does not know yet: so the sum of what it has is always that of the log that it has.
	draft, places, _ := s.unstored(nil)
	events := edit(&draft)
	if len(events) == 0 {
		return nil
	}
	draft.LastActiveAt = chat.Now()
	if err := s.storeRecord(&draft, places...); err != nil {
		return err
	}
	s.adopt(draft, places, nil)
	s.publish(draft, events...)
	return nil
}

func (s *Session) isUsable() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.usable()
}

// publish makes the draft the record and appends what happened to the log. The record's gate is held.
func (s *Session) publish(draft chat.Session, events ...chat.EventBody) {
	s.change(func() {
		if s.record.Status == chat.SessionStatusEnded {
			return // meanwhile: nothing follows that
		}
		s.record = draft
		if s.lost != nil {
			return // the journal may have its successor's events already
		}
		for _, body := range events {
			s.addOther(body)
		}
	})
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

// tryLockRecord reports whether it has the record's gate: no other change was under way.
func (s *Session) tryLockRecord() bool {
	select {
	case s.recordGate <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s *Session) unlockRecord() { <-s.recordGate }

// storeRecord stores a draft of the record, with places of messages. The record's gate is held. Where another server has
// claimed the session it is lost.
func (s *Session) storeRecord(draft *chat.Session, places ...chat.Place) error {
	ctx, cancel := s.manager.storeContext()
	defer cancel()
	switch err := s.tryStoreRecord(ctx, draft, places...); {
	case errors.Is(err, chat.ErrNotFound):
		return s.vanish(err)
	case errors.Is(err, chat.ErrStale):
		return s.stale(ctx, draft, err)
	case err != nil:
		return storageError(err)
	}
	return nil
}

// vanish gives the session up, which somebody has erased, and gives the error for that.
func (s *Session) vanish(cause error) error {
	err := chat.NewError(chat.CodeSessionNotFound, "there is no such session").WithCause(cause)
	s.lose(err)
	return err
}

// tryStoreRecord stores a draft of the record under a revision of its own: so an attempt that was given up, and is done
// all the same, does not undo a later one. The record's gate is held.
func (s *Session) tryStoreRecord(ctx context.Context, draft *chat.Session, places ...chat.Place) error {
	s.revision = max(s.revision+1, time.Now().UnixMicro()) // as an attempt of an earlier life may have the next number
	draft.Revision = s.revision
	return s.manager.store.UpdateSession(ctx, draft, places...)
}

// stale finds out why the store does not take the draft: an earlier attempt to end the session was done although its
// answer was lost; or the session is another server's.
func (s *Session) stale(ctx context.Context, draft *chat.Session, cause error) error {
	stored, err := s.manager.store.Session(ctx, s.id)
	switch {
	case err != nil && !errors.Is(err, chat.ErrNotFound):
		return storageError(err)
	case err == nil && stored.Claim == draft.Claim && stored.Revision == draft.Revision:
		return nil // it was done
	case stored.Status != chat.SessionStatusEnded || stored.Claim != draft.Claim:
		err := errBusy(cause)
		s.lose(err)
		return err
	case draft.Status == chat.SessionStatusEnded:
		return nil
	}
	pending, err := s.beginEnd()
	for _, done := range pending {
		if err == nil {
			err = await(s.manager.storing, done)
		}
	}
	if err == nil {
		s.publish(stored, chat.SessionEnded{Reason: stored.EndReason})
		s.leaveEnded()
	}
	return errEnded()
}

// busyRetry is when it is worth a try again to open a session that another server has.
const busyRetry = time.Second

func errBusy(cause error) error {
	busy := chat.NewError(chat.CodeSessionBusy, "the session is in use by another server")
	busy.RetryAfter = busyRetry
	return busy.WithCause(cause)
}

// checkpoint stores what the store does not know of the session yet: its record, how far its log has come, and the
// places of its messages. A response in progress, and what comes after its beginning, is left to the journal. edit adds
// to the record what the turn that has just ended makes of it; nil: none has.
func (s *Session) checkpoint(ctx context.Context, edit func(*chat.Session)) error {
	if err := s.lockRecord(ctx); err != nil {
		return err
	}
	defer s.unlockRecord()
	if s.Lost() {
		return nil // whoever loads it next sees to it
	}
	failed := s.storeEnds()
	draft, places, changed := s.unstored(edit)
	if !changed {
		return failed
	}
	err := s.storeRecord(&draft, places...)
	s.adopt(draft, places, err)
	return errors.Join(failed, err)
}

// adopt takes over the record that was stored, or, with an error, what of it holds all the same. It is no use of the
// session: that it could be idle does not change.
func (s *Session) adopt(draft chat.Session, places []chat.Place, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.record.Status == chat.SessionStatusEnded {
		return // as the store says
	}
	if err != nil {
		draft.LogEnd, draft.Changed = s.record.LogEnd, s.record.Changed
		draft.Usage, draft.Messages = s.record.Usage, s.record.Messages
	} else {
		s.log.placed(places)
		s.journal.Stored(draft.LogEnd)
		s.owed = chat.Usage{}
	}
	s.record = draft
}

// unstored gives the record as it is to be stored, the places of messages that the store does not know, and whether
// there is anything new in it.
func (s *Session) unstored(edit func(*chat.Session)) (draft chat.Session, places []chat.Place, changed bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	draft = s.record
	if draft.Status == chat.SessionStatusEnded || s.lost != nil {
		return draft, nil, false
	}
	draft.LogEnd = max(s.record.LogEnd, s.log.storable())
	draft.Changed = max(s.record.Changed, s.log.lastChange(draft.LogEnd))
	// The sums are always those of the messages up to LogEnd: so none is missing, or there twice, after a crash.
	draft.Usage = draft.Usage.Add(s.log.usage(s.record.LogEnd, draft.LogEnd)).Add(s.owed)
	draft.Messages += s.log.count(s.record.LogEnd, draft.LogEnd)
	draft.ProviderStates = s.states
	if s.lastMessage.After(draft.LastActiveAt) {
		draft.LastActiveAt = s.lastMessage
	}
	if edit != nil {
		edit(&draft)
	}
	places = s.log.unplaced(draft.LogEnd)
	changed = edit != nil || s.owed != (chat.Usage{}) || len(places) > 0 || draft.LogEnd > s.record.LogEnd ||
		draft.LastActiveAt.After(s.record.LastActiveAt)
	return draft, places, changed
}

// End ends the session for good. A response in progress is cancelled first; its text is kept. Where the end cannot be
// stored the session goes on.
func (s *Session) End(ctx context.Context, reason chat.EndReason) error {
	pending, err := s.beginEnd()
	if err != nil {
		return err
	}
	err = s.end(ctx, reason, pending)
	s.mu.Lock()
	close(s.ending)
	s.ending = nil
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.leaveEnded()
	return nil
}

// leaveEnded takes the ended session out of memory. The store has its end, and its messages: the journal's part may
// go, once it is written.
func (s *Session) leaveEnded() {
	s.manager.remove(s)
	if err := s.awaitWritten(s.manager.storing); err == nil {
		s.manager.journal.Forget(s.id)
	}
	s.change(s.dropEndedLog)
}

// beginEnd lets nothing begin any more, cancels the response in progress, and gives what is to be waited for before
// the last event.
func (s *Session) beginEnd() (pending []<-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	s.ending = make(chan struct{})
	for _, sub := range s.submissions {
		pending = append(pending, sub.done)
	}
	if s.turn != nil {
		s.turn.cancel(errCancelled)
		pending = append(pending, s.turn.done)
	}
	return pending, nil
}

func (s *Session) end(ctx context.Context, reason chat.EndReason, pending []<-chan struct{}) error {
	for _, done := range pending {
		if err := await(ctx, done); err != nil {
			return err
		}
	}
	if err := s.lockRecord(ctx); err != nil {
		return err
	}
	defer s.unlockRecord()
	if err := s.storeEnds(); err != nil {
		return err
	}
	s.mu.RLock()
	draft := s.record
	draft.Usage = draft.Usage.Add(s.log.usage(draft.LogEnd, s.log.end)).Add(s.owed)
	draft.Messages += s.log.count(draft.LogEnd, s.log.end)
	s.mu.RUnlock()
	draft.Status, draft.EndReason = chat.SessionStatusEnded, reason
	draft.AssistedBy, draft.LastActiveAt = nil, chat.Now()
	if err := s.storeRecord(&draft); err != nil {
		return err
	}
	s.publish(draft, chat.SessionEnded{Reason: reason})
	return nil
}
