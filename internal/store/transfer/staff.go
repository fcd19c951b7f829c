package transfer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/parley-chat/parley/chat"
)

// revocations copies what tokens are revoked, without which they would be valid again. What the target has beyond that
// stays: a revocation is never too many.
func (c *copying) revocations(ctx context.Context) error {
	all, err := c.from.Revocations(ctx)
	if err != nil {
		return err
	}
	d := &digest{hash: sha256.New()}
	for _, r := range all {
		if err := c.to.AddRevocation(ctx, r); err != nil {
			return err
		}
		d.add(r)
	}
	there, err := c.to.Revocations(ctx)
	if err != nil {
		return err
	}
	for _, r := range all {
		if !slices.ContainsFunc(there, func(t chat.Revocation) bool { return covers(t, r) }) {
			return fmt.Errorf("the target does not have the revocation of %s at %s", r.UserID, r.At)
		}
	}
	fmt.Fprintln(c.digest, d.sum())
	return d.err
}

// covers reports whether a revocation holds for all that another one holds for.
func covers(t, r chat.Revocation) bool {
	return t.UserID == r.UserID && t.TokenID == r.TokenID && !t.At.Before(r.At) &&
		(t.Until.IsZero() || !r.Until.IsZero() && !t.Until.Before(r.Until))
}

// audit copies the audit records, and compares each page with what the target has then.
func (c *copying) audit(ctx context.Context) error {
	d := &digest{hash: sha256.New()}
	var last chat.AuditPlace
	for page, err := range auditPages(ctx, c.from) {
		if err != nil {
			return err
		}
		for _, r := range page {
			if err := c.to.PutAudit(ctx, r); err != nil {
				return err
			}
			d.add(r)
		}
		there, err := c.to.Audit(ctx, chat.AuditFilter{}, last, len(page))
		if err != nil {
			return err
		}
		if !slices.Equal(there, page) {
			return errors.New("the target has other audit records: choose an empty storage")
		}
		last = placeOf(page[len(page)-1])
	}
	fmt.Fprintln(c.digest, d.sum())
	return d.err
}

func placeOf(r chat.AuditRecord) chat.AuditPlace { return chat.AuditPlace{At: r.At, ID: r.ID} }
