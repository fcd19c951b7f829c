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
			usage, provider_states, sealed, revision, messages)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

	claimSessionQuery = `
		UPDATE sessions SET owner = ?, epoch = ?
		WHERE id = ? AND owner = ? AND epoch = ? AND status <> ?`

	updateSessionQuery = `
		UPDATE sessions
		SET title = ?, model = ?, status = ?, last_active_at = ?, assisted_by = ?, help_requested = ?,
			help_reason = ?, end_reason = ?, log_end = max(log_end, ?), changed = max(changed, ?), response_times = ?,
			usage = ?, provider_states = ?, sealed = ?, revision = ?, messages = ?
		WHERE id = ? AND owner = ? AND epoch = ? AND status <> ? AND revision < ?`

	placeMessageQuery = `UPDATE messages SET seq = ? WHERE session_id = ? AND message_id = ? AND seq = 0`

	sessionClaimQuery = `SELECT owner, epoch FROM sessions WHERE id = ?`

	// What scanSession reads.
	selectSessionColumns = `
		SELECT id, user_id, title, model, status, created_at, last_active_at, assisted_by, help_requested,
			help_reason, end_reason, metadata, owner, epoch, log_end, changed, response_times, usage, provider_states,
			sealed, revision, messages
		FROM sessions `

	selectSessionQuery       = selectSessionColumns + `WHERE id = ?`
	selectSessionsAfterQuery = selectSessionColumns + `WHERE id > ? ORDER BY id LIMIT ?`
	// What begins with a prefix of ASCII characters lies below the prefix with a character above all of these. The last
	// condition lets SQLite use the partial index.
	selectClaimedSessionsQuery = `
		SELECT id FROM sessions
		WHERE owner >= ? AND owner < ? || char(0x10ffff) AND id > ? AND status <> ? AND owner <> '' ORDER BY id LIMIT ?`

	selectIdleSessionsQuery = `SELECT id FROM sessions WHERE last_active_at < ? ORDER BY last_active_at, id LIMIT ?`
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
			d.logEnd, d.changed, d.responseTimes, d.usage, d.providerStates, d.sealed, d.revision, d.messages)
		return err
	})
	return failure(err, "create session %s", d.id)
}

// Session implements [chat.Store].
func (s *Store) Session(ctx context.Context, id string) (chat.Session, error) {
	session, err := scanSession(s.selectSession.QueryRowContext(ctx, id))
	return session, failure(err, "read session %s", id)
}

func scanSession(row scanner) (chat.Session, error) {
	var d sessionDocument
	if err := row.Scan(&d.id, &d.userID, &d.title, &d.model, &d.status, &d.createdAt, &d.lastActiveAt, &d.assistedBy,
		&d.helpRequested, &d.helpReason, &d.endReason, &d.metadata, &d.owner, &d.epoch, &d.logEnd, &d.changed,
		&d.responseTimes, &d.usage, &d.providerStates, &d.sealed, &d.revision, &d.messages); err != nil {
		return chat.Session{}, err
	}
	return d.session()
}

// ClaimSession implements [chat.Store].
func (s *Store) ClaimSession(ctx context.Context, id string, from, to chat.Claim) (chat.Session, error) {
	session, err := submitFor(ctx, s, func(tx *sql.Tx) (chat.Session, error) {
		if _, err := tx.Stmt(s.claimSession).Exec(to.Owner, to.Epoch, id, from.Owner, from.Epoch,
			chat.SessionStatusEnded); err != nil {
			return chat.Session{}, err
		}
		session, err := scanSession(tx.Stmt(s.claimedSession).QueryRow(id))
		if err == nil && (session.Claim != to || session.Status == chat.SessionStatusEnded) {
			return chat.Session{}, chat.ErrStale
		}
		return session, err
	})
	return session, failure(err, "claim session %s", id)
}

// checkClaim is ErrStale where a session has another claim. An unknown one is sql.ErrNoRows.
func (s *Store) checkClaim(tx *sql.Tx, id string, by chat.Claim) error {
	claim, err := s.storedClaim(tx, id)
	if err == nil && claim != by {
		return chat.ErrStale
	}
	return err
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
		d.sealed, d.revision, d.messages, d.id, d.owner, d.epoch, chat.SessionStatusEnded, d.revision))
	if err != nil || updated {
		return err
	}
	if _, err := s.storedClaim(tx, d.id); err != nil {
		return err
	}
	return chat.ErrStale
}

// storedClaim reads the claim that a session has. An unknown session is sql.ErrNoRows.
func (s *Store) storedClaim(tx *sql.Tx, id string) (claim chat.Claim, err error) {
	err = tx.Stmt(s.sessionClaim).QueryRow(id).Scan(&claim.Owner, &claim.Epoch)
	return claim, err
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
