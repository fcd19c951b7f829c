package session

import (
	"context"
	"errors"
	"maps"
	"slices"
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
	often := time.NewTicker(soon)
	defer often.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-often.C:
			if m.leases.isShared() {
				m.retireAll(time.Now())
			}
			continue
		case <-m.hurry:
			if early == nil {
				early = time.After(soon)
			}
			continue
		case <-early:
			early = nil
			m.catchUp()
		case <-ticker.C:
			m.clean(time.Now())
			if m.leases.isShared() {
				m.releaseOrphans(ctx)
			}
		}
		m.settleLost(ctx)
	}
}

// storeLater has the cleanup come soon, and try again to store what the store does not know of a session.
func (m *Manager) storeLater(s *Session) {
	m.mu.Lock()
	m.behind[s] = struct{}{}
	m.mu.Unlock()
	m.hasten()
}

// hasten has the cleanup come soon.
func (m *Manager) hasten() {
	select {
	case m.hurry <- struct{}{}:
	default:
	}
}

// catchUp stores what the store did not take.
func (m *Manager) catchUp() {
	m.mu.Lock()
	behind := slices.Collect(maps.Keys(m.behind))
	clear(m.behind)
	m.mu.Unlock()
	var failed atomic.Int64
	each(behind, func(s *Session) {
		if err := s.checkpoint(m.storing, nil); err != nil && !s.Lost() {
			failed.Add(1)
			m.storeLater(s)
		}
	})
	if n := int64(len(behind)) - failed.Load(); n > 0 {
		m.log.Info("the storage has what it could not take before", "sessions", n, "left", failed.Load())
	}
}

// retireAll lets go of the sessions that nobody needs, so that other servers can have them. What is to be stored of one is
// stored before: while the storage hangs it stays, for who comes back.
func (m *Manager) retireAll(now time.Time) {
	if !m.leases.isFresh(m.cfg.LeaseTimeout) {
		return
	}
	each(m.loaded(), func(s *Session) {
		if !m.isUnneeded(s, now) {
			return
		}
		if err := s.checkpoint(m.storing, nil); err != nil {
			m.storeLater(s)
		} else if place := m.retire(s, now, linger); place != nil {
			m.evict(s, place)
		}
	})
}

// isUnneeded reports whether a session may be let go of for the sake of other servers.
func (m *Manager) isUnneeded(s *Session, now time.Time) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.holds == 0 && s.turn == nil && now.Sub(s.lastUsed) >= linger
}

// linger is how long a session stays that nobody needs, where another server may want it: a client whose connection was
// cut mostly comes back to the same one.
const linger = 5 * time.Second

// clean compacts the logs, stores how far sessions have come, marks those that nobody needs as inactive, and removes
// those that have been so for the grace period.
func (m *Manager) clean(now time.Time) {
	var removed atomic.Int64
	each(m.loaded(), func(s *Session) {
		s.compact(now.Add(-compactAfter))
		if place := m.retire(s, now, m.cfg.IdleTimeout+m.cfg.GracePeriod); place != nil {
			if m.evict(s, place) {
				removed.Add(1)
			}
			return
		}
		if err := s.checkpoint(m.storing, nil); err != nil {
			s.logger().Warn("storing how far a session has come failed", "error", err)
			m.storeLater(s)
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

// retire marks the session as inactive, or, after it was idle for so long, takes it from those who look for it: they wait
// at the slot that it returns until it has left.
func (m *Manager) retire(s *Session, now time.Time, after time.Duration) (leaving *slot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if place, ok := m.sessions[s.id]; !ok || place.session != s {
		return nil
	}
	idle := now.Sub(s.lastUsed)
	switch {
	case s.holds > 0 || s.turn != nil:
		s.inactive = false
	case idle >= after:
		leaving = &slot{ready: make(chan struct{})}
		m.sessions[s.id] = leaving
	default:
		s.inactive = idle >= m.cfg.IdleTimeout
	}
	return leaving
}

// evict stores what is to be stored of a session that leaves. Where that fails it stays.
func (m *Manager) evict(s *Session, place *slot) (left bool) {
	err := s.settle()
	if err != nil {
		s.logger().Warn("a session stays in memory, as it could not be stored", "error", err)
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
	_, err := s.manager.store.ClaimSession(ctx, s.id, record.Claim, free)
	if err != nil && !errors.Is(err, chat.ErrStale) { // which says that it was done, and somebody has it by now
		// It may have been done, so it must not go on here. Where it was not, this journal still vouches for the log.
		s.logger().Warn("a claim could not be given up", "error", err)
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
