package mongo

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/parley-chat/parley/chat"
)

// AddRevocation implements [chat.Store].
func (s *Store) AddRevocation(ctx context.Context, r chat.Revocation) error {
	until := forever
	if !r.Until.IsZero() {
		until = bson.NewDateTimeFromTime(r.Until)
	}
	key := bson.D{{Key: "user_id", Value: r.UserID}, {Key: "token_id", Value: r.TokenID}}
	add := func() error {
		_, err := s.revocations.UpdateOne(ctx, key, bson.D{
			{Key: "$max", Value: bson.D{{Key: "at", Value: bson.NewDateTimeFromTime(r.At)}, {Key: "until", Value: until}}},
			{Key: "$setOnInsert", Value: bson.D{{Key: "v", Value: schemaVersion}}},
		}, options.UpdateOne().SetUpsert(true))
		return err
	}
	err := add()
	if mongo.IsDuplicateKeyError(err) {
		err = add() // somebody else has inserted it at the same time: now it is there
	}
	return failure(err, "add a revocation")
}

// Revocations implements [chat.Store].
func (s *Store) Revocations(ctx context.Context) (revocations []chat.Revocation, err error) {
	documents, err := find[revocationDocument](ctx, s.revocations, bson.D{},
		options.Find().SetSort(bson.D{{Key: "user_id", Value: 1}, {Key: "token_id", Value: 1}}))
	for _, d := range documents {
		revocations = append(revocations, d.revocation())
	}
	return revocations, failure(err, "read the revocations")
}

// DeleteRevocations implements [chat.Store].
func (s *Store) DeleteRevocations(ctx context.Context, before time.Time) error {
	_, err := s.revocations.DeleteMany(ctx, bson.D{
		{Key: "until", Value: bson.D{{Key: "$lt", Value: bson.NewDateTimeFromTime(before)}}},
	})
	return failure(err, "delete revocations")
}

// PutAudit implements [chat.Store].
func (s *Store) PutAudit(ctx context.Context, r chat.AuditRecord) error {
	_, err := s.audit.InsertOne(ctx, auditToDocument(r))
	if mongo.IsDuplicateKeyError(err) {
		if r.Outcome == "" {
			return nil
		}
		_, err = s.audit.UpdateOne(ctx, byID(r.ID), set(bson.D{{Key: "outcome", Value: r.Outcome}}))
	}
	return failure(err, "put audit record %s", r.ID)
}

// Audit implements [chat.Store].
func (s *Store) Audit(
	ctx context.Context, filter chat.AuditFilter, place chat.AuditPlace, limit int,
) (records []chat.AuditRecord, err error) {
	var conditions bson.A
	conditions = addText(conditions, "actor_id", filter.ActorID)
	conditions = addText(conditions, "action", filter.Action)
	conditions = addText(conditions, "user_id", filter.UserID)
	conditions = addText(conditions, "session_id", filter.SessionID)
	conditions = addTime(conditions, "at", "$gte", filter.From)
	conditions = addTime(conditions, "at", "$lt", filter.To)
	if place != (chat.AuditPlace{}) {
		conditions = append(conditions, after("$lt", "at", bson.NewDateTimeFromTime(place.At), "_id", place.ID))
	}
	documents, err := findPage[auditDocument](ctx, s.audit, all(conditions),
		bson.D{{Key: "at", Value: -1}, {Key: "_id", Value: -1}}, limit)
	for _, d := range documents {
		records = append(records, d.record())
	}
	return records, failure(err, "read audit records")
}
