package transfer

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/parley-chat/parley/chat"
)

var zero time.Time

// pages gives a session's messages, the newest first.
func pages(ctx context.Context, store chat.Store, sessionID string) iter.Seq2[[]chat.Message, error] {
	return func(yield func([]chat.Message, error) bool) {
		for before := int64(0); ; {
			page, err := store.Messages(ctx, sessionID, before, pageSize)
			if len(page) == 0 && err == nil {
				return
			}
			slices.Reverse(page)
			if !yield(page, err) || err != nil {
				return
			}
			before = page[len(page)-1].N
		}
	}
}

// usagePages gives the records of what responses cost.
func usagePages(ctx context.Context, store chat.Store) iter.Seq2[[]chat.UsageRecord, error] {
	return func(yield func([]chat.UsageRecord, error) bool) {
		for last := (chat.UsageRecord{}); ; {
			page, err := store.UsageAfter(ctx, chat.UsageFilter{}, last.SessionID, last.MessageID, pageSize)
			if len(page) == 0 && err == nil {
				return
			}
			if !yield(page, err) || err != nil {
				return
			}
			last = page[len(page)-1]
		}
	}
}

// auditPages gives the audit records, the latest first.
func auditPages(ctx context.Context, store chat.Store) iter.Seq2[[]chat.AuditRecord, error] {
	return func(yield func([]chat.AuditRecord, error) bool) {
		for last := (chat.AuditPlace{}); ; {
			page, err := store.Audit(ctx, chat.AuditFilter{}, last, pageSize)
			if len(page) == 0 && err == nil {
				return
			}
			if !yield(page, err) || err != nil {
				return
			}
			last = placeOf(page[len(page)-1])
		}
	}
}
