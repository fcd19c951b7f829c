// Package sealed stands between a store and whoever uses it, so that the texts of conversations are encrypted in the
// store and nowhere else.
//
// Encrypted are what people and models wrote: a message's text and reasoning, a session's title and the reason for which
// help was asked for. The rest, such as IDs, times, authors' names and token counts, is not: stores find and sort by it.
// Nor are audit records, which have nothing of a conversation. A text is bound to its field and its record: one that was
// moved elsewhere in the store does not open.
package sealed

import (
	"context"
	"errors"
	"fmt"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/seal"
)

// The errors of a store and a keyset that do not fit. Each says what to do.
var (
	ErrNoKeyset    = errors.New("the store is encrypted: set storage.encryption.keyset_file to the keyset that it was encrypted with")
	ErrWrongKeyset = errors.New("the keyset does not open what is in the store: " +
		"set storage.encryption.keyset_file to the one that it was encrypted with, with all its keys")
)

// Store is a [chat.Store] that seals what is written and opens what is read. Sealed is its own field: callers need not
// set it, and do not see it. What was stored before there was a keyset is given as it is. A record that cannot be opened
// is an error, which names it and shows nothing of it.
type Store struct {
	chat.Store
	keys *seal.Keyset // nil: nothing is sealed
}

var _ chat.Store = (*Store)(nil)

// New makes the store that seals what goes into another, and opens what comes out of it. Without keys nothing is sealed.
// ErrNoKeyset: the store is encrypted, and there are no keys. ErrWrongKeyset: the keys are others than those that it is
// encrypted with.
func New(ctx context.Context, store chat.Store, keys *seal.Keyset) (*Store, error) {
	if err := check(ctx, store, keys); err != nil {
		return nil, err
	}
	return &Store{Store: store, keys: keys}, nil
}

// NewReader is New for who only reads: it does not note in the store that something may be sealed under the keys.
func NewReader(ctx context.Context, store chat.Store, keys *seal.Keyset) (*Store, error) {
	if err := Check(ctx, store, keys); err != nil {
		return nil, err
	}
	return &Store{Store: store, keys: keys}, nil
}

// The fields that are sealed, as what is sealed in them is bound to.
const (
	fieldTitle      = "session.title"
	fieldHelpReason = "session.help_reason"
	fieldText       = "message.text"
	fieldReasoning  = "message.reasoning"
)

// field is a text and what its sealing is bound to.
type field struct {
	text *string
	name string
}

func sessionFields(s *chat.Session) []field {
	return []field{{&s.Title, fieldTitle}, {&s.HelpReason, fieldHelpReason}}
}

func messageFields(m *chat.Message) []field {
	return []field{{&m.Text, fieldText}, {&m.Reasoning, fieldReasoning}}
}

// convert seals or opens fields of the record with these IDs.
func convert(fields []field, with func(text string, associated ...string) (string, error), ids ...string) (err error) {
	for _, f := range fields {
		if *f.text, err = with(*f.text, append([]string{f.name}, ids...)...); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

func sealSession(keys *seal.Keyset, s *chat.Session) error {
	s.Sealed = keys != nil
	if keys == nil {
		return nil
	}
	if err := convert(sessionFields(s), keys.Seal, s.ID); err != nil {
		return fmt.Errorf("seal session %s: %w", s.ID, err)
	}
	return nil
}

func sealMessage(keys *seal.Keyset, sessionID string, m *chat.Message) error {
	m.Sealed = keys != nil
	if keys == nil {
		return nil
	}
	if err := convert(messageFields(m), keys.Seal, sessionID, m.ID); err != nil {
		return fmt.Errorf("seal message %s of session %s: %w", m.ID, sessionID, err)
	}
	return nil
}

func openSession(keys *seal.Keyset, s *chat.Session) error {
	if !s.Sealed {
		return nil
	}
	err := ErrNoKeyset
	if keys != nil {
		err = convert(sessionFields(s), keys.Open, s.ID)
	}
	if err != nil {
		return fmt.Errorf("open session %s: %w", s.ID, err)
	}
	s.Sealed = false
	return nil
}

func openMessage(keys *seal.Keyset, sessionID string, m *chat.Message) error {
	if !m.Sealed {
		return nil
	}
	err := ErrNoKeyset
	if keys != nil {
		err = convert(messageFields(m), keys.Open, sessionID, m.ID)
	}
	if err != nil {
		return fmt.Errorf("open message %s of session %s: %w", m.ID, sessionID, err)
	}
	m.Sealed = false
	return nil
}

// sealView takes a session's record under its lock, and seals it after that.
func (s *Store) sealView(view chat.SessionView) (*chat.Session, error) {
	c := chat.Snapshot(view)
	return &c, sealSession(s.keys, &c)
}

// CreateSession implements [chat.Store].
func (s *Store) CreateSession(ctx context.Context, session chat.SessionView) error {
	c, err := s.sealView(session)
	if err != nil {
		return err
	}
	return s.Store.CreateSession(ctx, c)
}

// UpdateSession implements [chat.Store].
func (s *Store) UpdateSession(ctx context.Context, session chat.SessionView, places ...chat.Place) error {
	c, err := s.sealView(session)
	if err != nil {
		return err
	}
	return s.Store.UpdateSession(ctx, c, places...)
}

// opened gives a session that came from the store, or why there is none.
func (s *Store) opened(session chat.Session, err error) (chat.Session, error) {
	if err == nil {
		err = openSession(s.keys, &session)
	}
	if err != nil {
		return chat.Session{}, err
	}
	return session, nil
}

// Session implements [chat.Store].
func (s *Store) Session(ctx context.Context, id string) (chat.Session, error) {
	return s.opened(s.Store.Session(ctx, id))
}

// ClaimSession implements [chat.Store]. Where the record cannot be opened the session is claimed all the same.
func (s *Store) ClaimSession(ctx context.Context, id string, from, to chat.Claim) (chat.Session, error) {
	return s.opened(s.Store.ClaimSession(ctx, id, from, to))
}

func (s *Store) openedSessions(all []chat.Session, err error) ([]chat.Session, error) {
	for i := range all {
		if err == nil {
			err = openSession(s.keys, &all[i])
		}
	}
	if err != nil {
		return nil, err
	}
	return all, nil
}

// SessionsAfter implements [chat.Store].
func (s *Store) SessionsAfter(ctx context.Context, id string, limit int) ([]chat.Session, error) {
	return s.openedSessions(s.Store.SessionsAfter(ctx, id, limit))
}

// FindSessions implements [chat.Store].
func (s *Store) FindSessions(
	ctx context.Context, filter chat.SessionFilter, order chat.SessionOrder, after chat.SessionPlace, limit int,
) ([]chat.Session, error) {
	return s.openedSessions(s.Store.FindSessions(ctx, filter, order, after, limit))
}

// InsertMessage implements [chat.Store].
func (s *Store) InsertMessage(ctx context.Context, sessionID string, by chat.Claim, m chat.Message) error {
	if err := sealMessage(s.keys, sessionID, &m); err != nil {
		return err
	}
	return s.Store.InsertMessage(ctx, sessionID, by, m)
}

// UpdateMessage implements [chat.Store].
func (s *Store) UpdateMessage(ctx context.Context, sessionID string, by chat.Claim, m chat.Message) error {
	if err := sealMessage(s.keys, sessionID, &m); err != nil {
		return err
	}
	return s.Store.UpdateMessage(ctx, sessionID, by, m)
}

// Message implements [chat.Store].
func (s *Store) Message(ctx context.Context, sessionID, messageID string) (chat.Message, error) {
	m, err := s.Store.Message(ctx, sessionID, messageID)
	if err == nil {
		err = openMessage(s.keys, sessionID, &m)
	}
	if err != nil {
		return chat.Message{}, err
	}
	return m, nil
}

func (s *Store) openedMessages(sessionID string, all []chat.Message, err error) ([]chat.Message, error) {
	for i := range all {
		if err == nil {
			err = openMessage(s.keys, sessionID, &all[i])
		}
	}
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Messages implements [chat.Store].
func (s *Store) Messages(ctx context.Context, sessionID string, before int64, limit int) ([]chat.Message, error) {
	all, err := s.Store.Messages(ctx, sessionID, before, limit)
	return s.openedMessages(sessionID, all, err)
}

// MessagesAfter implements [chat.Store].
func (s *Store) MessagesAfter(ctx context.Context, sessionID string, seq int64, limit int) ([]chat.Message, error) {
	all, err := s.Store.MessagesAfter(ctx, sessionID, seq, limit)
	return s.openedMessages(sessionID, all, err)
}

// MessagesFrom implements [chat.Store].
func (s *Store) MessagesFrom(ctx context.Context, sessionID string, after int64, limit int) ([]chat.Message, error) {
	all, err := s.Store.MessagesFrom(ctx, sessionID, after, limit)
	return s.openedMessages(sessionID, all, err)
}

// ResealSession implements [chat.Store], for what callers see: it replaces Title and HelpReason, and seals them anew.
// To encrypt a store, or to change its key, is the task of [Reseal].
func (s *Store) ResealSession(ctx context.Context, old, changed chat.Session) error {
	stored, err := s.Store.Session(ctx, old.ID)
	if errors.Is(err, chat.ErrNotFound) {
		return chat.ErrStale
	}
	shown, err := s.opened(stored, err)
	if err != nil {
		return err
	}
	if shown.Title != old.Title || shown.HelpReason != old.HelpReason || shown.Sealed != old.Sealed ||
		shown.Revision != old.Revision {
		return chat.ErrStale
	}
	changed.ID = old.ID
	if err := sealSession(s.keys, &changed); err != nil {
		return err
	}
	return s.Store.ResealSession(ctx, stored, changed)
}

// ResealMessage implements [chat.Store], for what callers see: see ResealSession.
func (s *Store) ResealMessage(ctx context.Context, sessionID string, old, changed chat.Message) error {
	stored, err := s.Store.Message(ctx, sessionID, old.ID)
	if errors.Is(err, chat.ErrNotFound) {
		return chat.ErrStale
	}
	if err != nil {
		return err
	}
	shown := stored
	if err := openMessage(s.keys, sessionID, &shown); err != nil {
		return err
	}
	if shown.Text != old.Text || shown.Reasoning != old.Reasoning || shown.Sealed != old.Sealed {
		return chat.ErrStale
	}
	changed.ID = old.ID
	if err := sealMessage(s.keys, sessionID, &changed); err != nil {
		return err
	}
	return s.Store.ResealMessage(ctx, sessionID, stored, changed)
}
