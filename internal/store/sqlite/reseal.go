package sqlite

import (
	"context"
	"database/sql"

	"github.com/parley-chat/parley/chat"
)

const (
	resealSessionQuery = `
		UPDATE sessions SET title = ?, help_reason = ?, sealed = ?
		WHERE id = ? AND revision = ? AND title = ? AND help_reason = ? AND sealed = ?`

	resealMessageQuery = `
		UPDATE messages SET text = ?, reasoning = ?, sealed = ?
		WHERE session_id = ? AND message_id = ? AND text = ? AND reasoning = ? AND sealed = ?`
)

// ResealSession implements [chat.Store].
func (s *Store) ResealSession(ctx context.Context, old, sealed chat.Session) error {
	return failure(s.replace(ctx, s.resealSession, sealed.Title, sealed.HelpReason, sealed.Sealed,
		old.ID, old.Revision, old.Title, old.HelpReason, old.Sealed), "reseal session %s", old.ID)
}

// ResealMessage implements [chat.Store].
func (s *Store) ResealMessage(ctx context.Context, sessionID string, old, sealed chat.Message) error {
	return failure(s.replace(ctx, s.resealMessage, sealed.Text, sealed.Reasoning, sealed.Sealed,
		sessionID, old.ID, old.Text, old.Reasoning, old.Sealed), "reseal message %s of session %s", old.ID, sessionID)
}

// replace carries out an update that is ErrStale where it finds nothing to change.
func (s *Store) replace(ctx context.Context, update *sql.Stmt, args ...any) error {
	return s.submitErasure(ctx, func(tx *sql.Tx) error {
		updated, err := changed(tx.Stmt(update).Exec(args...))
		if err == nil && !updated {
			return chat.ErrStale
		}
		return err
	})
}

// SealCheck implements [chat.Store].
func (s *Store) SealCheck(ctx context.Context) (sealed string, err error) {
	err = s.readers.QueryRowContext(ctx, "SELECT seal_check FROM store").Scan(&sealed)
	return sealed, failure(err, "read the seal's check")
}

// SetSealCheck implements [chat.Store].
func (s *Store) SetSealCheck(ctx context.Context, sealed string) error {
	err := s.submit(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec("UPDATE store SET seal_check = ?", sealed)
		return err
	})
	return failure(err, "store the seal's check")
}
