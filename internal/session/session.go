// Package session runs conversations. A session is a log of events; one turn at a time writes a response into it, any
// number of readers follow it, each from its own place, and it knows none of them.
package session

import (
	"context"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/parley-chat/parley/chat"
)

// Session is one conversation in memory. It is made by a [Manager], and whoever gets one from there gives it back by
// [Session.Release].
type Session struct {
	id      string
	epoch   string
	manager *Manager

	// recordGate admits one change of the stored record at a time. It is held across I/O and waited for with a
	// context, which a mutex must not be.
	recordGate chan struct{}

	mu          sync.RWMutex // guards the fields below
	record      chat.Session
	log         eventLog
	nextN       int64
	oldestN     int64 // messages below it are in the store only
	turn        *turn // the response in progress
	submissions map[string]*submission
	ending      bool
	wakers      []*waker // replaced, never changed
	holds       int      // readers, turns and commands that need it in memory
	lastUsed    time.Time
	inactive    bool // nobody needs it; it leaves memory after the grace period
}

type waker struct{ wake func() }

func newSession(m *Manager, record chat.Session, stored []chat.Message, older bool) *Session {
	s := &Session{
		id:          record.ID,
		epoch:       chat.NewID(),
		manager:     m,
		recordGate:  make(chan struct{}, 1),
		record:      record,
		log:         newEventLog(),
		nextN:       1,
		submissions: make(map[string]*submission),
		lastUsed:    time.Now(),
	}
	s.log.restore(stored, older)
	if len(stored) > 0 {
		s.oldestN = stored[0].N
		s.nextN = stored[len(stored)-1].N + 1
	}
	return s
}

// ID returns the session's ID, which the Manager made.
func (s *Session) ID() string { return s.id }

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

// Responding reports whether a response is in progress.
func (s *Session) Responding() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.turn != nil
}

// Cursor is a reader's place in a session's log. The zero Cursor stands before the first event. It belongs to one
// reader and is not safe for concurrent use.
type Cursor struct {
	backlog []chat.Event // what an opening reader gets first: its history
	pos     int64        // the log has been read up to here
	sent    int64        // what the reader knows to have: the seq of the last event it was given
}

// Attach gives a reader its place in the log, and what it is told of the session. With after and the log's own epoch
// the reader goes on after that seq; without, it gets the newest history messages first.
//
// An after beyond the log's end is an [chat.Error] of code invalid_message.
func (s *Session) Attach(after *int64, epoch string, history int) (Cursor, chat.SessionOpened, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	opened := chat.SessionOpened{Session: s.record, Epoch: s.epoch, Seq: s.log.end}
	if s.turn != nil && s.turn.msg != nil {
		opened.InProgress = s.turn.msg.ID
	}
	if after != nil && epoch == s.epoch {
		if *after > s.log.end {
			return Cursor{}, opened, chat.InvalidField("after", "it lies beyond the end of the session's log")
		}
		opened.Resumed = true
		opened.HasMore = s.log.older
		return Cursor{pos: *after, sent: *after}, opened, nil
	}
	opened.Reset = after != nil
	backlog, more := s.log.newest(history)
	opened.HasMore = more
	if n := len(backlog); s.log.end > 0 && (n == 0 || backlog[n-1].Seq < s.log.end) {
		// What else happened up to the log's end is told as what it has come to.
		backlog = append(backlog, chat.Event{Seq: s.log.end, Body: chat.SessionUpdated{
			Title: new(s.record.Title), Model: new(s.record.Model), HelpRequested: new(s.record.HelpRequested),
			AssistedBy: s.record.AssistedBy,
		}})
	}
	return Cursor{backlog: backlog, pos: s.log.end}, opened, nil
}

// Read gives the next event after the cursor and moves the cursor behind it. It never blocks: false means that there
// is nothing yet.
func (s *Session) Read(c *Cursor) (chat.Event, bool) {
	e, ok := s.nextEvent(c)
	if !ok {
		return chat.Event{}, false
	}
	e.SessionID = s.id
	e.From = c.sent + 1
	c.sent = e.Seq
	c.pos = max(c.pos, e.Seq)
	return e, true
}

func (s *Session) nextEvent(c *Cursor) (chat.Event, bool) {
	if len(c.backlog) > 0 {
		e := c.backlog[0]
		c.backlog = c.backlog[1:]
		return e, true
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.log.next(c.pos)
}

// Passed reports whether the event of this seq lies behind the cursor, so that Read will not give it any more.
func (c *Cursor) Passed(seq int64) bool {
	return seq <= c.pos && (len(c.backlog) == 0 || seq < c.backlog[0].Seq)
}

// Notify has wake called after each change of the log, until stop is called. wake must not block; a last call may
// come late, after stop.
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
		s.log.end = end
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
			for e, ok := s.Read(&cursor); ok; e, ok = s.Read(&cursor) {
				if !yield(e, nil) {
					return
				}
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

// change runs f under the lock and wakes the readers afterwards.
func (s *Session) change(f func()) {
	s.mu.Lock()
	f()
	s.lastUsed = time.Now()
	wakers := s.wakers
	s.mu.Unlock()
	for _, w := range wakers {
		w.wake()
	}
}

// usable says why a command cannot be carried out any more, if so. The lock is held.
func (s *Session) usable() error {
	if s.ending || s.record.Status == chat.SessionStatusEnded {
		return errEnded()
	}
	return nil
}
