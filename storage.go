package parley

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/config"
	"github.com/parley-chat/parley/internal/auth"
	"github.com/parley-chat/parley/internal/journal"
	"github.com/parley-chat/parley/internal/seal"
	"github.com/parley-chat/parley/internal/store/mongo"
	"github.com/parley-chat/parley/internal/store/retry"
	"github.com/parley-chat/parley/internal/store/sealed"
	"github.com/parley-chat/parley/internal/store/sqlite"
	"github.com/parley-chat/parley/internal/userdata"
)

var (
	_ chat.Store = (*sqlite.Store)(nil)
	_ chat.Store = (*mongo.Store)(nil)
	_ chat.Store = (*sealed.Store)(nil)
	_ chat.Store = (*retry.Store)(nil)
)

// storageTimeout bounds opening the storage and asking whether it is there.
const storageTimeout = 10 * time.Second

// Check reports whether there are keys for tokens, and whether the storage of a valid configuration can be reached, and
// opened with the configured keys. It asks once: whoever checks can do so again.
func Check(ctx context.Context, cfg config.Config) error {
	verifier, err := auth.New(cfg.Auth, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	verifier.Close()
	cfg.Storage.Retry.MaxAttempts = 1
	keys, err := readKeys(cfg.Storage)
	if err != nil {
		return err
	}
	store, err := openRaw(cfg.Storage, keys, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	return errors.Join(store.Ping(ctx), store.Close())
}

// readKeys reads the configured keyset; nil: none is configured.
func readKeys(cfg config.Storage) (*seal.Keyset, error) {
	if cfg.Encryption.KeysetFile == "" {
		return nil, nil
	}
	keys, err := seal.Read(cfg.Encryption.KeysetFile)
	if err != nil {
		return nil, &config.Problem{
			Key: "storage.encryption.keyset_file", Problem: err.Error(),
			Fix: "name the keyset that the storage was encrypted with, or a new one of `parley keygen --encryption`",
		}
	}
	return keys, nil
}

// openStore opens the storage as a server uses it: what is sealed is opened, and what fails for a moment is tried again.
func openStore(cfg config.Storage, keys *seal.Keyset, log *slog.Logger) (*retry.Store, error) {
	return open(cfg, log, func(ctx context.Context, raw chat.Store) (chat.Store, error) {
		return sealed.New(ctx, raw, keys)
	})
}

// openReading opens the storage for who only reads.
func openReading(cfg config.Storage, keys *seal.Keyset, log *slog.Logger) (*retry.Store, error) {
	return open(cfg, log, func(ctx context.Context, raw chat.Store) (chat.Store, error) {
		return sealed.NewReader(ctx, raw, keys)
	})
}

// openRaw opens the storage as it is: what is sealed stays so. The keys have to be those that it is sealed with.
func openRaw(cfg config.Storage, keys *seal.Keyset, log *slog.Logger) (*retry.Store, error) {
	return open(cfg, log, func(ctx context.Context, raw chat.Store) (chat.Store, error) {
		return raw, sealed.Check(ctx, raw, keys)
	})
}

// open opens the storage of a driver, puts on top of it what top makes of it, and what tries again on top of that.
func open(
	cfg config.Storage, log *slog.Logger, top func(ctx context.Context, raw chat.Store) (chat.Store, error),
) (*retry.Store, error) {
	d, err := driverOf(cfg)
	if err != nil {
		return nil, err
	}
	policy := retry.Policy{
		MaxAttempts:    cfg.Retry.MaxAttempts,
		InitialBackoff: cfg.Retry.InitialBackoff,
		MaxBackoff:     cfg.Retry.MaxBackoff,
		AttemptTimeout: retry.AttemptTimeout,
		Deadline:       d.openTimeout,
	}
	store, err := retry.Open(context.Background(), policy, d.transient, log, func(ctx context.Context) (chat.Store, error) {
		raw, err := d.open(ctx)
		if err != nil {
			return nil, err
		}
		store, err := top(ctx, raw)
		if err != nil {
			return nil, errors.Join(err, raw.Close())
		}
		return store, nil
	})
	if err != nil {
		return nil, fmt.Errorf("storage: %w", err)
	}
	policy.Deadline = retry.Deadline
	return retry.New(store, policy, d.transient, log), nil
}

// driver is what is particular to a kind of storage.
type driver struct {
	open        func(ctx context.Context) (chat.Store, error)
	openTimeout time.Duration
	transient   func(error) bool // reports whether an error may be gone at the next attempt
}

// migrationTimeout is for opening a file, which may have to be migrated first.
const migrationTimeout = 10 * time.Minute

func driverOf(cfg config.Storage) (driver, error) {
	if cfg.Driver == config.DriverMongoDB {
		if err := mongo.CheckURI(cfg.MongoDB.URI); err != nil {
			return driver{}, &config.Problem{
				Key: "storage.mongodb.uri", Problem: err.Error(), Fix: "write it like mongodb://user:password@host:27017, with what " +
					"is special in a password as %XX",
			}
		}
		return driver{
			open: func(ctx context.Context) (chat.Store, error) {
				return orNil(mongo.Open(ctx, mongo.Config{URI: cfg.MongoDB.URI, Database: cfg.MongoDB.Database}))
			},
			openTimeout: storageTimeout, transient: mongo.Transient,
		}, nil
	}
	return driver{
		open:        func(ctx context.Context) (chat.Store, error) { return orNil(sqlite.Open(ctx, cfg.SQLite.Path)) },
		openTimeout: migrationTimeout, transient: sqlite.Transient,
	}, nil
}

// orNil gives no store where there is an error, rather than an interface that holds none.
func orNil[S chat.Store](store S, err error) (chat.Store, error) {
	if err != nil {
		return nil, err
	}
	return store, nil
}

// usageRetention is for how long what responses cost is kept: as long as sessions, and as the budgets need it.
func usageRetention(cfg config.Config) time.Duration {
	if cfg.Storage.Retention == 0 {
		return 0
	}
	return max(cfg.Storage.Retention, cfg.LLM.Budget.Window)
}

// openJournal opens the journal of a store's sessions: beside the SQLite file, where no other place is configured.
func openJournal(cfg config.Storage, storeID string, keys *seal.Keyset, log *slog.Logger) (*journal.Journal, error) {
	path := cfg.Journal.Path
	switch {
	case path != "":
	case cfg.Driver == config.DriverSQLite:
		path = cfg.SQLite.Path + ".events"
	default:
		path = "parley.events"
	}
	j, err := journal.Open(journal.Config{
		Path: path, MaxBytes: int64(cfg.Journal.MaxBytes), Sync: cfg.Journal.Sync, StoreID: storeID, Keys: keys,
	}, log)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return j, nil
}

// eraseUser removes what is stored of a user, through the sessions in memory.
func (s *Server) eraseUser(ctx context.Context, userID string) (sessions int, err error) {
	return userdata.Erase(ctx, s.store, userID, func(ctx context.Context, sessionID string) error {
		return s.sessions.Erase(ctx, sessionID, chat.EndedByAdmin, func(s *chat.Session) bool { return s.UserID == userID })
	})
}
