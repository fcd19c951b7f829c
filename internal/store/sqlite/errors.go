package sqlite

import (
	"database/sql"
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/parley-chat/parley/chat"
)

var errClosed = errors.New("the store is closed")

// failure wraps what made an operation fail; it is nil for nil. The format names the operation.
func failure(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), explain(err))
}

// explain turns what the driver reports into the contract's errors, and adds what to do where a person must act.
func explain(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return chat.ErrNotFound
	}
	driverErr, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	code := driverErr.Code()
	switch code {
	case sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE:
		return chat.ErrExists
	case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: // a message of no session
		return chat.ErrNotFound
	}
	switch code & 0xff { // the primary code: https://www.sqlite.org/rescode.html
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("the file is damaged or is no SQLite database; restore it from a backup, or move it away, "+
			"with its -wal and -shm files, to start with an empty one: %w", err)
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("there is no room left for the file; make some: %w", err)
	}
	return err
}

// Transient reports whether what made an operation of a [Store] fail may be gone at the next attempt: another process
// has the file locked (https://www.sqlite.org/rescode.html#busy).
func Transient(err error) bool {
	driverErr, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	switch driverErr.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL:
		return true
	}
	return false
}
