package session

import (
	"context"
	"fmt"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/journal"
)

var _ writer = (*journal.Log)(nil)

// writer is the journal of one session. [journal.Log] says what it promises.
type writer interface {
	Append(e chat.Event) (done <-chan struct{})
	Stored(seq int64)
}

// Every event goes the same way: under the lock it gets its seq, its place in the log in memory, and its place in what
// the journal writes next. Readers see it once it is written, so that what a client has seen outlives the process.

func (s *Session) addMessage(m chat.Message) *message {
	msg := s.log.addMessage(m)
	s.append(chat.MessageCreated{Message: m})
	return msg
}

func (s *Session) addDelta(msg *message, kind chat.DeltaKind, text string) {
	s.log.addDelta(msg, kind, text)
	s.append(chat.MessageDelta{MessageID: msg.ID, Kind: kind, Text: text})
}

func (s *Session) addCompleted(msg *message, final chat.Message) {
	s.log.addCompleted(msg, final, time.Now())
	s.append(msg.completion())
}

func (s *Session) addOther(body chat.EventBody) {
	s.log.addOther(body)
	s.append(body)
}

// append hands the event that was added to the log last to the journal. The lock is held.
func (s *Session) append(body chat.EventBody) {
	s.written = s.journal.Append(chat.Event{SessionID: s.id, Seq: s.log.end, Body: body})
}

// journaled shows what the journal has written: the events up to a seq. An error means that it will not write those
// that follow.
func (s *Session) journaled(seq int64, err error) {
	if err != nil {
		s.lose(journalError(err))
		return
	}
	s.mu.Lock()
	s.log.shown = seq
	s.mu.Unlock()
	s.wake()
}

func journalError(err error) error {
	return chat.NewError(chat.CodeStorageUnavailable, "the storage cannot take anything at present").
		WithCause(fmt.Errorf("journal: %w", err))
}

// awaitWritten waits until the journal has, or has refused, all events so far.
func (s *Session) awaitWritten(ctx context.Context) error {
	s.mu.RLock()
	written := s.written
	s.mu.RUnlock()
	return await(ctx, written)
}

// lose gives the session up: what it holds can no longer be shown, or belongs to another server. Its turn ends, its
// readers are sent away, and it leaves memory. Whoever opens it again gets what the store has, under a new epoch.
func (s *Session) lose(cause error) {
	s.mu.Lock()
	first := s.lost == nil
	if first {
		s.lost = cause
		if s.turn != nil {
			s.turn.cancel(errLost)
		}
	}
	busy := s.turn != nil
	s.mu.Unlock()
	if first {
		s.manager.metrics.lost.Inc()
		s.logger().Error("a session is given up, and loaded anew when it is wanted", "error", cause)
	}
	s.wake()
	if !busy {
		s.manager.remove(s)
	}
}
