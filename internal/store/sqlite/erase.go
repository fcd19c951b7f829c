package sqlite

import (
	"context"
	"database/sql"
	"math"
	"time"

	"github.com/parley-chat/parley/chat"
)

const (
	deleteMessagesQuery = `DELETE FROM messages WHERE session_id = ?`
	deleteSessionQuery  = `DELETE FROM sessions WHERE id = ?`
	deleteUsageQuery    = `DELETE FROM usage WHERE at >= ? AND at < ?`
)

// DeleteSession implements [chat.Store]. What it removes is overwritten, in the file and, soon after, in the
// write-ahead log.
func (s *Store) DeleteSession(ctx context.Context, id string, idleSince time.Time) error {
	err := s.submitErasure(ctx, func(tx *sql.Tx) error {
		if !idleSince.IsZero() {
			var idle bool
			if err := tx.QueryRow(`SELECT coalesce((SELECT last_active_at < ? FROM sessions WHERE id = ?), true)`,
				idleSince.UnixMilli(), id).Scan(&idle); err != nil {
				return err
			}
			if !idle {
				return chat.ErrStale
			}
		}
		if _, err := tx.Stmt(s.deleteMessages).Exec(id); err != nil {
			return err
		}
		_, err := tx.Stmt(s.deleteSession).Exec(id)
		return err
	})
	return failure(err, "delete session %s", id)
}

// DeleteUsage implements [chat.Store].
func (s *Store) DeleteUsage(ctx context.Context, filter chat.UsageFilter) error {
	query, args := deleteUsageQuery, period(filter)
	if filter.UserID != "" {
		query, args = query+" AND user_id = ?", append(args, filter.UserID)
	}
	err := s.submitErasure(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec(query, args...)
		return err
	})
	return failure(err, "delete usage")
}

// period gives the filter's time as the arguments of a query: in milliseconds, the first inclusive, the second not.
func period(filter chat.UsageFilter) []any {
	from, to := int64(math.MinInt64), int64(math.MaxInt64)
	if !filter.From.IsZero() {
		from = filter.From.UnixMilli()
	}
	if !filter.To.IsZero() {
		to = filter.To.UnixMilli()
	}
	return []any{from, to}
}
