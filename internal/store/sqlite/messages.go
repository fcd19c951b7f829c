package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"slices"

	"github.com/parley-chat/parley/chat"
)

const (
	insertMessageQuery = `
		INSERT INTO messages (session_id, n, message_id, role, status, finish_reason, error, created_at, author,
			model, provider, reply_to, replaces, answer_id, usage, first_token_ms, duration_ms, reasoning, text,
			seq, sealed)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

	updateMessageQuery = `
		UPDATE messages
		SET text = ?, reasoning = ?, sealed = ?, status = ?, finish_reason = ?, error = ?, provider = ?, usage = ?,
			first_token_ms = ?, duration_ms = ?
		WHERE session_id = ? AND message_id = ? AND status = ?`

	// What scanMessage reads.
	selectMessageColumns = `
		SELECT n, message_id, role, status, finish_reason, error, created_at, author, model, provider, reply_to,
			replaces, answer_id, usage, first_token_ms, duration_ms, reasoning, text, seq, sealed
		FROM messages `

	selectMessageQuery  = selectMessageColumns + `WHERE session_id = ? AND message_id = ?`
	selectMessagesQuery = selectMessageColumns + `WHERE session_id = ? AND n < ? ORDER BY n DESC LIMIT ?`

	selectMessagesFromQuery = selectMessageColumns + `WHERE session_id = ? AND n > ? ORDER BY n LIMIT ?`

	// The last condition lets SQLite use the partial index; it stands after the one that says where to begin in it,
	// because SQLite takes the first for that.
	selectMessagesAfterQuery = selectMessageColumns + `
		WHERE session_id = ? AND seq > ? AND seq > 0 ORDER BY seq LIMIT ?`
)

// InsertMessage implements [chat.Store].
func (s *Store) InsertMessage(ctx context.Context, sessionID string, by chat.Claim, m chat.Message) error {
	d, err := messageToDocument(&m)
	if err != nil {
		return failure(err, "insert message %s of session %s", m.ID, sessionID)
	}
	err = s.submit(ctx, func(tx *sql.Tx) error {
		if err := s.checkClaim(tx, sessionID, by); err != nil {
			return err
		}
		_, err := tx.Stmt(s.insertMessage).Exec(sessionID, m.N, m.ID, m.Role, m.Status, m.FinishReason, d.errorJSON,
			d.createdAt, d.authorJSON, m.Model, m.Provider, m.ReplyTo, m.Replaces, m.AnswerID, d.usageJSON,
			m.FirstTokenMS, m.DurationMS, m.Reasoning, m.Text, m.Seq, m.Sealed)
		return err
	})
	return failure(err, "insert message %s of session %s", m.ID, sessionID)
}

// UpdateMessage implements [chat.Store].
func (s *Store) UpdateMessage(ctx context.Context, sessionID string, by chat.Claim, m chat.Message) error {
	d, err := messageToDocument(&m)
	if err != nil {
		return failure(err, "update message %s of session %s", m.ID, sessionID)
	}
	err = s.submit(ctx, func(tx *sql.Tx) error {
		if err := s.checkClaim(tx, sessionID, by); errors.Is(err, sql.ErrNoRows) {
			return chat.ErrStale
		} else if err != nil {
			return err
		}
		updated, err := changed(tx.Stmt(s.updateMessage).Exec(m.Text, m.Reasoning, m.Sealed, m.Status, m.FinishReason, d.errorJSON,
			m.Provider, d.usageJSON, m.FirstTokenMS, m.DurationMS, sessionID, m.ID, chat.StatusStreaming))
		if err == nil && !updated {
			return chat.ErrStale
		}
		return err
	})
	return failure(err, "update message %s of session %s", m.ID, sessionID)
}

// Message implements [chat.Store].
func (s *Store) Message(ctx context.Context, sessionID, messageID string) (chat.Message, error) {
	m, err := scanMessage(s.selectMessage.QueryRowContext(ctx, sessionID, messageID))
	return m, failure(err, "read message %s of session %s", messageID, sessionID)
}

// Messages implements [chat.Store].
func (s *Store) Messages(ctx context.Context, sessionID string, before int64, limit int) ([]chat.Message, error) {
	if before == 0 {
		before = math.MaxInt64
	}
	messages, err := readMessages(ctx, s.selectMessages, sessionID, before, limit)
	slices.Reverse(messages)
	return messages, failure(err, "read messages of session %s", sessionID)
}

// MessagesAfter implements [chat.Store].
func (s *Store) MessagesAfter(ctx context.Context, sessionID string, seq int64, limit int) ([]chat.Message, error) {
	messages, err := readMessages(ctx, s.selectMessagesAfter, sessionID, seq, limit)
	return messages, failure(err, "read messages of session %s after seq %d", sessionID, seq)
}

// MessagesFrom implements [chat.Store].
func (s *Store) MessagesFrom(ctx context.Context, sessionID string, after int64, limit int) ([]chat.Message, error) {
	messages, err := readMessages(ctx, s.selectMessagesFrom, sessionID, after, limit)
	return messages, failure(err, "read messages of session %s from number %d", sessionID, after)
}

// readMessages reads one page; bound is the N or the Seq at which the query has it begin.
func readMessages(ctx context.Context, query *sql.Stmt, id string, bound int64, limit int) ([]chat.Message, error) {
	return readAll(ctx, scanMessage, query, id, bound, max(limit, 0))
}

func scanMessage(row scanner) (chat.Message, error) {
	var m chat.Message
	var d messageDocument
	if err := row.Scan(&m.N, &m.ID, &m.Role, &m.Status, &m.FinishReason, &d.errorJSON, &d.createdAt, &d.authorJSON,
		&m.Model, &m.Provider, &m.ReplyTo, &m.Replaces, &m.AnswerID, &d.usageJSON, &m.FirstTokenMS, &m.DurationMS,
		&m.Reasoning, &m.Text, &m.Seq, &m.Sealed); err != nil {
		return chat.Message{}, err
	}
	if err := d.complete(&m); err != nil {
		return chat.Message{}, err
	}
	return m, nil
}
