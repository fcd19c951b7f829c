package sqlite

import (
	"context"
	"database/sql"
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

	// What scanUsage reads.
	selectUsageColumns = `
		SELECT user_id, at, session_id, message_id, model, input_tokens, output_tokens, estimated, cost_micros
		FROM usage `
	selectUsagePage = ` AND (session_id, message_id) > (?, ?) ORDER BY session_id, message_id LIMIT ?`

	selectUsageQuery       = selectUsageColumns + `WHERE at >= ? AND at < ?` + selectUsagePage
	selectUsageOfUserQuery = selectUsageColumns + `WHERE user_id = ? AND at >= ? AND at < ?` + selectUsagePage
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
	query, args := s.sumUsage, period(filter)
	if filter.UserID != "" {
		query, args = s.sumUsageOfUser, append([]any{filter.UserID}, args...)
	}
	return readAll(ctx, scanSum, query, args...)
}

func scanSum(row scanner) (chat.UsageSum, error) {
	var sum chat.UsageSum
	var day int64
	if err := row.Scan(&day, &sum.UserID, &sum.Model, &sum.Responses, &sum.Estimated, &sum.InputTokens,
		&sum.OutputTokens, &sum.CostMicros); err != nil {
		return chat.UsageSum{}, err
	}
	sum.Day = time.UnixMilli(day).UTC()
	return sum, nil
}

// UsageAfter implements [chat.Store].
func (s *Store) UsageAfter(
	ctx context.Context, filter chat.UsageFilter, sessionID, messageID string, limit int,
) ([]chat.UsageRecord, error) {
	query, args := s.selectUsage, period(filter)
	if filter.UserID != "" {
		query, args = s.selectUsageOfUser, append([]any{filter.UserID}, args...)
	}
	records, err := readAll(ctx, scanUsage, query, append(args, sessionID, messageID, max(limit, 0))...)
	return records, failure(err, "read usage")
}

func scanUsage(row scanner) (r chat.UsageRecord, err error) {
	var at int64
	err = row.Scan(&r.UserID, &at, &r.SessionID, &r.MessageID, &r.Model, &r.Usage.InputTokens, &r.Usage.OutputTokens,
		&r.Usage.Estimated, &r.CostMicros)
	r.At = time.UnixMilli(at).UTC()
	return r, err
}
