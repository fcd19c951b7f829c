package session_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/storetest"
)

// TestEveryReaderHoldsTheSame lets a session live through everything at random: responses, edits of its record, takeovers,
// compaction, leaving memory, crashes with and without the journal. Readers come, read a while, are cut and go on. Each
// seq must come once and in order, what a reader holds is never taken back within an epoch, and in the end all hold what
// the store has.
func TestEveryReaderHoldsTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(hasty{t}, func(r *rapid.T) {
			w := newWorld(r, t.TempDir())
			defer w.close()
			r.Repeat(map[string]func(*rapid.T){
				"ask":     w.ask,
				"say":     w.say,
				"finish":  w.finish,
				"title":   w.title,
				"assist":  w.assist,
				"agent":   w.agentSays,
				"join":    w.join,
				"read":    w.read,
				"cut":     w.cut,
				"resume":  w.resume,
				"compact": w.compact,
				"evict":   w.evict,
				"crash":   w.crash,
				"burn":    w.burn,
				"many":    w.many,
				"trouble": w.trouble,
				"calm":    w.calm,
				"wait":    func(*rapid.T) { time.Sleep(1500 * time.Millisecond); synctest.Wait() },
			})
			w.check()
		})
	})
}

// hasty hides the test's deadline, for which one must not ask in a bubble. Rapid then gives itself a day; so the sessions
// here have little patience.
type hasty struct{ rapid.TB }

// world is one session in a server, and those who read it.
type world struct {
	r       *rapid.T
	dir     string
	lives   int
	h       *house
	chunks  chan chat.Chunk
	id      string
	s       *session.Session
	readers []*follower
	asked   int
	agent   bool
	faults  faults
	resend  []chat.SendMessage

	peaceful bool // the store never fails
	troubled bool // a change of the record may be stored whose answer was lost
}

// faults is what goes wrong with the store at present.
type faults struct {
	mu   sync.Mutex
	rnd  *rand.Rand
	rate int // of 100; 0: none
	kind int
}

func (f *faults) hit(kind int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rate > 0 && f.kind&kind != 0 && f.rnd.IntN(100) < f.rate
}

func (f *faults) on() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rate > 0
}

func (w *world) trouble(r *rapid.T) {
	if w.peaceful {
		r.Skip()
	}
	seed := rapid.Uint64().Draw(r, "seed")
	w.faults.mu.Lock()
	defer w.faults.mu.Unlock()
	w.troubled = true
	w.faults.rnd = rand.New(rand.NewPCG(seed, 1))
	w.faults.rate = rapid.SampledFrom([]int{20, 50, 100}).Draw(r, "rate")
	w.faults.kind = rapid.IntRange(1, 7).Draw(r, "kind")
}

func (w *world) calm(*rapid.T) {
	w.faults.mu.Lock()
	defer w.faults.mu.Unlock()
	w.faults.rate = 0
}

// refused takes an error that the trouble explains.
func (w *world) refused(err error) bool {
	return err != nil && code(err) == chat.CodeStorageUnavailable && w.faults.on()
}

// follower is a client that may be cut off and come back.
type follower struct {
	reader
	epoch     string
	connected bool
}

// begin has the reader drop what it holds.
func (f *follower) begin(cursor session.Cursor, opened chat.SessionOpened) {
	f.reader = emptyReader(cursor)
	f.title = opened.Session.Title
	f.assisted(opened.Session.AssistedBy)
}

func newWorld(r *rapid.T, dir string) *world {
	w := &world{r: r, dir: dir, chunks: make(chan chat.Chunk), peaceful: rapid.Bool().Draw(r, "peaceful")}
	w.start(storetest.NewMemory())
	s, err := w.h.Create(alice.ID, "", nil)
	if err != nil {
		r.Fatal(err)
	}
	w.id, w.s = s.ID(), s
	w.newFollower(50)
	return w
}

// start begins a life of the server on what the one before has left on its disks.
func (w *world) start(store *storetest.Memory) {
	w.lives++
	m := &model{answer: func(ctx context.Context, _ chat.Request) iter.Seq2[chat.Chunk, error] {
		return func(yield func(chat.Chunk, error) bool) {
			for {
				select {
				case c := <-w.chunks:
					if !yield(c, nil) || c.FinishReason != "" {
						return
					}
				case <-ctx.Done():
					yield(chat.Chunk{}, ctx.Err())
					return
				}
			}
		}
	}}
	store.Before = func(ctx context.Context, op string) error {
		if w.faults.hit(1) {
			return errors.New("injected: not done " + op)
		}
		if w.faults.hit(2) {
			time.Sleep(700 * time.Millisecond)
		}
		return nil
	}
	l := &lossy{Memory: store, after: func(_ context.Context, op string) error {
		if w.faults.hit(4) {
			return errors.New("injected: answer lost " + op)
		}
		return nil
	}}
	w.h = lossyHouse(w.r, l, m, w.journalDir(), func(c *session.Config) {
		c.IdleTimeout, c.GracePeriod, c.CleanupInterval = 5*time.Second, 5*time.Second, time.Second
		c.MaxResponseTimes = 3
	})
}

func (w *world) journalDir() string { return filepath.Join(w.dir, fmt.Sprint("journal", w.lives)) }

func (w *world) close() {
	w.calm(nil)
	w.release()
	w.h.close(w.r)
}

func (w *world) release() {
	for _, f := range w.readers {
		f.connected = false
	}
	if w.s != nil {
		w.s.Release()
		w.s = nil
	}
	synctest.Wait()
}

// session opens the session where it is not open.
func (w *world) session() *session.Session {
	if w.s != nil && w.s.Lost() {
		w.r.Fatalf("the session is lost:\n%s", w.h.log)
	}
	if w.s == nil {
		s, err := w.h.Open(context.Background(), w.id, anybody)
		for i := 0; i < 10 && w.refused(err); i++ {
			if i == 5 {
				w.calm(nil)
			}
			time.Sleep(100 * time.Millisecond)
			s, err = w.h.Open(context.Background(), w.id, anybody)
		}
		if err != nil {
			w.r.Fatalf("opening: %v", err)
		}
		w.s, w.agent = s, false
		synctest.Wait()
	}
	return w.s
}

func (w *world) newFollower(history int) {
	cursor, opened, err := w.session().Attach(nil, "", history)
	if err != nil {
		w.r.Fatal(err)
	}
	f := &follower{epoch: opened.Epoch, connected: true}
	f.begin(cursor, opened)
	w.readers = append(w.readers, f)
}

func (w *world) ask(r *rapid.T) {
	w.asked++
	_, err := w.session().Send(context.Background(), alice, chat.RoleUser, chat.SendMessage{
		MessageID: fmt.Sprint("q", w.asked), Text: "question", Interrupt: rapid.Bool().Draw(r, "interrupt"),
	})
	if w.refused(err) {
		w.resend = append(w.resend, chat.SendMessage{MessageID: fmt.Sprint("q", w.asked), Text: "question", Interrupt: true})
		return
	}
	if err != nil && code(err) != chat.CodeResponseInProgress {
		r.Fatal(err)
	}
	synctest.Wait()
}

func (w *world) say(r *rapid.T) {
	for range rapid.IntRange(1, 5).Draw(r, "chunks") {
		c := chat.Chunk{Text: rapid.StringN(1, 8, 20).Draw(r, "text")}
		if rapid.IntRange(0, 3).Draw(r, "kind") == 0 {
			c.Reasoning, c.Text = c.Text, ""
		}
		w.chunk(c)
	}
	synctest.Wait()
}

// chunk has the model say something, if it is asked.
func (w *world) chunk(c chat.Chunk) {
	select {
	case w.chunks <- c:
	case <-time.After(time.Millisecond):
	}
}

func (w *world) finish(*rapid.T) {
	w.chunk(chat.Chunk{FinishReason: chat.FinishStop})
	synctest.Wait()
}

func (w *world) title(r *rapid.T) {
	title := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "title")
	if err := w.session().Update(context.Background(), &title, nil); err != nil && !w.refused(err) {
		r.Fatal(err)
	}
	synctest.Wait()
}

var ann = chat.Author{ID: "ann", Name: "Ann"}

func (w *world) assist(r *rapid.T) {
	s := w.session()
	var err error
	if w.agent = !w.agent; w.agent {
		err = s.Join(context.Background(), ann)
	} else {
		err = s.LeaveAgent(context.Background(), ann.ID, func() bool { return false })
	}
	if w.refused(err) {
		w.agent = w.s.Record().AssistedBy != nil
		err = nil
	}
	if err != nil {
		r.Fatal(err)
	}
	synctest.Wait()
}

func (w *world) agentSays(r *rapid.T) {
	if w.session(); w.agent {
		w.asked++
		if _, err := w.s.Send(context.Background(), ann, chat.RoleAgent, chat.SendMessage{
			MessageID: fmt.Sprint("a", w.asked), Text: "from the agent",
		}); w.refused(err) {
			w.resend = append(w.resend, chat.SendMessage{MessageID: fmt.Sprint("a", w.asked), Text: "from the agent"})
		} else if err != nil {
			r.Fatal(err)
		}
		synctest.Wait()
	}
}

// many has the agent say more than a session keeps in memory.
func (w *world) many(r *rapid.T) {
	if rapid.IntRange(0, 9).Draw(r, "seldom") > 0 {
		r.Skip()
	}
	if w.session(); !w.agent {
		w.assist(r)
	}
	for range 150 {
		w.agentSays(r)
	}
}

func (w *world) join(r *rapid.T) {
	if len(w.readers) < 6 {
		w.newFollower(rapid.IntRange(0, 200).Draw(r, "history"))
	}
}

func (w *world) pick(r *rapid.T) *follower {
	return w.readers[rapid.IntRange(0, len(w.readers)-1).Draw(r, "reader")]
}

func (w *world) read(r *rapid.T) {
	f := w.pick(r)
	if !f.connected {
		return
	}
	for range rapid.IntRange(1, 10).Draw(r, "events") {
		e, ok, err := w.s.Read(&f.cursor)
		if w.refused(err) {
			return
		}
		if err != nil {
			r.Fatal(err)
		}
		if !ok {
			return
		}
		f.take(r, e)
	}
}

func (w *world) cut(r *rapid.T) { w.pick(r).connected = false }

func (w *world) resume(r *rapid.T) { w.bringBack(w.pick(r)) }

// bringBack has a reader come back with what it knows.
func (w *world) bringBack(f *follower) {
	if f.connected {
		return
	}
	cursor, opened, err := w.session().Attach(&f.last, f.epoch, 50)
	if err != nil {
		w.r.Fatalf("a reader that comes back after %d: %v", f.last, err)
	}
	if opened.Reset != (f.epoch != opened.Epoch) || opened.Resumed == opened.Reset {
		w.r.Fatalf("a reader of epoch %s comes back to %+v", f.epoch, opened)
	}
	if opened.Reset {
		f.begin(cursor, opened)
	}
	f.cursor, f.epoch, f.connected = cursor, opened.Epoch, true
}

func (w *world) compact(*rapid.T) {
	time.Sleep(40 * time.Second)
	synctest.Wait()
}

func (w *world) evict(r *rapid.T) {
	if w.s == nil || w.s.Responding() {
		return
	}
	epoch := w.attachEpoch()
	if rapid.Bool().Draw(r, "calmly") {
		w.calm(nil)
	}
	w.release()
	time.Sleep(15 * time.Second)
	synctest.Wait()
	if total := w.h.MemoryStats().Total; total != 0 && !w.faults.on() {
		r.Fatalf("%d sessions are in memory", total)
	}
	w.session()
	if got := w.attachEpoch(); got != epoch {
		r.Fatal("a session that has left memory comes back under another epoch")
	}
}

func (w *world) attachEpoch() string {
	_, opened, err := w.s.Attach(nil, "", 0)
	if err != nil {
		w.r.Fatal(err)
	}
	return opened.Epoch
}

// crash ends the server's life in the middle of whatever it does: another one begins with a copy of its disks.
func (w *world) crash(r *rapid.T) {
	w.session()
	epoch := w.attachEpoch()
	w.restart(r, true)
	w.session()
	if w.attachEpoch() != epoch {
		r.Fatalf("after a crash there is another epoch:\n%s", w.h.log)
	}
}

// burn is a crash that takes the journal along.
func (w *world) burn(r *rapid.T) {
	w.session()
	epoch := w.attachEpoch()
	w.restart(r, false)
	w.session()
	if w.attachEpoch() == epoch {
		r.Fatal("without its journal a session goes on under the same epoch")
	}
}

func (w *world) restart(r *rapid.T, journal bool) {
	old, oldDir, store := w.h, w.journalDir(), w.h.store.Clone()
	copied := filepath.Join(w.dir, fmt.Sprint("journal", w.lives+1))
	if journal {
		if err := os.CopyFS(copied, os.DirFS(oldDir)); err != nil {
			r.Fatal(err)
		}
	}
	w.release()
	was := w.faults.rate
	w.calm(nil)
	old.close(r)
	w.faults.rate = was
	w.start(store)
}

// check has every reader come back and read to the end.
func (w *world) check() {
	w.calm(nil)
	s := w.session()
	for _, cmd := range w.resend {
		author, role := alice, chat.RoleUser
		if cmd.MessageID[0] == 'a' {
			author, role = ann, chat.RoleAgent
		}
		if _, err := s.Send(context.Background(), author, role, cmd); err != nil {
			w.r.Fatalf("sending %s again: %v", cmd.MessageID, err)
		}
		synctest.Wait()
	}
	w.finish(w.r)
	synctest.Wait()
	time.Sleep(5 * time.Second)
	synctest.Wait()
	stored, err := w.h.store.Messages(context.Background(), w.id, 0, 1<<20)
	if err != nil {
		w.r.Fatal(err)
	}
	want := make(map[string]string)
	for _, m := range stored {
		want[m.ID] = m.Text
		if m.Status == chat.StatusStreaming {
			w.r.Errorf("message %s is streaming to the end", m.ID)
		}
	}
	for _, f := range w.readers {
		w.bringBack(f)
		f.drain(w.r, s)
		record, assistedBy := s.Record(), ""
		if record.AssistedBy != nil {
			assistedBy = record.AssistedBy.ID
		}
		if !w.troubled && (f.title != record.Title || f.assistedBy != assistedBy) {
			w.r.Errorf("to a reader the title is %q and %q assists, it is %q and %q", f.title, f.assistedBy, record.Title, assistedBy)
		}
		for id, text := range f.text {
			if want[id] != text {
				w.r.Errorf("a reader holds %q of %s, the store %q", text, id, want[id])
			}
		}
	}
	all := readAll(w.r, s)
	if !maps.Equal(all.text, want) {
		for _, m := range stored {
			if text, held := all.text[m.ID]; !held || text != m.Text {
				w.r.Errorf("of message %s (n %d, seq %d, %s) the log gives %q, the store %q", m.ID, m.N, m.Seq, m.Status, text, m.Text)
			}
		}
		w.r.Errorf("the log gives %d messages, the store has %d, or they differ:\n%s", len(all.text), len(want), w.h.log)
	}
	if r := s.Record(); len(r.ResponseTimes) > 3 {
		w.r.Errorf("there are %d response times", len(r.ResponseTimes))
	}
}

// readAll reads the log from its very beginning.
func readAll(t testingT, s *session.Session) *reader {
	_, opened, err := s.Attach(nil, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	cursor, _, err := s.Attach(new(int64), opened.Epoch, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := emptyReader(cursor)
	all.drain(t, s)
	return &all
}
