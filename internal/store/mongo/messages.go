package mongo

import (
	"context"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/parley-chat/parley/chat"
)

// Message implements [chat.Store].
func (s *Store) Message(ctx context.Context, sessionID, messageID string) (chat.Message, error) {
	d, err := findOne[messageDocument](ctx, s.messages, messageKey(sessionID, messageID))
	if err != nil {
		return chat.Message{}, failure(err, "read message %s of session %s", messageID, sessionID)
	}
	return d.message(), nil
}

// messageKey is the filter for a message.
func messageKey(sessionID, messageID string) bson.D {
	return bson.D{{Key: "session_id", Value: sessionID}, {Key: "message_id", Value: messageID}}
}

// Messages implements [chat.Store].
func (s *Store) Messages(ctx context.Context, sessionID string, before int64, limit int) ([]chat.Message, error) {
	filter := bson.D{{Key: "session_id", Value: sessionID}}
	if before != 0 {
		filter = append(filter, bson.E{Key: "n", Value: bson.D{{Key: "$lt", Value: before}}})
	}
	documents, err := findPage[messageDocument](ctx, s.messages, filter, bson.D{{Key: "n", Value: -1}}, limit)
	slices.Reverse(documents)
	return messagesOf(documents), failure(err, "read messages of session %s", sessionID)
}

// MessagesAfter implements [chat.Store].
func (s *Store) MessagesAfter(ctx context.Context, sessionID string, seq int64, limit int) ([]chat.Message, error) {
	documents, err := findPage[messageDocument](ctx, s.messages, bson.D{
		{Key: "session_id", Value: sessionID},
		{Key: "seq", Value: bson.D{{Key: "$gt", Value: max(seq, 0)}}},
	}, bson.D{{Key: "seq", Value: 1}}, limit)
	return messagesOf(documents), failure(err, "read messages of session %s after seq %d", sessionID, seq)
}

// MessagesFrom implements [chat.Store].
func (s *Store) MessagesFrom(ctx context.Context, sessionID string, after int64, limit int) ([]chat.Message, error) {
	documents, err := findPage[messageDocument](ctx, s.messages, bson.D{
		{Key: "session_id", Value: sessionID},
		{Key: "n", Value: bson.D{{Key: "$gt", Value: after}}},
	}, bson.D{{Key: "n", Value: 1}}, limit)
	return messagesOf(documents), failure(err, "read messages of session %s from number %d", sessionID, after)
}

// maxDocument is how large a document may be
// (https://www.mongodb.com/docs/manual/reference/limits/#mongodb-limit-BSON-Document-Size).
const maxDocument = 16 << 20

// encode gives a document as BSON. One that is too large is an error here, where it is nobody else's.
func encode(document any) (bson.Raw, error) {
	raw, err := bson.Marshal(document)
	if err == nil && len(raw) > maxDocument {
		err = fmt.Errorf("it has %d bytes, and MongoDB takes %d", len(raw), maxDocument)
	}
	return raw, err
}
