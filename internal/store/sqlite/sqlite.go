// Package sqlite is the [chat.Store] that needs nothing installed: one SQLite file, written by one connection in
// groups and read by several.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/parley-chat/parley/chat"
)

// readConnections bounds the reads that run at the same time; further ones wait for their turn.
const readConnections = 4

var _ chat.Store = (*Store)(nil)

// Store is a [chat.Store] in one SQLite file.
type Store struct {
	writer  *sql.DB // has one connection; used by the write loop only, once that runs
	readers *sql.DB
	id      string

	// Prepared for writer.
	savepoint, rollbackTo, release             *sql.Stmt
	insertSession, claimSession, updateSession *sql.Stmt
	sessionClaim, claimedSession               *sql.Stmt
	insertMessage, updateMessage, placeMessage *sql.Stmt
	insertUsage                                *sql.Stmt
	deleteMessages, deleteSession              *sql.Stmt
	resealSession, resealMessage               *sql.Stmt
	addRevocation, deleteRevocations, putAudit *sql.Stmt

	// Prepared for readers.
	selectSession, selectMessage, selectMessages, selectMessagesAfter *sql.Stmt
	selectMessagesFrom, selectSessionsAfter, selectIdleSessions       *sql.Stmt
	sumUsage, sumUsageOfUser                                          *sql.Stmt
	selectUsage, selectUsageOfUser, selectClaimedSessions             *sql.Stmt
	selectRevocations, count, ping                                    *sql.Stmt

	leases  leases
	writes  chan write    // unbuffered: a write is either taken by the loop or still its caller's
	closing chan struct{} // closed by Close
	stopped chan struct{} // closed by the write loop
}

// Open opens the store in the file at path. Where there is none it creates the file, and the folder around it, for
// the present user only. A store in memory is not supported: what a store has acknowledged is durable.
//
// A file of a newer Parley, a damaged one and one that is no SQLite database are errors that say what to do.
func Open(ctx context.Context, path string) (*Store, error) {
	s, err := open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open SQLite store %s: %w", path, explain(err))
	}
	return s, nil
}

func open(ctx context.Context, path string) (*Store, error) {
	if path == "" || path == ":memory:" {
		return nil, errors.New("the path must name a file")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := createFile(path); err != nil {
		return nil, err
	}
	s := &Store{writes: make(chan write), closing: make(chan struct{}), stopped: make(chan struct{})}
	s.leases.folder = path + ".owners"
	if err := s.connect(ctx, path); err != nil {
		return nil, errors.Join(err, s.disconnect())
	}
	go s.writeLoop()
	return s, nil
}

// createFile makes the file and its folder with narrow permissions, before SQLite would make it with wide ones.
// SQLite gives its -wal and -shm files the permissions of the main one. A file that exists is not touched: to close
// it here would drop the locks that this process holds on it (POSIX advisory locks).
func createFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return file.Close()
}

func (s *Store) connect(ctx context.Context, path string) (err error) {
	if s.writer, err = sql.Open("sqlite", dataSource(path, url.Values{
		"_busy_timeout": {"5000"},
		"_foreign_keys": {"on"},
		"_journal_mode": {"WAL"},
		"_synchronous":  {"FULL"},
		"_txlock":       {"immediate"},
		"_pragma":       {"secure_delete(1)"}, // what is erased is overwritten
	})); err != nil {
		return err
	}
	s.writer.SetMaxOpenConns(1)
	if err := migrate(ctx, s.writer); err != nil {
		return err
	}
	if err := s.writer.QueryRowContext(ctx, "SELECT id FROM store").Scan(&s.id); err != nil {
		return fmt.Errorf("read the store's ID: %w", err)
	}
	if s.readers, err = sql.Open("sqlite", dataSource(path, url.Values{
		"_busy_timeout": {"5000"},
		"mode":          {"ro"},
	})); err != nil {
		return err
	}
	s.readers.SetMaxOpenConns(readConnections)
	s.readers.SetMaxIdleConns(readConnections)
	return s.prepare(ctx)
}

// dataSource gives the name under which the driver opens the file: a URI, in which no character of the path is
// taken for the start of the options.
func dataSource(path string, options url.Values) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/… (https://www.sqlite.org/uri.html, section 3.1)
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: options.Encode()}).String()
}

func (s *Store) prepare(ctx context.Context) error {
	for _, p := range []struct {
		db    *sql.DB
		stmt  **sql.Stmt
		query string
	}{
		{s.writer, &s.savepoint, "SAVEPOINT one"},
		{s.writer, &s.rollbackTo, "ROLLBACK TO one"},
		{s.writer, &s.release, "RELEASE one"},
		{s.writer, &s.insertSession, insertSessionQuery},
		{s.writer, &s.claimSession, claimSessionQuery},
		{s.writer, &s.updateSession, updateSessionQuery},
		{s.writer, &s.sessionClaim, sessionClaimQuery},
		{s.writer, &s.claimedSession, selectSessionQuery},
		{s.writer, &s.insertMessage, insertMessageQuery},
		{s.writer, &s.updateMessage, updateMessageQuery},
		{s.writer, &s.placeMessage, placeMessageQuery},
		{s.writer, &s.insertUsage, insertUsageQuery},
		{s.writer, &s.deleteMessages, deleteMessagesQuery},
		{s.writer, &s.deleteSession, deleteSessionQuery},
		{s.writer, &s.resealSession, resealSessionQuery},
		{s.writer, &s.resealMessage, resealMessageQuery},
		{s.writer, &s.addRevocation, addRevocationQuery},
		{s.writer, &s.deleteRevocations, deleteRevocationsQuery},
		{s.writer, &s.putAudit, putAuditQuery},
		{s.readers, &s.selectSession, selectSessionQuery},
		{s.readers, &s.selectMessage, selectMessageQuery},
		{s.readers, &s.selectMessages, selectMessagesQuery},
		{s.readers, &s.selectMessagesAfter, selectMessagesAfterQuery},
		{s.readers, &s.selectMessagesFrom, selectMessagesFromQuery},
		{s.readers, &s.selectRevocations, selectRevocationsQuery},
		{s.readers, &s.selectSessionsAfter, selectSessionsAfterQuery},
		{s.readers, &s.selectIdleSessions, selectIdleSessionsQuery},
		{s.readers, &s.selectClaimedSessions, selectClaimedSessionsQuery},
		{s.readers, &s.selectUsage, selectUsageQuery},
		{s.readers, &s.selectUsageOfUser, selectUsageOfUserQuery},
		{s.readers, &s.count, countQuery},
		{s.readers, &s.sumUsage, sumUsageQuery},
		{s.readers, &s.sumUsageOfUser, sumUsageOfUserQuery},
		{s.readers, &s.ping, "SELECT EXISTS (SELECT 1 FROM sessions)"},
	} {
		stmt, err := p.db.PrepareContext(ctx, p.query)
		if err != nil {
			return fmt.Errorf("prepare %q: %w", p.query, err)
		}
		*p.stmt = stmt
	}
	return nil
}

// ID implements [chat.Store].
func (s *Store) ID() string { return s.id }

// Ping implements [chat.Store].
func (s *Store) Ping(ctx context.Context) error {
	var some bool
	return failure(s.ping.QueryRowContext(ctx).Scan(&some), "ping store")
}

// Close implements [chat.Store]. It waits for the writes that have been taken; those still waiting fail.
func (s *Store) Close() error {
	close(s.closing)
	<-s.stopped
	return failure(errors.Join(s.leases.close(), s.disconnect()), "close store")
}

// disconnect closes the connections and with them the prepared statements: the writer's last, because the last
// connection moves the write-ahead log into the main file, which a reader may not do.
func (s *Store) disconnect() error {
	var err error
	for _, db := range []*sql.DB{s.readers, s.writer} {
		if db != nil {
			err = errors.Join(err, db.Close())
		}
	}
	return err
}
