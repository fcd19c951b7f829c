package storetest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/parley-chat/parley/chat"
)

// Memory is a [chat.Store] without a disk, for tests of what uses a store. It passes the suite.
type Memory struct {
	// Before, where it is set, is called before each operation with its name, such as "InsertMessage". It may block,
	// and what it returns, unless nil, is what the operation returns without being done. It is set before the store is
	// used.
	Before func(ctx context.Context, operation string) error

	id string

	mu       sync.Mutex // guards the fields below
	sessions map[string]chat.Session
	messages map[string][]chat.Message // by session, in the order of N
	usage    map[usageKey]chat.UsageRecord
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

// copyOf reads a session as a store keeps it.
func copyOf(view chat.SessionView) chat.Session {
	var c chat.Session
	view.View(func(s *chat.Session) {
		c = *s
		c.CreatedAt, c.LastActiveAt = stored(s.CreatedAt), stored(s.LastActiveAt)
		c.Metadata = maps.Clone(s.Metadata)
		c.AssistedBy = clone(s.AssistedBy)
		c.ResponseTimes = slices.Clone(s.ResponseTimes)
		c.ProviderStates = maps.Clone(s.ProviderStates)
	})
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
func (s *Memory) CreateSession(ctx context.Context, view chat.SessionView) error {
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
func (s *Memory) Session(ctx context.Context, id string) (chat.Session, error) {
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
func (s *Memory) ClaimSession(ctx context.Context, id string, from, to chat.Claim) error {
	if err := s.begin(ctx, "ClaimSession"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	record, ok := s.sessions[id]
	switch {
	case !ok:
		return chat.ErrNotFound
	case record.Status == chat.SessionStatusEnded, record.Claim != from && record.Claim != to:
		return chat.ErrStale
	}
	record.Claim = to
	s.sessions[id] = record
	return nil
}

// UpdateSession implements [chat.Store].
func (s *Memory) UpdateSession(ctx context.Context, view chat.SessionView, places ...chat.Place) error {
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
	case old.Status == chat.SessionStatusEnded, old.Claim != record.Claim:
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
func (s *Memory) InsertMessage(ctx context.Context, sessionID string, m chat.Message) error {
	if err := s.begin(ctx, "InsertMessage"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.sessions[sessionID]; !ok {
		return chat.ErrNotFound
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
func (s *Memory) UpdateMessage(ctx context.Context, sessionID string, m chat.Message) error {
	if err := s.begin(ctx, "UpdateMessage"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
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
func (s *Memory) Message(ctx context.Context, sessionID, messageID string) (chat.Message, error) {
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
func (s *Memory) Messages(ctx context.Context, sessionID string, before int64, limit int) ([]chat.Message, error) {
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
func (s *Memory) MessagesAfter(ctx context.Context, sessionID string, seq int64, limit int) ([]chat.Message, error) {
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

// AddUsage implements [chat.Store].
func (s *Memory) AddUsage(ctx context.Context, record chat.UsageRecord) error {
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
func (s *Memory) SumUsage(ctx context.Context, filter chat.UsageFilter) ([]chat.UsageSum, error) {
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

// ID implements [chat.Store].
func (s *Memory) ID() string { return s.id }

// Ping implements [chat.Store].
func (s *Memory) Ping(ctx context.Context) error { return s.begin(ctx, "Ping") }

// Close implements [chat.Store]. A closed Memory may be used again: so it stands for a disk that outlives the server.
func (s *Memory) Close() error { return nil }
