// Package audit sees to it that no member of the staff does anything of which there is no record.
package audit

import (
	"context"
	"log/slog"
	"time"

	"github.com/parley-chat/parley/chat"
)

// storeTimeout bounds the storing of a record.
const storeTimeout = 10 * time.Second

// The actions of staff.
const (
	ActionTakeOver      = "session.takeover"
	ActionObserve       = "session.observe"
	ActionRead          = "session.read"
	ActionEndSession    = "session.end"
	ActionPostMessage   = "message.post"
	ActionDisconnect    = "connection.close"
	ActionDisconnectAll = "connections.close"
	ActionRevoke        = "user.revoke"
	ActionEraseUser     = "user.erase"
)

// Store keeps the records.
type Store interface {
	PutAudit(ctx context.Context, record chat.AuditRecord) error
}

// Log keeps a record of each action in the store, and tells the server's log. It is safe for concurrent use.
type Log struct {
	store Store
	log   *slog.Logger
}

// New makes a Log.
func New(store Store, log *slog.Logger) *Log { return &Log{store: store, log: log} }

// Do carries out an action. Its record is stored first, without an outcome: where that fails nothing is done, and the
// error is storage_unavailable. Afterwards the outcome is added; a record that stays without one is of an action under
// which the server went down, or the storage. ID, At and Outcome of the record are set here.
func (l *Log) Do(ctx context.Context, record chat.AuditRecord, action func(context.Context) error) error {
	record.ID, record.At, record.Outcome = chat.NewID(), chat.Now(), ""
	if err := l.put(ctx, record); err != nil {
		return chat.NewError(chat.CodeStorageUnavailable, "the storage cannot be reached").WithCause(err)
	}
	err := action(ctx)
	record.Outcome = chat.AuditDone
	if err != nil {
		record.Outcome = string(chat.AsError(err).Code)
	}
	l.log.Info("audit", "action", record.Action, "actor", record.ActorID, "address", record.Address, "user", record.UserID,
		"session", record.SessionID, "connection", record.ConnectionID, "outcome", record.Outcome)
	if failed := l.put(ctx, record); failed != nil {
		l.log.Warn("the outcome of an audited action could not be stored", "record", record.ID, "error", failed)
	}
	return err
}

// put stores a record, also when whoever acts has gone meanwhile.
func (l *Log) put(ctx context.Context, record chat.AuditRecord) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	return l.store.PutAudit(ctx, record)
}
