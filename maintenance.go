package parley

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/config"
	"github.com/parley-chat/parley/internal/store/sealed"
	"github.com/parley-chat/parley/internal/store/sqlite"
	"github.com/parley-chat/parley/internal/store/transfer"
	"github.com/parley-chat/parley/internal/userdata"
)

// OtherSessionsError says how many sessions the target of a copy has that the source does not.
type OtherSessionsError = transfer.OthersError

// CopyReport is what copying a storage came to.
type CopyReport = transfer.Report

// CopyStorage copies all that one configuration's storage holds into the one of another, which may hold no other sessions,
// unless they are to be pruned. Begun again it copies what differs. progress, unless it is nil, is called with what was done so far of all that there
// is. What is encrypted is copied as it is: both configurations name the same keys.
func CopyStorage(
	ctx context.Context, from, to config.Config, prune bool, log *slog.Logger, progress func(done, all chat.Counts),
) (report CopyReport, err error) {
	if err := mustBeThere(from.Storage); err != nil {
		return report, err
	}
	err = withRaw(from.Storage, log, func(source chat.Store) error {
		return withRaw(to.Storage, log, func(target chat.Store) error {
			if source.ID() == target.ID() {
				return errors.New("both configurations name the same storage")
			}
			if err := copyKeys(ctx, source, target, to.Storage); err != nil {
				return err
			}
			var err error
			report, err = transfer.Copy(ctx, source, target, prune, progress)
			return err
		})
	})
	return report, err
}

// copyKeys refuses a copy of an encrypted storage into one whose server could not read it, and has the target know which
// keys it needs from now on.
func copyKeys(ctx context.Context, source, target chat.Store, cfg config.Storage) error {
	check, err := source.SealCheck(ctx)
	if err != nil || check == "" {
		return err
	}
	keys, err := readKeys(cfg)
	if err != nil {
		return err
	}
	if _, err := sealed.New(ctx, source, keys); err != nil {
		return fmt.Errorf("the target is not configured to read what the source holds: %w", err)
	}
	own, err := target.SealCheck(ctx)
	if err != nil {
		return err
	}
	return target.SetSealCheck(ctx, check+" "+own)
}

// withRaw opens a configuration's storage as it is, for what f does, and checks that the configured keys are its own.
func withRaw(cfg config.Storage, log *slog.Logger, f func(chat.Store) error) error {
	keys, err := readKeys(cfg)
	if err != nil {
		return err
	}
	raw, err := openRaw(cfg, keys, log)
	if err != nil {
		return err
	}
	return errors.Join(f(raw), raw.Close())
}

// mustBeThere refuses a file that does not exist, for what would make an empty one, and then say that it holds nothing.
func mustBeThere(cfg config.Storage) error {
	if cfg.Driver != config.DriverSQLite {
		return nil
	}
	if _, err := os.Stat(cfg.SQLite.Path); err != nil {
		return fmt.Errorf("there is no database to work on: correct storage.sqlite.path, or go to the folder that it starts from: %w", err)
	}
	return nil
}

// BackupStorage copies the SQLite file of a configuration, whether a server uses it or not, into a new file.
func BackupStorage(ctx context.Context, cfg config.Config, to string) error {
	if cfg.Storage.Driver != config.DriverSQLite {
		return errors.New("only SQLite is backed up here: use mongodump, or your provider's snapshots, for MongoDB")
	}
	return sqlite.Backup(ctx, cfg.Storage.SQLite.Path, to)
}

// RestartEpochs has every session of a storage begin a new epoch when it is opened next: clients may know more than the
// storage, which was restored to an earlier time. No server may use it meanwhile.
func RestartEpochs(ctx context.Context, cfg config.Config, log *slog.Logger) (sessions int, err error) {
	if err := mustBeThere(cfg.Storage); err != nil {
		return 0, err
	}
	err = withRaw(cfg.Storage, log, func(raw chat.Store) error {
		sessions, err = transfer.RestartEpochs(ctx, raw)
		return err
	})
	return sessions, err
}

// ResealStorage encrypts all that is stored under the primary key of the configured keyset, whether a server uses the
// storage or not, and gives how much that was. Begun again it goes on. progress is as for [CopyStorage].
func ResealStorage(
	ctx context.Context, cfg config.Config, log *slog.Logger, progress func(done, all chat.Counts),
) (changed chat.Counts, err error) {
	keys, err := readKeys(cfg.Storage)
	if err != nil {
		return changed, err
	}
	if keys == nil {
		return changed, &config.Problem{
			Key: "storage.encryption.keyset_file", Problem: "is not set: there is no key to encrypt with",
			Fix: "name the keyset; `parley keygen --encryption` prints a new one",
		}
	}
	if err := mustBeThere(cfg.Storage); err != nil {
		return changed, err
	}
	err = withRaw(cfg.Storage, log, func(raw chat.Store) error {
		changed, err = sealed.Reseal(ctx, raw, keys, progress)
		return err
	})
	return changed, err
}

// UserDataCounts is how much of a user's was exported.
type UserDataCounts = userdata.Counts

// ExportUser writes all that is stored of a user, as JSON lines.
func ExportUser(ctx context.Context, cfg config.Config, log *slog.Logger, userID string, w io.Writer) (n UserDataCounts, err error) {
	if err := mustBeThere(cfg.Storage); err != nil {
		return n, err
	}
	keys, err := readKeys(cfg.Storage)
	if err != nil {
		return n, err
	}
	store, err := openReading(cfg.Storage, keys, log)
	if err != nil {
		return n, err
	}
	n, err = userdata.Export(ctx, store, userID, w)
	return n, errors.Join(err, store.Close())
}

// EraseUser removes all that is stored of a user. A server that has one of the sessions in memory finds out when it
// stores something of it, and gives it up.
func EraseUser(ctx context.Context, cfg config.Config, log *slog.Logger, userID string) (sessions int, err error) {
	if err := mustBeThere(cfg.Storage); err != nil {
		return sessions, err
	}
	// As it is: what cannot be decrypted can be erased.
	err = withRaw(cfg.Storage, log, func(store chat.Store) error {
		sessions, err = userdata.Erase(ctx, store, userID, userdata.FromStore(store))
		return err
	})
	return sessions, err
}
