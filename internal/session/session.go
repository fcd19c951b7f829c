// Package session runs conversations. A session is a log of events; one turn at a time writes a response into it, any
// number of readers follow it, each from its own place, and it knows none of them.
package session

import (
	"context"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/parley-chat/parley/chat"
)

// Session is one conversation in memory. It is made by a [Manager], and whoever gets one from there gives it back by
// [Session.Release].
type Session struct {
	id      string
	userID  string
	epoch   string
	claim   chat.Claim // under which the session is stored
	manager *Manager
	journal writer
	gone    chan struct{} // closed by the manager when it has left memory for good

	// recordGate admits one change of the stored record at a time. It is held across I/O and waited for with a
	// context, which a mutex must not be.
	recordGate chan struct{}
	revision   int64 // of the last attempt to store the record; owned by who holds the gate

	mu          sync.RWMutex // guards the fields below
	record      chat.Session
	log         eventLog
	written     <-chan struct{} // closed when the journal has the last event
	nextN       int64
	turn        *turn             // the response in progress
	states      map[string]string // the record's ProviderStates, and what came since it was stored; replaced, never changed
	submissions map[string]*submission
	ending      chan struct{} // closed when the attempt to end it is over; nil: there is none
	erased      bool
	owed        chat.Usage // what the record's sum gets beside the log's; changes only under the record's gate
	naming      bool       // a model makes its title
	lost        error      // why it is of no use any more and is to be loaded anew; nil: it is not
	wakers      []*waker   // replaced, never changed
	holds       int        // readers, turns and commands that need it in memory
	lastUsed    time.Time  // by anybody
	lastMessage time.Time  // when somebody last said something; zero: nobody has since it was loaded
	inactive    bool       // nobody needs it; it leaves memory after the grace period
}

type waker struct{ wake func() }

// newSession puts a session with its log into memory. The log is continued under the record's claim.
func newSession(m *Manager, record chat.Session, log eventLog, nextN int64) *Session {
	written := make(chan struct{})
	close(written)
	s := &Session{
		id:          record.ID,
		userID:      record.UserID,
		epoch:       record.Claim.Epoch,
		claim:       record.Claim,
		revision:    record.Revision,
		manager:     m,
		gone:        make(chan struct{}),
		recordGate:  make(chan struct{}, 1),
		record:      record,
		states:      record.ProviderStates,
		log:         log,
		written:     written,
		nextN:       nextN,
		submissions: make(map[string]*submission),
		lastUsed:    time.Now(),
	}
	s.journal = m.journal.Begin(s.id, s.epoch, log.end, s.journaled)
	return s
}

// ID returns the session's ID, which the Manager made.
func (s *Session) ID() string { return s.id }

// logger is for what happens to the session beside its turns.
func (s *Session) logger() *slog.Logger { return s.manager.log.With("session", s.id, "user", s.userID) }

// View calls f with the session's record under its lock. It implements [chat.SessionView].
func (s *Session) View(f func(*chat.Session)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f(&s.record)
}

// Record returns a copy of the session's record.
func (s *Session) Record() chat.Session {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.record
}

// Hold keeps the session in memory once more, for one who has it already.
func (s *Session) Hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds++
}

// Release gives the session back: as far as the caller is concerned it may leave memory.
func (s *Session) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds--
	s.lastUsed = time.Now()
}

// Responding reports whether a response is in progress whose end cannot be read yet.
func (s *Session) Responding() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.turn != nil || s.log.shown < s.log.end
}

// ResponseTimes describes how long the session's latest responses took to their first text and to their end.
func (s *Session) ResponseTimes() (firstToken, total chat.Summary) {
	return chat.SummariseResponseTimes(s.Record().ResponseTimes)
}

// Lost reports whether the session is of no use any more. Whoever reads it has to open it anew, and finds another epoch.
func (s *Session) Lost() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.lost != nil
}

// Attach gives a reader its place in the log, and what it is told of the session. With after and the log's own epoch
// the reader goes on after that seq; without, it gets the newest history messages first.
//
// An after beyond the log's end is an [chat.Error] of code invalid_message; a session that has ended meanwhile is
// session_ended, and one that is lost has to be opened again.
func (s *Session) Attach(after *int64, epoch string, history int) (Cursor, chat.SessionOpened, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	opened := chat.SessionOpened{Session: s.record, Epoch: s.epoch, Seq: s.log.shown}
	switch {
	case s.record.Status == chat.SessionStatusEnded:
		return Cursor{}, opened, errEnded()
	case s.lost != nil:
		return Cursor{}, opened, s.lost
	}
	if s.turn != nil && s.turn.msg != nil {
		opened.InProgress = s.turn.msg.ID
	}
	if after != nil && epoch == s.epoch {
		if *after > s.log.shown {
			return Cursor{}, opened, chat.InvalidField("after", "it lies beyond the end of the session's log")
		}
		opened.Resumed = true
		opened.HasMore = s.log.older
		return Cursor{pos: *after, sent: *after}, opened, nil
	}
	opened.Reset = after != nil
	backlog, end, more := s.log.newest(history)
	opened.HasMore = more
	if n := len(backlog); end > 0 && (n == 0 || backlog[n-1].Seq < end) {
		// What else happened up to there is told as what it has come to.
		backlog = append(backlog, chat.Event{Seq: end, Body: state(&s.record)})
	}
	return Cursor{backlog: backlog, pos: end}, opened, nil
}

// state is what a reader is told who has skipped over changes.
func state(r *chat.Session) chat.SessionUpdated {
	return chat.SessionUpdated{
		Title: new(r.Title), Model: new(r.Model), HelpRequested: new(r.HelpRequested), AssistedBy: new(r.AssistedBy),
	}
}

// Notify has wake called after each change of what can be read, until stop is called. wake must not block; a last call
// may come late, after stop.
func (s *Session) Notify(wake func()) (stop func()) {
	w := &waker{wake}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wakers = append(slices.Clip(s.wakers), w)
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wakers = slices.DeleteFunc(slices.Clone(s.wakers), func(o *waker) bool { return o == w })
		s.dropEndedLog()
	})
}

// dropEndedLog releases the messages of an ended session that nobody reads any more, although a connection may still
// be bound to it. The lock is held.
func (s *Session) dropEndedLog() {
	if s.record.Status == chat.SessionStatusEnded && len(s.wakers) == 0 {
		end := s.log.end
		s.log = newEventLog()
		s.log.end, s.log.shown = end, end
	}
}

// Follow yields every event after a seq of the session's present epoch, as they come, until ctx ends; ctx's error is
// the last pair.
func (s *Session) Follow(ctx context.Context, after int64) iter.Seq2[chat.Event, error] {
	return func(yield func(chat.Event, error) bool) {
		changed := make(chan struct{}, 1)
		stop := s.Notify(func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
		defer stop()
		cursor := Cursor{pos: after, sent: after}
		for {
			e, ok, err := s.Read(&cursor)
			if err != nil {
				yield(chat.Event{}, err)
				return
			}
			if ok {
				if !yield(e, nil) {
					return
				}
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(chat.Event{}, ctx.Err())
				return
			}
		}
	}
}

// change runs f under the lock.
func (s *Session) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.lastUsed = time.Now()
}

// wake tells the readers that something has changed. The lock is not held.
func (s *Session) wake() {
	s.mu.RLock()
	wakers := s.wakers
	s.mu.RUnlock()
	for _, w := range wakers {
		w.wake()
	}
}

// usable says why a command cannot be carried out any more, if so. The lock is held.
func (s *Session) usable() error {
	switch {
	case s.ending != nil || s.record.Status == chat.SessionStatusEnded:
		return errEnded()
	case s.lost != nil:
		return s.lost
	}
	if err := s.manager.journal.Err(); err != nil {
		return journalError(err) // nothing could be shown: better to refuse than to accept and lose
	}
	return nil
}
