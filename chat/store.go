package chat

import (
	"context"
	"errors"
	"time"
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

// Counts is how much a [Store] holds.
type Counts struct{ Sessions, Messages, Usage int64 }

// Store keeps sessions, their messages, what responses cost, and what staff did. All methods are safe for concurrent use, and are
// durable when they return without error. Times are kept to the millisecond, and an [Error] without its cause. The
// contract suite is internal/store/storetest.
//
// Whoever continues a session's log has claimed it, and says so with each write: those of a former owner fail. A write
// of which the answer is lost may have been done; done again it tells so by the error that it gives then.
type Store interface {
	// CreateSession inserts the session. ErrExists: its ID is taken, and nothing was changed.
	CreateSession(ctx context.Context, session SessionView) error

	// Session returns the session's record. ErrNotFound: there is none.
	Session(ctx context.Context, id string) (Session, error)

	// ClaimSession changes a session's claim from one to another and returns the record as it is then. It may be
	// repeated: where the claim is `to` already, nothing is done. Once it has returned, no write under another claim
	// changes anything any more. ErrNotFound: there is no such session. ErrStale: it has another claim or has ended, and
	// nothing was changed.
	ClaimSession(ctx context.Context, id string, from, to Claim) (Session, error)

	// UpdateSession replaces what can change of a session: all but ID, UserID, CreatedAt, Metadata and Claim, and a
	// LogEnd or Changed that is higher; and it gives messages of the session their Seq. A message that has one keeps it,
	// and an unknown message is passed over. It never inserts. ErrNotFound: there is no such session. ErrStale: the
	// stored one has another claim, a Revision that is not lower, or has ended, and nothing was changed.
	UpdateSession(ctx context.Context, session SessionView, places ...Place) error

	// InsertMessage stores a message of an existing session, which has the claim by. ErrNotFound: there is no such
	// session. ErrExists: its N or its ID is taken in the session. ErrStale: the session has another claim. In each case
	// nothing was changed; but where the claim was lost while the message was inserted, it may be there.
	InsertMessage(ctx context.Context, sessionID string, by Claim, m Message) error

	// UpdateMessage replaces what can change of the streaming message of m's ID, which has no Seq as long as it streams:
	// Text, Reasoning, Sealed, Status, FinishReason, Error, Provider, Usage, FirstTokenMS, DurationMS. It never inserts. ErrStale: the stored message is
	// not streaming, or not there, or the session has another claim than by, and nothing was changed.
	UpdateMessage(ctx context.Context, sessionID string, by Claim, m Message) error

	// Message returns one message. ErrNotFound: there is none.
	Message(ctx context.Context, sessionID, messageID string) (Message, error)

	// Messages returns the newest limit messages with an N below before, in ascending order of N; 0 as before means
	// from the end. An unknown session is empty, not an error; so is a limit of 0 or less.
	Messages(ctx context.Context, sessionID string, before int64, limit int) ([]Message, error)

	// MessagesAfter returns the first limit messages with a Seq above seq, in ascending order of Seq; those without a
	// Seq are left out. An unknown session is empty, not an error; so is a limit of 0 or less.
	MessagesAfter(ctx context.Context, sessionID string, seq int64, limit int) ([]Message, error)

	// MessagesFrom returns the first limit messages with an N above after, in ascending order of N, whatever their status
	// and whether they have a Seq. An unknown session is empty, not an error; so is a limit of 0 or less.
	MessagesFrom(ctx context.Context, sessionID string, after int64, limit int) ([]Message, error)

	// AddUsage stores what a response cost. Where it has a record of that response already, nothing is done. The session
	// need not exist any more.
	AddUsage(ctx context.Context, record UsageRecord) error

	// SumUsage sums the records that the filter chooses, one sum for each user, model and day, in ascending order of the
	// day, then the user, then the model. Where none is chosen it is empty.
	SumUsage(ctx context.Context, filter UsageFilter) ([]UsageSum, error)

	// SessionsAfter returns the first limit sessions with an ID above id, in ascending order of the ID's bytes; "" as id
	// means from the beginning. A limit of 0 or less gives none.
	SessionsAfter(ctx context.Context, id string, limit int) ([]Session, error)

	// FindSessions returns the first limit sessions that the filter chooses and that come after a place, in an order:
	// those alike in what it is by come in the order of their IDs, both rising or both falling. The zero place is the
	// beginning; times count to the millisecond; an unknown order is that by last activity. A limit of 0 or less gives
	// none. Where sessions change meanwhile, one that moves may be seen twice, or not at all.
	FindSessions(ctx context.Context, filter SessionFilter, order SessionOrder, after SessionPlace, limit int) ([]Session, error)

	// IdleSessions returns the IDs of up to limit sessions, those longest idle first, whose LastActiveAt lies before a
	// time, whatever their status.
	IdleSessions(ctx context.Context, before time.Time, limit int) ([]string, error)

	// ClaimedSessions returns the IDs of the first limit sessions above after, ascending, that have not ended and whose
	// claim has an owner that begins with a prefix, which is not empty and of ASCII characters.
	ClaimedSessions(ctx context.Context, ownerPrefix, after string, limit int) ([]string, error)

	// DeleteSession removes a session with its messages for good; what its responses cost stays. With an idleSince it
	// does so only where LastActiveAt lies before that; else it is ErrStale, and nothing was changed. An unknown session
	// is no error. After another error the session may have ended and lost some of its messages: DeleteSession again
	// goes on with it.
	DeleteSession(ctx context.Context, id string, idleSince time.Time) error

	// UsageAfter returns the first limit records that the filter chooses and whose session and message ID lie above
	// those given, in ascending order of the session's, then the message's ID; two times "" means from the beginning.
	UsageAfter(ctx context.Context, filter UsageFilter, sessionID, messageID string, limit int) ([]UsageRecord, error)

	// DeleteUsage removes the records that the filter chooses.
	DeleteUsage(ctx context.Context, filter UsageFilter) error

	// ResealSession replaces Title, HelpReason and Sealed of a session, where Revision and these are still as in old.
	// ErrStale: they are not, or the session is not there, and nothing was changed.
	ResealSession(ctx context.Context, old, sealed Session) error

	// ResealMessage replaces Text, Reasoning and Sealed of a message, where these are still as in old. ErrStale: they
	// are not, or the message is not there, and nothing was changed.
	ResealMessage(ctx context.Context, sessionID string, old, sealed Message) error

	// AddRevocation stores a revocation. There is one for each UserID and TokenID: where it is there already, the later At
	// counts, and the later Until, of which the zero one is the latest. The user need not be known.
	AddRevocation(ctx context.Context, revocation Revocation) error

	// Revocations returns all revocations, in ascending order of the UserID, then the TokenID.
	Revocations(ctx context.Context) ([]Revocation, error)

	// DeleteRevocations removes the revocations with an Until that lies before a time; one without stays.
	DeleteRevocations(ctx context.Context, before time.Time) error

	// PutAudit stores an audit record. Where there is one of its ID already, only its Outcome is replaced, and by an empty
	// one not even that: so the record of an action's beginning, should it come late, does not undo that of its end.
	PutAudit(ctx context.Context, record AuditRecord) error

	// Audit returns the first limit audit records that the filter chooses and that come after a place, the latest first
	// and, where two are of the same millisecond, the one with the higher ID. The zero place is the beginning; a limit of
	// 0 or less gives none.
	Audit(ctx context.Context, filter AuditFilter, after AuditPlace, limit int) ([]AuditRecord, error)

	// RenewLease says that an owner of claims is alive, and returns a beat for each other one that has said so and did
	// not end its lease. A beat that has changed shows that its owner was alive in between; who is not there is not
	// alive any more.
	RenewLease(ctx context.Context, owner string) (others map[string]int64, err error)

	// EndLease says that an owner of claims has let go of all. An unknown one is no error.
	EndLease(ctx context.Context, owner string) error

	// SealCheck returns what SetSealCheck stored last; "" where that was never called.
	SealCheck(ctx context.Context) (string, error)

	// SetSealCheck stores a text by which it can be told whether a keyset opens what is sealed in the store.
	SetSealCheck(ctx context.Context, sealed string) error

	// Count tells how much there is. Where sessions come and go meanwhile it is not exact.
	Count(ctx context.Context) (Counts, error)

	// ID names the data that the store holds: it is made with it, and never changes. Two stores have different ones.
	ID() string

	// Ping reports whether the store can be reached.
	Ping(ctx context.Context) error

	// Close releases the store. Nothing may be called afterwards.
	Close() error
}
