package mongo

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/parley-chat/parley/chat"
)

// ResealSession implements [chat.Store].
func (s *Store) ResealSession(ctx context.Context, old, sealed chat.Session) error {
	revision := bson.D{{Key: "revision", Value: old.Revision}}
	return failure(replace(ctx, s.sessions, and(byID(old.ID), revision, sealedOfSession(old)), sealedOfSession(sealed)),
		"reseal session %s", old.ID)
}

// sealedOfSession are the fields of a session that are encrypted.
func sealedOfSession(s chat.Session) bson.D {
	return bson.D{{Key: "title", Value: s.Title}, {Key: "help_reason", Value: s.HelpReason}, {Key: "sealed", Value: s.Sealed}}
}

// ResealMessage implements [chat.Store].
func (s *Store) ResealMessage(ctx context.Context, sessionID string, old, sealed chat.Message) error {
	return failure(replace(ctx, s.messages, and(messageKey(sessionID, old.ID), sealedOfMessage(old)), sealedOfMessage(sealed)),
		"reseal message %s of session %s", old.ID, sessionID)
}

// sealedOfMessage are the fields of a message that are encrypted.
func sealedOfMessage(m chat.Message) bson.D {
	return bson.D{{Key: "text", Value: m.Text}, {Key: "reasoning", Value: m.Reasoning}, {Key: "sealed", Value: m.Sealed}}
}

// replace sets fields of a document. It is ErrStale where the filter finds none.
func replace(ctx context.Context, in *mongo.Collection, filter, fields bson.D) error {
	result, err := in.UpdateOne(ctx, filter, set(fields))
	if err == nil && result.MatchedCount == 0 {
		err = chat.ErrStale
	}
	return err
}
