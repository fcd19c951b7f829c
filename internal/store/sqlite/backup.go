package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
)

// Backup copies the store in the file at path, whether a server uses it or not, into a new file, as it is at one moment.
// The copy has an ID of its own, so that no journal goes on with it, and its sessions have no epoch: whoever restores it
// goes on from an earlier time, of which clients know more. A file that exists
// already is an error; one that is not complete is removed.
func Backup(ctx context.Context, path, to string) error {
	if err := backup(ctx, path, to); err != nil {
		return fmt.Errorf("back up SQLite store %s to %s: %w", path, to, explain(err))
	}
	return nil
}

func backup(ctx context.Context, path, to string) (err error) {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	if _, err := os.Lstat(to); err == nil {
		return errors.New("the file exists already")
	}
	unfinished := to + ".unfinished"
	if err := os.Remove(unfinished); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(unfinished, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(unfinished))
		}
	}()
	if err := execute(ctx, path, url.Values{"_busy_timeout": {"5000"}}, "VACUUM INTO ?", unfinished); err != nil {
		return err
	}
	if err := execute(ctx, unfinished, url.Values{"_synchronous": {"FULL"}},
		"UPDATE store SET id = lower(hex(randomblob(16))); UPDATE sessions SET owner = '', epoch = '' WHERE epoch <> ''"); err != nil {
		return err
	}
	if err := syncFile(unfinished); err != nil {
		return err
	}
	if err := os.Rename(unfinished, to); err != nil {
		return err
	}
	return syncFile(filepath.Dir(to))
}

// execute carries out one statement on the database in a file.
func execute(ctx context.Context, path string, options url.Values, statement string, args ...any) (err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite", dataSource(path, options))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(ctx, statement, args...)
	return err
}

// syncFile has a file, or a folder's names, outlive a crash of the machine.
func syncFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := file.Sync(); err != nil && !isFolder(path) { // which some systems cannot sync
		return errors.Join(err, file.Close())
	}
	return file.Close()
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
