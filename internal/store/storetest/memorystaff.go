package storetest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/parley-chat/parley/chat"
)

// FindSessions implements [chat.Store].
func (s *Memory) FindSessions(
	ctx context.Context, filter chat.SessionFilter, order chat.SessionOrder, after chat.SessionPlace, limit int,
) (_ []chat.Session, err error) {
	defer s.end(ctx, "FindSessions", &err)
	if err := s.begin(ctx, "FindSessions"); err != nil {
		return nil, err
	}
	return s.list(limit, func(r chat.Session) bool {
		return finds(filter, r) && (after == (chat.SessionPlace{}) || comparePlaces(order, after, order.Place(&r)) < 0)
	}, func(a, b chat.Session) int { return comparePlaces(order, order.Place(&a), order.Place(&b)) }), nil
}

func comparePlaces(order chat.SessionOrder, a, b chat.SessionPlace) int {
	c := cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Text, b.Text), cmp.Compare(a.ID, b.ID))
	if order.Descending {
		return -c
	}
	return c
}

func finds(filter chat.SessionFilter, r chat.Session) bool {
	return (filter.UserID == "" || filter.UserID == r.UserID) &&
		(filter.Status == "" || filter.Status == r.Status) &&
		(filter.Model == "" || filter.Model == r.Model) &&
		(filter.Assisted == nil || *filter.Assisted == (r.AssistedBy != nil)) &&
		(filter.HelpRequested == nil || *filter.HelpRequested == r.HelpRequested) &&
		(filter.From.IsZero() || !r.LastActiveAt.Before(stored(filter.From))) &&
		(filter.To.IsZero() || r.CreatedAt.Before(stored(filter.To)))
}

// revocationKey names the tokens that a revocation is of.
type revocationKey struct{ userID, tokenID string }

// AddRevocation implements [chat.Store].
func (s *Memory) AddRevocation(ctx context.Context, r chat.Revocation) (err error) {
	defer s.end(ctx, "AddRevocation", &err)
	if err := s.begin(ctx, "AddRevocation"); err != nil {
		return err
	}
	r.At, r.Until = stored(r.At), stored(r.Until)
	s.mu.Lock()
	defer s.mu.Unlock()
	key := revocationKey{r.UserID, r.TokenID}
	if old, ok := s.revoked[key]; ok {
		if old.At.After(r.At) {
			r.At = old.At
		}
		if old.Until.IsZero() || !r.Until.IsZero() && old.Until.After(r.Until) {
			r.Until = old.Until
		}
	}
	s.revoked[key] = r
	return nil
}

// Revocations implements [chat.Store].
func (s *Memory) Revocations(ctx context.Context) (_ []chat.Revocation, err error) {
	defer s.end(ctx, "Revocations", &err)
	if err := s.begin(ctx, "Revocations"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.revoked), func(a, b chat.Revocation) int {
		return cmp.Or(cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.TokenID, b.TokenID))
	}), nil
}

// DeleteRevocations implements [chat.Store].
func (s *Memory) DeleteRevocations(ctx context.Context, before time.Time) (err error) {
	defer s.end(ctx, "DeleteRevocations", &err)
	if err := s.begin(ctx, "DeleteRevocations"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.revoked, func(_ revocationKey, r chat.Revocation) bool {
		return !r.Until.IsZero() && r.Until.Before(stored(before))
	})
	return nil
}

// PutAudit implements [chat.Store].
func (s *Memory) PutAudit(ctx context.Context, record chat.AuditRecord) (err error) {
	defer s.end(ctx, "PutAudit", &err)
	if err := s.begin(ctx, "PutAudit"); err != nil {
		return err
	}
	record.At = stored(record.At)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.audit[record.ID]; ok {
		old.Outcome = cmp.Or(record.Outcome, old.Outcome)
		record = old
	}
	s.audit[record.ID] = record
	return nil
}

// Audit implements [chat.Store].
func (s *Memory) Audit(
	ctx context.Context, filter chat.AuditFilter, after chat.AuditPlace, limit int,
) (_ []chat.AuditRecord, err error) {
	defer s.end(ctx, "Audit", &err)
	if err := s.begin(ctx, "Audit"); err != nil {
		return nil, err
	}
	latestFirst := func(a, b chat.AuditRecord) int { return cmp.Or(b.At.Compare(a.At), cmp.Compare(b.ID, a.ID)) }
	place := chat.AuditRecord{ID: after.ID, At: stored(after.At)}
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []chat.AuditRecord
	for _, r := range s.audit {
		if findsAudit(filter, r) && (after == (chat.AuditPlace{}) || latestFirst(place, r) < 0) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, latestFirst)
	return found[:max(0, min(limit, len(found)))], nil
}

func findsAudit(filter chat.AuditFilter, r chat.AuditRecord) bool {
	return (filter.ActorID == "" || filter.ActorID == r.ActorID) &&
		(filter.Action == "" || filter.Action == r.Action) &&
		(filter.UserID == "" || filter.UserID == r.UserID) &&
		(filter.SessionID == "" || filter.SessionID == r.SessionID) &&
		(filter.From.IsZero() || !r.At.Before(stored(filter.From))) &&
		(filter.To.IsZero() || r.At.Before(stored(filter.To)))
}
