package mongo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/parley-chat/parley/chat"
)

// schemaVersion is the version of what this code writes, and the newest that it reads. The database has one, and each
// record its own, in the field v.
const schemaVersion = 1

// indexes are those of a collection. All that is unique rests on them; the others serve what the store asks for often. The
// one that each collection has anyway, _id, is a session's ID and an owner's name.
func indexes(collection string) []mongo.IndexModel {
	index := func(keys ...bson.E) mongo.IndexModel { return mongo.IndexModel{Keys: bson.D(keys)} }
	unique := func(keys ...bson.E) mongo.IndexModel {
		return mongo.IndexModel{Keys: bson.D(keys), Options: options.Index().SetUnique(true)}
	}
	rising := func(field string) bson.E { return bson.E{Key: field, Value: 1} }
	falling := func(field string) bson.E { return bson.E{Key: field, Value: -1} }
	return map[string][]mongo.IndexModel{
		"sessions": {
			index(rising("user_id"), falling("last_active_at"), falling("_id")),
			index(rising("last_active_at"), rising("_id")),
			index(rising("created_at"), rising("_id")),
			index(rising("user_id"), rising("_id")),
			index(rising("messages"), rising("_id")),
			index(rising("tokens"), rising("_id")),
			index(rising("claim.owner")),
		},
		"messages": {
			unique(rising("session_id"), rising("n")),
			unique(rising("session_id"), rising("message_id")),
			index(rising("session_id"), rising("seq")),
		},
		"usage": {
			unique(rising("session_id"), rising("message_id")),
			index(rising("user_id"), rising("at")),
			index(rising("at")),
		},
		"revocations": {
			unique(rising("user_id"), rising("token_id")),
		},
		"audit": {
			index(rising("at"), rising("_id")),
			index(rising("user_id"), rising("at"), rising("_id")),
			index(rising("actor_id"), rising("at"), rising("_id")),
		},
	}[collection]
}

// identity is the key of the one document in the collection store.
const identity = "store"

// storeDocument names the data in the database.
type storeDocument struct {
	Key       string `bson:"_id"`
	V         int    `bson:"v"`
	ID        string `bson:"id"`
	SealCheck string `bson:"seal_check"`
}

// prepare makes the database what this code expects. All of it may be repeated, and be done by several servers at once.
// The version is looked at first: what is newer is left alone.
func (s *Store) prepare(ctx context.Context) error {
	d, err := s.readIdentity(ctx)
	if errors.Is(err, mongo.ErrNoDocuments) {
		d, err = s.makeIdentity(ctx)
	}
	if err != nil {
		return fmt.Errorf("read the store's ID: %w", err)
	}
	s.id = d.ID
	for _, c := range []*mongo.Collection{s.sessions, s.messages, s.usage, s.revocations, s.audit} {
		for _, index := range indexes(c.Name()) { // one by one: FerretDB confuses several, of which it has some
			if _, err := c.Indexes().CreateOne(ctx, index); err != nil {
				return fmt.Errorf("make the indexes of %s: %w", c.Name(), err)
			}
		}
	}
	if err := s.sumOldSessions(ctx); err != nil {
		return fmt.Errorf("sum the sessions of an older Parley up: %w", err)
	}
	return nil
}

func (s *Store) readIdentity(ctx context.Context) (storeDocument, error) {
	return findOne[storeDocument](ctx, s.store, byID(identity))
}

// makeIdentity gives the database its ID, unless another server is faster: then it has that one's.
func (s *Store) makeIdentity(ctx context.Context) (storeDocument, error) {
	id := make([]byte, 16)
	rand.Read(id) // never fails
	d := storeDocument{Key: identity, V: schemaVersion, ID: hex.EncodeToString(id)}
	if _, err := s.store.InsertOne(ctx, d); err != nil && !mongo.IsDuplicateKeyError(err) {
		return d, err
	}
	return s.readIdentity(ctx)
}

// SealCheck implements [chat.Store].
func (s *Store) SealCheck(ctx context.Context) (string, error) {
	d, err := s.readIdentity(ctx)
	return d.SealCheck, failure(err, "read the seal's check")
}

// SetSealCheck implements [chat.Store].
func (s *Store) SetSealCheck(ctx context.Context, sealed string) error {
	result, err := s.store.UpdateOne(ctx, byID(identity), set(bson.D{{Key: "seal_check", Value: sealed}}))
	if err == nil && result.MatchedCount == 0 {
		err = chat.ErrNotFound
	}
	return failure(err, "store the seal's check")
}

// byID is the filter for the document of an ID.
func byID(id any) bson.D { return bson.D{{Key: "_id", Value: id}} }
