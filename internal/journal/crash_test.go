package journal_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/journal"
)

// model is what a server would know of its sessions, and what its clients and its store would.
type model struct {
	mu       sync.Mutex // guards the fields below
	sessions map[string]*life
}

// life is one session.
type life struct {
	id     string
	log    *journal.Log
	state  state
	events []chat.EventBody // since the session began, under any epoch; what was appended under seq is events[seq-1]
}

type state struct {
	epoch  string
	end    int64
	shown  int64 // what clients have seen
	stored int64 // what the store knows
	lost   bool  // the journal failed, or is to erase it: the session is begun anew next
	erased int64 // what was erased: nothing up to there comes back
}

// crash is what a kill leaves behind.
type crash struct {
	folder string
	states map[string]state
	id     string // the journal's
}

// crashNow takes the folder as it is, and what the model knows at this moment.
func (m *model) crashNow(t testing.TB, folder, to string, id string) crash {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := os.CopyFS(to, os.DirFS(folder)); err != nil {
		t.Error(err)
	}
	c := crash{folder: to, states: make(map[string]state), id: id}
	for id, l := range m.sessions {
		c.states[id] = l.state
	}
	return c
}

func newModel(n int) *model {
	m := &model{sessions: make(map[string]*life)}
	for i := range n {
		id := fmt.Sprintf("session %d", i)
		m.sessions[id] = &life{id: id, state: state{epoch: "first"}}
	}
	return m
}

func (m *model) ids() []string { return slices.Sorted(maps.Keys(m.sessions)) }

// begin begins a session's log at its end.
func (m *model) begin(j opened, l *life) {
	m.mu.Lock()
	epoch, end := l.state.epoch, l.state.end
	l.state.lost = false
	m.mu.Unlock()
	l.log = j.Begin(l.id, epoch, end, func(seq int64, err error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if l.state.epoch != epoch {
			return
		}
		if err != nil {
			l.state.lost = true
			return
		}
		l.state.shown = max(l.state.shown, seq)
	})
}

// append appends n events without waiting for them.
func (m *model) append(l *life, n, size int) (done <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range n {
		l.state.end++
		body := delta("answer", fmt.Sprintf("%s %d %s", l.id, l.state.end, strings.Repeat("x", size)))
		if l.state.end%5 == 1 {
			body = streaming("answer")
		}
		l.events = append(l.events[:l.state.end-1], body)
		done = l.log.Append(chat.Event{SessionID: l.id, From: l.state.end, Seq: l.state.end, Body: body})
	}
	return done
}

// anew begins a session under another epoch: all that was shown is in the store.
func (m *model) anew(j opened, l *life) {
	m.mu.Lock()
	l.state.epoch += "'"
	l.state.shown, l.state.stored = l.state.end, l.state.end
	m.mu.Unlock()
	m.begin(j, l)
}

// store makes the store know a session up to a share of what was shown.
func (m *model) store(l *life, percent int64) {
	m.mu.Lock()
	seq := l.state.stored + (l.state.shown-l.state.stored)*percent/100
	l.state.stored = max(l.state.stored, seq)
	m.mu.Unlock()
	l.log.Stored(seq)
}

// erase erases a session and begins it anew, where that succeeds.
func (m *model) erase(j opened, l *life) {
	m.mu.Lock()
	l.state.lost = true
	m.mu.Unlock()
	if err := j.Erase(context.Background(), l.id); err != nil {
		return
	}
	m.mu.Lock()
	l.state.erased = l.state.end
	m.mu.Unlock()
	m.anew(j, l)
}

// check opens what a crash left and holds it against what was known.
func (m *model) check(t testing.TB, d *disk, cfg journal.Config, c crash) opened {
	t.Helper()
	cfg.Path = c.folder
	j := d.openJournal(t, cfg)
	if j.ID() != c.id {
		t.Fatalf("after a crash the journal is not trusted: %s", j.logged)
	}
	recovered := j.Recovered()
	for _, id := range m.ids() {
		l, known, r := m.sessions[id], c.states[id], recovered[id]
		if r != nil && r.From < known.erased {
			t.Fatalf("%s: recovered %+v; %+v was known", id, r, known)
		}
		if r == nil || r.Epoch != known.epoch {
			if known.shown > known.stored && !known.lost {
				t.Fatalf("%s: recovered %+v; %+v was known", id, r, known)
			}
			continue
		}
		if !known.lost && known.shown > known.stored && (r.From > known.stored || r.End < known.shown) || r.End > known.end {
			t.Fatalf("%s: recovered %d to %d; %+v was known", id, r.From, r.End, known)
		}
		seq := r.From
		for _, body := range events(t, r) {
			if want := l.events[seq]; body != want {
				t.Fatalf("%s: recovered %+v as %d, want %+v", id, body, seq+1, want)
			}
			seq++
		}
	}
	return j
}

// resume goes on after a crash as a server does.
func (m *model) resume(j opened, c crash) {
	recovered := j.Recovered()
	for _, id := range m.ids() {
		l := m.sessions[id]
		known := c.states[id]
		r := recovered[id]
		if r == nil || r.Epoch != known.epoch || r.End < known.stored || r.From > known.stored {
			known.end = known.stored
		} else {
			known.end = r.End
		}
		m.mu.Lock()
		known.shown = known.end
		lost := known.lost
		l.state = known
		m.mu.Unlock()
		if lost {
			m.anew(j, l)
		} else {
			m.begin(j, l)
		}
	}
}

// TestACrashAtAnyMoment kills the journal after each thing that it does to a file, in the middle of writes too.
func TestACrashAtAnyMoment(t *testing.T) {
	for _, sync := range []bool{false, true} {
		cfg, d, m := config(t), newDisk(), newModel(3)
		cfg.MaxBytes, cfg.Sync = 512<<10, sync // segments of 64 KiB
		j := d.openJournal(t, cfg)
		var crashes []crash
		copies := t.TempDir()
		d.watch(func() {
			to := filepath.Join(copies, fmt.Sprint(len(crashes)))
			crashes = append(crashes, m.crashNow(t, cfg.Path, to, j.ID()))
		})
		for _, id := range m.ids() {
			m.begin(j, m.sessions[id])
		}
		for round := range 20 {
			for i, id := range m.ids() {
				l := m.sessions[id]
				done := m.append(l, 1+i, 6<<10)
				if i == 2 && round%5 < 3 {
					<-done
				}
				if (round+i)%4 == 0 {
					<-done
					m.store(l, int64(60+20*i))
				}
				if round == 7 && i == 1 {
					<-done
					m.anew(j, l)
				}
				if round%6 == 4 && i == round%3 {
					<-done
					m.erase(j, l)
				}
			}
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
		d.watch(nil)
		if n := d.count("remove"); n < 3 || len(crashes) < 100 {
			t.Errorf("only %d crashes, %d segments removed", len(crashes), n)
		}
		for i, c := range crashes {
			opened := m.check(t, d, cfg, c)
			if err := opened.Close(); err != nil {
				t.Error(err)
			}
			reopened := cfg
			reopened.Path = c.folder
			checkFiles(t, reopened, opened)
			if t.Failed() {
				t.Fatalf("after crash %d of %d", i, len(crashes))
			}
		}
	}
}

// TestACrashWhileItIsOpened kills the journal while it takes over what a crash left.
func TestACrashWhileItIsOpened(t *testing.T) {
	cfg, d, m := config(t), newDisk(), newModel(2)
	cfg.MaxBytes = 512 << 10
	j := d.openJournal(t, cfg)
	for _, id := range m.ids() {
		m.begin(j, m.sessions[id])
		<-m.append(m.sessions[id], 30, 6<<10)
	}
	torn := m.crashNow(t, cfg.Path, filepath.Join(t.TempDir(), "torn"), j.ID())
	numbered, err := filepath.Glob(filepath.Join(torn.folder, "*.segment"))
	if err != nil {
		t.Fatal(err)
	}
	last := numbered[len(numbered)-1]
	f, err := os.OpenFile(last, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "torn")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var crashes []crash
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	copies := t.TempDir()
	d.watch(func() {
		to := filepath.Join(copies, fmt.Sprint(len(crashes)))
		crashes = append(crashes, m.crashNow(t, torn.folder, to, torn.id))
	})
	for range 2 { // the second removes the segment that the first began
		if err := m.check(t, d, cfg, torn).Close(); err != nil {
			t.Error(err)
		}
	}
	d.watch(nil)
	if len(crashes) < 5 {
		t.Errorf("only %d crashes", len(crashes))
	}
	for _, c := range crashes {
		m.check(t, d, cfg, c)
	}
}

// TestReopening does at random what a server does, and kills it at random moments, over and over.
func TestReopening(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		folders, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(folders)
		d, m := newDisk(), newModel(4)
		cfg := journal.Config{Path: filepath.Join(folders, "0"), MaxBytes: 512 << 10, StoreID: "a store"}
		j := d.openJournal(t, cfg)
		defer func() { j.Close() }()
		start := func(opened opened, c crash) {
			j = opened
			m.resume(j, c)
		}
		start(j, crash{states: map[string]state{
			"session 0": {epoch: "first"}, "session 1": {epoch: "first"}, "session 2": {epoch: "first"}, "session 3": {epoch: "first"},
		}})
		session := rapid.SampledFrom(m.ids())
		lives := 0
		next := func() string { lives++; return filepath.Join(folders, fmt.Sprint(lives)) }
		appendSome := func(rt *rapid.T) {
			l := m.sessions[session.Draw(rt, "session")]
			done := m.append(l, rapid.IntRange(1, 20).Draw(rt, "events"), rapid.IntRange(0, 4000).Draw(rt, "size"))
			if rapid.Bool().Draw(rt, "waits") {
				<-done
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append":       appendSome,
			"append again": appendSome,
			"store": func(rt *rapid.T) {
				m.store(m.sessions[session.Draw(rt, "session")], rapid.Int64Range(0, 100).Draw(rt, "percent"))
			},
			"begin anew": func(rt *rapid.T) {
				l := m.sessions[session.Draw(rt, "session")]
				<-m.append(l, 1, 0)
				m.anew(j, l)
			},
			"forget": func(rt *rapid.T) {
				l := m.sessions[session.Draw(rt, "session")]
				<-m.append(l, 1, 0)
				m.mu.Lock()
				l.state.stored = l.state.shown
				m.mu.Unlock()
				j.Forget(l.id)
			},
			"erase": func(rt *rapid.T) {
				l := m.sessions[session.Draw(rt, "session")]
				<-m.append(l, 1, 0)
				m.erase(j, l)
			},
			"close": func(rt *rapid.T) {
				if err := j.Close(); err != nil {
					rt.Fatal(err)
				}
				c := m.crashNow(t, cfg.Path, next(), j.ID())
				cfg.Path = c.folder
				start(m.check(t, d, cfg, c), c)
			},
			"kill": func(rt *rapid.T) {
				after := rapid.IntRange(0, 12).Draw(rt, "operations")
				to, id := next(), j.ID()
				var once sync.Once
				var c crash
				strike := func() { once.Do(func() { c = m.crashNow(t, cfg.Path, to, id) }) }
				operations := 0
				d.watch(func() {
					if operations++; operations > after {
						strike()
					}
				})
				for _, id := range m.ids() {
					m.append(m.sessions[id], 3, 100)
				}
				if rapid.Bool().Draw(rt, "erases") {
					m.erase(j, m.sessions[session.Draw(rt, "session")])
				}
				j.Close()
				d.watch(nil)
				strike()
				cfg.Path = to
				start(m.check(t, d, cfg, c), c)
			},
			"": func(rt *rapid.T) {
				for _, id := range m.ids() { // a session that the journal could not keep is begun anew
					l := m.sessions[id]
					m.mu.Lock()
					lost := l.state.lost
					m.mu.Unlock()
					if lost {
						m.anew(j, l)
					}
				}
			},
		})
	})
}
