package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/storetest"
	"github.com/parley-chat/parley/internal/store/transfer"
)

// fillStaff makes revocations, and audit records on more than a page.
func fillStaff(t *testing.T, store chat.Store) {
	t.Helper()
	for i := range 5 {
		r := chat.Revocation{UserID: fmt.Sprint("user", i), TokenID: strings.Repeat("t", i), At: at, Until: at.Add(time.Hour)}
		if i == 0 {
			r.Until = time.Time{}
		}
		if err := store.AddRevocation(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 210 {
		if err := store.PutAudit(t.Context(), audited(i, chat.AuditDone)); err != nil {
			t.Fatal(err)
		}
	}
}

func audited(i int, outcome string) chat.AuditRecord {
	return chat.AuditRecord{
		ID: fmt.Sprintf("a%04d", i), At: at.Add(time.Duration(i/2) * time.Second), ActorID: "ann", Action: "token.revoke",
		UserID: "user1", Detail: "lost", Outcome: outcome,
	}
}

// staffOf gives all that a store has of what staff did.
func staffOf(t *testing.T, store chat.Store) ([]chat.Revocation, []chat.AuditRecord) {
	t.Helper()
	revocations, failed := store.Revocations(t.Context())
	records, err := store.Audit(t.Context(), chat.AuditFilter{}, chat.AuditPlace{}, 1000)
	if err := errors.Join(failed, err); err != nil {
		t.Fatal(err)
	}
	return revocations, records
}

func wantSameStaff(t *testing.T, from, to chat.Store) {
	t.Helper()
	wantRevocations, wantRecords := staffOf(t, from)
	revocations, records := staffOf(t, to)
	if !slices.Equal(revocations, wantRevocations) {
		t.Errorf("the revocations are %+v, want %+v", revocations, wantRevocations)
	}
	if !slices.Equal(records, wantRecords) {
		t.Errorf("there are %d audit records, want the same %d", len(records), len(wantRecords))
	}
}

func TestCopyCopiesWhatStaffDid(t *testing.T) {
	from, to := openSQLite(t), storetest.NewMemory()
	fill(t, from, 3)
	fillStaff(t, from)
	report, err := transfer.Copy(t.Context(), from, to, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantSameStaff(t, from, to)
	wantSame(t, from, to, report.Digest)
	wantSame(t, to, from, report.Digest)

	// And again after more was done.
	again := chat.Revocation{UserID: "user1", TokenID: "t", At: at.Add(time.Minute), Until: at.Add(2 * time.Hour)}
	if err := errors.Join(from.AddRevocation(t.Context(), again), from.AddRevocation(t.Context(), chat.Revocation{UserID: "new", At: at}),
		from.PutAudit(t.Context(), audited(7, "internal")), from.PutAudit(t.Context(), audited(300, ""))); err != nil {
		t.Fatal(err)
	}
	changed, err := transfer.Copy(t.Context(), from, to, false, nil)
	if err != nil || changed.Digest == report.Digest {
		t.Errorf("the digest is the same: %t; error %v", changed.Digest == report.Digest, err)
	}
	wantSameStaff(t, from, to)
}

// Where the source does not need a revocation any more, or the target was used, none is taken away.
func TestCopyTakesNoRevocationAway(t *testing.T) {
	from, to := openSQLite(t), storetest.NewMemory()
	fillStaff(t, from)
	later := chat.Revocation{UserID: "user1", TokenID: "t", At: at.Add(time.Hour)}
	own := chat.Revocation{UserID: "another", At: at}
	if err := errors.Join(to.AddRevocation(t.Context(), later), to.AddRevocation(t.Context(), own)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := transfer.Copy(t.Context(), from, to, false, nil); err != nil {
			t.Fatal(err)
		}
		got, _ := staffOf(t, to)
		if len(got) != 6 || got[0] != own || got[2] != later {
			t.Errorf("the revocations are %+v", got)
		}
	}
}

func TestCopyRefusesATargetThatLosesWhatStaffDid(t *testing.T) {
	for operation, want := range map[string]string{
		"AddRevocation": "does not have the revocation of user0",
		"PutAudit":      "other audit records",
	} {
		from, to := openSQLite(t), &neglectful{Memory: storetest.NewMemory(), operation: operation}
		fillStaff(t, from)
		if _, err := transfer.Copy(t.Context(), from, to, false, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want one that says %q", operation, err, want)
		}
	}
}

// neglectful is a store that says that an operation is done, and does not do it.
type neglectful struct {
	*storetest.Memory
	operation string
}

func (f *neglectful) AddRevocation(ctx context.Context, r chat.Revocation) error {
	if f.operation == "AddRevocation" {
		return nil
	}
	return f.Memory.AddRevocation(ctx, r)
}

func (f *neglectful) PutAudit(ctx context.Context, r chat.AuditRecord) error {
	if f.operation == "PutAudit" {
		return nil
	}
	return f.Memory.PutAudit(ctx, r)
}
