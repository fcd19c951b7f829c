package sqlite

import (
	"context"
	"database/sql"
	"time"

	"github.com/parley-chat/parley/chat"
)

const countQuery = `
	SELECT (SELECT count(*) FROM sessions), (SELECT count(*) FROM messages), (SELECT count(*) FROM usage)`

// SessionsAfter implements [chat.Store].
func (s *Store) SessionsAfter(ctx context.Context, id string, limit int) ([]chat.Session, error) {
	sessions, err := readAll(ctx, scanSession, s.selectSessionsAfter, id, max(limit, 0))
	return sessions, failure(err, "list sessions")
}

// IdleSessions implements [chat.Store].
func (s *Store) IdleSessions(ctx context.Context, before time.Time, limit int) ([]string, error) {
	ids, err := readAll(ctx, scanID, s.selectIdleSessions, before.UnixMilli(), max(limit, 0))
	return ids, failure(err, "list idle sessions")
}

// ClaimedSessions implements [chat.Store].
func (s *Store) ClaimedSessions(ctx context.Context, ownerPrefix, after string, limit int) ([]string, error) {
	ids, err := readAll(ctx, scanID, s.selectClaimedSessions, ownerPrefix, ownerPrefix, after, chat.SessionStatusEnded, max(limit, 0))
	return ids, failure(err, "list claimed sessions")
}

func scanID(row scanner) (id string, err error) {
	err = row.Scan(&id)
	return id, err
}

// Count implements [chat.Store].
func (s *Store) Count(ctx context.Context) (c chat.Counts, err error) {
	err = s.count.QueryRowContext(ctx).Scan(&c.Sessions, &c.Messages, &c.Usage)
	return c, failure(err, "count what is stored")
}

// scanner is a row.
type scanner interface{ Scan(into ...any) error }

// readAll reads all rows that a query gives. To SQLite a negative limit is none.
func readAll[T any](ctx context.Context, scan func(scanner) (T, error), query *sql.Stmt, args ...any) ([]T, error) {
	rows, err := query.QueryContext(ctx, args...)
	return scanAll(rows, err, scan)
}

// scanAll reads the rows that a query gave, or says why it gave none.
func scanAll[T any](rows *sql.Rows, err error, scan func(scanner) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return all, nil
}
