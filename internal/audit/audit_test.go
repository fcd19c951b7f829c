package audit_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/audit"
)

// records is a store that notes what it is given, unless it is down.
type records struct {
	puts []chat.AuditRecord
	down error
}

func (r *records) PutAudit(ctx context.Context, record chat.AuditRecord) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.down == nil {
		r.puts = append(r.puts, record)
	}
	return r.down
}

func TestARecordIsThereBeforeTheActionAndItsOutcomeAfter(t *testing.T) {
	for name, c := range map[string]struct {
		err     error
		outcome string
	}{
		"done":    {nil, "done"},
		"refused": {chat.NewError(chat.CodeSessionEnded, "x"), "session_ended"},
		"failed":  {errors.New("boom"), "internal"},
	} {
		var store records
		log := audit.New(&store, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		err := log.Do(ctx, chat.AuditRecord{ActorID: "ann", Action: audit.ActionEndSession, Outcome: "done"}, func(context.Context) error {
			if len(store.puts) != 1 || store.puts[0].Outcome != "" {
				t.Errorf("%s: before the action there is %+v", name, store.puts)
			}
			cancel() // who asked for it goes away
			return c.err
		})
		if !errors.Is(err, c.err) {
			t.Errorf("%s: the error is %v", name, err)
		}
		if len(store.puts) != 2 {
			t.Fatalf("%s: there are %d records", name, len(store.puts))
		}
		if first, last := store.puts[0], store.puts[1]; last.ID != first.ID || first.ID == "" || !last.At.Equal(first.At) ||
			first.At.IsZero() || last.Outcome != c.outcome || last.ActorID != "ann" {
			t.Errorf("%s: the records are %+v and %+v", name, first, last)
		}
	}
}

func TestNothingIsDoneOfWhichThereCanBeNoRecord(t *testing.T) {
	log := audit.New(&records{down: errors.New("down")}, slog.New(slog.DiscardHandler))
	err := log.Do(t.Context(), chat.AuditRecord{}, func(context.Context) error {
		t.Error("it was done")
		return nil
	})
	if !errors.Is(err, chat.NewError(chat.CodeStorageUnavailable, "")) {
		t.Errorf("the error is %v", err)
	}
}
