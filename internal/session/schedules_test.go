package session_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/storetest"
)

// delayed is a store that does some operations only when the test says so, long after whoever asked has given up.
type delayed struct {
	*storetest.Memory

	mu      sync.Mutex // guards the fields below
	hold    func(op string, from, to chat.Claim) bool
	pending []func()
	after   func(op string, from, to chat.Claim, err error) error
}

func (d *delayed) set(hold func(op string, from, to chat.Claim) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hold = hold
}

func (d *delayed) then(after func(op string, from, to chat.Claim, err error) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.after = after
}

// late keeps an operation for later, if it is to be.
func (d *delayed) late(ctx context.Context, op string, from, to chat.Claim, do func()) bool {
	d.mu.Lock()
	held := d.hold != nil && d.hold(op, from, to)
	if held {
		d.pending = append(d.pending, do)
	}
	d.mu.Unlock()
	if held {
		<-ctx.Done()
	}
	return held
}

// land does what is late.
func (d *delayed) land() (n int) {
	d.mu.Lock()
	pending := d.pending
	d.pending = nil
	d.mu.Unlock()
	for _, do := range pending {
		do()
	}
	return len(pending)
}

func (d *delayed) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pending)
}

func (d *delayed) ClaimSession(ctx context.Context, id string, from, to chat.Claim) (chat.Session, error) {
	if d.late(ctx, "ClaimSession", from, to, func() { _, _ = d.Memory.ClaimSession(context.Background(), id, from, to) }) {
		return chat.Session{}, ctx.Err()
	}
	record, err := d.Memory.ClaimSession(ctx, id, from, to)
	d.mu.Lock()
	after := d.after
	d.mu.Unlock()
	if after != nil {
		err = after("ClaimSession", from, to, err)
	}
	return record, err
}

func (d *delayed) UpdateSession(ctx context.Context, v chat.SessionView, places ...chat.Place) error {
	record := chat.Snapshot(v)
	if d.late(ctx, "UpdateSession", record.Claim, record.Claim, func() {
		_ = d.Memory.UpdateSession(context.Background(), &record, places...)
	}) {
		return ctx.Err()
	}
	return d.Memory.UpdateSession(ctx, v, places...)
}

// copied gives a copy of the house's journal as it is now.
func (h *house) copied(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "journal")
	if err := os.CopyFS(dir, os.DirFS(h.dir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// idle gives a session with a question and an answer that nobody has.
func idle(t *testing.T, store *storetest.Memory) (id string) {
	t.Helper()
	h := newHouse(t, store, &model{answer: says(0, "yes")}, sharing)
	s := h.create(t)
	send(t, s, "q1", "hi")
	synctest.Wait()
	s.Release()
	id = s.ID()
	h.close(t)
	return id
}

// canOpen opens a session at a server, in the end.
func canOpen(t *testing.T, h *house, id string, patience time.Duration) *session.Session {
	t.Helper()
	var err error
	for began := time.Now(); time.Since(began) <= patience; time.Sleep(time.Second) {
		var s *session.Session
		if s, err = h.Open(t.Context(), id, anybody); err == nil {
			return s
		}
	}
	t.Errorf("after %v it cannot be opened: %v", patience, err)
	return nil
}

// A server is killed and started again, with its journal, while clients have idle sessions open. None of them is in its
// memory afterwards, and the clients go to another server.
func TestSessionsOfAServerThatWasRestarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		id := idle(t, store)
		one := newHouse(t, store, &model{}, sharing)
		two := newHouse(t, store, &model{answer: says(0, "yes")}, sharing)
		s := one.open(t, id) // which is all that it gets to
		time.Sleep(10 * time.Second)
		restarted := openHouse(t, store, &model{}, one.copied(t), sharing)
		if restarted.journal.ID() != one.journal.ID() {
			t.Fatal("the journal is not trusted")
		}
		time.Sleep(time.Minute)
		if n := restarted.MemoryStats().Total; n != 0 {
			t.Fatalf("it has %d sessions in memory", n)
		}
		if s := canOpen(t, two, id, time.Hour); s != nil {
			s.Release()
		}
		two.close(t)
		restarted.close(t)
		s.Release()
		one.close(t)
	})
}

// While the storage is away for a moment, a server lets go of a session that nobody needs.
func TestClaimThatCouldNotBeGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		store := failing(&down, "ClaimSession", "UpdateSession", "InsertMessage", "Session", "Messages")
		one := newHouse(t, store, &model{answer: says(0, "yes")}, sharing)
		defer one.close(t)
		two := newHouse(t, store, &model{answer: says(0, "yes")}, sharing)
		defer two.close(t)
		s := one.create(t)
		send(t, s, "q1", "hi")
		synctest.Wait()
		down.Store(true)
		s.Release()
		time.Sleep(20 * time.Second)
		down.Store(false)
		if s := canOpen(t, two, s.ID(), time.Hour); s != nil {
			s.Release()
		}
	})
}

// A server claims a session and then cannot read it: the client goes to another one.
func TestLoadThatFailedAfterItsClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		store := failing(&down, "Messages")
		id := idle(t, store)
		one := newHouse(t, store, &model{}, sharing)
		defer one.close(t)
		two := newHouse(t, store, &model{answer: says(0, "yes")}, sharing)
		defer two.close(t)
		down.Store(true)
		if _, err := one.Open(t.Context(), id, anybody); code(err) != chat.CodeStorageUnavailable {
			t.Fatalf("got %v", err)
		}
		down.Store(false)
		if s := canOpen(t, two, id, time.Hour); s != nil {
			s.Release()
		}
	})
}

// A session is removed from the storage (by `parley storage erase`, or by another server) while one has it in memory.
func TestSessionThatIsGoneFromTheStore(t *testing.T) {
	for _, answering := range []bool{false, true} {
		t.Run(fmt.Sprint("answering ", answering), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := storetest.NewMemory()
				var writes atomic.Int64
				store.Before = func(_ context.Context, op string) error {
					if op == "InsertMessage" || op == "UpdateSession" {
						writes.Add(1)
					}
					return nil
				}
				h := newHouse(t, store, &model{answer: says(time.Second, "a", "b", "c", "d")}, nil)
				defer h.close(t)
				s := h.create(t)
				send(t, s, "q", "hi")
				if answering {
					time.Sleep(2500 * time.Millisecond)
				} else {
					time.Sleep(10 * time.Second)
				}
				if err := store.DeleteSession(t.Context(), s.ID(), time.Time{}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				_, err := s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q2", Text: "there?"})
				if code(err) == chat.CodeStorageUnavailable {
					t.Errorf("a message is answered with %v", err)
				}
				s.Release()
				time.Sleep(5 * time.Hour)
				before := writes.Load()
				time.Sleep(time.Hour)
				if n := writes.Load() - before; n > 0 {
					t.Errorf("five hours later it is tried to write it %d times in an hour", n)
				}
				if n := h.MemoryStats().Total; n != 0 {
					t.Errorf("%d sessions are in memory five hours later", n)
				}
			})
		})
	}
}

// A session that was lost with a response of which the store has no end.
func TestLostSessionIsNotCaughtUpForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		var inserts atomic.Int64
		store.Before = func(_ context.Context, op string) error {
			if op == "InsertMessage" {
				inserts.Add(1)
			}
			return nil
		}
		h := newHouse(t, store, &model{answer: says(time.Second, "a", "b", "c", "d")}, nil)
		defer h.close(t)
		s := h.create(t)
		send(t, s, "q", "hi")
		time.Sleep(2500 * time.Millisecond)
		takeOver(t, store, s)
		time.Sleep(time.Minute)
		if !s.Lost() {
			t.Error("the session is not lost")
		}
		s.Release()
		before := inserts.Load()
		time.Sleep(time.Hour)
		if n := inserts.Load() - before; n > 0 {
			t.Errorf("the end of a response of a lost session is stored %d times in an hour", n)
		}
	})
}

// A user ends a session and erases it at the same time, or erases it twice.
func TestEraseWhileItEnds(t *testing.T) {
	for _, first := range []string{"end", "erase"} {
		t.Run(first, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, slowStore("UpdateSession", nil), &model{answer: says(0, "yes")}, nil)
				defer h.close(t)
				s := h.create(t)
				r := newReader(t, s)
				stop := s.Notify(func() {})
				send(t, s, "q", "hi")
				time.Sleep(time.Minute)
				result := make(chan error)
				go func() {
					if first == "end" {
						result <- s.End(t.Context(), chat.EndedByUser)
					} else {
						result <- h.Erase(t.Context(), s.ID(), chat.EndedByUser, anybody)
					}
				}()
				time.Sleep(time.Second / 2)
				if err := h.Erase(t.Context(), s.ID(), chat.EndedByUser, anybody); err != nil && code(err) != chat.CodeSessionNotFound {
					t.Errorf("erasing it gives %v", err)
				}
				if err := <-result; err != nil && code(err) != chat.CodeSessionNotFound {
					t.Errorf("what came first gives %v", err)
				}
				r.drain(t, s)
				if !strings.HasSuffix(r.bodies(), "SessionEnded") {
					t.Errorf("the reader sees %s", r.bodies())
				}
				stop()
				s.Release()
				if n := h.MemoryStats().Total; n != 0 {
					t.Errorf("%d sessions are in memory", n)
				}
			})
		})
	}
}

// A write of a server that was killed reaches the storage after the server was started again.
func TestLateWriteOfAnEarlierLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &delayed{Memory: storetest.NewMemory()}
		ghost := houseOn(t, store, store.Memory, t.TempDir(), &model{answer: says(0, "yes")}, nil)
		s := ghost.create(t)
		epoch := epochOf(t, s)
		r := newReader(t, s)
		send(t, s, "q1", "hi")
		r.drain(t, s)
		store.set(func(op string, _, _ chat.Claim) bool { return op == "UpdateSession" })
		go func() { _ = s.Update(context.Background(), new("a title that nobody was told of"), nil) }()
		synctest.Wait()
		store.set(nil)
		restarted := openHouse(t, store.Memory, &model{answer: says(0, "yes")}, ghost.copied(t), nil)
		again := restarted.open(t, s.ID())
		if epochOf(t, again) != epoch {
			t.Fatal("the log does not go on")
		}
		resume(t, r, again, epoch)
		if n := store.land(); n != 1 {
			t.Fatalf("%d writes are late", n)
		}
		send(t, again, "q2", "and?")
		r.drain(t, again)
		again.Release()
		restarted.close(t) // cleanly
		third := newHouse(t, store.Memory, &model{answer: says(0, "yes")}, nil)
		last := third.open(t, s.ID())
		if epochOf(t, last) == epoch {
			if _, _, err := last.Attach(&r.last, epoch, 50); err != nil {
				t.Errorf("in the same epoch, with all that it saw up to %d, the reader is told %v", r.last, err)
			}
		}
		last.Release()
		third.close(t)
		s.Release()
		time.Sleep(time.Minute)
		ghost.close(t)
	})
}

// The same, with the end of a session: who ended it is told that it has, and it has not.
func TestEndThatALateWriteStandsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &delayed{Memory: storetest.NewMemory()}
		ghost := houseOn(t, store, store.Memory, t.TempDir(), &model{answer: says(0, "yes")}, nil)
		s := ghost.create(t)
		send(t, s, "q1", "hi")
		synctest.Wait()
		store.set(func(op string, _, _ chat.Claim) bool { return op == "UpdateSession" })
		go func() { _ = s.Update(context.Background(), new("a title that nobody was told of"), nil) }()
		synctest.Wait()
		store.set(nil)
		restarted := openHouse(t, store.Memory, &model{answer: says(0, "yes")}, ghost.copied(t), nil)
		again := restarted.open(t, s.ID())
		store.land()
		if err := again.End(t.Context(), chat.EndedByUser); err != nil {
			t.Fatal(err)
		}
		again.Release()
		record, err := store.Session(t.Context(), s.ID())
		if err != nil || record.Status != chat.SessionStatusEnded {
			t.Errorf("the session that was ended is stored as %s, error %v", record.Status, err)
		}
		restarted.close(t)
		s.Release()
		time.Sleep(time.Minute)
		ghost.close(t)
	})
}

// A server lets go of a session; that hangs, and is done when the session is in use there again.
func TestLateLettingGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &delayed{Memory: storetest.NewMemory()}
		slowly := strings.Split("abcdefghijklmnopqrstuvwxyz", "")
		one := houseOn(t, store, store.Memory, t.TempDir(), &model{answer: says(time.Second, slowly...)}, sharing)
		defer one.close(t)
		two := houseOn(t, store, store.Memory, t.TempDir(), &model{answer: says(0, "yes")}, sharing)
		defer two.close(t)
		s := one.create(t)
		epoch := epochOf(t, s)
		store.set(func(op string, _, to chat.Claim) bool { return op == "ClaimSession" && to.Owner == "" })
		s.Release()
		for store.waiting() == 0 {
			time.Sleep(time.Second)
		}
		time.Sleep(storeTimeout)
		store.set(nil)
		again := one.open(t, s.ID())
		defer again.Release()
		if epochOf(t, again) != epoch {
			store.land()
			return // that is one way
		}
		r := newReader(t, again)
		send(t, again, "q", "hi")
		time.Sleep(3500 * time.Millisecond)
		store.land()
		time.Sleep(8 * time.Second)
		r.drain(t, again)
		held := r.text[r.order[1]]
		other, err := two.Open(t.Context(), s.ID(), anybody)
		if err != nil {
			return // that is another
		}
		defer other.Release()
		if epochOf(t, other) != epoch {
			return // and another
		}
		cursor, opened, err := other.Attach(&r.last, epoch, 50)
		if err != nil {
			t.Errorf("the reader, which has all up to %d of the epoch, is told %v", r.last, err)
			return
		}
		r.cursor = cursor
		r.drain(t, other)
		whole := newReader(t, other)
		whole.drain(t, other)
		if got := whole.text[r.order[1]]; !strings.HasPrefix(got, held) {
			t.Errorf("in the same epoch (%t) the reader holds %q, the server %q", opened.Resumed, held, got)
		}
	})
}

const storeTimeout = 10 * time.Second

// A server that has just started is not gone because others have not heard of it yet.
func TestServerThatHasJustStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		one := newHouse(t, store, &model{}, sharing)
		defer one.close(t)
		synctest.Wait()
		time.Sleep(100 * time.Millisecond)
		two := newHouse(t, store, &model{answer: says(time.Second, "a", "b", "c")}, sharing)
		defer two.close(t)
		s := two.create(t)
		defer s.Release()
		send(t, s, "q", "hi")
		if _, err := one.Open(t.Context(), s.ID(), anybody); code(err) != chat.CodeSessionBusy {
			t.Errorf("a session in use at a server that lives is opened elsewhere: %v", err)
		}
	})
}

// The storage is away from everybody for longer than a lease lasts.
func TestNobodyIsGoneAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &cut{Memory: storetest.NewMemory()}
		one := cutHouse(t, store, &model{answer: says(time.Second, strings.Split(strings.Repeat("a", 60), "")...)})
		defer one.close(t)
		time.Sleep(time.Second) // so that the second renews its lease, and looks at the first one's, a second after that
		two := houseOn(t, store, store.Memory, t.TempDir(), &model{}, sharing)
		defer two.close(t)
		s := one.create(t)
		defer s.Release()
		send(t, s, "q", "hi")
		time.Sleep(3500 * time.Millisecond)
		store.off.Store(true)
		time.Sleep(15 * time.Second)
		store.off.Store(false)
		if _, err := two.Open(t.Context(), s.ID(), anybody); code(err) != chat.CodeSessionBusy {
			t.Errorf("a session in use at a server that lives is opened elsewhere: %v", err)
		}
	})
}

// A session that is old enough to be removed is opened at another server at that moment.
func TestRetentionAndAnotherServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		id := idle(t, store)
		time.Sleep(23*time.Hour + 59*time.Minute)
		two := newHouse(t, store, &model{answer: says(0, "yes")}, sharing)
		defer two.close(t)
		var reached atomic.Pointer[session.Session]
		var once sync.Once
		deleting := &delayedDelete{Memory: store, before: func() {
			once.Do(func() {
				s, _ := two.Open(context.Background(), id, anybody)
				reached.Store(s)
			})
		}}
		one := houseOn(t, deleting, store, t.TempDir(), &model{}, func(c *session.Config) {
			sharing(c)
			c.Retention = 24 * time.Hour
		})
		defer one.close(t)
		time.Sleep(5 * time.Minute)
		opened := reached.Load()
		if opened == nil {
			return
		}
		_, err := opened.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q2", Text: "I am back"})
		if err != nil {
			t.Errorf("who opened it before it was removed is told %v", err)
		}
		opened.Release()
		time.Sleep(time.Hour)
		if n := two.MemoryStats().Total; n != 0 {
			t.Errorf("%d sessions are in memory an hour later", n)
		}
	})
}

type delayedDelete struct {
	*storetest.Memory
	before func()
}

func (d *delayedDelete) DeleteSession(ctx context.Context, id string, since time.Time) error {
	d.before()
	return d.Memory.DeleteSession(ctx, id, since)
}

// A server dies between the end of a response and the record of what it cost, and another one takes its session over.
func TestUsageOfAResponseWhoseServerIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		h := newHouse(t, failing(&down, "AddUsage"), &model{answer: says(0, "yes")}, nil)
		s := h.create(t)
		down.Store(true)
		send(t, s, "q", "hi")
		synctest.Wait()
		if all, err := h.store.Messages(t.Context(), s.ID(), 0, 10); err != nil || len(all) != 2 || all[1].Status != chat.StatusComplete {
			t.Fatalf("stored are %+v, error %v", all, err)
		}
		h2 := openHouse(t, h.store.Clone(), &model{}, t.TempDir(), nil) // without its journal
		h2.open(t, s.ID()).Release()
		synctest.Wait()
		if n, u := billed(t, h2.store); n != 1 {
			t.Errorf("charged are %d responses with %+v, want 1", n, u)
		}
		h2.close(t)
		down.Store(false)
		s.Release()
		h.close(t)
	})
}

// The answer to a checkpoint is lost; before the next one something else is stored, and the server dies.
func TestSumAfterALostCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &lossy{Memory: storetest.NewMemory()}
		h := lossyHouse(t, store, &model{answer: says(0, "yes")}, t.TempDir(), nil)
		s := h.create(t)
		if err := s.Update(t.Context(), new("a title"), nil); err != nil {
			t.Fatal(err)
		}
		var updates atomic.Int64
		store.then(func(_ context.Context, op string) error {
			if op == "UpdateSession" && updates.Add(1) == 1 {
				return errors.New("no answer")
			}
			return nil
		})
		send(t, s, "q", "hi")
		synctest.Wait()
		if err := s.Update(t.Context(), new("another title"), nil); err != nil {
			t.Fatal(err)
		}
		if updates.Load() != 2 {
			t.Fatalf("there were %d updates", updates.Load())
		}
		h2 := h.crashed(t, &model{})
		h2.open(t, s.ID()).Release()
		time.Sleep(5 * time.Minute)
		if n, u := billed(t, h2.store); n != 1 {
			t.Errorf("charged are %d responses with %+v, want 1", n, u)
		}
		record, err := h2.store.Session(t.Context(), s.ID())
		if err != nil || record.Usage.OutputTokens == 0 {
			t.Errorf("the session's sum is %+v, error %v", record.Usage, err)
		}
		h2.close(t)
		s.Release()
		h.close(t)
	})
}

// The answer to letting go is lost, another server takes the session before the attempt that repeats it, and goes on
// with its log, until it lets go, too.
func TestRepeatedLettingGoMeetsTheNextOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &delayed{Memory: storetest.NewMemory()}
		one := houseOn(t, store, store.Memory, t.TempDir(), &model{answer: says(0, "yes")}, sharing)
		defer one.close(t)
		two := houseOn(t, store.Memory, store.Memory, t.TempDir(), &model{answer: says(0, "yes")}, sharing)
		defer two.close(t)
		s := one.create(t)
		epoch := epochOf(t, s)
		r := newReader(t, s)
		send(t, s, "q1", "hi")
		r.drain(t, s)
		var next atomic.Pointer[session.Session]
		store.then(func(_ string, _, to chat.Claim, err error) error {
			if to.Owner != "" || next.Load() != nil || err != nil {
				return err
			}
			opened, err := two.Open(context.Background(), s.ID(), anybody)
			if err != nil {
				return err
			}
			next.Store(opened)
			return chat.ErrStale // as package retry's second attempt is told
		})
		s.Release()
		time.Sleep(10 * time.Second)
		other := next.Load()
		if other == nil {
			t.Fatal("the first server has not let go")
		}
		resume(t, r, other, epoch)
		send(t, other, "q2", "and?")
		r.drain(t, other)
		time.Sleep(10 * time.Minute)
		warned := strings.Count(one.log.String(), "could not be settled")
		if warned > 2 {
			t.Errorf("the first server wants the session back, and warned %d times in ten minutes", warned)
		}
		other.Release()
		time.Sleep(10 * time.Minute)
		last := canOpen(t, two, s.ID(), time.Minute)
		if last == nil {
			return
		}
		defer last.Release()
		if _, opened, err := last.Attach(&r.last, epoch, 50); err != nil || !opened.Resumed {
			t.Errorf("the reader, which has all, is told reset %t, error %v", opened.Reset, err)
		}
	})
}

// While a server removes many old sessions, it lets go of those that nobody needs.
func TestSweepDoesNotHoldUpTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		for i := range 300 { // as after retention was switched on
			s := chat.Session{ID: fmt.Sprint("old", i), Status: chat.SessionStatusActive, CreatedAt: chat.Now(), LastActiveAt: chat.Now()}
			if err := store.CreateSession(t.Context(), &s); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(25 * time.Hour)
		store.Before = func(_ context.Context, op string) error {
			if op == "DeleteSession" {
				time.Sleep(2 * time.Second) // 300 of these last as long as 30,000 that take 20 ms
			}
			return nil
		}
		one := newHouse(t, store, &model{answer: says(0, "yes")}, func(c *session.Config) {
			sharing(c)
			c.Retention = 24 * time.Hour
		})
		defer one.close(t)
		two := newHouse(t, store, &model{answer: says(0, "yes")}, sharing)
		defer two.close(t)
		s := one.create(t)
		send(t, s, "q1", "hi")
		time.Sleep(65 * time.Second)
		s.Release()
		if s := canOpen(t, two, s.ID(), 2*time.Minute); s != nil {
			s.Release()
		}
	})
}

// A server is started again while another one has the sessions of which its journal still holds records.
func TestRecoveredSessionsOfAnotherServer(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprint("let go of ", clean), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := storetest.NewMemory()
				one := newHouse(t, store, &model{answer: says(0, "yes")}, sharing)
				two := newHouse(t, store, &model{answer: says(0, "yes")}, sharing)
				s := one.create(t)
				send(t, s, "q1", "hi")
				synctest.Wait()
				if clean {
					s.Release()
					time.Sleep(10 * time.Second)
				} else {
					takeOver(t, store, s) // another, which is gone
				}
				other := two.open(t, s.ID())
				send(t, other, "q2", "and?")
				synctest.Wait()
				restarted := openHouse(t, store, &model{answer: says(0, "yes")}, one.copied(t), sharing)
				before := restarted.journal.Stats()
				time.Sleep(time.Hour)
				if n := strings.Count(restarted.log.String(), "could not be settled"); n > 2 {
					t.Errorf("it warned %d times in an hour that a session of another server could not be settled", n)
				}
				t.Logf("the journal had %+v and has %+v; it still recovers %d sessions", before, restarted.journal.Stats(), len(restarted.journal.Recovered()))
				other.Release()
				two.close(t)
				restarted.close(t)
				if !clean {
					s.Release()
				}
				one.close(t)
			})
		})
	}
}

// While the storage is frozen a client comes back to a session that is in memory. Where other servers share the storage,
// the server tries to let go of it over and over, and the client waits for that.
func TestComingBackWhileTheStorageIsFrozen(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprint("shared ", shared), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, freeze := frozen()
				h := newHouse(t, store, &model{answer: says(time.Second, "a", "b", "c")}, func(c *session.Config) {
					if shared {
						sharing(c)
					}
				})
				defer h.close(t)
				s := h.create(t)
				send(t, s, "q", "hi")
				time.Sleep(1500 * time.Millisecond)
				freeze(true)
				time.Sleep(2 * time.Second)
				s.Release()
				time.Sleep(time.Minute)
				var longest time.Duration
				for range 10 {
					time.Sleep(8300 * time.Millisecond)
					began := time.Now()
					again := h.open(t, s.ID())
					longest = max(longest, time.Since(began))
					if again != s {
						t.Error("it is another session")
					}
					again.Release()
				}
				if longest > time.Second {
					t.Errorf("it takes %v to come back to a session in memory", longest)
				}
				before := strings.Count(h.log.String(), "\n")
				time.Sleep(10 * time.Minute)
				if n := strings.Count(h.log.String(), "\n") - before; n > 60 {
					t.Errorf("one session is worth %d lines of the log in ten minutes", n)
				}
				freeze(false)
			})
		})
	}
}

// What a title costs is in its session's sum, too, although that could not be stored at once.
func TestSumWithATitleThatCouldNotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		h := newHouse(t, failing(&down, "UpdateSession"), entitled(says(0, "yes"), says(5*time.Second, "Refunds")), byModel)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		send(t, s, "q", "hi")
		time.Sleep(time.Second)
		down.Store(true)
		time.Sleep(10 * time.Second)
		down.Store(false)
		time.Sleep(5 * time.Minute)
		send(t, s, "q2", "hi")
		time.Sleep(time.Minute)
		n, u := billed(t, h.store)
		isBilled(t, h.store, s.ID(), n, u)
	})
}

// One record that cannot be read (of which the key is lost, say) does not keep all others from being removed.
func TestSweepPassesOverWhatItCannotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &unreadable{Memory: storetest.NewMemory(), id: "old1"}
		for i := range 5 {
			at := chat.Now().Add(time.Duration(i) * time.Second)
			s := chat.Session{ID: fmt.Sprint("old", i), Status: chat.SessionStatusActive, CreatedAt: at, LastActiveAt: at}
			if err := store.CreateSession(t.Context(), &s); err != nil {
				t.Fatal(err)
			}
		}
		h := houseOn(t, store, store.Memory, t.TempDir(), &model{}, func(c *session.Config) { c.Retention = 24 * time.Hour })
		defer h.close(t)
		time.Sleep(72 * time.Hour)
		if n, err := store.Count(t.Context()); err != nil || n.Sessions > 1 {
			t.Errorf("two days after their time there are %d sessions, error %v", n.Sessions, err)
		}
	})
}

type unreadable struct {
	*storetest.Memory
	id string
}

func (u *unreadable) Session(ctx context.Context, id string) (chat.Session, error) {
	if id == u.id {
		return chat.Session{}, errors.New("there is no key for it")
	}
	return u.Memory.Session(ctx, id)
}

// A user is erased (the sessions first, then what they cost) while a title is made.
func TestErasureWhileATitleIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), entitled(says(0, "yes"), says(5*time.Second, "Refunds")), byModel)
		defer h.close(t)
		s := h.create(t)
		send(t, s, "q", "hi")
		time.Sleep(time.Second)
		s.Release()
		if err := h.Erase(t.Context(), s.ID(), chat.EndedByAdmin, anybody); err != nil {
			t.Fatal(err)
		}
		if err := h.store.DeleteUsage(t.Context(), chat.UsageFilter{UserID: alice.ID}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n, u := billed(t, h.store); n != 0 {
			t.Errorf("of an erased user there are %d records of usage: %+v", n, u)
		}
	})
}
