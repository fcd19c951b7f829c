package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/sqlite"
	"github.com/parley-chat/parley/internal/store/storetest"
	"github.com/parley-chat/parley/internal/store/transfer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var at = time.Date(2026, time.March, 4, 5, 6, 7, 89_000_000, time.UTC)

// fill makes sessions with messages and usage, some of them more than a page.
func fill(t *testing.T, store chat.Store, sessions int) {
	t.Helper()
	for i := range sessions {
		s := chat.Session{
			ID: fmt.Sprintf("s%04d", i), UserID: fmt.Sprint("user", i%3), Title: fmt.Sprint("Title ", i), Model: "m",
			Status: chat.SessionStatusActive, CreatedAt: at, LastActiveAt: at.Add(time.Duration(i) * time.Second),
			Metadata: map[string]string{"a": "b", "c": "d"}, Claim: chat.Claim{Epoch: "e"}, LogEnd: 7, Revision: 3,
			ResponseTimes: []chat.ResponseTime{{FirstTokenMS: 1, TotalMS: 2}}, AssistedBy: &chat.Author{ID: "ann", Name: "Ann"},
			ProviderStates: map[string]string{"p": "q"},
		}
		if i%5 == 0 {
			s.Status, s.EndReason = chat.SessionStatusEnded, chat.EndedByUser
		}
		if err := store.CreateSession(t.Context(), &s); err != nil {
			t.Fatal(err)
		}
		count := i % 7
		if i == 3 {
			count = 210
		}
		for n := range count {
			m := chat.Message{
				ID: fmt.Sprint("m", n), N: int64(2*n + 1), Seq: int64(n + 1), Role: chat.RoleUser, Text: fmt.Sprint("text ", n),
				Status: chat.StatusComplete, CreatedAt: at, Author: &chat.Author{ID: "u", Name: "U"},
				Error: &chat.Error{Code: chat.CodeInternal, Message: "hm"}, Usage: &chat.Usage{InputTokens: n},
			}
			if err := store.InsertMessage(t.Context(), s.ID, s.Claim, m); err != nil {
				t.Fatal(err)
			}
		}
		r := chat.UsageRecord{SessionID: s.ID, MessageID: "m0", UserID: s.UserID, Model: "m", At: at, CostMicros: int64(i)}
		if err := store.AddUsage(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

func openSQLite(t *testing.T) chat.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "parley.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// wantSame fails if two stores differ, as a further copy tells that looks at everything.
func wantSame(t *testing.T, from, to chat.Store, digest string) {
	t.Helper()
	report, err := transfer.Copy(t.Context(), from, to, false, nil)
	if err != nil || report.Copied != 0 || report.Digest != digest {
		t.Errorf("copied again: %+v, error %v; the digest was %s", report, err, digest)
	}
}

func TestCopyCopiesEverything(t *testing.T) {
	from, to := openSQLite(t), storetest.NewMemory()
	fill(t, from, 210)
	var last, all chat.Counts
	report, err := transfer.Copy(t.Context(), from, to, false, func(done, total chat.Counts) { last, all = done, total })
	if err != nil {
		t.Fatal(err)
	}
	want, err := from.Count(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if report.Counts != want || report.Copied != 210 || report.Claimed != 0 || last != want || all != want {
		t.Errorf("copied are %+v, told were %+v of %+v; there are %+v", report, last, all, want)
	}
	wantSame(t, from, to, report.Digest)
	wantSame(t, to, from, report.Digest)
	if page, err := to.SessionsAfter(t.Context(), "", 1000); err != nil || len(page) != 210 {
		t.Errorf("there are %d sessions, error %v", len(page), err)
	}
}

func TestCopyCopiesWhatDiffers(t *testing.T) {
	from, to := openSQLite(t), storetest.NewMemory()
	fill(t, from, 20)
	if _, err := transfer.Copy(t.Context(), from, to, false, nil); err != nil {
		t.Fatal(err)
	}
	// The source goes on: a message, a title, a new session, one that is gone, one that a server has.
	changed, err := from.Session(t.Context(), "s0001")
	if err != nil {
		t.Fatal(err)
	}
	changed.Title, changed.Revision = "another", 9
	added := chat.Session{ID: "t", Status: chat.SessionStatusActive, CreatedAt: at, LastActiveAt: at, Claim: chat.Claim{Owner: "server"}}
	if err := errors.Join(from.UpdateSession(t.Context(), &changed), from.CreateSession(t.Context(), &added),
		from.InsertMessage(t.Context(), "s0002", chat.Claim{Epoch: "e"}, chat.Message{ID: "new", N: 99, CreatedAt: at})); err != nil {
		t.Fatal(err)
	}
	report, err := transfer.Copy(t.Context(), from, to, false, nil)
	if err != nil || report.Copied != 3 || report.Claimed != 1 {
		t.Errorf("copied are %+v, error %v; want 3 of which one is claimed", report, err)
	}
	wantSame(t, from, to, report.Digest)

	if err := from.DeleteSession(t.Context(), "s0004", time.Time{}); err != nil {
		t.Fatal(err)
	}
	before, err := to.Count(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var others transfer.OthersError
	if _, err := transfer.Copy(t.Context(), from, to, false, nil); !errors.As(err, &others) || others != 1 {
		t.Errorf("that the target has more gives %v", err)
	}
	if after, err := to.Count(t.Context()); err != nil || after != before {
		t.Errorf("a copy that was refused has made %+v of %+v, error %v", after, before, err)
	}
	if report, err = transfer.Copy(t.Context(), from, to, true, nil); err != nil || report.Counts.Sessions != 20 {
		t.Errorf("pruned, it is %+v, error %v", report, err)
	}
}

func TestCopyGoesOnWhereItWasCutShort(t *testing.T) {
	from, to := openSQLite(t), storetest.NewMemory()
	fill(t, from, 40)
	errCut := errors.New("cut")
	var inserts atomic.Int64
	to.Before = func(_ context.Context, op string) error {
		if op == "InsertMessage" && inserts.Add(1)%100 == 0 {
			return errCut // in the middle of a session
		}
		return nil
	}
	var report transfer.Report
	var err error
	rounds := 0
	for ; rounds < 50; rounds++ {
		if report, err = transfer.Copy(t.Context(), from, to, false, nil); err == nil {
			break
		}
		if !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		if rounds == 2 {
			to.Before = nil
		}
	}
	if err != nil || rounds == 0 || report.Copied == 40 {
		t.Fatalf("in the last of %d rounds %d sessions are copied, error %v", rounds+1, report.Copied, err)
	}
	to.Before = nil
	wantSame(t, from, to, report.Digest)
}

func TestCopyIntoWhatHoldsSomethingElse(t *testing.T) {
	from, to := openSQLite(t), storetest.NewMemory()
	fill(t, from, 3)
	r := chat.UsageRecord{SessionID: "s0001", MessageID: "m0", UserID: "another", At: at}
	if err := to.AddUsage(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Copy(t.Context(), from, to, false, nil); err == nil || !strings.Contains(err.Error(), "choose an empty storage") {
		t.Errorf("other usage gives %v", err)
	}
}

// A target that does not keep what it is given is found out.
func TestCopyIsVerified(t *testing.T) {
	from, to := openSQLite(t), &forgetful{storetest.NewMemory()}
	fill(t, from, 10)
	if _, err := transfer.Copy(t.Context(), from, to, false, nil); err == nil || !strings.Contains(err.Error(), "not what was read") {
		t.Errorf("got error %v", err)
	}
}

type forgetful struct{ *storetest.Memory }

func (f *forgetful) InsertMessage(ctx context.Context, id string, by chat.Claim, m chat.Message) error {
	m.Text = strings.TrimSuffix(m.Text, "4")
	return f.Memory.InsertMessage(ctx, id, by, m)
}

func TestCopyEndsWithItsContext(t *testing.T) {
	from, to := openSQLite(t), storetest.NewMemory()
	fill(t, from, 10)
	ctx, cancel := context.WithCancel(t.Context())
	to.Before = func(_ context.Context, op string) error {
		if op == "InsertMessage" {
			cancel()
		}
		return nil
	}
	if _, err := transfer.Copy(ctx, from, to, false, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
}

// A session whose removal was cut short is not brought back by a copy: the removal is completed.
func TestCopyLeavesOutWhatIsBeingErased(t *testing.T) {
	from, to := openSQLite(t), storetest.NewMemory()
	fill(t, from, 3)
	half := chat.Session{ID: "half", Status: chat.SessionStatusEnded, EndReason: chat.EndedByErasure, CreatedAt: at, LastActiveAt: at}
	if err := errors.Join(from.CreateSession(t.Context(), &half),
		from.InsertMessage(t.Context(), "half", chat.Claim{}, chat.Message{ID: "m", N: 1, Text: "erase me", CreatedAt: at})); err != nil {
		t.Fatal(err)
	}
	report, err := transfer.Copy(t.Context(), from, to, false, nil)
	if err != nil || report.Counts.Sessions != 3 {
		t.Errorf("copied are %+v, error %v", report, err)
	}
	for _, s := range []chat.Store{from, to} {
		if _, err := s.Message(t.Context(), "half", "m"); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("the message is there: %v", err)
		}
	}
}

func TestRestartEpochs(t *testing.T) {
	store := storetest.NewMemory()
	fill(t, store, 10) // of which two have ended
	for _, want := range []int{8, 0} {
		if n, err := transfer.RestartEpochs(t.Context(), store); err != nil || n != want {
			t.Errorf("%d sessions begin a new epoch, want %d; error %v", n, want, err)
		}
	}
	s, err := store.Session(t.Context(), "s0001")
	if err != nil || s.Claim != (chat.Claim{}) {
		t.Errorf("a session has the claim %+v, error %v", s.Claim, err)
	}
}
