package journal

import (
	"context"
	"fmt"
)

// erasure is a session that a batch says is erased.
type erasure struct {
	sessionID string
	upTo      uint64     // the number of the segment that holds the last records which it is about
	done      chan error // takes what came of it; nil: nobody waits
}

// Erase has nothing that the journal holds of a session come back, also after a crash: once it has returned without
// error, that is on the disk, whatever Sync says. Then the session is forgotten, like by [Journal.Forget]. The records
// themselves go with their segments.
//
// It waits for I/O, and for what logs are told before: a log's callback must not call it. From then on nothing may be
// appended to the log that the session has, and the session must not go on in the same epoch, whatever Erase returns. A
// journal that cannot be written, or is closed, is an error, and so is a context that ends: then it may have been done
// or not, and can be done again. A full one is none.
func (j *Journal) Erase(ctx context.Context, sessionID string) error {
	done, err := j.erase(sessionID)
	if err == nil && done != nil {
		select {
		case err = <-done:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("erase session %s from the journal: %w", sessionID, err)
	}
	return nil
}

// erase has the batch that gathers say that a session is erased. Where there is nothing of it, there is nothing to wait
// for.
func (j *Journal) erase(sessionID string) (done chan error, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closing:
		return nil, ErrClosed
	case !holds(j.segments, sessionID):
		delete(j.recovered, sessionID)
		return nil, nil
	case !j.retry.IsZero():
		return nil, j.err
	}
	done = make(chan error, 1)
	j.pending.erase(erasure{sessionID, j.current().number, done})
	j.signal()
	return done, nil
}

// holds reports whether there may be records of a session in segments.
func holds(segments []*segment, sessionID string) bool {
	for _, s := range segments {
		if s.holds[sessionID] {
			return true
		}
	}
	return false
}

// erase adds a record that a session is erased.
func (b *batch) erase(e erasure) {
	b.buf = appendErased(b.buf, e.upTo, e.sessionID)
	b.erasures = append(b.erasures, e)
}

// carry says again what the segments that are removed with the batch say is erased, where earlier ones stay that hold
// records of it: else these would count again. The caller holds mu.
func (b *batch) carry() {
	for _, s := range b.obsolete {
		for sessionID, upTo := range s.erased {
			if holds(b.earlier, sessionID) {
				b.erase(erasure{sessionID: sessionID, upTo: upTo})
			}
		}
	}
}

// erased forgets the sessions that a batch, which is written, says are erased. The caller holds mu.
func (j *Journal) erased(b *batch) {
	for _, e := range b.erasures {
		b.segment.erase(e.sessionID, e.upTo)
		if e.done != nil {
			delete(j.recovered, e.sessionID)
			j.release(e.sessionID, func(need) bool { return true })
		}
	}
}

// answer tells those who wait for a batch's erasures what came of them.
func (b *batch) answer(err error) {
	for _, e := range b.erasures {
		if e.done != nil {
			e.done <- err
		}
	}
}

// erase takes in that what was read of a session, up to a segment, is erased.
func (r *replayer) erase(s *segment, sessionID string, upTo uint64) {
	s.erase(sessionID, upTo)
	for _, earlier := range r.segments {
		if earlier.number <= upTo {
			delete(earlier.needs, sessionID)
		}
	}
	if session := r.sessions[sessionID]; session != nil && session.segment <= upTo {
		session.erased, session.payloads = true, nil
		delete(r.sessions, sessionID)
	}
}
