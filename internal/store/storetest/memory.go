package storetest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/parley-chat/parley/chat"
)

// Memory is a [chat.Store] without a disk, for tests of what uses a store. It passes the suite.
type Memory struct {
	// Before, where it is set, is called before each operation with its name, such as "InsertMessage"; not before those
	// on leases, which go on beside whatever a test does. It may block,
	// and what it returns, unless nil, is what the operation returns without being done. It is set before the store is
	// used.
	Before func(ctx context.Context, operation string) error

	// After, where it is set, is called after each operation with what it returns, and gives what is returned instead: so
	// answers get lost. The same holds for it as for Before.
	After func(ctx context.Context, operation string, err error) error

	id string

	mu       sync.Mutex // guards the fields below
	sessions map[string]chat.Session
	messages map[string][]chat.Message // by session, in the order of N
	usage    map[usageKey]chat.UsageRecord
	revoked  map[revocationKey]chat.Revocation
	audit    map[string]chat.AuditRecord
	beats    map[string]int64 // by the owner of claims
	check    string
}

// usageKey names the response that a usage record is of.
type usageKey struct{ sessionID, messageID string }

// NewMemory makes an empty store.
func NewMemory() *Memory {
	return &Memory{
		id:       chat.NewID(),
		sessions: make(map[string]chat.Session),
		messages: make(map[string][]chat.Message),
		usage:    make(map[usageKey]chat.UsageRecord),
		revoked:  make(map[revocationKey]chat.Revocation),
		audit:    make(map[string]chat.AuditRecord),
		beats:    make(map[string]int64),
	}
}

var _ chat.Store = (*Memory)(nil)

// Clone gives another store with the same data, and the same ID: what a server finds that starts after a crash.
func (s *Memory) Clone() *Memory {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &Memory{
		id:       s.id,
		sessions: maps.Clone(s.sessions),
		messages: make(map[string][]chat.Message),
		usage:    maps.Clone(s.usage),
		revoked:  maps.Clone(s.revoked),
		audit:    maps.Clone(s.audit),
		beats:    make(map[string]int64), // whoever was alive is not any more
		check:    s.check,
	}
	for id, all := range s.messages {
		c.messages[id] = slices.Clone(all)
	}
	return c
}

func (s *Memory) begin(ctx context.Context, operation string) error {
	if s.Before != nil {
		if err := s.Before(ctx, operation); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *Memory) end(ctx context.Context, operation string, err *error) {
	if s.After != nil {
		*err = s.After(ctx, operation, *err)
	}
}

// copyOf reads a session as a store keeps it.
func copyOf(view chat.SessionView) chat.Session {
	c := chat.Snapshot(view)
	c.CreatedAt, c.LastActiveAt = stored(c.CreatedAt), stored(c.LastActiveAt)
	return c
}

func stored(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

func copyMessage(m chat.Message) chat.Message {
	m.CreatedAt = stored(m.CreatedAt)
	m.Author, m.Usage, m.Error = clone(m.Author), clone(m.Usage), clone(m.Error)
	if m.Error != nil {
		m.Error.Cause = nil
		m.Error.RetryAfter = m.Error.RetryAfter.Truncate(time.Millisecond)
	}
	return m
}

// CreateSession implements [chat.Store].
func (s *Memory) CreateSession(ctx context.Context, view chat.SessionView) (err error) {
	defer s.end(ctx, "CreateSession", &err)
	if err := s.begin(ctx, "CreateSession"); err != nil {
		return err
	}
	record := copyOf(view)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.sessions[record.ID]; ok {
		return chat.ErrExists
	}
	s.sessions[record.ID] = record
	return nil
}

// Session implements [chat.Store].
func (s *Memory) Session(ctx context.Context, id string) (_ chat.Session, err error) {
	defer s.end(ctx, "Session", &err)
	if err := s.begin(ctx, "Session"); err != nil {
		return chat.Session{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	record, ok := s.sessions[id]
	if !ok {
		return chat.Session{}, chat.ErrNotFound
	}
	return copyOf(&record), nil
}

// ClaimSession implements [chat.Store].
func (s *Memory) ClaimSession(ctx context.Context, id string, from, to chat.Claim) (_ chat.Session, err error) {
	defer s.end(ctx, "ClaimSession", &err)
	if err := s.begin(ctx, "ClaimSession"); err != nil {
		return chat.Session{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	record, ok := s.sessions[id]
	switch {
	case !ok:
		return chat.Session{}, chat.ErrNotFound
	case record.Status == chat.SessionStatusEnded, record.Claim != from && record.Claim != to:
		return chat.Session{}, chat.ErrStale
	}
	record.Claim = to
	s.sessions[id] = record
	return copyOf(&record), nil
}

// UpdateSession implements [chat.Store].
func (s *Memory) UpdateSession(ctx context.Context, view chat.SessionView, places ...chat.Place) (err error) {
	defer s.end(ctx, "UpdateSession", &err)
	if err := s.begin(ctx, "UpdateSession"); err != nil {
		return err
	}
	record := copyOf(view)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.sessions[record.ID]
	switch {
	case !ok:
		return chat.ErrNotFound
	case old.Status == chat.SessionStatusEnded, old.Claim != record.Claim, old.Revision >= record.Revision:
		return chat.ErrStale
	}
	record.UserID, record.CreatedAt, record.Metadata = old.UserID, old.CreatedAt, old.Metadata
	record.LogEnd, record.Changed = max(record.LogEnd, old.LogEnd), max(record.Changed, old.Changed)
	s.sessions[record.ID] = record
	for _, p := range places {
		s.place(record.ID, p)
	}
	return nil
}

// place is called with the lock held.
func (s *Memory) place(sessionID string, p chat.Place) {
	all := s.messages[sessionID]
	i := slices.IndexFunc(all, func(m chat.Message) bool { return m.ID == p.MessageID })
	if i >= 0 && all[i].Seq == 0 {
		all[i].Seq = p.Seq
	}
}

// InsertMessage implements [chat.Store].
func (s *Memory) InsertMessage(ctx context.Context, sessionID string, by chat.Claim, m chat.Message) (err error) {
	defer s.end(ctx, "InsertMessage", &err)
	if err := s.begin(ctx, "InsertMessage"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if session, ok := s.sessions[sessionID]; !ok {
		return chat.ErrNotFound
	} else if session.Claim != by {
		return chat.ErrStale
	}
	all := s.messages[sessionID]
	if slices.ContainsFunc(all, func(o chat.Message) bool { return o.ID == m.ID || o.N == m.N }) {
		return chat.ErrExists
	}
	at, _ := slices.BinarySearchFunc(all, m.N, func(o chat.Message, n int64) int { return int(o.N - n) })
	s.messages[sessionID] = slices.Insert(all, at, copyMessage(m))
	return nil
}

// UpdateMessage implements [chat.Store].
func (s *Memory) UpdateMessage(ctx context.Context, sessionID string, by chat.Claim, m chat.Message) (err error) {
	defer s.end(ctx, "UpdateMessage", &err)
	if err := s.begin(ctx, "UpdateMessage"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[sessionID].Claim != by {
		return chat.ErrStale
	}
	for i, old := range s.messages[sessionID] {
		if old.ID != m.ID || old.Status != chat.StatusStreaming {
			continue
		}
		changed := copyMessage(m)
		changed.N, changed.Seq = old.N, old.Seq
		changed.Role, changed.CreatedAt, changed.Author = old.Role, old.CreatedAt, old.Author
		changed.Model, changed.ReplyTo, changed.Replaces, changed.AnswerID = old.Model, old.ReplyTo, old.Replaces, old.AnswerID
		s.messages[sessionID][i] = changed
		return nil
	}
	return chat.ErrStale
}

// Message implements [chat.Store].
func (s *Memory) Message(ctx context.Context, sessionID, messageID string) (_ chat.Message, err error) {
	defer s.end(ctx, "Message", &err)
	if err := s.begin(ctx, "Message"); err != nil {
		return chat.Message{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.messages[sessionID] {
		if m.ID == messageID {
			return copyMessage(m), nil
		}
	}
	return chat.Message{}, chat.ErrNotFound
}

// Messages implements [chat.Store].
func (s *Memory) Messages(ctx context.Context, sessionID string, before int64, limit int) (_ []chat.Message, err error) {
	defer s.end(ctx, "Messages", &err)
	if err := s.begin(ctx, "Messages"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []chat.Message
	for _, m := range slices.Backward(s.messages[sessionID]) {
		if len(found) >= limit {
			break
		}
		if before == 0 || m.N < before {
			found = append(found, copyMessage(m))
		}
	}
	slices.Reverse(found)
	return found, nil
}

// MessagesAfter implements [chat.Store].
func (s *Memory) MessagesAfter(ctx context.Context, sessionID string, seq int64, limit int) (_ []chat.Message, err error) {
	defer s.end(ctx, "MessagesAfter", &err)
	if err := s.begin(ctx, "MessagesAfter"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []chat.Message
	for _, m := range s.messages[sessionID] {
		if m.Seq > max(seq, 0) {
			found = append(found, copyMessage(m))
		}
	}
	slices.SortFunc(found, func(a, b chat.Message) int { return cmp.Compare(a.Seq, b.Seq) })
	return found[:max(0, min(limit, len(found)))], nil
}

// MessagesFrom implements [chat.Store].
func (s *Memory) MessagesFrom(ctx context.Context, sessionID string, after int64, limit int) (_ []chat.Message, err error) {
	defer s.end(ctx, "MessagesFrom", &err)
	if err := s.begin(ctx, "MessagesFrom"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []chat.Message
	for _, m := range s.messages[sessionID] {
		if m.N > after && len(found) < limit {
			found = append(found, copyMessage(m))
		}
	}
	return found, nil
}

// AddUsage implements [chat.Store].
func (s *Memory) AddUsage(ctx context.Context, record chat.UsageRecord) (err error) {
	defer s.end(ctx, "AddUsage", &err)
	if err := s.begin(ctx, "AddUsage"); err != nil {
		return err
	}
	record.At = stored(record.At)
	s.mu.Lock()
	defer s.mu.Unlock()
	key := usageKey{record.SessionID, record.MessageID}
	if _, ok := s.usage[key]; !ok {
		s.usage[key] = record
	}
	return nil
}

// SumUsage implements [chat.Store].
func (s *Memory) SumUsage(ctx context.Context, filter chat.UsageFilter) (_ []chat.UsageSum, err error) {
	defer s.end(ctx, "SumUsage", &err)
	if err := s.begin(ctx, "SumUsage"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	type group struct {
		day         time.Time
		user, model string
	}
	sums := make(map[group]chat.UsageSum)
	for _, record := range s.usage {
		if !chooses(filter, record) {
			continue
		}
		g := group{record.At.Truncate(24 * time.Hour), record.UserID, record.Model}
		sum := sums[g]
		sum.Day, sum.UserID, sum.Model = g.day, g.user, g.model
		sum.Responses++
		if record.Usage.Estimated {
			sum.Estimated++
		}
		sum.InputTokens += int64(record.Usage.InputTokens)
		sum.OutputTokens += int64(record.Usage.OutputTokens)
		sum.CostMicros += record.CostMicros
		sums[g] = sum
	}
	found := slices.Collect(maps.Values(sums))
	slices.SortFunc(found, func(a, b chat.UsageSum) int {
		return cmp.Or(a.Day.Compare(b.Day), cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.Model, b.Model))
	})
	return found, nil
}

func chooses(filter chat.UsageFilter, record chat.UsageRecord) bool {
	return (filter.UserID == "" || filter.UserID == record.UserID) &&
		(filter.From.IsZero() || !record.At.Before(stored(filter.From))) &&
		(filter.To.IsZero() || record.At.Before(stored(filter.To)))
}

// SessionsAfter implements [chat.Store].
func (s *Memory) SessionsAfter(ctx context.Context, id string, limit int) (_ []chat.Session, err error) {
	defer s.end(ctx, "SessionsAfter", &err)
	if err := s.begin(ctx, "SessionsAfter"); err != nil {
		return nil, err
	}
	return s.list(limit, func(r chat.Session) bool { return r.ID > id },
		func(a, b chat.Session) int { return cmp.Compare(a.ID, b.ID) }), nil
}

// IdleSessions implements [chat.Store].
func (s *Memory) IdleSessions(ctx context.Context, before time.Time, limit int) (_ []string, err error) {
	defer s.end(ctx, "IdleSessions", &err)
	if err := s.begin(ctx, "IdleSessions"); err != nil {
		return nil, err
	}
	var ids []string
	for _, r := range s.list(limit, func(r chat.Session) bool { return r.LastActiveAt.Before(stored(before)) },
		func(a, b chat.Session) int { return a.LastActiveAt.Compare(b.LastActiveAt) }) {
		ids = append(ids, r.ID)
	}
	return ids, nil
}

// ClaimedSessions implements [chat.Store].
func (s *Memory) ClaimedSessions(ctx context.Context, ownerPrefix, after string, limit int) (_ []string, err error) {
	defer s.end(ctx, "ClaimedSessions", &err)
	if err := s.begin(ctx, "ClaimedSessions"); err != nil {
		return nil, err
	}
	var ids []string
	for _, r := range s.list(limit, func(r chat.Session) bool {
		return r.ID > after && strings.HasPrefix(r.Claim.Owner, ownerPrefix) && r.Status != chat.SessionStatusEnded
	}, func(a, b chat.Session) int { return cmp.Compare(a.ID, b.ID) }) {
		ids = append(ids, r.ID)
	}
	return ids, nil
}

func (s *Memory) list(limit int, choose func(chat.Session) bool, order func(a, b chat.Session) int) []chat.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []chat.Session
	for _, r := range s.sessions {
		if choose(r) {
			found = append(found, copyOf(&r))
		}
	}
	slices.SortFunc(found, order)
	return found[:max(0, min(limit, len(found)))]
}

// DeleteSession implements [chat.Store].
func (s *Memory) DeleteSession(ctx context.Context, id string, idleSince time.Time) (err error) {
	defer s.end(ctx, "DeleteSession", &err)
	if err := s.begin(ctx, "DeleteSession"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if record, ok := s.sessions[id]; ok && !idleSince.IsZero() && !record.LastActiveAt.Before(stored(idleSince)) {
		return chat.ErrStale
	}
	delete(s.sessions, id)
	delete(s.messages, id)
	return nil
}

// UsageAfter implements [chat.Store].
func (s *Memory) UsageAfter(
	ctx context.Context, filter chat.UsageFilter, sessionID, messageID string, limit int,
) (_ []chat.UsageRecord, err error) {
	defer s.end(ctx, "UsageAfter", &err)
	if err := s.begin(ctx, "UsageAfter"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	order := func(a, b chat.UsageRecord) int {
		return cmp.Or(cmp.Compare(a.SessionID, b.SessionID), cmp.Compare(a.MessageID, b.MessageID))
	}
	var found []chat.UsageRecord
	for _, r := range s.usage {
		if chooses(filter, r) && order(r, chat.UsageRecord{SessionID: sessionID, MessageID: messageID}) > 0 {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, order)
	return found[:max(0, min(limit, len(found)))], nil
}

// DeleteUsage implements [chat.Store].
func (s *Memory) DeleteUsage(ctx context.Context, filter chat.UsageFilter) (err error) {
	defer s.end(ctx, "DeleteUsage", &err)
	if err := s.begin(ctx, "DeleteUsage"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.usage, func(_ usageKey, r chat.UsageRecord) bool { return chooses(filter, r) })
	return nil
}

// ResealSession implements [chat.Store].
func (s *Memory) ResealSession(ctx context.Context, old, sealed chat.Session) (err error) {
	defer s.end(ctx, "ResealSession", &err)
	if err := s.begin(ctx, "ResealSession"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.sessions[old.ID]
	if !ok || r.Revision != old.Revision || r.Title != old.Title || r.HelpReason != old.HelpReason || r.Sealed != old.Sealed {
		return chat.ErrStale
	}
	r.Title, r.HelpReason, r.Sealed = sealed.Title, sealed.HelpReason, sealed.Sealed
	s.sessions[old.ID] = r
	return nil
}

// ResealMessage implements [chat.Store].
func (s *Memory) ResealMessage(ctx context.Context, sessionID string, old, sealed chat.Message) (err error) {
	defer s.end(ctx, "ResealMessage", &err)
	if err := s.begin(ctx, "ResealMessage"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.messages[sessionID] {
		m := &s.messages[sessionID][i]
		if m.ID == old.ID && m.Text == old.Text && m.Reasoning == old.Reasoning && m.Sealed == old.Sealed {
			m.Text, m.Reasoning, m.Sealed = sealed.Text, sealed.Reasoning, sealed.Sealed
			return nil
		}
	}
	return chat.ErrStale
}

// RenewLease implements [chat.Store].
func (s *Memory) RenewLease(ctx context.Context, owner string) (map[string]int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beats[owner]++
	others := maps.Clone(s.beats)
	delete(others, owner)
	return others, nil
}

// EndLease implements [chat.Store].
func (s *Memory) EndLease(ctx context.Context, owner string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.beats, owner)
	return nil
}

// SealCheck implements [chat.Store].
func (s *Memory) SealCheck(ctx context.Context) (_ string, err error) {
	defer s.end(ctx, "SealCheck", &err)
	if err := s.begin(ctx, "SealCheck"); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.check, nil
}

// SetSealCheck implements [chat.Store].
func (s *Memory) SetSealCheck(ctx context.Context, sealed string) (err error) {
	defer s.end(ctx, "SetSealCheck", &err)
	if err := s.begin(ctx, "SetSealCheck"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.check = sealed
	return nil
}

// Count implements [chat.Store].
func (s *Memory) Count(ctx context.Context) (_ chat.Counts, err error) {
	defer s.end(ctx, "Count", &err)
	if err := s.begin(ctx, "Count"); err != nil {
		return chat.Counts{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := chat.Counts{Sessions: int64(len(s.sessions)), Usage: int64(len(s.usage))}
	for _, all := range s.messages {
		c.Messages += int64(len(all))
	}
	return c, nil
}

// ID implements [chat.Store].
func (s *Memory) ID() string { return s.id }

// Ping implements [chat.Store].
func (s *Memory) Ping(ctx context.Context) error { return s.begin(ctx, "Ping") }

// Close implements [chat.Store]. A closed Memory may be used again: so it stands for a disk that outlives the server.
func (s *Memory) Close() error { return nil }
