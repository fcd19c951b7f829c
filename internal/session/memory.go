package session

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/parley-chat/parley/chat"
)

// compactAfter is how long the log of a finished response keeps its deltas, for readers that come back in the middle.
const compactAfter = 30 * time.Second

// MemoryStats is what the sessions in memory amount to.
type MemoryStats struct {
	Active   int // somebody reads them, or a response is in progress, or that was so a moment ago
	Inactive int // nobody needs them; they leave after the grace period
	Total    int
	Messages int
	Bytes    int64 // estimated
}

// MemoryStats tells what the sessions in memory amount to at present.
func (m *Manager) MemoryStats() MemoryStats {
	var stats MemoryStats
	for _, s := range m.loaded() {
		s.mu.RLock()
		stats.Total++
		if s.inactive {
			stats.Inactive++
		} else {
			stats.Active++
		}
		stats.Messages += len(s.log.messages)
		stats.Bytes += s.log.bytes()
		s.mu.RUnlock()
	}
	return stats
}

// loaded gives the sessions that are in memory, those being loaded excepted.
func (m *Manager) loaded() []*Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	sessions := make([]*Session, 0, len(m.sessions))
	for _, place := range m.sessions {
		if place.session != nil {
			sessions = append(sessions, place.session)
		}
	}
	return sessions
}

// soon is when the cleanup comes that is wanted before its time.
const soon = time.Second

func (m *Manager) runCleanup(ctx context.Context) {
	ticker := time.NewTicker(m.cfg.CleanupInterval)
	defer ticker.Stop()
	var early <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.hurry:
			if early == nil {
				early = time.After(soon)
			}
			continue
		case <-early:
			early = nil
		case <-ticker.C:
		}
		m.clean(time.Now())
		m.settleLost(ctx)
	}
}

// clean compacts the logs, stores how far sessions have come, marks those that nobody needs as inactive, and removes
// those that have been so for the grace period.
func (m *Manager) clean(now time.Time) {
	var removed atomic.Int64
	each(m.loaded(), func(s *Session) {
		s.compact(now.Add(-compactAfter))
		if place := m.retire(s, now); place != nil {
			if m.evict(s, place) {
				removed.Add(1)
			}
			return
		}
		if err := s.checkpoint(m.storing, nil); err != nil {
			m.log.Warn("storing how far a session has come failed", "session", s.id, "error", err)
		}
	})
	if n := removed.Load(); n > 0 {
		m.log.Info("inactive sessions have left memory", "removed", n, "left", m.count())
	}
	m.checkThreshold()
}

// compact gives up what the log need not have in memory.
func (s *Session) compact(before time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.compact(before, state(&s.record))
	s.log.trim(loadedMessages, s.record.LogEnd)
}

// retire marks the session as inactive, or, once its time has come, takes it from those who look for it: they wait at
// the slot that it returns until it has left.
func (m *Manager) retire(s *Session, now time.Time) (leaving *slot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if place, ok := m.sessions[s.id]; !ok || place.session != s {
		return nil
	}
	idle := now.Sub(s.lastUsed)
	switch {
	case s.holds > 0 || s.turn != nil || idle < m.cfg.IdleTimeout:
		s.inactive = false
	case idle < m.cfg.IdleTimeout+m.cfg.GracePeriod:
		s.inactive = true
	default:
		leaving = &slot{ready: make(chan struct{})}
		m.sessions[s.id] = leaving
	}
	return leaving
}

// evict stores what is to be stored of a session that leaves. Where that fails it stays.
func (m *Manager) evict(s *Session, place *slot) (left bool) {
	err := s.settle()
	if err != nil {
		m.log.Warn("a session stays in memory, as it could not be stored", "session", s.id, "error", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil && !s.Lost() {
		place.session = s
	} else {
		place.err = errLeft
		delete(m.sessions, s.id)
		m.part(s)
	}
	close(place.ready)
	return place.err != nil
}

var errUnsettled = errors.New("the store does not know all of the session's log")

// settle stores how far the session has come and gives up its claim: it ends cleanly, and whoever opens it next
// continues its log. Nothing must come after it.
func (s *Session) settle() error {
	if err := s.awaitWritten(s.manager.storing); err != nil {
		return err
	}
	if err := s.checkpoint(s.manager.storing, nil); err != nil {
		return err
	}
	record := s.Record()
	if record.Status == chat.SessionStatusEnded || s.Lost() {
		return nil
	}
	s.mu.RLock()
	whole := s.record.LogEnd == s.log.end
	s.mu.RUnlock()
	if !whole {
		return errUnsettled
	}
	ctx, cancel := s.manager.storeContext()
	defer cancel()
	free := chat.Claim{Epoch: record.Claim.Epoch}
	err := s.manager.store.ClaimSession(ctx, s.id, record.Claim, free)
	if errors.Is(err, chat.ErrStale) {
		s.lose(errBusy(err))
	} else if err != nil {
		// It may have been done, so it must not go on here. Where it was not, this journal still vouches for the log.
		s.manager.log.Warn("a claim could not be given up", "session", s.id, "error", err)
	}
	return nil
}

func (m *Manager) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.sessions)
}

// checkThreshold warns once each time that the number of sessions in memory rises above the threshold.
func (m *Manager) checkThreshold() {
	if m.cfg.WarnThreshold == 0 {
		return
	}
	m.mu.Lock()
	n := len(m.sessions)
	above := n > m.cfg.WarnThreshold
	warn := above && !m.warned
	m.warned = above
	m.mu.Unlock()
	if warn {
		m.log.Warn("there are many sessions in memory", "sessions", n, "threshold", m.cfg.WarnThreshold)
	}
}
