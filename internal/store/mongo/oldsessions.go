package mongo

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// unsummed is the filter for sessions that were stored before a session had its messages and tokens: in a list that is
// ordered by these they would have no place.
var unsummed = bson.D{{Key: "messages", Value: bson.D{{Key: "$exists", Value: false}}}}

// sumOldSessions gives the sessions of an older Parley what they lack: the number of their messages that have a place in
// the log, and the sum of their tokens. Servers may do so at the same time, and on the store meanwhile; cut short, it goes
// on where it was.
func (s *Store) sumOldSessions(ctx context.Context) error {
	for {
		old, err := find[sessionDocument](ctx, s.sessions, unsummed, options.Find().SetLimit(maxGroup))
		if err != nil || len(old) == 0 {
			return err
		}
		placed, err := s.countPlaced(ctx, old)
		if err != nil {
			return err
		}
		models := make([]mongo.WriteModel, 0, len(old))
		for _, d := range old {
			models = append(models, mongo.NewUpdateOneModel().SetFilter(and(byID(d.ID), unsummed)).SetUpdate(set(bson.D{
				{Key: "messages", Value: placed[d.ID]},
				{Key: "tokens", Value: tokens(d.Replaced.Usage)},
			})))
		}
		if _, err := s.sessions.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false)); err != nil {
			return err
		}
	}
}

// countPlaced gives how many messages of each session have a place in its log; of one without any, nothing.
func (s *Store) countPlaced(ctx context.Context, sessions []sessionDocument) (map[string]int64, error) {
	var ids []string
	for _, d := range sessions {
		ids = append(ids, d.ID)
	}
	cursor, err := s.messages.Aggregate(ctx, mongo.Pipeline{
		{{Key: "$match", Value: bson.D{
			{Key: "session_id", Value: bson.D{{Key: "$in", Value: ids}}},
			{Key: "seq", Value: bson.D{{Key: "$gt", Value: int64(0)}}},
		}}},
		{{Key: "$group", Value: bson.D{
			{Key: "_id", Value: "$session_id"},
			{Key: "placed", Value: bson.D{{Key: "$sum", Value: int64(1)}}},
		}}},
	})
	if err != nil {
		return nil, err
	}
	var counts []struct {
		ID     string `bson:"_id"`
		Placed int64  `bson:"placed"`
	}
	if err := cursor.All(ctx, &counts); err != nil {
		return nil, err
	}
	placed := make(map[string]int64, len(counts))
	for _, c := range counts {
		placed[c.ID] = c.Placed
	}
	return placed, nil
}
