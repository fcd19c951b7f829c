package session_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/journal"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/storetest"
)

// lossy is a store that does an operation and then loses the answer, where after says so.
type lossy struct {
	*storetest.Memory

	mu    sync.Mutex // guards the field below
	after func(ctx context.Context, operation string) error
}

func (s *lossy) lose(ctx context.Context, op string, err error) error {
	s.mu.Lock()
	after := s.after
	s.mu.Unlock()
	if err == nil && after != nil {
		return after(ctx, op)
	}
	return err
}

// then says what becomes of answers from now on; nil: they come.
func (s *lossy) then(after func(ctx context.Context, operation string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = after
}

func (s *lossy) CreateSession(ctx context.Context, v chat.SessionView) error {
	return s.lose(ctx, "CreateSession", s.Memory.CreateSession(ctx, v))
}

func (s *lossy) ClaimSession(ctx context.Context, id string, from, to chat.Claim) (chat.Session, error) {
	record, err := s.Memory.ClaimSession(ctx, id, from, to)
	return record, s.lose(ctx, "ClaimSession", err)
}

func (s *lossy) UpdateSession(ctx context.Context, v chat.SessionView, places ...chat.Place) error {
	return s.lose(ctx, "UpdateSession", s.Memory.UpdateSession(ctx, v, places...))
}

func (s *lossy) InsertMessage(ctx context.Context, id string, by chat.Claim, m chat.Message) error {
	return s.lose(ctx, "InsertMessage", s.Memory.InsertMessage(ctx, id, by, m))
}

func (s *lossy) UpdateMessage(ctx context.Context, id string, by chat.Claim, m chat.Message) error {
	return s.lose(ctx, "UpdateMessage", s.Memory.UpdateMessage(ctx, id, by, m))
}

func lossyHouse(t testingT, store *lossy, m *model, dir string, edit func(*session.Config)) *house {
	t.Helper()
	return houseOn(t, store, store.Memory, dir, m, edit)
}

// failing gives a store of which some operations fail while it is down.
func failing(down *atomic.Bool, operations ...string) *storetest.Memory {
	store := storetest.NewMemory()
	store.Before = func(_ context.Context, op string) error {
		if down.Load() && slices.Contains(operations, op) {
			return errors.New("no disk")
		}
		return nil
	}
	return store
}

func resume(t *testing.T, r *reader, s *session.Session, epoch string) chat.SessionOpened {
	t.Helper()
	cursor, opened, err := s.Attach(&r.last, epoch, 50)
	if err != nil {
		t.Fatal(err)
	}
	r.cursor = cursor
	return opened
}

// The store is down when a response ends and up again at the next checkpoint; the session leaves memory.
func TestEndThatCouldNotBeStoredKeepsItsText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		h := newHouse(t, failing(&down, "UpdateMessage"), &model{answer: says(400*time.Millisecond, strings.Split("abcdef", "")...)}, nil)
		defer h.close(t)
		s := h.create(t)
		r := newReader(t, s)
		epoch := epochOf(t, s)
		send(t, s, "q", "hi")
		time.Sleep(2100 * time.Millisecond)
		down.Store(true)
		time.Sleep(2 * time.Second)
		r.drain(t, s)
		down.Store(false)
		id := r.order[1]
		s.Release()
		time.Sleep(time.Hour)
		if h.MemoryStats().Total != 0 {
			t.Fatal("it has not left memory")
		}
		again := h.open(t, s.ID())
		defer again.Release()
		synctest.Wait()
		after, _ := h.store.Message(t.Context(), s.ID(), id)
		if after.Text != r.text[id] {
			t.Errorf("the reader was shown %q, the store has %q", r.text[id], after.Text)
		}
		if epochOf(t, again) == epoch {
			resume(t, r, again, epoch)
			r.drain(t, again) // complains of a second completion
		}
	})
}

// The same where the response was never inserted.
func TestAnswerThatCouldNotBeInsertedIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inserts atomic.Int64
		var down atomic.Bool
		store := storetest.NewMemory()
		store.Before = func(_ context.Context, op string) error {
			if op == "InsertMessage" && inserts.Add(1) > 1 && down.Load() || op == "UpdateMessage" && down.Load() {
				return errors.New("no disk")
			}
			return nil
		}
		h := newHouse(t, store, &model{answer: says(400*time.Millisecond, strings.Split("abcdef", "")...)}, nil)
		defer h.close(t)
		s := h.create(t)
		r := newReader(t, s)
		epoch := epochOf(t, s)
		down.Store(true)
		send(t, s, "q", "hi")
		time.Sleep(5 * time.Second)
		r.drain(t, s)
		down.Store(false)
		id := r.order[1]
		s.Release()
		time.Sleep(time.Hour)
		again := h.open(t, s.ID())
		defer again.Release()
		synctest.Wait()
		after, err := h.store.Message(t.Context(), s.ID(), id)
		if after.Text != r.text[id] {
			t.Errorf("the reader was shown %q, the store has %q (%v)", r.text[id], after.Text, err)
		}
		if epochOf(t, again) == epoch {
			resume(t, r, again, epoch)
			r.drain(t, again)
		}
	})
}

// The same, with a crash: the journal has the end, the store a checkpoint.
func TestEndInTheJournalReachesTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		store := failing(&down, "UpdateMessage", "UpdateSession")
		h := newHouse(t, store, &model{answer: says(400*time.Millisecond, strings.Split("abcdef", "")...)}, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		r := newReader(t, s)
		epoch := epochOf(t, s)
		send(t, s, "q", "hi")
		time.Sleep(2100 * time.Millisecond)
		down.Store(true)
		time.Sleep(2 * time.Second)
		r.drain(t, s)
		id := r.order[1]
		h2 := h.crashed(t, &model{answer: says(0, "yes")})
		defer h2.close(t)
		again := h2.open(t, s.ID())
		if opened := resume(t, r, again, epoch); !opened.Resumed {
			t.Fatal("it is reset")
		}
		r.drain(t, again)
		stored, _ := h2.store.Message(t.Context(), s.ID(), id)
		if stored.Text != r.text[id] || stored.Status != r.done[id].Status {
			t.Errorf("the log has %q %s, the store %q %s", r.text[id], r.done[id].Status, stored.Text, stored.Status)
		}
		again.Release()
		time.Sleep(time.Hour)
		again = h2.open(t, s.ID())
		defer again.Release()
		if epochOf(t, again) == epoch {
			fresh := readAll(t, again)
			if fresh.text[id] != r.text[id] {
				t.Errorf("in the same epoch one reader holds %q, another %q", r.text[id], fresh.text[id])
			}
		}
	})
}

// A session that is lost while a message is on its way into the store leaves memory at once.
func TestSessionLostWhileAMessageIsSubmittedLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		epoch := epochOf(t, s)
		if err := s.Update(t.Context(), new("shown, and not in the store's log yet"), nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r := newReader(t, s)
		r.drain(t, s)
		takeOver(t, h.store, s)
		if _, err := s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "mine", Text: "hi"}); code(err) != chat.CodeSessionBusy {
			t.Errorf("sending gives %v", err)
		}
		if !s.Lost() {
			t.Fatal("it is not lost")
		}
		s.Release()
		start := time.Now()
		again := h.open(t, s.ID())
		defer again.Release()
		if took := time.Since(start); took > time.Second {
			t.Errorf("whoever opens the session waits for %v", took)
		}
		if epochOf(t, again) == epoch {
			t.Error("a session that was given up goes on under the same epoch")
		}
	})
}

// A server that has lost a session to another one does not take it back unasked.
func TestLostSessionIsLeftToTheOtherServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		one := newHouse(t, store, &model{answer: says(3*time.Second, "yes")}, nil)
		defer one.close(t)
		two := newHouse(t, store, &model{answer: says(time.Second, strings.Split("abcdefghijklmnopqrstuvwxyz", "")...)}, nil)
		defer two.close(t)
		s := one.create(t)
		send(t, s, "q1", "hi") // a response in progress on the first server
		time.Sleep(time.Second)
		s.Release() // its client goes to the other one
		one.seemsGone(t)
		other := two.open(t, s.ID())
		defer other.Release()
		r := newReader(t, other)
		send(t, other, "q2", "hi")
		time.Sleep(time.Minute)
		r.drain(t, other)
		if other.Lost() {
			t.Error("the session was taken back by a server on which nobody asks for it")
		}
		id := r.order[len(r.order)-1]
		m, err := store.Message(t.Context(), s.ID(), id)
		if err != nil || m.Status != chat.StatusComplete || len(m.Text) != 26 {
			t.Errorf("the response is %s %q (%v)", m.Status, m.Text, err)
		}
	})
}

// An idle session that another server has claimed leaves memory.
func TestStaleSessionLeavesMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		one := newHouse(t, store, &model{answer: says(0, "yes")}, nil)
		defer one.close(t)
		two := newHouse(t, store, &model{answer: says(0, "yes")}, nil)
		defer two.close(t)
		s := one.create(t)
		send(t, s, "q1", "hi")
		synctest.Wait()
		s.Release()
		one.seemsGone(t)
		time.Sleep(time.Second)
		other := two.open(t, s.ID())
		defer other.Release()
		time.Sleep(5 * time.Hour)
		if total := one.MemoryStats().Total; total != 0 {
			t.Errorf("%d sessions are in the first server's memory after five hours", total)
		}
		if n := strings.Count(one.log.String(), "stays in memory"); n > 2 {
			t.Errorf("it warned %d times", n)
		}
	})
}

// The answer to letting go of a claim is lost; the session is used again; the machine is replaced.
func TestLostAnswerToLettingGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &lossy{Memory: storetest.NewMemory()}
		var claims atomic.Int64
		store.then(func(_ context.Context, op string) error {
			if op == "ClaimSession" && claims.Add(1) == 1 {
				return errors.New("no answer")
			}
			return nil
		})
		h := lossyHouse(t, store, &model{answer: says(time.Second, strings.Split("abcdefghijklmnopqrstuvwxyz", "")...)}, t.TempDir(), func(c *session.Config) { c.CheckpointInterval = time.Hour })
		defer h.close(t)
		s := h.create(t)
		epoch := epochOf(t, s)
		s.Release()
		for claims.Load() == 0 {
			time.Sleep(time.Second)
		}
		synctest.Wait()
		again := h.open(t, s.ID())
		defer again.Release()
		if epochOf(t, again) != epoch {
			return
		}
		r := newReader(t, again)
		send(t, again, "q", "hi")
		time.Sleep(5500 * time.Millisecond)
		r.drain(t, again)
		id := r.order[1]

		// The journal is gone.
		h2 := openHouse(t, h.store.Clone(), &model{answer: says(0, "yes")}, filepath.Join(t.TempDir(), "new"), nil)
		defer h2.close(t)
		third := h2.open(t, s.ID())
		defer third.Release()
		if epochOf(t, third) == epoch {
			t.Errorf("without its journal the log goes on under the same epoch, although the reader holds %q", r.text[id])
		}
	})
}

// The end of a takeover of a session that was lost does not pin the session for ever.
func TestLateEndOfATakeoverPinsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		h := newHouse(t, store, &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		if err := s.Join(t.Context(), ann); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		// The session is lost in any way; here it is taken over.
		takeOver(t, store, s)
		_, _ = s.Send(t.Context(), ann, chat.RoleAgent, chat.SendMessage{MessageID: "mine", Text: "hi"})
		if !s.Lost() {
			t.Fatal("it is not lost")
		}
		time.Sleep(30 * time.Second) // takeoverGrace; the session is loaded anew meanwhile
		_ = s.LeaveAgent(t.Context(), ann.ID, func() bool { return false })
		s.Release()
		time.Sleep(5 * time.Hour)
		if total := h.MemoryStats().Total; total != 0 {
			t.Errorf("%d sessions are in memory, five hours after the last use", total)
		}
	})
}

// The answer to the claim under a new epoch is lost.
func TestLostAnswerToAClaimPinsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &lossy{Memory: storetest.NewMemory()}
		var claims atomic.Int64
		store.then(func(_ context.Context, op string) error {
			if op == "ClaimSession" && claims.Add(1) == 1 {
				return errors.New("no answer")
			}
			return nil
		})
		h := lossyHouse(t, store, &model{answer: says(0, "yes")}, t.TempDir(), nil)
		defer h.close(t)
		s := h.create(t)
		takeOver(t, store.Memory, s)
		_, _ = s.Send(t.Context(), ann, chat.RoleAgent, chat.SendMessage{MessageID: "mine", Text: "hi"})
		if !s.Lost() {
			t.Fatal("it is not lost")
		}
		s.Release()
		time.Sleep(5 * time.Hour)
		if total := h.MemoryStats().Total; total != 0 {
			t.Errorf("%d sessions are in memory, five hours after the last use", total)
		}
	})
}

// What a session that was given up still does must not get into the journal among what its successor does.
func TestNothingIsJournaledForASessionThatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		m := &model{answer: says(time.Second, strings.Split("abcdefghijklmnopqrstuvwxyz", "")...)}
		dir := filepath.Join(t.TempDir(), "small")
		h := &house{store: store, dir: dir, model: m, log: &logBuffer{}}
		var err error
		if h.journal, err = journal.Open(journal.Config{Path: dir, MaxBytes: 1 << 20, StoreID: store.ID()}, h.logger()); err != nil {
			t.Fatal(err)
		}
		cfg := testConfig()
		cfg.CheckpointInterval = time.Hour
		h.Manager = session.NewManager(cfg, store, h.journal, m.pool(), h.logger())
		defer h.close(t)
		s, noise := h.create(t), h.create(t)
		defer noise.Release()
		if err := s.Join(t.Context(), ann); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		takeOver(t, store, s)
		_, _ = s.Send(t.Context(), ann, chat.RoleAgent, chat.SendMessage{MessageID: "mine", Text: "hi"})
		if !s.Lost() {
			t.Fatal("it is not lost")
		}
		again := h.open(t, s.ID())
		defer again.Release()
		epoch := epochOf(t, again)
		r := newReader(t, again)
		send(t, again, "q", "hi")
		time.Sleep(5500 * time.Millisecond)
		// Meanwhile others fill the segment.
		m.nowAnswers(says(0, strings.Repeat("x", 140_000)))
		send(t, noise, "n", "hi")
		synctest.Wait()
		time.Sleep(time.Second)
		_ = s.LeaveAgent(t.Context(), ann.ID, func() bool { return false })
		s.Release()
		time.Sleep(4 * time.Second)
		r.drain(t, again)
		id := r.order[len(r.order)-1]
		if len(r.text[id]) != 10 {
			t.Fatalf("shown is %q", r.text[id])
		}
		h2 := h.crashed(t, &model{answer: says(0, "yes")})
		defer h2.close(t)
		third := h2.open(t, s.ID())
		defer third.Release()
		if epochOf(t, third) != epoch {
			t.Error("after a crash there is another epoch")
			return
		}
		fresh := readAll(t, third)
		if fresh.text[id] != r.text[id] {
			t.Errorf("in the same epoch one reader was shown %q, after the crash the log has %q", r.text[id], fresh.text[id])
		}
		if _, _, err := third.Attach(&r.last, epoch, 50); err != nil {
			t.Error(err)
		}
	})
}

// A checkpoint that comes between a response's end and its writing; then a crash.
func TestCheckpointBeforeAnEndIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var atEnd atomic.Pointer[func()]
		disk := storetest.NewMemory()
		disk.Before = func(_ context.Context, op string) error {
			if do := atEnd.Load(); do != nil && op == "UpdateMessage" && atEnd.CompareAndSwap(do, nil) {
				(*do)()
			}
			return nil
		}
		h := newHouse(t, disk, &model{answer: says(time.Second, "a", "b")}, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		epoch := epochOf(t, s)
		r := newReader(t, s)
		slow := h.create(t)
		defer slow.Release()
		time.Sleep(57500 * time.Millisecond)
		send(t, s, "q", "hi") // a at 58.5, b and the end at 59.5; the cleanup comes at 60
		time.Sleep(1950 * time.Millisecond)
		r.drain(t, s)
		// The disk is slow: the journal's goroutine hangs from here on.
		release := make(chan struct{})
		stop := slow.Notify(func() { <-release })
		defer stop()
		// It is in the callback of slow's event when s's completion is appended.
		store := h.store
		slowDown := func() {
			go func() { _ = slow.Update(context.Background(), new("t"), nil) }()
			time.Sleep(10 * time.Millisecond) // while the response's end is stored
		}
		atEnd.Store(&slowDown)
		time.Sleep(2 * time.Second) // the cleanup comes
		record, _ := store.Session(t.Context(), s.ID())
		atCleanup := store.Clone()
		close(release)
		synctest.Wait()
		r.drain(t, s)
		// The crash comes before the next checkpoint: the store is as it was at the cleanup.
		h.store = atCleanup
		back := h.crashed(t, &model{answer: says(0, "yes")})
		h.store = store
		defer back.close(t)
		if record.LogEnd > 2 && record.LogEnd < r.last {
			t.Errorf("a checkpoint at %d lies within a response that begins at 2 and ends at %d", record.LogEnd, r.last)
		}
		again := back.open(t, s.ID())
		defer again.Release()
		if epochOf(t, again) != epoch {
			t.Error("a crash costs the epoch")
		}
	})
}

// A journal that fails, then a crash before the session is loaded under its new epoch.
func TestCrashAfterTheJournalFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		big := strings.Repeat("x", 9000)
		pieces := make([]string, 20)
		for i := range pieces {
			pieces[i] = big
		}
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(time.Second, pieces...)}, nil)
		defer h.close(t)
		dir := filepath.Join(t.TempDir(), "small")
		j, err := journal.Open(journal.Config{Path: dir, MaxBytes: 80_000, StoreID: h.store.ID()}, h.logger())
		if err != nil {
			t.Fatal(err)
		}
		small := &house{Manager: session.NewManager(testConfig(), h.store, j, h.model.pool(), h.logger()), store: h.store, dir: dir, journal: j}
		defer func() { _ = errors.Join(small.Close(context.Background()), j.Close()) }()
		s := small.create(t)
		defer s.Release()
		epoch := epochOf(t, s)
		r := newReader(t, s)
		send(t, s, "q", "hi")
		for !s.Lost() {
			r.drain(t, s)
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		h2 := small.crashed(t, &model{answer: says(0, "yes")})
		defer h2.close(t)
		again := h2.open(t, s.ID())
		defer again.Release()
		if epochOf(t, again) == epoch {
			resume(t, r, again, epoch)
			r.drain(t, again)
		}
	})
}

// A reader far behind, to whom the session's state was told already, gets a change that comes later.
func TestSlowReaderIsToldOfALaterChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{}, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		say := func(n int) {
			for range n {
				if _, err := s.Send(t.Context(), ann, chat.RoleAgent, chat.SendMessage{MessageID: chat.NewID(), Text: "x"}); err != nil {
					t.Fatal(err)
				}
			}
		}
		title := func(v string) {
			if err := s.Update(t.Context(), &v, nil); err != nil {
				t.Fatal(err)
			}
		}
		say(5)
		title("one")
		say(400)
		time.Sleep(3 * time.Minute) // trimmed
		cursor, _, err := s.Attach(new(int64), epochOf(t, s), 0)
		if err != nil {
			t.Fatal(err)
		}
		r := emptyReader(cursor)
		for range 10 {
			e, ok, err := s.Read(&r.cursor)
			if err != nil || !ok {
				t.Fatal(err)
			}
			r.take(t, e)
		}
		title("two")
		say(400)
		time.Sleep(3 * time.Minute)
		r.drain(t, s)
		if r.title != "two" || len(r.order) != 805 {
			t.Errorf("the reader holds the title %q and %d messages", r.title, len(r.order))
		}
	})
}

// A reader that is cut off in its history, between two messages of which one stands within the other.
func TestCutWithinTheHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(time.Second, "a", "b", "c")}, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		send(t, s, "q", "hi")
		time.Sleep(1500 * time.Millisecond)
		if _, err := s.Send(t.Context(), ann, chat.RoleAgent, chat.SendMessage{MessageID: "a", Text: "x"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		r := newReader(t, s)
		for range 2 { // q, then the agent's
			e, _, err := s.Read(&r.cursor)
			if err != nil {
				t.Fatal(err)
			}
			r.take(t, e)
		}
		if opened := resume(t, r, s, epochOf(t, s)); !opened.Resumed {
			t.Fatal("reset")
		}
		r.drain(t, s)
	})
}
