package sqlite

import (
	"context"
	"database/sql"
	"math"
	"time"

	"github.com/parley-chat/parley/chat"
)

const (
	// A repetition at the same time meets both keys, one with another time or user only the second.
	insertUsageQuery = `
		INSERT INTO usage (user_id, at, session_id, message_id, model, input_tokens, output_tokens, estimated, cost_micros)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO NOTHING`

	// What scanSum reads. A day has 86,400,000 milliseconds, and 1970 UTC began with one.
	sumUsageColumns = `
		SELECT at - at % 86400000 AS day, user_id, model, count(*), sum(estimated), sum(input_tokens),
			sum(output_tokens), sum(cost_micros)
		FROM usage `
	sumUsageGroups = ` GROUP BY day, user_id, model ORDER BY day, user_id, model`

	sumUsageQuery       = sumUsageColumns + `WHERE at >= ? AND at < ?` + sumUsageGroups
	sumUsageOfUserQuery = sumUsageColumns + `WHERE user_id = ? AND at >= ? AND at < ?` + sumUsageGroups
)

// AddUsage implements [chat.Store].
func (s *Store) AddUsage(ctx context.Context, r chat.UsageRecord) error {
	err := s.submit(ctx, func(tx *sql.Tx) error {
		_, err := tx.Stmt(s.insertUsage).Exec(r.UserID, r.At.UnixMilli(), r.SessionID, r.MessageID, r.Model,
			r.Usage.InputTokens, r.Usage.OutputTokens, r.Usage.Estimated, r.CostMicros)
		return err
	})
	return failure(err, "add usage of message %s of session %s", r.MessageID, r.SessionID)
}

// SumUsage implements [chat.Store].
func (s *Store) SumUsage(ctx context.Context, filter chat.UsageFilter) ([]chat.UsageSum, error) {
	sums, err := s.readSums(ctx, filter)
	return sums, failure(err, "sum usage")
}

func (s *Store) readSums(ctx context.Context, filter chat.UsageFilter) ([]chat.UsageSum, error) {
	from, to := int64(math.MinInt64), int64(math.MaxInt64)
	if !filter.From.IsZero() {
		from = filter.From.UnixMilli()
	}
	if !filter.To.IsZero() {
		to = filter.To.UnixMilli()
	}
	query, args := s.sumUsage, []any{from, to}
	if filter.UserID != "" {
		query, args = s.sumUsageOfUser, []any{filter.UserID, from, to}
	}
	rows, err := query.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var sums []chat.UsageSum
	for rows.Next() {
		sum, err := scanSum(rows)
		if err != nil {
			return nil, err
		}
		sums = append(sums, sum)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return sums, nil
}

func scanSum(rows *sql.Rows) (chat.UsageSum, error) {
	var sum chat.UsageSum
	var day int64
	if err := rows.Scan(&day, &sum.UserID, &sum.Model, &sum.Responses, &sum.Estimated, &sum.InputTokens,
		&sum.OutputTokens, &sum.CostMicros); err != nil {
		return chat.UsageSum{}, err
	}
	sum.Day = time.UnixMilli(day).UTC()
	return sum, nil
}
