package session_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/journal"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var alice = chat.Author{ID: "alice", Name: "Alice"}

// model is the provider of two models, "m" and "n", which answers as a test tells it.
type model struct {
	edit func(*llm.Config) // of the pool that it is in; may be nil

	mu       sync.Mutex // guards the fields below
	answer   func(ctx context.Context, r chat.Request) iter.Seq2[chat.Chunk, error]
	requests []chat.Request
}

func (m *model) pool() *llm.Pool { return llmtest.NewPool(m, m.edit, "m", "n") }

func (m *model) Stream(ctx context.Context, r chat.Request) iter.Seq2[chat.Chunk, error] {
	m.mu.Lock()
	m.requests = append(m.requests, r)
	answer := m.answer
	m.mu.Unlock()
	return answer(ctx, r)
}

// impatient gives a response no more than some time.
func impatient(limit time.Duration) func(*llm.Config) {
	return func(c *llm.Config) { c.Models[0].Targets[0].Timeouts.Stream = limit }
}

// nowAnswers has the model answer in another way.
func (m *model) nowAnswers(answer func(context.Context, chat.Request) iter.Seq2[chat.Chunk, error]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answer = answer
}

func (m *model) calls() []chat.Request {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]chat.Request(nil), m.requests...)
}

// says answers with pieces, one each pace, and the end mark.
func says(pace time.Duration, pieces ...string) func(context.Context, chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(ctx context.Context, _ chat.Request) iter.Seq2[chat.Chunk, error] {
		return func(yield func(chat.Chunk, error) bool) {
			provider := "fake"
			for _, p := range pieces {
				select {
				case <-time.After(pace):
				case <-ctx.Done():
					yield(chat.Chunk{}, ctx.Err())
					return
				}
				if !yield(chat.Chunk{Text: p, Provider: provider}, nil) {
					return
				}
				provider = ""
			}
			yield(chat.Chunk{FinishReason: chat.FinishStop, Usage: &chat.Usage{InputTokens: 3, OutputTokens: len(pieces)}}, nil)
		}
	}
}

// breaks answers with pieces and then with an error, or, where that is nil, with nothing more.
func breaks(err error, pieces ...string) func(context.Context, chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(context.Context, chat.Request) iter.Seq2[chat.Chunk, error] {
		return func(yield func(chat.Chunk, error) bool) {
			for _, p := range pieces {
				if !yield(chat.Chunk{Text: p}, nil) {
					return
				}
			}
			if err != nil {
				yield(chat.Chunk{}, err)
			}
		}
	}
}

// hangs gives one piece and then nothing, until it is cancelled.
func hangs(ctx context.Context, _ chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(yield func(chat.Chunk, error) bool) {
		if !yield(chat.Chunk{Text: "well"}, nil) {
			return
		}
		<-ctx.Done()
		yield(chat.Chunk{}, ctx.Err())
	}
}

// house is a Manager with what it needs.
type house struct {
	*session.Manager
	store   *storetest.Memory
	journal *journal.Journal
	dir     string // the journal's
	model   *model
	log     *logBuffer
}

func testConfig() session.Config {
	return session.Config{
		CheckpointInterval: time.Second,
		IdleTimeout:        15 * time.Minute, GracePeriod: 5 * time.Minute, CleanupInterval: time.Minute, WarnThreshold: 100,
		LeaseTimeout: 30 * 24 * time.Hour, // in a test a server is gone when it is said to be
	}
}

// testingT is a test, or a run of a property.
type testingT interface {
	Helper()
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func newHouse(t *testing.T, store *storetest.Memory, m *model, edit func(*session.Config)) *house {
	t.Helper()
	return openHouse(t, store, m, t.TempDir(), edit)
}

// openHouse makes a house with its journal in a folder.
func openHouse(t testingT, store *storetest.Memory, m *model, dir string, edit func(*session.Config)) *house {
	t.Helper()
	return houseOn(t, store, store, dir, m, edit)
}

// houseOn makes a house on a store that does not do all that is asked of the memory under it.
func houseOn(
	t testingT, store chat.Store, memory *storetest.Memory, dir string, m *model, edit func(*session.Config),
) *house {
	t.Helper()
	cfg := testConfig()
	if edit != nil {
		edit(&cfg)
	}
	h := &house{store: memory, dir: dir, model: m, log: &logBuffer{}}
	var err error
	h.journal, err = journal.Open(journal.Config{Path: dir, MaxBytes: 64 << 20, StoreID: store.ID()}, h.logger())
	if err != nil {
		t.Fatal(err)
	}
	h.Manager = session.NewManager(cfg, store, h.journal, m.pool(), h.logger())
	return h
}

// seemsGone has others take the house for one that is not there any more.
func (h *house) seemsGone(t testingT) {
	t.Helper()
	synctest.Wait() // until it has its lease
	if err := h.store.EndLease(context.Background(), h.journal.ID()); err != nil {
		t.Fatal(err)
	}
}

// takeOver claims a session for another server, which has gone since.
func takeOver(t testingT, store chat.Store, s *session.Session) {
	t.Helper()
	claim := chat.Claim{Owner: "another", Epoch: "another's"}
	if _, err := store.ClaimSession(context.Background(), s.ID(), s.Record().Claim, claim); err != nil {
		t.Fatal(err)
	}
}

func (h *house) logger() *slog.Logger { return slog.New(slog.NewTextHandler(h.log, nil)) }

func (h *house) close(t testingT) {
	t.Helper()
	if err := h.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if err := h.journal.Close(); err != nil {
		t.Error(err)
	}
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu sync.Mutex // guards the field below
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func anybody(*chat.Session) bool { return true }

func (h *house) create(t *testing.T) *session.Session {
	t.Helper()
	s, err := h.Create(alice.ID, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func send(t *testing.T, s *session.Session, id, text string) {
	t.Helper()
	if again, err := s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: id, Text: text}); err != nil || again != nil {
		t.Fatalf("sending %s gives %v, %v", id, again, err)
	}
}

// reader is a client: it takes events and holds what they say, by the rules of the protocol.
type reader struct {
	cursor session.Cursor
	last   int64
	text   map[string]string
	done   map[string]chat.MessageCompleted
	order  []string
	seen   []chat.Event

	// What the events make of the session.
	title, assistedBy string
}

func newReader(t *testing.T, s *session.Session) *reader {
	t.Helper()
	cursor, _, err := s.Attach(nil, "", 50)
	if err != nil {
		t.Fatal(err)
	}
	r := emptyReader(cursor)
	return &r
}

func emptyReader(c session.Cursor) reader {
	return reader{cursor: c, text: make(map[string]string), done: make(map[string]chat.MessageCompleted)}
}

// drain takes all that there is once nothing is under way.
func (r *reader) drain(t testingT, s *session.Session) {
	t.Helper()
	synctest.Wait()
	for {
		e, ok, err := s.Read(&r.cursor)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return
		}
		r.take(t, e)
	}
}

func (r *reader) take(t testingT, e chat.Event) {
	t.Helper()
	if e.From != r.last+1 || e.Seq < e.From {
		t.Errorf("event %d stands for %d on, after %d", e.Seq, e.From, r.last)
	}
	r.last = e.Seq
	r.seen = append(r.seen, e)
	switch b := e.Body.(type) {
	case chat.SessionUpdated:
		if b.Title != nil {
			r.title = *b.Title
		}
		if b.AssistedBy != nil {
			r.assisted(*b.AssistedBy)
		}
	case chat.AgentJoined:
		r.assisted(&b.Author)
	case chat.AgentLeft:
		r.assisted(nil)
	case chat.MessageCreated:
		if held, ok := r.text[b.Message.ID]; ok && !strings.HasPrefix(b.Message.Text, held) {
			t.Errorf("message %s is %q, which does not begin with %q", b.Message.ID, b.Message.Text, held)
		} else if !ok {
			r.order = append(r.order, b.Message.ID)
		}
		r.text[b.Message.ID] = b.Message.Text
		if m := b.Message; m.Role == chat.RoleAssistant && m.Status != chat.StatusStreaming {
			// Whole and final: it stands for the completion too.
			r.done[m.ID] = chat.MessageCompleted{
				MessageID: m.ID, Status: m.Status, FinishReason: m.FinishReason, Error: m.Error, Length: len(m.Text),
			}
		}
	case chat.MessageDelta:
		if _, known := r.text[b.MessageID]; !known {
			t.Errorf("a delta of message %s, which was never begun", b.MessageID)
		}
		if b.Kind == chat.DeltaText {
			r.text[b.MessageID] += b.Text
		}
	case chat.MessageCompleted:
		if _, known := r.text[b.MessageID]; !known {
			t.Errorf("message %s is completed and was never begun", b.MessageID)
		}
		if _, twice := r.done[b.MessageID]; twice {
			t.Errorf("message %s is completed twice", b.MessageID)
		}
		r.done[b.MessageID] = b
		if b.Length != len(r.text[b.MessageID]) {
			t.Errorf("message %s has %d bytes, the reader holds %d", b.MessageID, b.Length, len(r.text[b.MessageID]))
		}
	}
}

func (r *reader) assisted(by *chat.Author) {
	r.assistedBy = ""
	if by != nil {
		r.assistedBy = by.ID
	}
}

// answer gives the only completion.
func (r *reader) answer(t *testing.T) chat.MessageCompleted {
	t.Helper()
	if len(r.done) != 1 {
		t.Fatalf("there are %d completed messages, want 1", len(r.done))
	}
	for _, c := range r.done {
		return c
	}
	return chat.MessageCompleted{}
}

func code(err error) chat.Code {
	if shown, ok := errors.AsType[*chat.Error](err); ok {
		return shown.Code
	}
	return chat.Code(fmt.Sprintf("%v", err))
}
