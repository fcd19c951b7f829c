//go:build unix

package acceptance_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/parley-chat/parley/chat"
)

// kills is how often a test kills the server; PARLEY_TEST_KILLS says it otherwise.
func kills(t *testing.T) int {
	t.Helper()
	text := os.Getenv("PARLEY_TEST_KILLS")
	if text == "" {
		return 30
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("PARLEY_TEST_KILLS is %q, and has to be a number above 0", text)
	}
	return n
}

// TestKillLosesNothing kills the server with SIGKILL at random moments, while many clients read answers. Each goes on
// from its cursor without a reset, what it holds is never taken back, and in the end all that it was receipted is there
// once: in what it holds, in the log and in the store.
func TestKillLosesNothing(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("paced-400-1ms", "words-30"))
	people := survives(t, s, kills(t), 12, false)
	compareWithStore(t, s.openStore(), people)
}

// survives kills a server n times while people talk to it, and ends it. In a rough world its storage fails, too.
func survives(t *testing.T, s *server, n, clients int, rough bool) []*survivor {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("the seed is %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	var frames atomic.Int64
	var people []*survivor
	for i := range clients {
		model := "paced-400-1ms"
		if i%3 == 0 {
			model = "words-30"
		}
		people = append(people, &survivor{
			server: s, name: fmt.Sprint("user", i), model: model, frames: &frames, seen: make(map[int64]string),
			rough: rough,
		})
	}
	for range n {
		target := frames.Load() + 20 + random.Int64N(600)
		reached := make(chan struct{})
		stop := sync.OnceFunc(func() { close(reached) })
		var talking sync.WaitGroup
		for _, p := range people {
			talking.Go(func() {
				defer stop() // should all fail
				p.talk(t, func() {
					if frames.Load() >= target {
						stop()
					}
				})
			})
		}
		<-reached
		if err := s.cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.wait()
		talking.Wait()
		if t.Failed() {
			t.FailNow()
		}
		s.start()
		if _, found := s.findLog("the journal cannot be trusted and begins a new life: clients that come back are reset"); found {
			t.Fatal("the journal is not trusted after a kill")
		}
	}
	for _, p := range people {
		p.finish(t)
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("the server ends with %d", code)
	}
	t.Logf("%d kills, %d clients, %d frames", n, len(people), frames.Load())
	return people
}

// survivor is a user who goes on whatever happens to the server.
type survivor struct {
	server *server
	name   string
	model  string
	frames *atomic.Int64
	rough  bool // the storage fails, too, and may say so

	refusals int

	client   *client          // as it was when the connection broke; nil: it has never been connected
	asked    int              // how many messages it has sent
	receipts int              // and how many of them it has the receipt of
	seen     map[int64]string // whose message a seq was, when it was read
}

// connect connects and goes on where the connection broke.
func (p *survivor) connect(t *testing.T) (*client, error) {
	c, _, err := p.server.tryDial(token(p.name), nil)
	if err != nil {
		return nil, err
	}
	open := []any{"model", p.model}
	if old := p.client; old != nil && old.session != "" {
		c.session, c.epoch, c.last = old.session, old.epoch, old.last
		c.text, c.status, c.order = old.text, old.status, old.order
		open = []any{"session_id", old.session, "after", old.last, "epoch", old.epoch}
	}
	resumes := len(open) > 2
	epoch := c.epoch
	if err := c.trySend("session.open", open...); err != nil {
		return nil, err
	}
	opened, err := c.read(patience)
	if err != nil {
		return nil, err
	}
	if p.rough && opened.str("type") == "error" && opened.at("error", "retryable") == true {
		c.conn.CloseNow()
		p.refusals++
		if p.refusals > 10_000 {
			t.Errorf("%s is refused again and again, now with %v", p.name, opened)
			return nil, errors.New("refused")
		}
		return p.connect(t)
	}
	if opened.str("type") != "session.opened" || opened["resumed"] != resumes || opened["reset"] != false ||
		resumes && opened.str("epoch") != epoch {
		t.Errorf("%s, which holds %d events of epoch %s, is answered with %v", p.name, c.last, epoch, opened)
	}
	p.client = c
	return c, nil
}

// talk asks and reads until the connection breaks, which it does when the server is killed.
func (p *survivor) talk(t *testing.T, progress func()) {
	c, err := p.connect(t)
	if err != nil {
		return
	}
	if p.asked > p.receipts {
		err = p.ask(c) // once more: the receipt did not come
	} else if !p.waiting(c) {
		p.asked++
		err = p.ask(c)
	}
	for err == nil {
		if err = p.read(t, c); err != nil {
			return
		}
		progress()
		if p.asked == p.receipts && !p.waiting(c) {
			p.asked++
			err = p.ask(c)
		}
	}
}

func (p *survivor) ask(c *client) error {
	id := fmt.Sprintf("%s-%d", p.name, p.asked)
	return c.trySend("message.send", "message_id", id, "text", "This is "+id)
}

// waiting reports whether an answer is still to come, or to end.
func (p *survivor) waiting(c *client) bool {
	if len(c.order) == 0 {
		return false
	}
	last := c.order[len(c.order)-1]
	return c.status[last] == "streaming" || p.isMine(last)
}

func (p *survivor) isMine(id string) bool { return len(id) > len(p.name) && id[:len(p.name)] == p.name }

func (p *survivor) read(t *testing.T, c *client) error {
	f, err := c.read(patience)
	if err != nil {
		return err
	}
	p.frames.Add(1)
	switch f.str("type") {
	case "error":
		switch code := f.str("error", "code"); {
		case code == "response_in_progress":
			// Its question was stored, and is answered, after all: the receipt comes.
		case p.rough && (code == "storage_unavailable" || code == "session_busy"):
			if p.asked > p.receipts {
				return p.ask(c)
			}
		default:
			t.Errorf("%s is told %v", p.name, f)
		}
	case "message.created":
		if id := f.str("message", "id"); id == fmt.Sprintf("%s-%d", p.name, p.asked) {
			p.receipts = p.asked
		}
	}
	if seq := f.num("seq"); seq > 0 && f["repeat"] != true {
		id := f.str("message_id") + f.str("message", "id")
		if before, ok := p.seen[seq]; ok && before != id {
			t.Errorf("to %s, seq %d was of message %s and is of %s", p.name, seq, before, id)
		}
		p.seen[seq] = id
	}
	return nil
}

// finish reads to the end of the last answer.
func (p *survivor) finish(t *testing.T) {
	t.Helper()
	c, err := p.connect(t)
	if err != nil {
		t.Fatal(err)
	}
	if p.asked > p.receipts {
		if err := p.ask(c); err != nil {
			t.Fatal(err)
		}
	}
	for p.asked > p.receipts || p.waiting(c) {
		if err := p.read(t, c); err != nil {
			t.Fatalf("%s: %v", p.name, err)
		}
	}
	p.compareWithLog(t)
}

// compareWithLog has somebody else read the whole log, and compares: the text, and which message each seq is of.
func (p *survivor) compareWithLog(t *testing.T) {
	t.Helper()
	c := p.server.dial(token("observer of "+p.name, "admin"))
	opened := c.open("session_id", p.client.session, "as", "observer", "after", 0, "epoch", p.client.epoch)
	if opened["resumed"] != true {
		t.Errorf("an observer from the beginning is told %v", opened)
	}
	for c.last < opened.num("seq") {
		f := c.next()
		id := f.str("message_id") + f.str("message", "id")
		if before, ok := p.seen[f.num("seq")]; ok && before != id {
			t.Errorf("to %s, seq %d was of message %s, in the log it is of %s", p.name, f.num("seq"), before, id)
		}
	}
	if got, want := hashOf(c.text), hashOf(p.client.text); got != want {
		t.Errorf("%s holds %d messages (%s), the log has %d (%s)", p.name, len(p.client.text), want, len(c.text), got)
	}
}

// hashOf sums up texts by their messages.
func hashOf(text map[string]string) string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, text)))[:12]
}

// compareWithStore compares what clients hold with what the store has.
func compareWithStore(t *testing.T, store chat.Store, people []*survivor) {
	t.Helper()
	answers := make(map[chat.Status]int)
	for _, p := range people {
		stored, err := store.Messages(t.Context(), p.client.session, 0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		texts, questions := make(map[string]string), 0
		for _, m := range stored {
			texts[m.ID] = m.Text
			if m.Role == chat.RoleUser {
				questions++
			} else {
				answers[m.Status]++
			}
			if got := p.client.status[m.ID]; got != string(m.Status) {
				t.Errorf("to %s, message %s is %q, stored it is %q", p.name, m.ID, got, m.Status)
			}
		}
		if questions != p.asked {
			t.Errorf("%s has asked %d times, stored are %d", p.name, p.asked, questions)
		}
		if got, want := hashOf(texts), hashOf(p.client.text); got != want {
			t.Errorf("%s holds %d messages (%s), stored are %d (%s)", p.name, len(p.client.text), want, len(texts), got)
		}
	}
	t.Logf("answers: %v", answers)
	if answers[chat.StatusInterrupted] == 0 || answers[chat.StatusComplete] == 0 {
		t.Errorf("no kill fell into an answer, or each one did: %v", answers)
	}
}

// TestKillWithoutJournal kills the server and removes its journal: clients are told to drop what they hold.
func TestKillWithoutJournal(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("gate-20"))
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q", "text", "hi")
	up.release(t, 10)
	c.untilWords(1)
	held := c.text[c.order[1]]
	s.stop(syscall.SIGKILL)
	if err := os.RemoveAll(filepath.Join(s.dir, "parley.db.events")); err != nil {
		t.Fatal(err)
	}
	s.start()

	again := s.dial(token("alice"))
	opened := again.resume(c)
	if opened["reset"] != true || opened["resumed"] != false || again.epoch == c.epoch {
		t.Fatalf("without a journal a client that comes back is told %v", opened)
	}
	for again.last < opened.num("seq") {
		again.next()
	}
	if len(again.order) != 2 || again.status[again.order[1]] != "interrupted" {
		t.Errorf("after the reset there are %v: %v", again.order, again.status)
	}
	t.Logf("held before: %d bytes, after: %d", len(held), len(again.text[again.order[1]]))
	if f := again.sendRefused("session.open", "session_id", again.session, "after", 1<<40, "epoch", again.epoch); f.str("error", "code") != "invalid_message" {
		t.Errorf("an after beyond the end is answered with %v", f)
	}
}
