package sqlite

import (
	"context"
	"database/sql"

	"github.com/parley-chat/parley/chat"
)

const (
	insertSessionQuery = `
		INSERT INTO sessions (id, user_id, title, model, status, created_at, last_active_at, assisted_by,
			help_requested, help_reason, end_reason, metadata)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

	updateSessionQuery = `
		UPDATE sessions
		SET title = ?, model = ?, status = ?, last_active_at = ?, assisted_by = ?, help_requested = ?,
			help_reason = ?, end_reason = ?
		WHERE id = ? AND status <> ?`

	sessionExistsQuery = `SELECT EXISTS (SELECT 1 FROM sessions WHERE id = ?)`

	selectSessionQuery = `
		SELECT id, user_id, title, model, status, created_at, last_active_at, assisted_by, help_requested,
			help_reason, end_reason, metadata
		FROM sessions WHERE id = ?`
)

// CreateSession implements [chat.Store].
func (s *Store) CreateSession(ctx context.Context, session chat.SessionView) error {
	d, err := sessionToDocument(session)
	if err != nil {
		return failure(err, "create session %s", d.id)
	}
	err = s.submit(ctx, func(tx *sql.Tx) error {
		_, err := tx.Stmt(s.insertSession).Exec(d.id, d.userID, d.title, d.model, d.status, d.createdAt,
			d.lastActiveAt, d.assistedBy, d.helpRequested, d.helpReason, d.endReason, d.metadata)
		return err
	})
	return failure(err, "create session %s", d.id)
}

// Session implements [chat.Store].
func (s *Store) Session(ctx context.Context, id string) (chat.Session, error) {
	var d sessionDocument
	err := s.selectSession.QueryRowContext(ctx, id).Scan(&d.id, &d.userID, &d.title, &d.model, &d.status,
		&d.createdAt, &d.lastActiveAt, &d.assistedBy, &d.helpRequested, &d.helpReason, &d.endReason, &d.metadata)
	if err != nil {
		return chat.Session{}, failure(err, "read session %s", id)
	}
	session, err := d.session()
	return session, failure(err, "read session %s", id)
}

// UpdateSession implements [chat.Store].
func (s *Store) UpdateSession(ctx context.Context, session chat.SessionView) error {
	d, err := sessionToDocument(session)
	if err != nil {
		return failure(err, "update session %s", d.id)
	}
	err = s.submit(ctx, func(tx *sql.Tx) error {
		updated, err := changed(tx.Stmt(s.updateSession).Exec(d.title, d.model, d.status, d.lastActiveAt,
			d.assistedBy, d.helpRequested, d.helpReason, d.endReason, d.id, chat.SessionStatusEnded))
		if err != nil || updated {
			return err
		}
		var exists bool
		if err := tx.Stmt(s.sessionExists).QueryRow(d.id).Scan(&exists); err != nil {
			return err
		}
		if !exists {
			return chat.ErrNotFound
		}
		return chat.ErrStale
	})
	return failure(err, "update session %s", d.id)
}

// changed reports whether a statement found a row to change.
func changed(result sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}
