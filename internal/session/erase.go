package session

import (
	"context"
	"errors"
	"time"

	"github.com/parley-chat/parley/chat"
)

// endToErase ends the session, or waits for the end that is under way. What is still to cost something costs nothing.
func (s *Session) endToErase(ctx context.Context, reason chat.EndReason) error {
	s.mu.Lock()
	s.erased = true
	s.mu.Unlock()
	for {
		err := s.End(ctx, reason)
		if !errors.Is(err, chat.NewError(chat.CodeSessionEnded, "")) {
			return err
		}
		s.mu.RLock()
		ending := s.ending
		s.mu.RUnlock()
		if ending == nil {
			return nil
		}
		if err := await(ctx, ending); err != nil {
			return err
		}
	}
}

// Erase removes a session and its messages for good. Whoever has it open is told that it has ended, and why. One that is unknown,
// or that may says no to, is session_not_found; one that another server has is session_busy. What its responses cost
// stays.
func (m *Manager) Erase(ctx context.Context, id string, reason chat.EndReason, may func(*chat.Session) bool) error {
	s, err := m.Open(ctx, id, may)
	switch ended := chat.NewError(chat.CodeSessionEnded, ""); {
	case errors.Is(err, ended): // which is no reason not to
	case err != nil:
		return err
	default:
		err = s.endToErase(ctx, reason)
		s.Release()
		if err != nil {
			return err
		}
	}
	// From the journal first: so nothing of it comes back, whenever the server goes down.
	if err := m.journal.Erase(ctx, id); err != nil {
		return storageError(err)
	}
	store, cancel := m.storeContext()
	defer cancel()
	if err := m.store.DeleteSession(store, id, time.Time{}); err != nil {
		return storageError(err)
	}
	m.forget(id)
	return nil
}
