package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/parley-chat/parley/chat"
)

// loadedMessages is how many of its newest messages a session has in memory when it comes from the store: as many as
// a client may ask for.
const loadedMessages = 200

// storeTimeout bounds one operation of the store.
const storeTimeout = 10 * time.Second

// storeContext is for one operation of the store. Such an operation is not cut short by whoever asked for it: it would
// not be known whether it was done. It ends with its timeout, or with the deadline of a shutdown.
func (m *Manager) storeContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(m.storing, storeTimeout)
}

// storageError is what a client is told of a store that could not do its work.
func storageError(err error) error {
	return chat.NewError(chat.CodeStorageUnavailable, "the storage cannot be reached").WithCause(err)
}

// Models answers requests by the configured IDs of models.
type Models interface {
	chat.Provider
	Has(id string) bool
	Default() string
}

// Config is how sessions behave. Durations are positive.
type Config struct {
	StreamTimeout      time.Duration // of a whole response
	CheckpointInterval time.Duration // between two savings of a response in progress
	HistoryTokens      int           // of the conversation sent along
	SystemPrompt       string
	IdleTimeout        time.Duration // without need for so long: inactive
	GracePeriod        time.Duration // inactive for so long: removed from memory
	CleanupInterval    time.Duration
	WarnThreshold      int // sessions in memory; 0: no warning
}

// Manager holds the sessions that are in memory and brings in others from the store. It is the glossary's
// Session_Manager and Session_Store.
type Manager struct {
	cfg    Config
	store  chat.Store
	models Models
	log    *slog.Logger

	ctx     context.Context // ends when turns are forced to
	cancel  context.CancelCauseFunc
	storing context.Context // ends when nothing more is to be stored
	giveUp  context.CancelFunc

	mu       sync.Mutex // guards the fields below
	sessions map[string]*slot
	warned   bool

	turnMu   sync.Mutex // guards the fields below
	drained  bool       // no turn begins any more
	running  int
	finished chan struct{} // closed when the last turn of a drain has ended

	stop    context.CancelFunc
	cleanup sync.WaitGroup
}

// slot is a session's place in memory, also while it is being loaded.
type slot struct {
	ready   chan struct{} // closed once session or err is set
	session *Session
	err     error
}

// NewManager makes a Manager and starts its cleanup, which [Manager.Close] ends.
func NewManager(cfg Config, store chat.Store, models Models, log *slog.Logger) *Manager {
	m := &Manager{
		cfg: cfg, store: store, models: models, log: log,
		sessions: make(map[string]*slot), finished: make(chan struct{}),
	}
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	m.storing, m.giveUp = context.WithCancel(context.Background())
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	m.cleanup.Go(func() { m.runCleanup(ctx) })
	return m
}

// Create makes a session of the user's, stores it and holds it for the caller. An empty model means the default; an
// unknown one is model_not_found.
func (m *Manager) Create(userID, model string, metadata map[string]string) (*Session, error) {
	if model == "" {
		model = m.models.Default()
	}
	if !m.models.Has(model) {
		return nil, chat.NewError(chat.CodeModelNotFound, "there is no such model")
	}
	now := chat.Now()
	s := newSession(m, chat.Session{
		ID: chat.NewID(), UserID: userID, Model: model, Status: chat.SessionStatusActive,
		CreatedAt: now, LastActiveAt: now, Metadata: metadata,
	}, nil, false)
	s.holds = 1
	ctx, cancel := m.storeContext()
	defer cancel()
	if err := m.store.CreateSession(ctx, s); err != nil {
		return nil, storageError(err)
	}
	ready := make(chan struct{})
	close(ready)
	m.mu.Lock()
	m.sessions[s.id] = &slot{ready: ready, session: s}
	m.mu.Unlock()
	m.checkThreshold()
	return s, nil
}

// Open gives the session of an ID and holds it for the caller; one that is not in memory is loaded. One that is unknown,
// or that may says no to, is session_not_found; an ended one is session_ended.
func (m *Manager) Open(ctx context.Context, id string, may func(*chat.Session) bool) (*Session, error) {
	for {
		m.mu.Lock()
		place, ok := m.sessions[id]
		if !ok {
			place = &slot{ready: make(chan struct{})}
			m.sessions[id] = place
		}
		m.mu.Unlock()
		if !ok {
			m.load(id, place)
		}
		select {
		case <-place.ready:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if place.err != nil {
			return nil, place.err
		}
		if err := place.session.admits(may); err != nil {
			return nil, err
		}
		if m.hold(id, place) {
			return place.session, nil
		}
	}
}

func notFound() error { return chat.NewError(chat.CodeSessionNotFound, "there is no such session") }

func (s *Session) admits(may func(*chat.Session) bool) (err error) {
	s.View(func(r *chat.Session) {
		switch {
		case !may(r):
			err = notFound()
		case r.Status == chat.SessionStatusEnded:
			err = errEnded()
		}
	})
	return err
}

func errEnded() error { return chat.NewError(chat.CodeSessionEnded, "the session has ended") }

// hold keeps the session in memory, unless it has just left.
func (m *Manager) hold(id string, place *slot) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sessions[id] != place {
		return false
	}
	s := place.session
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds++
	s.inactive = false
	return true
}

func (m *Manager) load(id string, place *slot) {
	s, err := m.read(id)
	m.mu.Lock()
	place.session, place.err = s, err
	if err != nil || s.record.Status == chat.SessionStatusEnded {
		delete(m.sessions, id)
	}
	m.mu.Unlock()
	close(place.ready)
	m.checkThreshold()
}

func (m *Manager) read(id string) (*Session, error) {
	ctx, cancel := m.storeContext()
	defer cancel()
	record, err := m.store.Session(ctx, id)
	switch {
	case errors.Is(err, chat.ErrNotFound):
		return nil, notFound()
	case err != nil:
		return nil, storageError(err)
	case record.Status == chat.SessionStatusEnded:
		return newSession(m, record, nil, false), nil
	}
	stored, err := m.store.Messages(ctx, id, 0, loadedMessages+1)
	if err != nil {
		return nil, storageError(err)
	}
	older := len(stored) > loadedMessages
	if older {
		stored = stored[1:]
	}
	if stored, err = m.closeInterrupted(ctx, id, stored); err != nil {
		return nil, err
	}
	record.AssistedBy = nil // a takeover holds its session in memory: this one's ended with the server that had it
	if !m.models.Has(record.Model) {
		record.Model = m.models.Default()
	}
	return newSession(m, record, stored, older), nil
}

// closeInterrupted gives each response that the server went down under its end, and each question that got none an
// empty one, so that it can be retried.
func (m *Manager) closeInterrupted(ctx context.Context, id string, stored []chat.Message) ([]chat.Message, error) {
	known := make(map[string]bool, len(stored))
	for i := range stored {
		known[stored[i].ID] = true
		if stored[i].Status != chat.StatusStreaming {
			continue
		}
		stored[i].Status = chat.StatusInterrupted
		if err := m.store.UpdateMessage(ctx, id, stored[i]); err != nil {
			return nil, storageError(fmt.Errorf("close an interrupted response: %w", err))
		}
	}
	for _, question := range slices.Clone(stored) {
		if question.AnswerID == "" || known[question.AnswerID] {
			continue
		}
		answer := chat.Message{
			ID: question.AnswerID, N: stored[len(stored)-1].N + 1, Role: chat.RoleAssistant,
			Status: chat.StatusInterrupted, CreatedAt: chat.Now(), ReplyTo: question.ID,
		}
		if err := m.store.InsertMessage(ctx, id, answer); err != nil {
			return nil, storageError(fmt.Errorf("close an unanswered question: %w", err))
		}
		stored = append(stored, answer)
	}
	return stored, nil
}

// remove takes a session out of memory, whoever still reads it.
func (m *Manager) remove(s *Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if place, ok := m.sessions[s.id]; ok && place.session == s {
		delete(m.sessions, s.id)
	}
}

// beginTurn counts a turn in; false: a drain has begun.
func (m *Manager) beginTurn() bool {
	m.turnMu.Lock()
	defer m.turnMu.Unlock()
	if m.drained {
		return false
	}
	m.running++
	return true
}

func errDraining() error {
	return chat.NewError(chat.CodeServerDraining, "the server is about to restart")
}

func (m *Manager) stopped() bool {
	m.turnMu.Lock()
	defer m.turnMu.Unlock()
	return m.drained
}

func (m *Manager) endTurn() {
	m.turnMu.Lock()
	defer m.turnMu.Unlock()
	m.running--
	if m.drained && m.running == 0 {
		close(m.finished)
	}
}

// Running gives the number of turns in progress.
func (m *Manager) Running() int {
	m.turnMu.Lock()
	defer m.turnMu.Unlock()
	return m.running
}

// StopTurns lets no turn begin any more.
func (m *Manager) StopTurns() {
	m.turnMu.Lock()
	defer m.turnMu.Unlock()
	if !m.drained {
		m.drained = true
		if m.running == 0 {
			close(m.finished)
		}
	}
}

// Drain waits until the last turn has ended. When soft ends before, it interrupts those that are left and waits until
// their text is stored; when hard ends too, nothing is stored any more. It returns how many were interrupted.
// [Manager.StopTurns] comes before it.
func (m *Manager) Drain(soft, hard context.Context) (interrupted int) {
	select {
	case <-m.finished:
		return 0
	case <-soft.Done():
	}
	interrupted = m.Running()
	m.cancel(errShutdown)
	select {
	case <-m.finished:
	case <-hard.Done():
		m.giveUp()
	}
	return interrupted
}

// Close ends the turns that are left and the cleanup, and waits for them as long as ctx lasts. Nothing is stored
// afterwards.
func (m *Manager) Close(ctx context.Context) error {
	m.StopTurns()
	m.cancel(errShutdown)
	err := await(ctx, m.finished)
	m.giveUp()
	m.stop()
	m.cleanup.Wait()
	return err
}
