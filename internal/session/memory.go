package session

import (
	"context"
	"time"
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

func (m *Manager) runCleanup(ctx context.Context) {
	ticker := time.NewTicker(m.cfg.CleanupInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			m.clean(now)
		}
	}
}

// clean compacts the logs, marks sessions that nobody needs as inactive, and removes those that have been so for the
// grace period.
func (m *Manager) clean(now time.Time) {
	removed := 0
	for _, s := range m.loaded() {
		s.compact(now.Add(-compactAfter))
		if m.retire(s, now) {
			removed++
		}
	}
	if removed > 0 {
		m.log.Info("inactive sessions have left memory", "removed", removed, "left", m.count())
	}
	m.checkThreshold()
}

func (s *Session) compact(before time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.compact(before)
}

// retire marks the session as inactive, or removes it, as its idle time demands.
func (m *Manager) retire(s *Session, now time.Time) (removed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := now.Sub(s.lastUsed)
	switch {
	case s.holds > 0 || s.turn != nil || idle < m.cfg.IdleTimeout:
		s.inactive = false
	case idle < m.cfg.IdleTimeout+m.cfg.GracePeriod:
		s.inactive = true
	default:
		delete(m.sessions, s.id)
		return true
	}
	return false
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
