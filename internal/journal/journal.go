// Package journal is the append-only file that every event of a session passes before it is shown, so that what a
// client has seen outlives the process.
//
// A [Journal] is a folder of segments that one goroutine writes: whatever has gathered while a write ran goes out with
// the next one, for all sessions together. A session appends its events to a [Log], is told when they are written, and
// says when the store knows them; segments go when nobody needs what they hold. [Open] reads the folder again and gives
// what the store may not know yet, or begins a new life where the files cannot be trusted.
//
// The lock order is session, then journal: a [Log]'s methods may be called under the session's lock, and the journal
// calls back without holding any of its own.
package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/seal"
)

// Config says where a journal lies and what it may take.
type Config struct {
	Path     string // a folder; made where it is missing, 0700, files 0600
	MaxBytes int64  // of all segments together, give or take their headers
	Sync     bool   // fsync each write before it is shown: the journal outlives the machine's crash, too
	StoreID  string // the store whose sessions these are

	// Keys encrypt what events say, from now on; nil: nothing is encrypted. What others have encrypted, or nobody, is
	// read all the same: see [Recovered.Events].
	Keys *seal.Keyset
}

// The errors for which a [Log] ends and [Journal.Err] may be set. Any other is of the file system.
var (
	ErrFull   = errors.New("the journal is full")
	ErrClosed = errors.New("the journal is closed")
)

// Journal keeps what was appended to the logs of many sessions. All methods are safe for concurrent use and, but for
// Close and Erase, neither do I/O nor wait for it.
type Journal struct {
	cfg     Config
	logger  *slog.Logger
	disk    disk
	id      string
	lock    *flock.Flock
	metrics *metrics
	wake    chan struct{} // holds a value while there may be something to do for the writer
	stopped chan struct{} // closed when the writer has returned

	// Owned by the writer.
	active   *segment // the one whose file is open; nil: none
	markFile file
	reported bool   // the log says that the journal cannot be written
	spare    *batch // an old one, for its memory; nil: none

	mu        sync.Mutex // guards the fields below, and those of logs and segments that say so
	recovered map[string]*Recovered
	segments  []*segment // in order; the last one is where pending goes, and may have no file yet
	bytes     int64      // of all segments, with what is being written
	pending   *batch
	waiting   int    // events that were appended and are not written yet
	batches   uint64 // how many there were
	err       error
	retry     time.Time // when to try again after an error of the file system; zero: there was none
	closing   bool
}

// Open reads the journal in a folder, or makes a new one, and locks it against others. Files that are damaged,
// incomplete or foreign are no error: they are removed, with a warning, and the journal begins a new life. An error is
// what keeps files from being read or written, or that somebody else has the folder open.
func Open(cfg Config, log *slog.Logger) (*Journal, error) {
	return openJournal(cfg, log, disk{open: openFile, remove: os.Remove, boot: bootID()})
}

func openJournal(cfg Config, log *slog.Logger, d disk) (*Journal, error) {
	if err := os.MkdirAll(cfg.Path, 0o700); err != nil {
		return nil, fmt.Errorf("make the journal's folder: %w", err)
	}
	lock := flock.New(filepath.Join(cfg.Path, lockName))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock the journal %s: %w", cfg.Path, err)
	}
	if !locked {
		return nil, fmt.Errorf("the journal %s is in use: stop the process that has it open, "+
			"or give this one a folder of its own", cfg.Path)
	}
	j := &Journal{
		cfg: cfg, logger: log, disk: d, lock: lock, metrics: newMetrics(),
		wake: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
	if err := j.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the journal %s: %w", cfg.Path, err), lock.Unlock())
	}
	return j, nil
}

// start takes over what the folder holds and begins a segment after it.
func (j *Journal) start() error {
	found, err := replay(j.cfg, j.disk.boot, j.logger)
	if why, ok := errors.AsType[untrusted](err); ok {
		j.logger.Warn("the journal cannot be trusted and begins a new life: clients that come back are reset",
			"folder", j.cfg.Path, "reason", why.Error())
		err = j.discard(found.numbers)
		found = finding{numbers: found.numbers}
	}
	if err != nil {
		return err
	}
	j.id, j.recovered, j.segments = found.id, found.sessions, found.segments
	if j.id == "" {
		j.id = chat.NewID()
	}
	for _, s := range j.segments {
		j.bytes += s.size
	}
	j.add(found.last() + 1)
	j.detach() // there was nothing: the first batch gathers from here on
	if j.markFile, err = j.disk.open(filepath.Join(j.cfg.Path, markName)); err != nil {
		return err
	}
	first := j.load()
	if err := j.commit(first); err != nil {
		j.abandon()
		return errors.Join(err, j.markFile.Close())
	}
	j.finish(first)
	for _, number := range found.stale {
		j.remove(number)
	}
	go j.run()
	return nil
}

// discard removes what is not trusted. The mark goes first: without it the rest is not trusted either, should this be
// cut short.
func (j *Journal) discard(numbers []uint64) error {
	paths := []string{filepath.Join(j.cfg.Path, markName)}
	for _, n := range numbers {
		paths = append(paths, segmentPath(j.cfg.Path, n))
	}
	for _, path := range paths {
		if err := j.disk.remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// ID names this unbroken life of the journal. It is the same after a restart that could trust the files: then all
// that was ever shown under it was stored, or is in Recovered.
func (j *Journal) ID() string { return j.id }

// Recovered gives, by session ID, what Open found of sessions that were neither begun nor forgotten since. Whoever
// opens a journal has to get through all of them: until each one's records are stored, or forgotten, their segments stay.
func (j *Journal) Recovered() map[string]*Recovered {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.recovered)
}

// Begin gives a session's log whose end is at a seq. Records of the session under another epoch are not needed any
// more. A session has one Log: an earlier one must not be appended to after this.
//
// written is called from the journal's goroutine each time that records of the log were written, with the last one's
// seq, and where they could not be: once, with the last seq that was written and the reason, and never again. It may
// take the session's lock, and call all but Close and Erase.
func (j *Journal) Begin(sessionID, epoch string, end int64, written func(seq int64, err error)) *Log {
	l := &Log{
		journal: j, sessionID: sessionID, epoch: epoch, report: written, outcome: closed,
		end: end, written: end, stored: end,
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.recovered, sessionID)
	j.release(sessionID, func(n need) bool { return n.epoch != epoch })
	return l
}

// Forget says that nothing of the session is needed any more: it has ended, it is somebody else's, or it has another
// epoch.
func (j *Journal) Forget(sessionID string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.recovered, sessionID)
	j.release(sessionID, func(need) bool { return true })
}

// release drops what is needed of a session, segment by segment. The caller holds mu.
func (j *Journal) release(sessionID string, obsolete func(need) bool) {
	for _, s := range j.segments {
		n, ok := s.needs[sessionID]
		if !ok || !obsolete(n) {
			continue
		}
		delete(s.needs, sessionID)
		if len(s.needs) == 0 {
			j.signal()
		}
	}
}

// Err says why nothing can be written at present; nil where all is well. The journal tries again by itself: after an
// error of the file system once a second, and where it is full when segments were removed.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closing {
		return ErrClosed
	}
	return j.err
}

// Stats are figures of a journal.
type Stats struct {
	Segments int   // the files there are
	Bytes    int64 // that they take together, with what is being written
	Waiting  int   // events that are not written yet, those that are being written included
}

// Stats gives the journal's figures.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := Stats{Bytes: j.bytes, Waiting: j.waiting}
	for _, segment := range j.segments {
		if segment.size > 0 {
			s.Segments++
		}
	}
	return s
}

// Close writes what waits, removes the segments that nobody needs and unlocks the folder. What is appended after it
// began is ignored. It returns when the journal's goroutine has, with what kept it from writing; called again, it does
// nothing.
func (j *Journal) Close() error {
	j.mu.Lock()
	again := j.closing
	j.closing = true
	j.signal()
	j.mu.Unlock()
	<-j.stopped
	if again {
		return nil
	}
	var err error
	if !j.retry.IsZero() {
		err = j.err
	}
	if j.active != nil {
		err = errors.Join(err, j.active.file.Close())
	}
	if err = errors.Join(err, j.markFile.Close(), j.lock.Unlock()); err != nil {
		return fmt.Errorf("close the journal %s: %w", j.cfg.Path, err)
	}
	return nil
}

// signal wakes the writer.
func (j *Journal) signal() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}
