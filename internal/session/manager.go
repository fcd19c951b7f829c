package session

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/journal"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/seal"
	"github.com/parley-chat/parley/internal/telemetry"
)

// storeTimeout bounds one operation of the store.
const storeTimeout = 10 * time.Second

// storeContext is for one operation of the store. Such an operation is not cut short by whoever asked for it: it would
// not be known whether it was done. It ends with its timeout, or with the deadline of a shutdown.
func (m *Manager) storeContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(m.storing, storeTimeout)
}

// storageError is what a client is told of a store that could not do its work, or of a record that cannot be decrypted.
func storageError(err error) error {
	if errors.Is(err, seal.ErrUndecryptable) {
		return chat.NewError(chat.CodeInternal, "a part of the conversation cannot be read").WithCause(err)
	}
	return chat.NewError(chat.CodeStorageUnavailable, "the storage cannot be reached").WithCause(err)
}

// Models answers requests by the configured IDs of models.
type Models interface {
	chat.Provider
	Has(id string) bool
	Default() string

	// Prompt makes what a model is asked of a session with this metadata. The error is for the log.
	Prompt(model string, metadata map[string]string, history []chat.Message) ([]chat.PromptMessage, error)

	// MaxOutputTokens is how long an answer of the model may be; 0: it has no limit of its own.
	MaxOutputTokens(model string) int

	// Account counts what a response of the model cost, and returns its price in millionths.
	Account(model string, usage chat.Usage) (costMicros int64)
}

// Config is how sessions behave. Durations are positive.
type Config struct {
	CheckpointInterval time.Duration // between two savings of a response in progress
	IdleTimeout        time.Duration // without need for so long: inactive
	GracePeriod        time.Duration // inactive for so long: removed from memory
	CleanupInterval    time.Duration
	WarnThreshold      int         // sessions in memory; 0: no warning
	MaxResponseTimes   int         // kept of each session; 0: none
	Budget             *llm.Budget // of each user; nil: none
	TitleModel         string      // makes titles; empty: they are a conversation's first words

	LeaseTimeout time.Duration     // a server that has not renewed its lease for so long has gone
	Tracer       *telemetry.Tracer // nil: there are no traces

	Retention      time.Duration // sessions idle for longer are removed from the store; 0: none
	UsageRetention time.Duration // what responses cost is removed when it is older; 0: never
}

// Manager holds the sessions that are in memory and brings in others from the store. It is the glossary's
// Session_Manager and Session_Store.
type Manager struct {
	cfg     Config
	store   chat.Store
	journal *journal.Journal
	models  Models
	log     *slog.Logger
	metrics *metrics

	ctx     context.Context // ends when turns are forced to
	cancel  context.CancelCauseFunc
	storing context.Context // ends when nothing more is to be stored
	giveUp  context.CancelFunc

	mu        sync.Mutex // guards the fields below
	sessions  map[string]*slot
	recovered map[string]*journal.Recovered // what the journal had at the start, until it is settled
	behind    map[*Session]struct{}         // those of which the store did not take all
	dead      map[string]string             // the epochs of sessions that were lost, by session ID, until new ones begin
	warned    bool

	turnMu   sync.Mutex // guards the fields below
	drained  bool       // no turn begins any more
	running  int
	finished chan struct{} // closed when the last turn of a drain has ended

	leases   *leases
	serving  context.Context // ends with the cleanup
	stop     context.CancelFunc
	hurry    chan struct{} // holds a value where the cleanup is wanted soon
	caughtUp chan struct{} // closed once it was tried to settle what the journal had at the start
	cleanup  sync.WaitGroup
	titles   sync.WaitGroup // being made; each is begun by a turn
}

// slot is a session's place in memory, also while it is being loaded, or leaves.
type slot struct {
	ready   chan struct{} // closed once session or err is set
	session *Session
	err     error
}

// errLeft is the error of a slot whose session has just left: it is to be looked for again.
var errLeft = errors.New("the session has left memory")

// NewManager makes a Manager. It begins to settle what the journal has of an earlier life of the server, and its
// cleanup; [Manager.Close] ends both.
func NewManager(cfg Config, store chat.Store, j *journal.Journal, models Models, log *slog.Logger) *Manager {
	m := &Manager{
		cfg: cfg, store: store, journal: j, models: models, log: log, metrics: newMetrics(),
		sessions: make(map[string]*slot), recovered: j.Recovered(), dead: make(map[string]string),
		behind: make(map[*Session]struct{}), leases: newLeases(store, j.ID(), cfg.LeaseTimeout, log),
		finished: make(chan struct{}), hurry: make(chan struct{}, 1), caughtUp: make(chan struct{}),
	}
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	m.storing, m.giveUp = context.WithCancel(context.Background())
	m.serving, m.stop = context.WithCancel(context.Background())
	m.cleanup.Go(func() { m.leases.run(m.serving) })
	m.cleanup.Go(func() { m.runSweeps(m.serving) })
	m.cleanup.Go(func() {
		m.settleRecovered(m.serving)
		close(m.caughtUp)
		m.runCleanup(m.serving)
	})
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
		Claim: m.newClaim(chat.NewID()),
	}, newEventLog(), 1)
	s.holds = 1
	place := &slot{ready: make(chan struct{})} // from before it is stored: what is claimed and in no place is let go of
	defer close(place.ready)
	m.mu.Lock()
	m.sessions[s.id] = place
	m.mu.Unlock()
	err := m.storeNew(s)
	m.mu.Lock()
	if place.session, place.err = s, err; err != nil {
		place.session = nil
		delete(m.sessions, s.id)
	}
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	m.checkThreshold()
	return s, nil
}

func (m *Manager) storeNew(s *Session) error {
	ctx, cancel := m.storeContext()
	defer cancel()
	err := m.leases.hold(ctx)
	if err == nil {
		err = m.store.CreateSession(ctx, s)
	}
	if err != nil {
		return storageError(err)
	}
	return nil
}

// Open gives the session of an ID and holds it for the caller; one that is not in memory is loaded. One that is unknown,
// or that may says no to, is session_not_found; an ended one is session_ended.
func (m *Manager) Open(ctx context.Context, id string, may func(*chat.Session) bool) (*Session, error) {
	for {
		place, err := m.find(id, may)
		if err != nil {
			return nil, err
		}
		select {
		case <-place.ready:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if errors.Is(place.err, errLeft) {
			continue
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
		if !place.session.Lost() {
			continue
		}
		if err := await(ctx, place.session.gone); err != nil {
			return nil, err
		}
	}
}

// find gives the place of a session in memory, and has it loaded where it has none. To load a session is to claim it, which
// takes it from whoever may have it, so who may not open it is refused before, and learns nothing.
func (m *Manager) find(id string, may func(*chat.Session) bool) (*slot, error) {
	m.mu.Lock()
	place, ok := m.sessions[id]
	m.mu.Unlock()
	if ok {
		return place, nil
	}
	ctx, cancel := m.storeContext()
	defer cancel()
	switch record, err := m.store.Session(ctx, id); {
	case errors.Is(err, chat.ErrNotFound): // which loading deals with
	case err != nil:
		return nil, storageError(err)
	case !may(&record):
		return nil, notFound()
	}
	m.mu.Lock()
	if place, ok = m.sessions[id]; !ok {
		place = &slot{ready: make(chan struct{})}
		m.sessions[id] = place
	}
	m.mu.Unlock()
	if !ok {
		m.load(id, place)
	}
	return place, nil
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

// hold keeps the session in memory, unless it has just left, or is lost.
func (m *Manager) hold(id string, place *slot) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sessions[id] != place {
		return false
	}
	s := place.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost != nil {
		return false
	}
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

// remove takes a session that has ended, or is lost, out of memory, whoever still reads it.
func (m *Manager) remove(s *Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if place, ok := m.sessions[s.id]; ok && place.session == s {
		delete(m.sessions, s.id)
	}
	m.part(s)
}

// part notes that a session has left memory, once. The lock is held.
func (m *Manager) part(s *Session) {
	select {
	case <-s.gone:
		return // and its successor may be here already
	default:
		close(s.gone)
	}
	if !s.Lost() {
		return
	}
	m.dead[s.id] = s.epoch
	m.hasten()
}
