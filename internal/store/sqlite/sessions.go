package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/parley-chat/parley/chat"
)

const (
	insertSessionQuery = `
		INSERT INTO sessions (id, user_id, title, model, status, created_at, last_active_at, assisted_by,
			help_requested, help_reason, end_reason, metadata, owner, epoch, log_end, changed, response_times,
			usage, provider_states)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

	claimSessionQuery = `
		UPDATE sessions SET owner = ?, epoch = ?
		WHERE id = ? AND owner = ? AND epoch = ? AND status <> ?`

	updateSessionQuery = `
		UPDATE sessions
		SET title = ?, model = ?, status = ?, last_active_at = ?, assisted_by = ?, help_requested = ?,
			help_reason = ?, end_reason = ?, log_end = max(log_end, ?), changed = max(changed, ?), response_times = ?,
			usage = ?, provider_states = ?
		WHERE id = ? AND owner = ? AND epoch = ? AND status <> ?`

	placeMessageQuery = `UPDATE messages SET seq = ? WHERE session_id = ? AND message_id = ? AND seq = 0`

	sessionClaimQuery = `SELECT owner, epoch, status FROM sessions WHERE id = ?`

	selectSessionQuery = `
		SELECT id, user_id, title, model, status, created_at, last_active_at, assisted_by, help_requested,
			help_reason, end_reason, metadata, owner, epoch, log_end, changed, response_times, usage, provider_states
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
			d.lastActiveAt, d.assistedBy, d.helpRequested, d.helpReason, d.endReason, d.metadata, d.owner, d.epoch,
			d.logEnd, d.changed, d.responseTimes, d.usage, d.providerStates)
		return err
	})
	return failure(err, "create session %s", d.id)
}

// Session implements [chat.Store].
func (s *Store) Session(ctx context.Context, id string) (chat.Session, error) {
	var d sessionDocument
	err := s.selectSession.QueryRowContext(ctx, id).Scan(&d.id, &d.userID, &d.title, &d.model, &d.status,
		&d.createdAt, &d.lastActiveAt, &d.assistedBy, &d.helpRequested, &d.helpReason, &d.endReason, &d.metadata,
		&d.owner, &d.epoch, &d.logEnd, &d.changed, &d.responseTimes, &d.usage, &d.providerStates)
	if err != nil {
		return chat.Session{}, failure(err, "read session %s", id)
	}
	session, err := d.session()
	return session, failure(err, "read session %s", id)
}

// ClaimSession implements [chat.Store].
func (s *Store) ClaimSession(ctx context.Context, id string, from, to chat.Claim) error {
	err := s.submit(ctx, func(tx *sql.Tx) error {
		claimed, err := changed(tx.Stmt(s.claimSession).Exec(to.Owner, to.Epoch, id, from.Owner, from.Epoch,
			chat.SessionStatusEnded))
		if err != nil || claimed {
			return err
		}
		claim, status, err := s.storedClaim(tx, id)
		if err == nil && (claim != to || status == chat.SessionStatusEnded) {
			return chat.ErrStale
		}
		return err
	})
	return failure(err, "claim session %s", id)
}

// UpdateSession implements [chat.Store].
func (s *Store) UpdateSession(ctx context.Context, session chat.SessionView, places ...chat.Place) error {
	d, err := sessionToDocument(session)
	if err != nil {
		return failure(err, "update session %s", d.id)
	}
	places = slices.Clone(places) // the write may outlast this call
	err = s.submit(ctx, func(tx *sql.Tx) error {
		if err := s.replaceSession(tx, &d); err != nil {
			return err
		}
		return s.placeMessages(tx, d.id, places)
	})
	return failure(err, "update session %s", d.id)
}

func (s *Store) replaceSession(tx *sql.Tx, d *sessionDocument) error {
	updated, err := changed(tx.Stmt(s.updateSession).Exec(d.title, d.model, d.status, d.lastActiveAt, d.assistedBy,
		d.helpRequested, d.helpReason, d.endReason, d.logEnd, d.changed, d.responseTimes, d.usage, d.providerStates,
		d.id, d.owner, d.epoch, chat.SessionStatusEnded))
	if err != nil || updated {
		return err
	}
	if _, _, err := s.storedClaim(tx, d.id); err != nil {
		return err
	}
	return chat.ErrStale
}

// storedClaim reads what kept a session from being changed. An unknown session is sql.ErrNoRows.
func (s *Store) storedClaim(tx *sql.Tx, id string) (claim chat.Claim, status chat.SessionStatus, err error) {
	err = tx.Stmt(s.sessionClaim).QueryRow(id).Scan(&claim.Owner, &claim.Epoch, &status)
	return claim, status, err
}

func (s *Store) placeMessages(tx *sql.Tx, sessionID string, places []chat.Place) error {
	if len(places) == 0 {
		return nil
	}
	placeMessage := tx.Stmt(s.placeMessage)
	for _, p := range places {
		if _, err := placeMessage.Exec(p.Seq, sessionID, p.MessageID); err != nil {
			return fmt.Errorf("place message %s: %w", p.MessageID, err)
		}
	}
	return nil
}

// changed reports whether a statement found a row to change.
func changed(result sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}
