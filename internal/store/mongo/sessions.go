package mongo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/parley-chat/parley/chat"
)

// CreateSession implements [chat.Store].
func (s *Store) CreateSession(ctx context.Context, session chat.SessionView) error {
	d := sessionToDocument(session)
	_, err := s.sessions.InsertOne(ctx, d)
	return failure(err, "create session %s", d.ID)
}

// Session implements [chat.Store].
func (s *Store) Session(ctx context.Context, id string) (chat.Session, error) {
	d, err := findOne[sessionDocument](ctx, s.sessions, byID(id))
	if err != nil {
		return chat.Session{}, failure(err, "read session %s", id)
	}
	return d.session(), nil
}

// ClaimSession implements [chat.Store].
func (s *Store) ClaimSession(ctx context.Context, id string, from, to chat.Claim) (chat.Session, error) {
	d, err := s.claim(ctx, id, claimDocument(from), claimDocument(to))
	if err == nil {
		err = s.restamp(ctx, id, claimDocument(to))
	}
	if err != nil {
		return chat.Session{}, failure(err, "claim session %s", id)
	}
	return d.session(), nil
}

func (s *Store) claim(ctx context.Context, id string, from, to claimDocument) (sessionDocument, error) {
	raw, err := s.sessions.FindOneAndUpdate(ctx, and(byID(id), claimedBy(from), notEnded), set(claimedBy(to)),
		options.FindOneAndUpdate().SetReturnDocument(options.After)).Raw()
	if err == nil {
		return decode[sessionDocument](raw)
	}
	if !errors.Is(err, mongo.ErrNoDocuments) {
		return sessionDocument{}, err
	}
	d, err := findOne[sessionDocument](ctx, s.sessions, byID(id))
	if err == nil && (d.Claim != to || d.Replaced.Status == chat.SessionStatusEnded) {
		err = chat.ErrStale
	}
	return d, err
}

// restamp puts the session's messages that may still change under its claim: those without a place in the log, as a
// response gets its place with its end. They are few, and found by an index, however many others there are. Once that is
// done, what a former owner has on its way finds nothing to change. A message that a former owner inserts later is that
// one's loss: see insertMessages.
func (s *Store) restamp(ctx context.Context, id string, to claimDocument) error {
	_, err := s.messages.UpdateMany(ctx, bson.D{
		{Key: "session_id", Value: id},
		{Key: "seq", Value: int64(0)},
		{Key: "claim", Value: bson.D{{Key: "$ne", Value: to}}},
	}, set(claimedBy(to)))
	return err
}

var (
	notEnded  = bson.D{{Key: "status", Value: bson.D{{Key: "$ne", Value: chat.SessionStatusEnded}}}}
	streaming = bson.D{{Key: "status", Value: chat.StatusStreaming}}
	unplaced  = bson.D{{Key: "seq", Value: int64(0)}}
)

// claimedBy is the filter for what has a claim, and what gives it one.
func claimedBy(claim claimDocument) bson.D { return bson.D{{Key: "claim", Value: claim}} }

// UpdateSession implements [chat.Store]. Where it comes at the same time as another update by the same owner, it may be
// stale and have given messages their Seq, which would be the same in both.
func (s *Store) UpdateSession(ctx context.Context, session chat.SessionView, places ...chat.Place) error {
	d := sessionToDocument(session)
	return failure(s.replaceSession(ctx, &d, places), "update session %s", d.ID)
}

func (s *Store) replaceSession(ctx context.Context, d *sessionDocument, places []chat.Place) error {
	if len(places) > 0 {
		if err := s.checkReplaceable(ctx, d); err != nil {
			return err
		}
		if err := s.placeMessages(ctx, d, places); err != nil {
			return fmt.Errorf("place messages: %w", err)
		}
	}
	lower := bson.D{{Key: "revision", Value: bson.D{{Key: "$lt", Value: d.Replaced.Revision}}}}
	result, err := s.sessions.UpdateOne(ctx, and(byID(d.ID), claimedBy(d.Claim), notEnded, lower), bson.D{
		{Key: "$set", Value: d.Replaced},
		{Key: "$max", Value: bson.D{{Key: "log_end", Value: d.LogEnd}, {Key: "changed", Value: d.Changed}}},
	})
	if err != nil || result.MatchedCount > 0 {
		return err
	}
	if _, err := findOne[sessionDocument](ctx, s.sessions, byID(d.ID)); err != nil {
		return err
	}
	return chat.ErrStale
}

// checkReplaceable tells, before anything is changed, why the session's record cannot be replaced.
func (s *Store) checkReplaceable(ctx context.Context, d *sessionDocument) error {
	stored, err := findOne[sessionDocument](ctx, s.sessions, byID(d.ID))
	if err == nil && (stored.Claim != d.Claim || stored.Replaced.Status == chat.SessionStatusEnded ||
		stored.Replaced.Revision >= d.Replaced.Revision) {
		err = chat.ErrStale
	}
	return err
}

// placeMessages gives messages their Seq, in order: of two places for the same message the first counts.
func (s *Store) placeMessages(ctx context.Context, d *sessionDocument, places []chat.Place) error {
	for group := range slices.Chunk(places, maxGroup) {
		models := make([]mongo.WriteModel, 0, len(group))
		for _, p := range group {
			models = append(models, mongo.NewUpdateOneModel().
				SetFilter(and(messageKey(d.ID, p.MessageID), unplaced, claimedBy(d.Claim))).
				SetUpdate(set(bson.D{{Key: "seq", Value: p.Seq}})))
		}
		if _, err := s.messages.BulkWrite(ctx, models); err != nil {
			return err
		}
	}
	return nil
}
