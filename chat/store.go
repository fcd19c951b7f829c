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

// Place is where a message lies in its session's log.
type Place struct {
	MessageID string
	Seq       int64 // above 0
}

// Store keeps sessions, their messages, and what responses cost. All methods are safe for concurrent use, and are
// durable when they return without error. Times are kept to the millisecond, and an [Error] without its cause. The
// contract suite is internal/store/storetest.
type Store interface {
	// CreateSession inserts the session. ErrExists: its ID is taken, and nothing was changed.
	CreateSession(ctx context.Context, session SessionView) error

	// Session returns the session's record. ErrNotFound: there is none.
	Session(ctx context.Context, id string) (Session, error)

	// ClaimSession changes a session's claim from one to another. It may be repeated: where the claim is `to` already,
	// nothing is done. ErrNotFound: there is no such session. ErrStale: it has another claim or has ended, and nothing
	// was changed.
	ClaimSession(ctx context.Context, id string, from, to Claim) error

	// UpdateSession replaces what can change of a session: all but ID, UserID, CreatedAt, Metadata and Claim, and a
	// LogEnd or Changed that is higher; and it gives messages of the session their Seq. A message that has one keeps it,
	// and an unknown message is passed over. It never inserts. ErrNotFound: there is no such session. ErrStale: the
	// stored one has another claim or has ended, and nothing was changed.
	UpdateSession(ctx context.Context, session SessionView, places ...Place) error

	// InsertMessage stores a message of an existing session. ErrExists: its N or its ID is taken in the session, and
	// nothing was changed.
	InsertMessage(ctx context.Context, sessionID string, m Message) error

	// UpdateMessage replaces what can change of the streaming message of m's ID: Text, Reasoning, Status, FinishReason,
	// Error, Provider, Usage, FirstTokenMS, DurationMS. It never inserts. ErrStale: the stored message is not streaming,
	// or not there, and nothing was changed.
	UpdateMessage(ctx context.Context, sessionID string, m Message) error

	// Message returns one message. ErrNotFound: there is none.
	Message(ctx context.Context, sessionID, messageID string) (Message, error)

	// Messages returns the newest limit messages with an N below before, in ascending order of N; 0 as before means
	// from the end. An unknown session is empty, not an error; so is a limit of 0 or less.
	Messages(ctx context.Context, sessionID string, before int64, limit int) ([]Message, error)

	// MessagesAfter returns the first limit messages with a Seq above seq, in ascending order of Seq; those without a
	// Seq are left out. An unknown session is empty, not an error; so is a limit of 0 or less.
	MessagesAfter(ctx context.Context, sessionID string, seq int64, limit int) ([]Message, error)

	// AddUsage stores what a response cost. Where it has a record of that response already, nothing is done. The session
	// need not exist any more.
	AddUsage(ctx context.Context, record UsageRecord) error

	// SumUsage sums the records that the filter chooses, one sum for each user, model and day, in ascending order of the
	// day, then the user, then the model. Where none is chosen it is empty.
	SumUsage(ctx context.Context, filter UsageFilter) ([]UsageSum, error)

	// ID names the data that the store holds: it is made with it, and never changes. Two stores have different ones.
	ID() string

	// Ping reports whether the store can be reached.
	Ping(ctx context.Context) error

	// Close releases the store. Nothing may be called afterwards.
	Close() error
}
