package retry

import (
	"context"
	"errors"
	"reflect"
	"time"

	"github.com/parley-chat/parley/chat"
)

// done is run for an operation that gives nothing but an error.
func (s *Store) done(ctx context.Context, name string, do func(ctx context.Context) error,
	check func(ctx context.Context, err error) error,
) error {
	_, err := run(ctx, s, operation[struct{}]{name: name, write: true, check: check, do: func(ctx context.Context) (struct{}, error) {
		return struct{}{}, do(ctx)
	}})
	return err
}

// given is run for an operation that may simply be done again.
func given[T any](ctx context.Context, s *Store, name string, do func(ctx context.Context) (T, error)) (T, error) {
	return run(ctx, s, operation[T]{name: name, do: do})
}

// CreateSession implements [chat.Store].
func (s *Store) CreateSession(ctx context.Context, view chat.SessionView) error {
	session := chat.Snapshot(view)
	return s.done(ctx, "CreateSession", func(ctx context.Context) error { return s.store.CreateSession(ctx, &session) },
		func(ctx context.Context, err error) error {
			stored, failed := s.store.Session(ctx, session.ID)
			return settled(err, failed, func() bool {
				return stored.UserID == session.UserID && stored.Claim == session.Claim && stored.Revision == session.Revision &&
					stored.CreatedAt.Equal(session.CreatedAt.Truncate(time.Millisecond))
			})
		})
}

// settled gives nil where what is stored is what was to be stored, and that could be read; else err.
func settled(err, failed error, same func() bool) error {
	switch {
	case failed != nil:
		return errors.Join(err, failed)
	case same():
		return nil
	}
	return err
}

// UpdateSession implements [chat.Store].
func (s *Store) UpdateSession(ctx context.Context, view chat.SessionView, places ...chat.Place) error {
	session := chat.Snapshot(view)
	return s.done(ctx, "UpdateSession",
		func(ctx context.Context) error { return s.store.UpdateSession(ctx, &session, places...) },
		func(ctx context.Context, err error) error {
			if !errors.Is(err, chat.ErrStale) {
				return err
			}
			stored, failed := s.store.Session(ctx, session.ID)
			return settled(err, failed, func() bool {
				return stored.Claim == session.Claim && stored.Revision == session.Revision
			})
		})
}

// InsertMessage implements [chat.Store].
func (s *Store) InsertMessage(ctx context.Context, sessionID string, by chat.Claim, m chat.Message) error {
	return s.done(ctx, "InsertMessage",
		func(ctx context.Context) error { return s.store.InsertMessage(ctx, sessionID, by, m) },
		func(ctx context.Context, err error) error {
			if !errors.Is(err, chat.ErrExists) {
				return err
			}
			stored, failed := s.store.Message(ctx, sessionID, m.ID)
			if errors.Is(failed, chat.ErrNotFound) {
				return err // its number is another message's
			}
			return settled(err, failed, func() bool { return same(stored, m) })
		})
}

// UpdateMessage implements [chat.Store].
func (s *Store) UpdateMessage(ctx context.Context, sessionID string, by chat.Claim, m chat.Message) error {
	return s.done(ctx, "UpdateMessage",
		func(ctx context.Context) error { return s.store.UpdateMessage(ctx, sessionID, by, m) },
		func(ctx context.Context, err error) error {
			stored, failed := s.store.Message(ctx, sessionID, m.ID)
			if errors.Is(failed, chat.ErrNotFound) {
				return err
			}
			return settled(err, failed, func() bool {
				return stored.Status != chat.StatusStreaming && same(stored, updated(stored, m))
			})
		})
}

// updated gives a stored message as an update by m leaves it.
func updated(stored, m chat.Message) chat.Message {
	stored.Text, stored.Reasoning, stored.Status, stored.FinishReason = m.Text, m.Reasoning, m.Status, m.FinishReason
	stored.Error, stored.Provider, stored.Usage = m.Error, m.Provider, m.Usage
	stored.FirstTokenMS, stored.DurationMS = m.FirstTokenMS, m.DurationMS
	return stored
}

// same reports whether two messages are alike as a store keeps them.
func same(a, b chat.Message) bool {
	for _, m := range []*chat.Message{&a, &b} {
		m.CreatedAt = m.CreatedAt.UTC().Truncate(time.Millisecond)
		if m.Error != nil {
			e := *m.Error
			e.Cause, e.RetryAfter = nil, e.RetryAfter.Truncate(time.Millisecond)
			m.Error = &e
		}
	}
	return reflect.DeepEqual(a, b)
}

// ClaimSession implements [chat.Store].
func (s *Store) ClaimSession(ctx context.Context, id string, from, to chat.Claim) (chat.Session, error) {
	return given(ctx, s, "ClaimSession", func(ctx context.Context) (chat.Session, error) {
		return s.store.ClaimSession(ctx, id, from, to)
	})
}

// Session implements [chat.Store].
func (s *Store) Session(ctx context.Context, id string) (chat.Session, error) {
	return given(ctx, s, "Session", func(ctx context.Context) (chat.Session, error) { return s.store.Session(ctx, id) })
}

// Message implements [chat.Store].
func (s *Store) Message(ctx context.Context, sessionID, messageID string) (chat.Message, error) {
	return given(ctx, s, "Message", func(ctx context.Context) (chat.Message, error) {
		return s.store.Message(ctx, sessionID, messageID)
	})
}

// Messages implements [chat.Store].
func (s *Store) Messages(ctx context.Context, sessionID string, before int64, limit int) ([]chat.Message, error) {
	return given(ctx, s, "Messages", func(ctx context.Context) ([]chat.Message, error) {
		return s.store.Messages(ctx, sessionID, before, limit)
	})
}

// MessagesAfter implements [chat.Store].
func (s *Store) MessagesAfter(ctx context.Context, sessionID string, seq int64, limit int) ([]chat.Message, error) {
	return given(ctx, s, "MessagesAfter", func(ctx context.Context) ([]chat.Message, error) {
		return s.store.MessagesAfter(ctx, sessionID, seq, limit)
	})
}

// MessagesFrom implements [chat.Store].
func (s *Store) MessagesFrom(ctx context.Context, sessionID string, after int64, limit int) ([]chat.Message, error) {
	return given(ctx, s, "MessagesFrom", func(ctx context.Context) ([]chat.Message, error) {
		return s.store.MessagesFrom(ctx, sessionID, after, limit)
	})
}

// AddUsage implements [chat.Store].
func (s *Store) AddUsage(ctx context.Context, record chat.UsageRecord) error {
	return s.done(ctx, "AddUsage", func(ctx context.Context) error { return s.store.AddUsage(ctx, record) }, nil)
}

// SumUsage implements [chat.Store].
func (s *Store) SumUsage(ctx context.Context, filter chat.UsageFilter) ([]chat.UsageSum, error) {
	return given(ctx, s, "SumUsage", func(ctx context.Context) ([]chat.UsageSum, error) {
		return s.store.SumUsage(ctx, filter)
	})
}

// SessionsAfter implements [chat.Store].
func (s *Store) SessionsAfter(ctx context.Context, id string, limit int) ([]chat.Session, error) {
	return given(ctx, s, "SessionsAfter", func(ctx context.Context) ([]chat.Session, error) {
		return s.store.SessionsAfter(ctx, id, limit)
	})
}

// FindSessions implements [chat.Store].
func (s *Store) FindSessions(
	ctx context.Context, filter chat.SessionFilter, order chat.SessionOrder, after chat.SessionPlace, limit int,
) ([]chat.Session, error) {
	return given(ctx, s, "FindSessions", func(ctx context.Context) ([]chat.Session, error) {
		return s.store.FindSessions(ctx, filter, order, after, limit)
	})
}

// IdleSessions implements [chat.Store].
func (s *Store) IdleSessions(ctx context.Context, before time.Time, limit int) ([]string, error) {
	return given(ctx, s, "IdleSessions", func(ctx context.Context) ([]string, error) {
		return s.store.IdleSessions(ctx, before, limit)
	})
}

// ClaimedSessions implements [chat.Store].
func (s *Store) ClaimedSessions(ctx context.Context, ownerPrefix, after string, limit int) ([]string, error) {
	return given(ctx, s, "ClaimedSessions", func(ctx context.Context) ([]string, error) {
		return s.store.ClaimedSessions(ctx, ownerPrefix, after, limit)
	})
}

// DeleteSession implements [chat.Store].
func (s *Store) DeleteSession(ctx context.Context, id string, idleSince time.Time) error {
	return s.done(ctx, "DeleteSession",
		func(ctx context.Context) error { return s.store.DeleteSession(ctx, id, idleSince) }, nil)
}

// UsageAfter implements [chat.Store].
func (s *Store) UsageAfter(
	ctx context.Context, filter chat.UsageFilter, sessionID, messageID string, limit int,
) ([]chat.UsageRecord, error) {
	return given(ctx, s, "UsageAfter", func(ctx context.Context) ([]chat.UsageRecord, error) {
		return s.store.UsageAfter(ctx, filter, sessionID, messageID, limit)
	})
}

// DeleteUsage implements [chat.Store].
func (s *Store) DeleteUsage(ctx context.Context, filter chat.UsageFilter) error {
	return s.done(ctx, "DeleteUsage", func(ctx context.Context) error { return s.store.DeleteUsage(ctx, filter) }, nil)
}

// ResealSession implements [chat.Store].
func (s *Store) ResealSession(ctx context.Context, old, sealed chat.Session) error {
	return s.done(ctx, "ResealSession", func(ctx context.Context) error { return s.store.ResealSession(ctx, old, sealed) },
		func(ctx context.Context, err error) error {
			stored, failed := s.store.Session(ctx, old.ID)
			return settled(err, failed, func() bool {
				return stored.Title == sealed.Title && stored.HelpReason == sealed.HelpReason && stored.Sealed == sealed.Sealed
			})
		})
}

// ResealMessage implements [chat.Store].
func (s *Store) ResealMessage(ctx context.Context, sessionID string, old, sealed chat.Message) error {
	return s.done(ctx, "ResealMessage",
		func(ctx context.Context) error { return s.store.ResealMessage(ctx, sessionID, old, sealed) },
		func(ctx context.Context, err error) error {
			stored, failed := s.store.Message(ctx, sessionID, old.ID)
			return settled(err, failed, func() bool {
				return stored.Text == sealed.Text && stored.Reasoning == sealed.Reasoning && stored.Sealed == sealed.Sealed
			})
		})
}

// AddRevocation implements [chat.Store].
func (s *Store) AddRevocation(ctx context.Context, r chat.Revocation) error {
	return s.done(ctx, "AddRevocation", func(ctx context.Context) error { return s.store.AddRevocation(ctx, r) }, nil)
}

// Revocations implements [chat.Store].
func (s *Store) Revocations(ctx context.Context) ([]chat.Revocation, error) {
	return given(ctx, s, "Revocations", s.store.Revocations)
}

// DeleteRevocations implements [chat.Store].
func (s *Store) DeleteRevocations(ctx context.Context, before time.Time) error {
	return s.done(ctx, "DeleteRevocations",
		func(ctx context.Context) error { return s.store.DeleteRevocations(ctx, before) }, nil)
}

// PutAudit implements [chat.Store].
func (s *Store) PutAudit(ctx context.Context, record chat.AuditRecord) error {
	return s.done(ctx, "PutAudit", func(ctx context.Context) error { return s.store.PutAudit(ctx, record) }, nil)
}

// Audit implements [chat.Store].
func (s *Store) Audit(
	ctx context.Context, filter chat.AuditFilter, after chat.AuditPlace, limit int,
) ([]chat.AuditRecord, error) {
	return given(ctx, s, "Audit", func(ctx context.Context) ([]chat.AuditRecord, error) {
		return s.store.Audit(ctx, filter, after, limit)
	})
}

// RenewLease implements [chat.Store].
func (s *Store) RenewLease(ctx context.Context, owner string) (map[string]int64, error) {
	return given(ctx, s, "RenewLease", func(ctx context.Context) (map[string]int64, error) {
		return s.store.RenewLease(ctx, owner)
	})
}

// EndLease implements [chat.Store].
func (s *Store) EndLease(ctx context.Context, owner string) error {
	return s.done(ctx, "EndLease", func(ctx context.Context) error { return s.store.EndLease(ctx, owner) }, nil)
}

// SealCheck implements [chat.Store].
func (s *Store) SealCheck(ctx context.Context) (string, error) {
	return given(ctx, s, "SealCheck", s.store.SealCheck)
}

// SetSealCheck implements [chat.Store].
func (s *Store) SetSealCheck(ctx context.Context, sealed string) error {
	return s.done(ctx, "SetSealCheck", func(ctx context.Context) error { return s.store.SetSealCheck(ctx, sealed) }, nil)
}

// Count implements [chat.Store].
func (s *Store) Count(ctx context.Context) (chat.Counts, error) {
	return given(ctx, s, "Count", s.store.Count)
}

// ID implements [chat.Store].
func (s *Store) ID() string { return s.store.ID() }

// Ping implements [chat.Store]. It asks once, and, after a write that failed for good, such as on a full disk, writes
// something that changes nothing.
func (s *Store) Ping(ctx context.Context) error {
	err := s.store.Ping(ctx)
	if err == nil && s.unwritten.Load() != nil {
		err = s.tryWrite(ctx)
	}
	if err == nil {
		s.reached("Ping")
	}
	return err
}

func (s *Store) tryWrite(ctx context.Context) error {
	check, err := s.store.SealCheck(ctx)
	if err == nil {
		err = s.store.SetSealCheck(ctx, check)
	}
	if err == nil {
		s.unwritten.Store(nil)
	}
	return err
}

// Close implements [chat.Store].
func (s *Store) Close() error { return s.store.Close() }
