package mongo

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/parley-chat/parley/chat"
)

// SessionsAfter implements [chat.Store].
func (s *Store) SessionsAfter(ctx context.Context, id string, limit int) ([]chat.Session, error) {
	documents, err := findPage[sessionDocument](ctx, s.sessions, byID(bson.D{{Key: "$gt", Value: id}}), byID(1), limit)
	return sessionsOf(documents), failure(err, "list sessions")
}

// IdleSessions implements [chat.Store].
func (s *Store) IdleSessions(ctx context.Context, before time.Time, limit int) ([]string, error) {
	ids, err := s.findIDs(ctx, idle(before), bson.D{{Key: "last_active_at", Value: 1}, {Key: "_id", Value: 1}}, limit)
	return ids, failure(err, "list idle sessions")
}

// ClaimedSessions implements [chat.Store].
func (s *Store) ClaimedSessions(ctx context.Context, ownerPrefix, last string, limit int) ([]string, error) {
	// What begins with a prefix of ASCII characters lies below the prefix with a character above all of these.
	ids, err := s.findIDs(ctx, and(notEnded, bson.D{
		{Key: "claim.owner", Value: bson.D{{Key: "$gte", Value: ownerPrefix}, {Key: "$lt", Value: ownerPrefix + "\uffff"}}},
		{Key: "_id", Value: bson.D{{Key: "$gt", Value: last}}},
	}), byID(1), limit)
	return ids, failure(err, "list claimed sessions")
}

// findIDs reads the IDs of sessions.
func (s *Store) findIDs(ctx context.Context, filter any, order bson.D, limit int) (ids []string, err error) {
	sessions, err := findPage[holding](ctx, s.sessions, filter, order, limit, options.Find().SetProjection(byID(1)))
	for _, h := range sessions {
		ids = append(ids, h.ID)
	}
	return ids, err
}

// idle is the filter for sessions that have not been active since.
func idle(since time.Time) bson.D {
	return bson.D{{Key: "last_active_at", Value: bson.D{{Key: "$lt", Value: bson.NewDateTimeFromTime(since)}}}}
}

// Count implements [chat.Store]. It walks through the keys: the number that MongoDB keeps by itself may be wrong after a
// crash.
func (s *Store) Count(ctx context.Context) (c chat.Counts, err error) {
	for collection, n := range map[*mongo.Collection]*int64{s.sessions: &c.Sessions, s.messages: &c.Messages, s.usage: &c.Usage} {
		if *n, err = collection.CountDocuments(ctx, bson.D{}, options.Count().SetHint("_id_")); err != nil {
			return chat.Counts{}, failure(err, "count what is stored")
		}
	}
	return c, nil
}
