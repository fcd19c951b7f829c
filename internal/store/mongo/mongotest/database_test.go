package mongotest_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
)

// These tests hold what Parley needs of MongoDB against the database that there is: FerretDB, or a real one.

// open starts a database and gives a collection of it. Nothing is asked twice unless a test does so.
func open(t *testing.T) (*mongotest.Server, *mongo.Collection) {
	t.Helper()
	s := mongotest.Start(t)
	o := options.Client().ApplyURI(s.URI()).SetRetryReads(false).SetRetryWrites(false)
	client, err := mongo.Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Disconnect(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s, client.Database(s.Database()).Collection("messages")
}

func mustInsert(t *testing.T, c *mongo.Collection, documents ...any) {
	t.Helper()
	if _, err := c.InsertMany(t.Context(), documents); err != nil {
		t.Fatal(err)
	}
}

// wantIDs compares the _id of what a cursor gives.
func wantIDs(t *testing.T, cursor *mongo.Cursor, err error, want ...string) {
	t.Helper()
	var found []struct {
		ID string `bson:"_id"`
	}
	if err == nil {
		err = cursor.All(t.Context(), &found)
	}
	if err != nil {
		t.Error(err)
		return
	}
	got := []string{}
	for _, f := range found {
		got = append(got, f.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, not %q", got, want)
	}
}

func TestFilters(t *testing.T) {
	_, c := open(t)
	mustInsert(t, c, doc("_id", "a", "seq", int64(1), "user", "me"), doc("_id", "b", "seq", int64(2)),
		doc("_id", "c", "seq", int64(3), "user", "you", "claim", doc("id", "x")), doc("_id", "d", "user", nil))
	tests := []struct {
		name   string
		filter bson.D
		want   []string
	}{
		{"all", doc(), []string{"a", "b", "c", "d"}},
		{"equal", doc("user", "me"), []string{"a"}},
		{"equal to another width", doc("seq", 2), []string{"b"}},
		{"within", doc("claim.id", "x"), []string{"c"}},
		{"greater and less", doc("seq", doc("$gt", 1, "$lte", 3)), []string{"b", "c"}},
		{"$in", doc("user", doc("$in", bson.A{"me", "you"})), []string{"a", "c"}},
		{"$ne", doc("user", doc("$ne", "me")), []string{"b", "c", "d"}},
		{"$exists", doc("user", doc("$exists", true)), []string{"a", "c", "d"}},
		{"not $exists", doc("seq", doc("$exists", false)), []string{"d"}},
		{"null or nothing", doc("user", nil), []string{"b", "d"}},
		{"$or", doc("$or", bson.A{doc("seq", 1), doc("user", "you")}), []string{"a", "c"}},
		{"$or beside another", doc("_id", "a", "$or", bson.A{doc("seq", 2), doc("claim", doc("$exists", false))}),
			[]string{"a"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cursor, err := c.Find(t.Context(), test.filter, options.Find().SetSort(doc("_id", 1)))
			wantIDs(t, cursor, err, test.want...)
			n, err := c.CountDocuments(t.Context(), test.filter)
			if err != nil || n != int64(len(test.want)) {
				t.Errorf("counted %d, %v", n, err)
			}
		})
	}
}

func TestFindInOrder(t *testing.T) {
	_, c := open(t)
	mustInsert(t, c, doc("_id", "b", "seq", 2), doc("_id", "a", "seq", 2), doc("_id", "c", "seq", 1), doc("_id", "d", "seq", 9))
	order := doc("seq", -1, "_id", 1)
	cursor, err := c.Find(t.Context(), doc(), options.Find().SetSort(order).SetLimit(3).SetProjection(doc("seq", 1)))
	wantIDs(t, cursor, err, "d", "a", "b")
	cursor, err = c.Find(t.Context(), doc(), options.Find().SetSort(order).SetSkip(2).SetBatchSize(1))
	wantIDs(t, cursor, err, "b", "c")
}

func TestUniqueIndexes(t *testing.T) {
	_, c := open(t)
	index := mongo.IndexModel{Keys: doc("session", 1, "message", 1), Options: options.Index().SetUnique(true)}
	for range 2 {
		if name, err := c.Indexes().CreateOne(t.Context(), index); err != nil || name != "session_1_message_1" {
			t.Fatalf("created %q, %v", name, err)
		}
	}
	mustInsert(t, c, doc("_id", "a", "session", "s", "message", "m"))
	for name, document := range map[string]bson.D{
		"the same _id": doc("_id", "a", "session", "t", "message", "m"),
		"the same key": doc("_id", "b", "session", "s", "message", "m"),
	} {
		_, err := c.InsertOne(t.Context(), document)
		var write mongo.WriteException
		if !errors.As(err, &write) || len(write.WriteErrors) != 1 || write.WriteErrors[0].Code != 11000 ||
			!mongo.IsDuplicateKeyError(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	mustInsert(t, c, doc("_id", "b", "session", "s", "message", "n"))
}

func TestUnorderedInsertTellsWhichFailed(t *testing.T) {
	_, c := open(t)
	mustInsert(t, c, doc("_id", "b"))
	documents := []any{doc("_id", "a"), doc("_id", "b"), doc("_id", "c")}
	_, err := c.InsertMany(t.Context(), documents, options.InsertMany().SetOrdered(false))
	var bulk mongo.BulkWriteException
	if !errors.As(err, &bulk) || len(bulk.WriteErrors) != 1 || bulk.WriteErrors[0].Index != 1 ||
		bulk.WriteErrors[0].Code != 11000 {
		t.Errorf("got %v", err)
	}
	cursor, err := c.Find(t.Context(), doc(), options.Find().SetSort(doc("_id", 1)))
	wantIDs(t, cursor, err, "a", "b", "c")
}

func TestUpdate(t *testing.T) {
	_, c := open(t)
	mustInsert(t, c, doc("_id", "a", "seq", int64(5), "n", int64(1), "gone", "x"))
	change := doc("$max", doc("seq", int64(3)), "$inc", doc("n", int64(2)), "$set", doc("claim.id", "x"),
		"$unset", doc("gone", ""))
	result, err := c.UpdateOne(t.Context(), doc("_id", "a", "seq", doc("$lt", 9)), change)
	if err != nil || result.MatchedCount != 1 || result.ModifiedCount != 1 {
		t.Fatalf("got %+v, %v", result, err)
	}
	wantDocument(t, c, "a", doc("_id", "a", "seq", int64(5), "n", int64(3), "claim", doc("id", "x")))

	result, err = c.UpdateOne(t.Context(), doc("_id", "a"), doc("$max", doc("seq", int64(7))))
	if err != nil || result.ModifiedCount != 1 {
		t.Errorf("got %+v, %v", result, err)
	}
	result, err = c.UpdateOne(t.Context(), doc("_id", "a", "seq", 5), doc("$set", doc("n", 0)))
	if err != nil || result.MatchedCount != 0 {
		t.Errorf("got %+v, %v", result, err)
	}
	wantDocument(t, c, "a", doc("_id", "a", "seq", int64(7), "n", int64(3), "claim", doc("id", "x")))
}

func wantDocument(t *testing.T, c *mongo.Collection, id string, want bson.D) {
	t.Helper()
	var got bson.D
	if err := c.FindOne(t.Context(), doc("_id", id)).Decode(&got); err != nil {
		t.Error(err)
	} else if string(encode(got)) != string(encode(want)) {
		t.Errorf("got %v, not %v", got, want)
	}
}

func TestUpsert(t *testing.T) {
	_, c := open(t)
	change := doc("$setOnInsert", doc("born", 1), "$inc", doc("n", 1))
	for i := range int64(2) {
		result, err := c.UpdateOne(t.Context(), doc("_id", "a"), change, options.UpdateOne().SetUpsert(true))
		if err != nil || result.UpsertedCount != 1-i || result.MatchedCount != i {
			t.Errorf("%d: got %+v, %v", i, result, err)
		}
	}
	wantDocument(t, c, "a", doc("_id", "a", "born", 1, "n", 2))

	// There, but not as it should be: the upsert tries to insert, and the _id is taken.
	_, err := c.UpdateOne(t.Context(), doc("_id", "a", "n", 9), change, options.UpdateOne().SetUpsert(true))
	if !mongo.IsDuplicateKeyError(err) {
		t.Errorf("got %v", err)
	}
}

func TestFindOneAndUpdate(t *testing.T) {
	_, c := open(t)
	mustInsert(t, c, doc("_id", "a", "k", 2), doc("_id", "b", "k", 1))
	after := options.FindOneAndUpdate().SetReturnDocument(options.After).SetSort(doc("k", 1))
	var got bson.D
	if err := c.FindOneAndUpdate(t.Context(), doc(), doc("$inc", doc("k", 5)), after).Decode(&got); err != nil ||
		string(encode(got)) != string(encode(doc("_id", "b", "k", 6))) {
		t.Errorf("got %v, %v", got, err)
	}
	err := c.FindOneAndUpdate(t.Context(), doc("_id", "c"), doc("$inc", doc("k", 5)), after).Err()
	if !errors.Is(err, mongo.ErrNoDocuments) {
		t.Errorf("got %v", err)
	}
}

func TestDelete(t *testing.T) {
	_, c := open(t)
	mustInsert(t, c, doc("_id", "a", "k", 1), doc("_id", "b", "k", 1), doc("_id", "c", "k", 2))
	if result, err := c.DeleteOne(t.Context(), doc("_id", "a")); err != nil || result.DeletedCount != 1 {
		t.Errorf("got %+v, %v", result, err)
	}
	if result, err := c.DeleteMany(t.Context(), doc("k", doc("$lt", 3))); err != nil || result.DeletedCount != 2 {
		t.Errorf("got %+v, %v", result, err)
	}
}

func TestIndexesAreMadeOnce(t *testing.T) {
	_, c := open(t)
	for range 2 {
		for _, keys := range []bson.D{doc("a", 1), doc("b", -1, "_id", 1), doc("c.d", 1)} {
			if _, err := c.Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: keys}); err != nil {
				t.Fatal(err)
			}
		}
	}
	specifications, err := c.Indexes().ListSpecifications(t.Context())
	if err != nil || len(specifications) != 4 { // with that of the _id
		t.Errorf("there are %d, %v", len(specifications), err)
	}
}

func TestManyUpdatesInOneCommand(t *testing.T) {
	s, c := open(t)
	var documents []any
	var updates []mongo.WriteModel
	for i := range 50 {
		documents = append(documents, doc("_id", i))
		updates = append(updates, mongo.NewUpdateOneModel().SetFilter(doc("_id", i)).SetUpdate(doc("$set", doc("v", i))))
	}
	mustInsert(t, c, documents[1:]...)
	result, err := c.BulkWrite(t.Context(), updates, options.BulkWrite().SetOrdered(false))
	if err != nil || result.MatchedCount != 49 || result.ModifiedCount != 49 {
		t.Errorf("got %+v, %v", result, err)
	}
	if n := s.Commands()["update"]; n != 1 {
		t.Errorf("there were %d commands", n)
	}
}

func TestAggregate(t *testing.T) {
	_, c := open(t)
	mustInsert(t, c, doc("_id", "a", "user", "me", "tokens", int64(1), "day", 1),
		doc("_id", "b", "user", "you", "tokens", int64(20), "day", 2),
		doc("_id", "c", "user", "me", "tokens", int64(300), "day", 3),
		doc("_id", "d", "user", "me", "tokens", int64(4000), "day", 4))
	cursor, err := c.Aggregate(t.Context(), bson.A{
		doc("$match", doc("day", doc("$lt", 4))),
		doc("$group", doc("_id", doc("user", "$user"), "tokens", doc("$sum", "$tokens"))),
		doc("$sort", doc("tokens", -1)),
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []bson.D
	if err := cursor.All(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	want := []bson.D{doc("_id", doc("user", "me"), "tokens", int64(301)),
		doc("_id", doc("user", "you"), "tokens", int64(20))}
	if string(encode(doc("", got))) != string(encode(doc("", want))) {
		t.Errorf("got %v, not %v", got, want)
	}
}

func TestLostAnswers(t *testing.T) {
	s, c := open(t)
	mustInsert(t, c, doc("_id", "a"))
	s.Inject(mongotest.Fault{Command: "insert", Collection: "messages", Action: mongotest.DropBefore})
	s.Inject(mongotest.Fault{Command: "insert", Collection: "messages", Action: mongotest.DropAfter})
	for _, id := range []string{"before", "after"} {
		if _, err := c.InsertOne(t.Context(), doc("_id", id)); !mongo.IsNetworkError(err) {
			t.Errorf("%s: got %v", id, err)
		}
	}
	cursor, err := c.Find(t.Context(), doc(), options.Find().SetSort(doc("_id", 1)))
	wantIDs(t, cursor, err, "a", "after")
}

func TestErrorsOfTheServer(t *testing.T) {
	s, c := open(t)
	s.Inject(mongotest.Fault{Command: "insert", Action: mongotest.Fail(11600, "InterruptedAtShutdown", "going down",
		"RetryableWriteError")})
	_, err := c.InsertOne(t.Context(), doc("_id", "a"))
	var server mongo.ServerError
	if !errors.As(err, &server) || !server.HasErrorCode(11600) || !server.HasErrorLabel("RetryableWriteError") {
		t.Errorf("got %v", err)
	}
	mustInsert(t, c, doc("_id", "a"))
}

func TestAServerThatHangs(t *testing.T) {
	s, c := open(t)
	mustInsert(t, c, doc("_id", "a"))
	s.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.InsertOne(ctx, doc("_id", "b")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	inserted := make(chan error)
	go func() {
		_, err := c.InsertOne(t.Context(), doc("_id", "c"))
		inserted <- err
	}()
	s.Thaw()
	if err := <-inserted; err != nil {
		t.Error(err)
	}
}

func TestAServerThatRefuses(t *testing.T) {
	s, c := open(t)
	mustInsert(t, c, doc("_id", "a"))
	s.Cut()
	// Whoever finds out first: the driver's own watch, or this command.
	if _, err := c.InsertOne(t.Context(), doc("_id", "b")); err != nil && !mongo.IsNetworkError(err) {
		t.Errorf("cut: got %v", err)
	}
	s.Refuse(true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.InsertOne(ctx, doc("_id", "d")); err == nil {
		t.Error("refused: no error")
	}
	s.Refuse(false)
	mustInsert(t, c, doc("_id", "c"))
}

func TestDatabasesAreTheTestsOwn(t *testing.T) {
	s, c := open(t)
	mustInsert(t, c, doc("_id", "a"))
	another := c.Database().Client().Database(s.Database())
	if name := another.Name(); name == c.Database().Name() {
		t.Errorf("%s twice", name)
	}
	mustInsert(t, another.Collection("messages"), doc("_id", "a"))

	var name string
	t.Run("one that ends", func(t *testing.T) {
		_, c := open(t)
		mustInsert(t, c, doc("_id", "a"))
		name = c.Database().Name()
	})
	names, err := c.Database().Client().ListDatabaseNames(t.Context(), doc())
	if err != nil || slices.Contains(names, name) {
		t.Errorf("of %q there are still %q, %v", name, names, err)
	}
}
