package mongo

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
)

// What the URI says counts, but for what the contract rests on.
func TestConnectionSettings(t *testing.T) {
	for uri, want := range map[string]struct {
		app                string
		connect, selection time.Duration
	}{
		"mongodb://h/": {"parley", 3 * time.Second, 3 * time.Second},
		"mongodb://h/?w=1&journal=false&readPreference=secondary&appName=x&connectTimeoutMS=7&serverSelectionTimeoutMS=8": {
			"x", 7 * time.Millisecond, 8 * time.Millisecond,
		},
	} {
		opts, err := clientOptions(Config{URI: uri, Database: "parley"})
		must(t, err)
		if *opts.AppName != want.app || *opts.ConnectTimeout != want.connect || *opts.ServerSelectionTimeout != want.selection {
			t.Errorf("%s: got %q, %v and %v, want %v", uri, *opts.AppName, *opts.ConnectTimeout, *opts.ServerSelectionTimeout, want)
		}
		if opts.WriteConcern.W != writeconcern.WCMajority || !*opts.WriteConcern.Journal {
			t.Errorf("%s: the write concern is %+v", uri, opts.WriteConcern)
		}
		if opts.ReadPreference.Mode() != readpref.PrimaryMode {
			t.Errorf("%s: the read preference is %v", uri, opts.ReadPreference)
		}
		if opts.RetryWrites != nil || opts.RetryReads != nil {
			t.Errorf("%s: retries are not the driver's own", uri)
		}
	}
}

func TestOpenWithEndedContextFails(t *testing.T) {
	server := mongotest.Start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, Config{URI: server.URI(), Database: server.Database()}); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
}

func TestOpenAtOnceGivesOneStore(t *testing.T) {
	server := mongotest.Start(t)
	config := Config{URI: server.URI(), Database: server.Database()}
	ids := make(map[string]bool)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := Open(t.Context(), config)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			ids[s.ID()] = true
			mu.Unlock()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(ids) != 1 {
		t.Errorf("the stores have the IDs %q, want one", slices.Collect(maps.Keys(ids)))
	}
}

// Between its look for a store's record and its own, another server makes one.
func TestOpenTakesTheIDOfWhoWasFaster(t *testing.T) {
	server := mongotest.Start(t)
	config := Config{URI: server.URI(), Database: server.Database()}
	looked := make(chan struct{})
	_, release := server.Inject(mongotest.Fault{
		Command: "insert", Collection: "store", OnHit: func() { close(looked) }, Action: mongotest.Hold,
	})
	slower := make(chan *Store, 1)
	go func() {
		s, err := Open(t.Context(), config)
		if err != nil {
			t.Error(err)
		}
		slower <- s
	}()
	<-looked
	faster := openStore(t, config)
	release()
	s := <-slower
	if s == nil {
		return
	}
	defer s.Close()
	if s.ID() != faster.ID() {
		t.Errorf("the stores have the IDs %q and %q", s.ID(), faster.ID())
	}
}

func TestOpenAgainMakesNothing(t *testing.T) {
	server, s := start(t)
	read := func() (all []bson.D) {
		for _, c := range []*mongo.Collection{s.sessions, s.messages, s.usage, s.revocations, s.audit} {
			cursor, err := c.Indexes().List(t.Context())
			must(t, err)
			var found []bson.D
			must(t, cursor.All(t.Context(), &found))
			all = append(all, found...)
		}
		return all
	}
	before := read()
	if want := 8 + 4 + 4 + 2 + 4; len(before) != want {
		t.Errorf("there are %d indexes, want %d: %v", len(before), want, before)
	}
	openStore(t, Config{URI: server.URI(), Database: s.sessions.Database().Name()})
	if after := read(); len(after) != len(before) {
		t.Errorf("there are the indexes %v, and were %v", after, before)
	}
}

func TestOpenRefusesNewerSchemaAndLeavesItAlone(t *testing.T) {
	server, s := start(t)
	config := Config{URI: server.URI(), Database: s.sessions.Database().Name()}
	setVersion := func(version int) {
		_, err := s.store.UpdateOne(t.Context(), byID(identity), set(bson.D{{Key: "v", Value: version}}))
		must(t, err)
	}
	setVersion(99)
	before := server.Commands()["createIndexes"]
	_, err := Open(t.Context(), config)
	if err == nil {
		t.Fatal("Open succeeded")
	}
	for _, word := range []string{config.Database, "version 99", "start the Parley that wrote it", "restore a backup"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error lacks %q: %v", word, err)
		}
	}
	if after := server.Commands()["createIndexes"]; after != before {
		t.Error("indexes were made")
	}
	setVersion(schemaVersion)
	openStore(t, config)
}

func TestOpenSaysWhatTheServerRefuses(t *testing.T) {
	server := mongotest.Start(t)
	for word, fault := range map[string]mongotest.Fault{
		"give it the role readWrite on the database": {
			Command: "find", Action: mongotest.Fail(13, "Unauthorized", "not authorized to execute command"),
		},
		"another index stands where one is needed": {
			Command: "createIndexes", Action: mongotest.Fail(86, "IndexKeySpecsConflict", "an index exists already"),
		},
		"the server does not answer": {
			Command: "find", Times: -1, Action: mongotest.DropBefore,
		},
	} {
		_, remove := server.Inject(fault)
		s, err := Open(t.Context(), Config{URI: server.URI(), Database: server.Database()})
		if err == nil {
			s.Close()
			t.Fatalf("Open succeeded where it was to say %q", word)
		}
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error lacks %q: %v", word, err)
		}
		remove()
	}
}

// A database that was dropped, or restored from elsewhere, is not the store that was opened.
func TestPingNoticesAnotherStore(t *testing.T) {
	_, s := start(t)
	must(t, s.Ping(t.Context()))
	_, err := s.store.UpdateOne(t.Context(), byID(identity), set(bson.D{{Key: "id", Value: "another"}}))
	must(t, err)
	if err := s.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "holds the store another now") {
		t.Errorf("got error %v, want one that tells of the other store", err)
	}
	_, err = s.store.DeleteOne(t.Context(), byID(identity))
	must(t, err)
	if err := s.Ping(t.Context()); !errors.Is(err, chat.ErrNotFound) {
		t.Errorf("got error %v, want %v", err, chat.ErrNotFound)
	}
	if err := s.SetSealCheck(t.Context(), "sealed"); !errors.Is(err, chat.ErrNotFound) {
		t.Errorf("got error %v, want %v", err, chat.ErrNotFound)
	}
}
