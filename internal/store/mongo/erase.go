package mongo

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/parley-chat/parley/chat"
)

// DeleteSession implements [chat.Store]. The session is fenced first: from then on nothing is written to it any more,
// and it is known for one whose messages go. If it does not get to its end, it can be repeated.
//
// MongoDB keeps what was removed for a while in its files, its oplog and its backups, as it keeps any write.
func (s *Store) DeleteSession(ctx context.Context, id string, idleSince time.Time) error {
	return failure(s.deleteSession(ctx, id, idleSince), "delete session %s", id)
}

func (s *Store) deleteSession(ctx context.Context, id string, idleSince time.Time) error {
	if err := s.fence(ctx, id, idleSince); err != nil {
		return err
	}
	// Of an unknown session too, whose messages another deletion, or an insertion, may have left behind.
	if _, err := s.messages.DeleteMany(ctx, bson.D{{Key: "session_id", Value: id}}); err != nil {
		return err
	}
	_, err := s.sessions.DeleteOne(ctx, and(byID(id), erased))
	return err
}

var erased = bson.D{{Key: "end_reason", Value: chat.EndedByErasure}}

// fence ends a session, in a way that no other end is. It is ErrStale where it is not idle as long as it should be.
func (s *Store) fence(ctx context.Context, id string, idleSince time.Time) error {
	filter := byID(id)
	if !idleSince.IsZero() {
		filter = and(filter, idle(idleSince))
	}
	result, err := s.sessions.UpdateOne(ctx, filter, set(bson.D{
		{Key: "status", Value: chat.SessionStatusEnded},
		{Key: "end_reason", Value: chat.EndedByErasure},
		{Key: "claim", Value: claimDocument{}},
	}))
	if err != nil || result.MatchedCount > 0 || idleSince.IsZero() {
		return err
	}
	n, err := s.sessions.CountDocuments(ctx, byID(id))
	if err == nil && n > 0 {
		err = chat.ErrStale
	}
	return err
}
