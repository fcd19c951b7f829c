package router_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/journal"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/router"
	"github.com/parley-chat/parley/internal/session"
)

var (
	simulationSeed = flag.Uint64("simulation.seed", 0, "the seed of the simulation to replay; 0: random ones")
	simulationRuns = flag.Int("simulation.runs", 4, "how many simulations run")
)

// The size of the world, and how long it lives.
const (
	persons, devicesEach = 24, 8
	sessionsPerUser      = 3
	agents, observers    = 6, 12
	lifetime             = time.Minute
	idleTimeout          = 8 * time.Second
	gracePeriod          = 4 * time.Second
	cleanupInterval      = 2 * time.Second
	streamTimeout        = 20 * time.Second
)

// TestSimulation has hundreds of clients drop, replace, cancel, resend and stall at random over a store and models that
// are slow and fail, and holds what each is told against a simple model. A seed makes the same decisions again; what the
// scheduler does between them is its own.
func TestSimulation(t *testing.T) {
	for range *simulationRuns {
		seed := *simulationSeed
		if seed == 0 {
			seed = rand.Uint64()
		}
		t.Run(fmt.Sprintf("-simulation.seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { simulate(t, seed) })
		})
	}
}

// world is a router with all that it needs, its clients, and what may be said of them at any time.
type world struct {
	*router.Router
	t        *testing.T
	seed     uint64
	sessions *session.Manager
	journal  *journal.Journal
	store    *roughStore
	models   *moodyModels
	clerk    clerk
	links    sync.WaitGroup
	devices  []*device

	mu       sync.Mutex // guards the fields below, and what says so elsewhere
	talks    map[string]*talk
	open     []string // the IDs of the sessions that nobody has ended
	tally    map[string]int
	failures int
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, seed: seed, clerk: clerk{newDice(seed, 1)}, talks: make(map[string]*talk), tally: make(map[string]int),
		store: newRoughStore(newDice(seed, 2), seed%3 != 0),
	}
	w.models = &moodyModels{w: w}
	log := slog.New(slog.DiscardHandler)
	var err error
	w.journal, err = journal.Open(journal.Config{Path: t.TempDir(), MaxBytes: 64 << 20, StoreID: w.store.ID()}, log)
	if err != nil {
		t.Fatal(err)
	}
	pool := llmtest.NewPool(w.models, func(c *llm.Config) {
		for i := range c.Models {
			c.Models[i].Targets[0].Timeouts.Stream = streamTimeout
		}
	}, "m", "n")
	w.sessions = session.NewManager(session.Config{
		CheckpointInterval: time.Second,
		IdleTimeout:        idleTimeout, GracePeriod: gracePeriod, CleanupInterval: cleanupInterval, WarnThreshold: 10,
		LeaseTimeout: 10 * time.Second,
	}, w.store, w.journal, pool, log)
	w.Router = router.New(router.Config{MaxConnectionsPerUser: devicesEach / 2}, w.sessions, w.clerk, log)
	for i := range persons {
		w.settle(fmt.Sprintf("user%d", i), "", devicesEach)
	}
	for i := range agents {
		w.settle(fmt.Sprintf("agent%d", i), " agent", 1)
	}
	for i := range observers {
		w.settle(fmt.Sprintf("observer%d", i), " admin", 1)
	}
	return w
}

// settle brings a user with devices into the world.
func (w *world) settle(id, role string, devices int) {
	luck := newDice(w.seed, uint64(1000+len(w.devices)))
	asleep := time.Now().Add(luck.upTo(lifetime * 3 / 4))
	p := &person{id: id, asleep: asleep, up: asleep.Add(luck.upTo(lifetime / 2))}
	for i := range devices {
		w.devices = append(w.devices, &device{
			w: w, name: fmt.Sprintf("%s.%d", id, i), token: id + role, staff: role != "", user: p,
			dice: newDice(w.seed, uint64(2000+len(w.devices))), mirrors: make(map[string]*mirror),
		})
	}
}

func simulate(t *testing.T, seed uint64) {
	w := newWorld(t, seed)
	end := time.Now().Add(lifetime)
	var lives sync.WaitGroup
	for _, d := range w.devices {
		lives.Go(func() { d.run(end) })
	}
	watched := make(chan struct{})
	go w.watch(end, watched)
	lives.Wait()
	<-watched
	w.store.calm.Store(true)
	w.settleDown()
	w.comeBack()
	w.leave()
	w.report()
}

// report makes sure that what the simulation is for has happened.
func (w *world) report() {
	for _, t := range w.talks {
		w.tally["epochs anew"] += len(t.lives) - 1
		w.tally["calls"] += len(t.calls)
		w.tally["retries"] += t.retries
		if t.over {
			w.tally["ended"]++
		}
	}
	for _, what := range []string{
		"closed with 0", fmt.Sprintf("closed with %d", router.CloseReplaced), "resumed true, reset false",
		"resumed false, reset true", "resumed false, reset false", "repeated", "retries", "calls", "ended", "refused by the limit",
		"compared",
	} {
		if w.tally[what] == 0 {
			w.fail(nil, "nothing was %s: %v", what, w.tally)
		}
	}
	w.t.Log(w.tally)
}

// watch looks at the whole from time to time.
func (w *world) watch(end time.Time, done chan<- struct{}) {
	defer close(done)
	for time.Now().Before(end) {
		time.Sleep(time.Second)
		stats := w.sessions.MemoryStats()
		w.mu.Lock()
		created := len(w.talks)
		w.mu.Unlock()
		switch {
		case stats.Active < 0 || stats.Inactive < 0 || stats.Active+stats.Inactive != stats.Total || stats.Messages < 0 || stats.Bytes < 0:
			w.fail(nil, "in memory are %+v", stats)
		case w.sessions.Running() > created+len(w.devices): // a session that was created may not be told of yet
			w.fail(nil, "%d turns run in %d sessions", w.sessions.Running(), created)
		case w.Connections() > len(w.devices):
			w.fail(nil, "%d devices have %d connections", len(w.devices), w.Connections())
		}
	}
}

// settleDown lets every response end, and holds what the connected clients have read against the store.
func (w *world) settleDown() {
	time.Sleep(2 * streamTimeout)
	synctest.Wait()
	if n := w.sessions.Running(); n > 0 {
		w.fail(nil, "%d turns run for ever", n)
	}
	connected := 0
	for _, d := range w.devices {
		if d.link == nil || d.link.gone() {
			continue
		}
		w.mu.Lock()
		if t := w.talks[d.link.reading]; t != nil && d.link.current != "" {
			connected++
			w.compare(d.link, t)
		}
		w.mu.Unlock()
	}
	if connected == 0 {
		w.fail(nil, "nobody is connected at the end")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.talks {
		w.audit(t)
	}
}

// comeBack has half of the devices read what they have missed of every session that they know, whether the log is
// still in memory or not.
func (w *world) comeBack() {
	for _, d := range w.devices {
		d.goAway()
	}
	for i, d := range w.devices {
		if i%2 == 0 {
			continue
		}
		if i%40 == 1 {
			time.Sleep(idleTimeout + gracePeriod + 2*cleanupInterval)
		}
		for !d.dial() {
		}
		w.mu.Lock()
		var known []string
		for id := range d.mirrors {
			if slices.Contains(w.open, id) {
				known = append(known, id)
			}
		}
		w.mu.Unlock()
		for _, id := range known {
			as := chat.AsObserver
			if !d.staff {
				as = chat.AsUser
			}
			err := d.open(id, as)
			if w.talks[id].vague && err != nil && err.Code == chat.CodeSessionEnded {
				continue // it was done after all
			}
			if err != nil {
				w.fail(w.talks[id], "%s comes back and gets %v", d.name, err)
				continue
			}
			time.Sleep(5 * time.Second)
			w.mu.Lock()
			w.compare(d.link, w.talks[id])
			w.mu.Unlock()
		}
		d.goAway()
	}
}

// leave makes sure that nothing is left when everybody has gone.
func (w *world) leave() {
	w.links.Wait()
	time.Sleep(time.Minute) // takeovers end
	if n, rooms := w.Connections(), w.Rooms(); n != 0 || rooms != 0 {
		w.fail(nil, "nobody is connected, and there are %d connections and %d rooms", n, rooms)
	}
	if stats := w.sessions.MemoryStats(); stats != (session.MemoryStats{}) {
		w.fail(nil, "nobody needs a session, and in memory are %+v", stats)
	}
	if left := w.Close(context.Background()); left > 0 {
		w.fail(nil, "%d connections are left", left)
	}
	if err := errors.Join(w.sessions.Close(context.Background()), w.journal.Close()); err != nil {
		w.fail(nil, "closing: %v", err)
	}
}

// asked notes that a provider was asked, and gives what notes that it has ended.
func (w *world) asked(sessionID, question, call string) (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.talk(sessionID)
	t.note("call %s for %q", call, question)
	if t.running != "" {
		w.failLocked(t, "call %s for %q begins while %s runs", call, question, t.running)
	}
	t.running = call
	t.calls[question]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		t.running = ""
	}
}

func (w *world) said(sessionID, call string, c chat.Chunk) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.talk(sessionID).speech[call] += c.Text
}

// accepted notes what was done without an error.
func (w *world) accepted(l *link, cmd chat.Command) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.talks[l.reading]
	switch cmd := cmd.(type) {
	case chat.SendMessage:
		t.accepted[cmd.MessageID] = cmd.Text
		t.note("%s has sent %s", l, cmd.MessageID)
	case chat.RetryResponse:
		t.retries++
		t.note("%s has retried", l)
	case chat.EndSession:
		w.forget(t.id)
		t.note("%s has ended it", l)
	}
}

// talk gives the model of a session. The lock is held.
func (w *world) talk(id string) *talk {
	if w.talks[id] == nil {
		w.talks[id] = newTalk(id)
	}
	return w.talks[id]
}

func (w *world) talkOf(l *link) *talk {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.talks[l.reading]
}

// remember makes a new session known to its user's other devices, and to the staff. The lock is held.
func (w *world) remember(t *talk, l *link) {
	l.device.user.sessions = append(l.device.user.sessions, t.id)
	w.open = append(w.open, t.id)
}

// forget drops a session that has ended. The lock is held.
func (w *world) forget(id string) {
	is := func(o string) bool { return o == id }
	w.open = slices.DeleteFunc(w.open, is)
	for _, d := range w.devices {
		d.user.sessions = slices.DeleteFunc(d.user.sessions, is)
	}
}

func (w *world) fail(t *talk, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failLocked(t, format, args...)
}

// failLocked tells the first failures, with what happened in the session before. The lock is held.
func (w *world) failLocked(t *talk, format string, args ...any) {
	w.t.Helper()
	if w.failures++; w.failures > 3 {
		w.t.Fail()
		return
	}
	story := ""
	if t != nil && w.failures == 1 {
		story = "\n\t" + strings.Join(t.trace, "\n\t")
	}
	w.t.Errorf("%s: "+format+"%s", append(append([]any{time.Now().Format("04:05.000")}, args...), story)...)
}
