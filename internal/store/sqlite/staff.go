package sqlite

import (
	"context"
	"database/sql"
	"math"
	"time"

	"github.com/parley-chat/parley/chat"
)

const (
	addRevocationQuery = `
		INSERT INTO revocations (user_id, token_id, at, until) VALUES (?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET at = max(at, excluded.at), until = max(until, excluded.until)`

	// What scanRevocation reads.
	selectRevocationsQuery = `SELECT user_id, token_id, at, until FROM revocations ORDER BY user_id, token_id`

	deleteRevocationsQuery = `DELETE FROM revocations WHERE until < ?`

	putAuditQuery = `
		INSERT INTO audit (id, at, actor_id, actor_name, address, action, user_id, session_id, connection_id, detail, outcome)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET outcome = excluded.outcome WHERE excluded.outcome <> ''`

	// What scanAudit reads.
	selectAuditColumns = `
		SELECT id, at, actor_id, actor_name, address, action, user_id, session_id, connection_id, detail, outcome
		FROM audit `
)

// forever stands for an Until that is not known: it is later than any other.
const forever = math.MaxInt64

// AddRevocation implements [chat.Store].
func (s *Store) AddRevocation(ctx context.Context, r chat.Revocation) error {
	until := int64(forever)
	if !r.Until.IsZero() {
		until = r.Until.UnixMilli()
	}
	err := s.submitStatement(ctx, s.addRevocation, r.UserID, r.TokenID, r.At.UnixMilli(), until)
	return failure(err, "add a revocation")
}

// Revocations implements [chat.Store].
func (s *Store) Revocations(ctx context.Context) ([]chat.Revocation, error) {
	revocations, err := readAll(ctx, scanRevocation, s.selectRevocations)
	return revocations, failure(err, "read the revocations")
}

func scanRevocation(row scanner) (r chat.Revocation, err error) {
	var at, until int64
	err = row.Scan(&r.UserID, &r.TokenID, &at, &until)
	r.At = time.UnixMilli(at).UTC()
	if until != forever {
		r.Until = time.UnixMilli(until).UTC()
	}
	return r, err
}

// DeleteRevocations implements [chat.Store].
func (s *Store) DeleteRevocations(ctx context.Context, before time.Time) error {
	return failure(s.submitStatement(ctx, s.deleteRevocations, before.UnixMilli()), "delete revocations")
}

// PutAudit implements [chat.Store].
func (s *Store) PutAudit(ctx context.Context, r chat.AuditRecord) error {
	err := s.submitStatement(ctx, s.putAudit, r.ID, r.At.UnixMilli(), r.ActorID, r.ActorName, r.Address, r.Action, r.UserID,
		r.SessionID, r.ConnectionID, r.Detail, r.Outcome)
	return failure(err, "put audit record %s", r.ID)
}

// submitStatement has the write loop carry out a statement that is a change of its own.
func (s *Store) submitStatement(ctx context.Context, statement *sql.Stmt, args ...any) error {
	return s.submit(ctx, func(tx *sql.Tx) error {
		_, err := tx.Stmt(statement).Exec(args...)
		return err
	})
}

// Audit implements [chat.Store].
func (s *Store) Audit(
	ctx context.Context, filter chat.AuditFilter, after chat.AuditPlace, limit int,
) ([]chat.AuditRecord, error) {
	query, args := auditQuery(filter, after, limit)
	rows, err := s.readers.QueryContext(ctx, query, args...)
	records, err := scanAll(rows, err, scanAudit)
	return records, failure(err, "read audit records")
}

func auditQuery(filter chat.AuditFilter, after chat.AuditPlace, limit int) (query string, args []any) {
	var c conditions
	c.addText("actor_id = ?", filter.ActorID)
	c.addText("action = ?", filter.Action)
	c.addText("user_id = ?", filter.UserID)
	c.addText("session_id = ?", filter.SessionID)
	c.addTime("at >= ?", filter.From)
	c.addTime("at < ?", filter.To)
	if after != (chat.AuditPlace{}) {
		c.add("(at, id) < (?, ?)", after.At.UnixMilli(), after.ID)
	}
	return selectAuditColumns + c.where() + " ORDER BY at DESC, id DESC LIMIT ?", append(c.args, max(limit, 0))
}

func scanAudit(row scanner) (r chat.AuditRecord, err error) {
	var at int64
	err = row.Scan(&r.ID, &at, &r.ActorID, &r.ActorName, &r.Address, &r.Action, &r.UserID, &r.SessionID, &r.ConnectionID,
		&r.Detail, &r.Outcome)
	r.At = time.UnixMilli(at).UTC()
	return r, err
}
