package sealed_test

import (
	"context"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/seal"
	"github.com/parley-chat/parley/internal/store/sealed"
	"github.com/parley-chat/parley/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestItKeepsTheContract(t *testing.T) {
	rotated := rotate(t, generate(t))
	for name, keys := range map[string]*seal.Keyset{
		"with keys": parse(t, generate(t)), "with two keys": parse(t, rotated), "without keys": nil,
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) (chat.Store, func() chat.Store) {
				raw := storetest.NewMemory()
				check := new(string)
				reopen := func() chat.Store { return suiteStore{open(t, raw, keys), check} }
				return reopen(), reopen
			})
		})
	}
}

// suiteStore lets the suite set what belongs to the store under test: the field Sealed, which it keeps in a text, and
// the check.
type suiteStore struct {
	*sealed.Store
	check *string
}

const wasSealed = "\x00the suite has set Sealed"

func writtenSession(s chat.Session) chat.Session {
	if s.Sealed {
		s.Title, s.Sealed = s.Title+wasSealed, false
	}
	return s
}

func readSession(s chat.Session) chat.Session {
	s.Title, s.Sealed = strings.CutSuffix(s.Title, wasSealed)
	return s
}

func writtenMessage(m chat.Message) chat.Message {
	if m.Sealed {
		m.Text, m.Sealed = m.Text+wasSealed, false
	}
	return m
}

func readMessage(m chat.Message) chat.Message {
	m.Text, m.Sealed = strings.CutSuffix(m.Text, wasSealed)
	return m
}

func each[T any](all []T, f func(T) T) []T {
	for i := range all {
		all[i] = f(all[i])
	}
	return all
}

// writtenView shows the record as the store under test is to see it, under the same lock.
type writtenView struct{ chat.SessionView }

func (v writtenView) View(f func(*chat.Session)) {
	v.SessionView.View(func(s *chat.Session) {
		c := writtenSession(*s)
		f(&c)
	})
}

func (s suiteStore) CreateSession(ctx context.Context, view chat.SessionView) error {
	return s.Store.CreateSession(ctx, writtenView{view})
}

func (s suiteStore) UpdateSession(ctx context.Context, view chat.SessionView, places ...chat.Place) error {
	return s.Store.UpdateSession(ctx, writtenView{view}, places...)
}

func (s suiteStore) Session(ctx context.Context, id string) (chat.Session, error) {
	session, err := s.Store.Session(ctx, id)
	return readSession(session), err
}

func (s suiteStore) ClaimSession(ctx context.Context, id string, from, to chat.Claim) (chat.Session, error) {
	session, err := s.Store.ClaimSession(ctx, id, from, to)
	return readSession(session), err
}

func (s suiteStore) SessionsAfter(ctx context.Context, id string, limit int) ([]chat.Session, error) {
	all, err := s.Store.SessionsAfter(ctx, id, limit)
	return each(all, readSession), err
}

func (s suiteStore) FindSessions(
	ctx context.Context, filter chat.SessionFilter, order chat.SessionOrder, after chat.SessionPlace, limit int,
) ([]chat.Session, error) {
	all, err := s.Store.FindSessions(ctx, filter, order, after, limit)
	return each(all, readSession), err
}

func (s suiteStore) InsertMessage(ctx context.Context, sessionID string, by chat.Claim, m chat.Message) error {
	return s.Store.InsertMessage(ctx, sessionID, by, writtenMessage(m))
}

func (s suiteStore) UpdateMessage(ctx context.Context, sessionID string, by chat.Claim, m chat.Message) error {
	return s.Store.UpdateMessage(ctx, sessionID, by, writtenMessage(m))
}

func (s suiteStore) Message(ctx context.Context, sessionID, messageID string) (chat.Message, error) {
	m, err := s.Store.Message(ctx, sessionID, messageID)
	return readMessage(m), err
}

func (s suiteStore) Messages(ctx context.Context, sessionID string, before int64, limit int) ([]chat.Message, error) {
	all, err := s.Store.Messages(ctx, sessionID, before, limit)
	return each(all, readMessage), err
}

func (s suiteStore) MessagesAfter(ctx context.Context, sessionID string, seq int64, limit int) ([]chat.Message, error) {
	all, err := s.Store.MessagesAfter(ctx, sessionID, seq, limit)
	return each(all, readMessage), err
}

func (s suiteStore) MessagesFrom(ctx context.Context, sessionID string, after int64, limit int) ([]chat.Message, error) {
	all, err := s.Store.MessagesFrom(ctx, sessionID, after, limit)
	return each(all, readMessage), err
}

func (s suiteStore) ResealSession(ctx context.Context, old, changed chat.Session) error {
	return s.Store.ResealSession(ctx, writtenSession(old), writtenSession(changed))
}

func (s suiteStore) ResealMessage(ctx context.Context, sessionID string, old, changed chat.Message) error {
	return s.Store.ResealMessage(ctx, sessionID, writtenMessage(old), writtenMessage(changed))
}

func (s suiteStore) SealCheck(ctx context.Context) (string, error) {
	_, err := s.Store.SealCheck(ctx)
	return *s.check, err
}

func (s suiteStore) SetSealCheck(ctx context.Context, check string) error {
	own, err := s.Store.SealCheck(ctx)
	if err == nil {
		err = s.Store.SetSealCheck(ctx, own)
	}
	if err == nil {
		*s.check = check
	}
	return err
}
