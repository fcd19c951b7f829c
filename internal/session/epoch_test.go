package session_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/journal"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/storetest"
)

func epochOf(t *testing.T, s *session.Session) string {
	t.Helper()
	_, opened, err := s.Attach(nil, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	return opened.Epoch
}

func (h *house) open(t *testing.T, id string) *session.Session {
	t.Helper()
	s, err := h.Open(t.Context(), id, anybody)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// crashed gives the house that begins with a copy of the disks as they are now.
func (h *house) crashed(t *testing.T, m *model) *house {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "journal")
	if err := os.CopyFS(dir, os.DirFS(h.dir)); err != nil {
		t.Fatal(err)
	}
	return openHouse(t, h.store.Clone(), m, dir, nil)
}

func TestEpochOutlivesMemoryAndACleanEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "journal")
		h := openHouse(t, storetest.NewMemory(), &model{answer: says(0, "yes")}, dir, nil)
		s := h.create(t)
		id, epoch := s.ID(), epochOf(t, s)
		r := newReader(t, s)
		send(t, s, "q1", "hi")
		r.drain(t, s)
		s.Release()
		time.Sleep(time.Hour)
		if stored, err := h.store.Session(t.Context(), id); err != nil || stored.Claim.Owner != "" || stored.LogEnd != r.last {
			t.Errorf("of the session that has left memory at %d, stored is %+v (%v)", r.last, stored, err)
		}
		s = h.open(t, id)
		if epochOf(t, s) != epoch {
			t.Error("it comes back under another epoch")
		}
		send(t, s, "q2", "hi")
		synctest.Wait()
		s.Release()
		h.close(t)

		// A clean end needs no journal: it goes on wherever the store is.
		elsewhere := newHouse(t, h.store, &model{answer: says(0, "yes")}, nil)
		defer elsewhere.close(t)
		s = elsewhere.open(t, id)
		defer s.Release()
		cursor, opened, err := s.Attach(&r.last, epoch, 50)
		if err != nil || !opened.Resumed || opened.Reset {
			t.Fatalf("after a clean end a reader is told %+v (%v)", opened, err)
		}
		r.cursor = cursor
		r.drain(t, s)
		if len(r.order) != 4 || r.text[r.order[3]] != "yes" || len(r.done) != 2 {
			t.Errorf("the reader holds %v", r.text)
		}
	})
}

func TestCrashKeepsEveryCharacterThatWasShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(100*time.Millisecond, strings.Split("abcdefghij", "")...)}, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		r := newReader(t, s)
		send(t, s, "q", "hi")
		time.Sleep(550 * time.Millisecond) // before the first checkpoint
		r.drain(t, s)
		if got := r.text[r.order[1]]; got != "abcde" {
			t.Fatalf("the reader holds %q", got)
		}
		h2 := h.crashed(t, &model{answer: says(0, "yes")})
		defer h2.close(t)
		again := h2.open(t, s.ID())
		defer again.Release()
		cursor, opened, err := again.Attach(&r.last, epochOf(t, s), 50)
		if err != nil || !opened.Resumed || opened.InProgress != "" {
			t.Fatalf("the reader is told %+v (%v)", opened, err)
		}
		r.cursor = cursor
		r.drain(t, again)
		end := r.answer(t)
		if end.Status != chat.StatusInterrupted || end.Length != 5 || end.Error != nil {
			t.Errorf("the response ends as %+v", end)
		}
		stored, err := h2.store.Message(t.Context(), s.ID(), end.MessageID)
		if err != nil || stored.Text != "abcde" || stored.Status != chat.StatusInterrupted {
			t.Errorf("stored is %+v (%v)", stored, err)
		}
		if err := again.Retry(t.Context(), false); err != nil {
			t.Errorf("a retry gives %v", err)
		}
		synctest.Wait()
	})
}

// What the store says of an end is true, whatever the journal says.
func TestReplayPrefersTheStoresEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: hangs}, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		r := newReader(t, s)
		send(t, s, "q", "hi")
		time.Sleep(2 * time.Second)
		r.drain(t, s)
		h2 := h.crashed(t, &model{})
		defer h2.close(t)
		whole, err := h2.store.Message(t.Context(), s.ID(), r.order[1])
		if err != nil {
			t.Fatal(err)
		}
		whole.Status, whole.FinishReason = chat.StatusComplete, chat.FinishStop
		_ = h2.store.UpdateMessage(t.Context(), s.ID(), s.Record().Claim, whole) // settling may have been faster
		again := h2.open(t, s.ID())
		defer again.Release()
		stored, err := h2.store.Message(t.Context(), s.ID(), whole.ID)
		if err != nil {
			t.Fatal(err)
		}
		cursor, _, err := again.Attach(&r.last, epochOf(t, s), 50)
		if err != nil {
			t.Fatal(err)
		}
		r.cursor = cursor
		r.drain(t, again)
		if end := r.answer(t); end.Status != stored.Status {
			t.Errorf("the log says %s, the store %s", end.Status, stored.Status)
		}
	})
}

func TestFullJournalFailsTheTurnAndBeginsANewEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		big := strings.Repeat("x", 9000)
		pieces := make([]string, 20)
		for i := range pieces {
			pieces[i] = big
		}
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(time.Second, pieces...)}, func(c *session.Config) { c.CheckpointInterval = time.Hour })
		defer h.close(t)
		j, err := journal.Open(journal.Config{Path: t.TempDir(), MaxBytes: 80_000, StoreID: h.store.ID()}, h.logger())
		if err != nil {
			t.Fatal(err)
		}
		small := session.NewManager(testConfig(), h.store, j, h.model.pool(), h.logger())
		defer func() {
			if err := errors.Join(small.Close(context.Background()), j.Close()); err != nil {
				t.Error(err)
			}
		}()
		s, err := small.Create(alice.ID, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		epoch := epochOf(t, s)
		r := newReader(t, s)
		woken := 0
		defer s.Notify(func() { woken++ })()
		send(t, s, "q", "hi")
		time.Sleep(6500 * time.Millisecond)
		r.drain(t, s)
		time.Sleep(time.Minute)
		r.drain(t, s)
		if !s.Lost() || len(r.done) != 0 || woken == 0 {
			t.Fatalf("the session is lost: %v; the reader saw %d ends and was woken %d times", s.Lost(), len(r.done), woken)
		}
		held := r.text[r.order[1]]
		stored, err := h.store.Message(t.Context(), s.ID(), r.order[1])
		if err != nil || stored.Status != chat.StatusFailed || stored.Error.Code != chat.CodeStorageUnavailable ||
			!strings.HasPrefix(stored.Text, held) || len(held) < 50_000 {
			t.Errorf("of the response, of which %d bytes were shown, stored is %s with %d bytes (%v)", len(held), stored.Status, len(stored.Text), err)
		}
		s.Release()

		again, err := small.Open(t.Context(), s.ID(), anybody)
		if code(err) == chat.CodeStorageUnavailable {
			synctest.Wait() // there was no room yet
			again, err = small.Open(t.Context(), s.ID(), anybody)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer again.Release()
		time.Sleep(5 * time.Second)
		if n := j.Stats().Bytes; n > 10_000 {
			t.Errorf("the journal keeps %d bytes of what was given up", n)
		}
		_, opened, err := again.Attach(&r.last, epoch, 50)
		if err != nil || !opened.Reset || opened.Epoch == epoch {
			t.Errorf("the reader that comes back is told %+v (%v)", opened, err)
		}
		fresh := newReader(t, again)
		fresh.drain(t, again)
		if len(fresh.order) != 2 || fresh.text[fresh.order[1]] != stored.Text {
			t.Errorf("in the new epoch there are %d messages", len(fresh.order))
		}
	})
}

// Two servers on one store: the one that claims a session last has it, and the other finds out before it does harm.
func TestSessionThatAnotherServerClaimsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storetest.NewMemory()
		one := newHouse(t, store, &model{answer: hangs}, nil)
		defer one.close(t)
		two := newHouse(t, store, &model{answer: says(0, "yes")}, nil)
		defer two.close(t)
		s := one.create(t)
		defer s.Release()
		r := newReader(t, s)
		send(t, s, "q1", "hi")
		time.Sleep(3 * time.Second)
		r.drain(t, s)

		if _, err := two.Open(t.Context(), s.ID(), anybody); code(err) != chat.CodeSessionBusy {
			t.Errorf("a session of a server that is alive is opened on another: %v", err)
		}
		one.seemsGone(t)
		time.Sleep(time.Second)
		other := two.open(t, s.ID())
		defer other.Release()
		if epochOf(t, other) == epochOf(t, s) {
			t.Error("both have the same epoch")
		}
		send(t, other, "q2", "hi")
		synctest.Wait()
		if err := s.Update(t.Context(), new("mine"), nil); code(err) != chat.CodeSessionBusy {
			t.Errorf("the first server changes the record: %v", err)
		}
		synctest.Wait()
		if !s.Lost() || one.Running() != 0 {
			t.Errorf("the first server has not given the session up")
		}
		if _, err := s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q3", Text: "hi"}); code(err) != chat.CodeSessionBusy {
			t.Errorf("a message to the first server gives %v", err)
		}
		all, err := store.Messages(t.Context(), s.ID(), 0, 100)
		if err != nil || len(all) != 4 || all[1].Status != chat.StatusInterrupted || all[1].Text != "well" {
			t.Errorf("stored are %+v (%v)", all, err)
		}
	})
}

// A message of a former owner that came late has a number that is needed. It is found when the session is loaded.
func TestNumberThatIsTakenIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		if err := h.store.InsertMessage(t.Context(), s.ID(), s.Record().Claim, chat.Message{ID: "theirs", N: 1, Role: chat.RoleUser, Status: chat.StatusComplete, Author: &alice}); err != nil {
			t.Fatal(err)
		}
		send(t, s, "mine", "hi")
		synctest.Wait()
		s.Release()
		h2 := h.crashed(t, &model{})
		defer h2.close(t)
		again := h2.open(t, s.ID())
		defer again.Release()
		r := newReader(t, again)
		r.drain(t, again)
		if len(r.order) != 3 || r.order[0] != "mine" || r.order[2] != "theirs" {
			t.Errorf("the reader gets %v", r.order)
		}
	})
}

// While the journal takes nothing, nothing is accepted that could not be shown.
func TestJournalThatIsDownRefusesMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(0, "yes")}, nil)
		s := h.create(t)
		if err := h.journal.Close(); err != nil {
			t.Fatal(err)
		}
		_, err := s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q", Text: "hi"})
		if code(err) != chat.CodeStorageUnavailable || !chat.CodeStorageUnavailable.Retryable() {
			t.Errorf("sending gives %v", err)
		}
		if err := s.Retry(t.Context(), false); code(err) != chat.CodeStorageUnavailable {
			t.Errorf("retrying gives %v", err)
		}
		if err := s.Update(t.Context(), new("title"), nil); code(err) != chat.CodeStorageUnavailable {
			t.Errorf("changing the title gives %v", err)
		}
		if n := len(h.model.calls()); n != 0 {
			t.Errorf("the model was asked %d times", n)
		}
		if stored, err := h.store.Messages(t.Context(), s.ID(), 0, 10); err != nil || len(stored) != 0 {
			t.Errorf("stored are %v (%v)", stored, err)
		}
		s.Release()
		_ = h.Close(context.Background())
	})
}

// A takeover does not outlive the server, and readers that go on are told so.
func TestCrashEndsATakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{}, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		r := newReader(t, s)
		if err := s.Join(t.Context(), ann); err != nil {
			t.Fatal(err)
		}
		r.drain(t, s)
		h2 := h.crashed(t, &model{})
		defer h2.close(t)
		again := h2.open(t, s.ID())
		defer again.Release()
		var err error
		if r.cursor, _, err = again.Attach(&r.last, epochOf(t, s), 50); err != nil {
			t.Fatal(err)
		}
		if r.assistedBy != ann.ID {
			t.Fatalf("before the crash %q assists", r.assistedBy)
		}
		r.drain(t, again)
		if r.assistedBy != "" {
			t.Errorf("after the crash %q assists", r.assistedBy)
		}
	})
}

// Compaction keeps of the changes of a session what they have come to.
func TestOldChangesAreToldAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{}, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		early := newReader(t, s)
		for i := range 50 {
			if err := s.Update(t.Context(), new(fmt.Sprint("title ", i)), nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Join(t.Context(), ann); err != nil {
			t.Fatal(err)
		}
		if err := s.LeaveAgent(t.Context(), ann.ID, func() bool { return false }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		early.assistedBy = ann.ID
		early.drain(t, s)
		if len(early.seen) != 1 || early.last != 52 || early.title != "title 49" || early.assistedBy != "" {
			t.Errorf("a reader from the beginning gets %d events up to %d: %q", len(early.seen), early.last, early.title)
		}
	})
}
