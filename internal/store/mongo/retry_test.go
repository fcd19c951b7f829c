package mongo_test

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/mongo"
	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
	"github.com/parley-chat/parley/internal/store/retry"
	"github.com/parley-chat/parley/internal/store/storetest"
)

func open(t *testing.T, server *mongotest.Server, database string) *mongo.Store {
	t.Helper()
	store, err := mongo.Open(t.Context(), mongo.Config{URI: server.URI(), Database: database})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// Every operation, with the connection lost before or after each of its commands, as often as it is tried and once more:
// it is done once, or it is an error, and then doing it again does it once.
func TestOperationsWhoseConnectionIsLost(t *testing.T) {
	mongotest.Start(t) // or there is nothing to do
	for _, name := range slices.Sorted(maps.Keys(storetest.Operations)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			losesConnections(t, storetest.Operations[name])
		})
	}
}

var lossPolicy = retry.Policy{
	MaxAttempts: 2, InitialBackoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond,
	AttemptTimeout: 20 * time.Second, Deadline: time.Minute,
}

func losesConnections(t *testing.T, do storetest.Operation) {
	server, calm := mongotest.Start(t), mongotest.Start(t)
	database := server.Database()
	below, control := open(t, server, database), open(t, calm, database)
	empty := storetest.Contents(t, control)
	reset := func() {
		t.Helper()
		sessions, err := control.SessionsAfter(t.Context(), "", 100)
		for _, s := range sessions {
			err = errors.Join(err, control.DeleteSession(t.Context(), s.ID, time.Time{}))
		}
		if err = errors.Join(err, control.DeleteUsage(t.Context(), chat.UsageFilter{}), control.ForgetStaff(t.Context()),
			control.SetSealCheck(t.Context(), "")); err != nil {
			t.Fatal(err)
		}
		if left := storetest.Contents(t, control); left != empty {
			t.Fatalf("there is left\n%s", left)
		}
		storetest.Populate(t, control)
	}

	reset()
	before := total(server.Commands())
	want, err := do(t.Context(), below)
	if err != nil {
		t.Fatal(err)
	}
	commands, done := total(server.Commands())-before, storetest.Contents(t, control)
	for at := range commands {
		for when, action := range map[string]mongotest.Action{"before": mongotest.DropBefore, "after": mongotest.DropAfter} {
			for times := 1; times <= lossPolicy.MaxAttempts+1; times++ {
				lost := fmt.Sprintf("from command %d on, %d lost %s", at+1, times, when)
				reset()
				s := retry.New(below, lossPolicy, mongo.Transient, slog.New(slog.DiscardHandler))
				hits, remove := server.Inject(mongotest.Fault{Skip: at, Times: times, Action: action})
				got, err := do(t.Context(), s)
				if hits() == 0 {
					t.Errorf("%s: nothing was lost", lost)
				}
				remove()
				switch {
				case err == nil && !reflect.DeepEqual(got, want):
					t.Errorf("%s: got %+v, want %+v", lost, got, want)
				case err != nil && !mongo.Transient(err):
					t.Errorf("%s: got error %v", lost, err)
				case err != nil:
					// It may have been done, or not, or in part: then it goes on when it is done again.
					_, err := do(t.Context(), below)
					if err != nil && !errors.Is(err, chat.ErrExists) && !errors.Is(err, chat.ErrStale) && !errors.Is(err, chat.ErrNotFound) {
						t.Errorf("%s: done again, it is %v", lost, err)
					}
				}
				if after := storetest.Contents(t, control); after != done {
					t.Errorf("%s: the store holds\n%s\nwant\n%s", lost, after, done)
				}
			}
		}
	}
}

func total(commands map[string]int) (n int) {
	for name, count := range commands {
		if name != "hello" && name != "ping" && name != "endSessions" && name != "isMaster" {
			n += count
		}
	}
	return n
}
