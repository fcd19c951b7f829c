// Package mongo is the [chat.Store] of many servers: a MongoDB database that they share.
//
// It asks MongoDB for what every deployment has: writes to single documents, and unique keys. Each message bears the
// claim of whoever may still change it, so that a server which has lost a session changes nothing of it any more. Writes
// that come at the same time share a command.
package mongo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/parley-chat/parley/chat"
)

const (
	// connectTimeout and selectionTimeout bound how long an operation waits for a server, unless the URI has others:
	// short, so that an outage is noticed. A replica set elects a primary within that time or is tried again.
	connectTimeout   = 3 * time.Second
	selectionTimeout = 3 * time.Second

	// disconnectTimeout bounds the wait for connections that are in use when the store is closed.
	disconnectTimeout = 5 * time.Second
)

// Config says where the data is.
type Config struct {
	// URI is MongoDB's connection string (https://www.mongodb.com/docs/manual/reference/connection-string/). It is
	// secret: it may hold a password. What it says of write concern and read preference does not count.
	URI string

	Database string
}

var _ chat.Store = (*Store)(nil)

// Store is a [chat.Store] in a MongoDB database. A limit to how long an operation may take is its context's: without
// one it waits for a server that hangs.
type Store struct {
	client *mongo.Client
	id     string

	sessions, messages, usage, revocations, audit, owners, store *mongo.Collection

	insertions *batcher[insertion]
	updates    *batcher[update]
	records    *batcher[record]
}

// Open connects to the database, and makes in it what is missing. Several servers may do so at the same time.
//
// A database of a newer Parley, and one that cannot be reached or used, are errors that say what to do. No error holds
// the URI, or a password.
func Open(ctx context.Context, config Config) (*Store, error) {
	opts, err := clientOptions(config)
	if err != nil {
		return nil, fmt.Errorf("open MongoDB store: %w", err)
	}
	s, err := open(ctx, config.Database, opts)
	if err != nil {
		return nil, fmt.Errorf("open MongoDB store %s at %s: %w", config.Database, strings.Join(opts.Hosts, ", "),
			explainOpen(err, config.Database))
	}
	return s, nil
}

// CheckURI reports what is wrong with a connection string, without anything of it that may be secret. It asks nobody.
func CheckURI(uri string) error {
	if strings.HasPrefix(uri, "mongodb+srv://") {
		return checkURI(uri) // the rest is asked of the domain's name servers
	}
	_, err := clientOptions(Config{URI: uri, Database: "any"})
	return err
}

func clientOptions(config Config) (*options.ClientOptions, error) {
	if config.Database == "" {
		return nil, errors.New("the database must be named")
	}
	if err := checkURI(config.URI); err != nil {
		return nil, err
	}
	opts := options.Client().
		SetAppName("parley").
		SetConnectTimeout(connectTimeout).
		SetServerSelectionTimeout(selectionTimeout).
		ApplyURI(config.URI). // which may say otherwise up to here
		SetReadPreference(readpref.Primary()).
		SetWriteConcern(durable())
	if err := opts.Validate(); err != nil {
		return nil, explainURI(err, config.URI)
	}
	return opts, nil
}

// durable is what [chat.Store] promises of a write: it outlasts the loss of any one server.
func durable() *writeconcern.WriteConcern {
	journaled := true
	return &writeconcern.WriteConcern{W: writeconcern.Majority().W, Journal: &journaled}
}

func open(ctx context.Context, database string, opts *options.ClientOptions) (*Store, error) {
	client, err := mongo.Connect(opts)
	if err != nil {
		return nil, err
	}
	db := client.Database(database)
	s := &Store{
		client:      client,
		sessions:    db.Collection("sessions"),
		messages:    db.Collection("messages"),
		usage:       db.Collection("usage"),
		revocations: db.Collection("revocations"),
		audit:       db.Collection("audit"),
		owners:      db.Collection("owners"),
		store:       db.Collection("store"),
	}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.disconnect())
	}
	s.insertions = newBatcher(insertion.size, s.insertMessages)
	s.updates = newBatcher(update.size, s.updateMessages)
	s.records = newBatcher(record.size, s.insertUsage)
	return s, nil
}

// ID implements [chat.Store].
func (s *Store) ID() string { return s.id }

// Ping implements [chat.Store]. It reads, so that it fails too where the database is not the one that was opened.
func (s *Store) Ping(ctx context.Context) error {
	d, err := s.readIdentity(ctx)
	if err == nil && d.ID != s.id {
		err = fmt.Errorf("the database holds the store %s now, and held %s", d.ID, s.id)
	}
	return failure(err, "ping store")
}

// Close implements [chat.Store]. It waits for the writes that have been taken; those still waiting fail.
func (s *Store) Close() error {
	s.insertions.close()
	s.updates.close()
	s.records.close()
	return failure(s.disconnect(), "close store")
}

func (s *Store) disconnect() error {
	ctx, cancel := context.WithTimeout(context.Background(), disconnectTimeout)
	defer cancel()
	return s.client.Disconnect(ctx)
}

// find reads the documents that a filter chooses.
func find[D any](
	ctx context.Context, from *mongo.Collection, filter any, opts ...options.Lister[options.FindOptions],
) (all []D, err error) {
	cursor, err := from.Find(ctx, filter, opts...)
	if err != nil {
		return nil, err
	}
	var raw []bson.Raw
	if err := cursor.All(ctx, &raw); err != nil {
		return nil, err
	}
	for _, r := range raw {
		d, err := decode[D](r)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// findPage is find for the first limit documents in an order. To MongoDB a limit of 0 is none, and a negative one is
// positive.
func findPage[D any](
	ctx context.Context, from *mongo.Collection, filter any, order bson.D, limit int,
	opts ...options.Lister[options.FindOptions],
) ([]D, error) {
	if limit <= 0 {
		return nil, ctx.Err()
	}
	return find[D](ctx, from, filter, append(opts, options.Find().SetSort(order).SetLimit(int64(limit)))...)
}

// findOne reads the document that a filter chooses. Where there is none it is [mongo.ErrNoDocuments].
func findOne[D any](ctx context.Context, from *mongo.Collection, filter any) (d D, err error) {
	raw, err := from.FindOne(ctx, filter).Raw()
	if err != nil {
		return d, err
	}
	return decode[D](raw)
}

// after is the filter for what comes after a place in the order of two fields: both rise, with the operator $gt, or both
// fall, with $lt.
func after(operator, first string, a any, second string, b any) bson.D {
	return bson.D{
		{Key: first, Value: bson.D{{Key: operator + "e", Value: a}}}, // so that an index is entered at the place
		{Key: "$or", Value: bson.A{
			bson.D{{Key: first, Value: bson.D{{Key: operator, Value: a}}}},
			bson.D{{Key: second, Value: bson.D{{Key: operator, Value: b}}}},
		}},
	}
}

// set is an update that sets the fields of a document.
func set(fields any) bson.D { return bson.D{{Key: "$set", Value: fields}} }

// and joins filters that have no field in common.
func and(filters ...bson.D) bson.D { return slices.Concat(filters...) }
