package chat

import (
	"context"
	"errors"
)

// The errors by which a [Store] tells what happened. Any other error means that the store could not do its work.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrStale    = errors.New("stale: the stored record is final or somebody else's")
)

// Store keeps sessions and their messages. All methods are safe for concurrent use, and are durable when they return
// without error. Times are kept to the millisecond, and an [Error] without its cause. The contract suite is
// internal/store/storetest.
type Store interface {
	// CreateSession inserts the session. ErrExists: its ID is taken, and nothing was changed.
	CreateSession(ctx context.Context, session SessionView) error

	// Session returns the session's record. ErrNotFound: there is none.
	Session(ctx context.Context, id string) (Session, error)

	// UpdateSession replaces what can change of a session: all but ID, UserID, CreatedAt and Metadata. It never
	// inserts. ErrNotFound: there is none. ErrStale: the stored one has ended, and nothing was changed.
	UpdateSession(ctx context.Context, session SessionView) error

	// InsertMessage stores a message of an existing session. ErrExists: its N or its ID is taken in the session, and
	// nothing was changed.
	InsertMessage(ctx context.Context, sessionID string, m Message) error

	// UpdateMessage replaces what can change of the streaming message of m's ID: Text, Reasoning, Status, FinishReason, Error,
	// Provider, Usage, FirstTokenMS, DurationMS. It never inserts. ErrStale: the stored message is not streaming, or
	// not there, and nothing was changed.
	UpdateMessage(ctx context.Context, sessionID string, m Message) error

	// Message returns one message. ErrNotFound: there is none.
	Message(ctx context.Context, sessionID, messageID string) (Message, error)

	// Messages returns the newest limit messages with an N below before, in ascending order of N; 0 as before means
	// from the end. An unknown session is empty, not an error; so is a limit of 0 or less.
	Messages(ctx context.Context, sessionID string, before int64, limit int) ([]Message, error)

	// Ping reports whether the store can be reached.
	Ping(ctx context.Context) error

	// Close releases the store. Nothing may be called afterwards.
	Close() error
}
