package session

import (
	"context"
	"errors"
	"time"

	"github.com/parley-chat/parley/chat"
)

const (
	sweepPage     = 100 // sessions are looked at in one go
	sweepFailures = 10  // sessions that cannot be removed, until the others are left for the next time
)

// runSweeps removes what is too old, again and again, until ctx ends. It may take its time: whatever else there is to do
// does not wait for it.
func (m *Manager) runSweeps(ctx context.Context) {
	if m.cfg.Retention == 0 && m.cfg.UsageRetention == 0 {
		return
	}
	ticker := time.NewTicker(m.cfg.CleanupInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			m.sweep(ctx, chat.Now())
		case <-ctx.Done():
			return
		}
	}
}

// sweep removes from the store what is older than it may become: whole sessions, and what responses cost. A session that
// is in memory, here or elsewhere, stays.
func (m *Manager) sweep(ctx context.Context, now time.Time) {
	if m.cfg.Retention > 0 {
		removed, err := m.sweepSessions(ctx, now.Add(-m.cfg.Retention))
		if removed > 0 {
			m.log.Info("sessions were removed for their age", "sessions", removed, "retention", m.cfg.Retention.String())
		}
		m.sweepFailed(ctx, err)
	}
	if m.cfg.UsageRetention > 0 {
		ctx, cancel := m.storeContext()
		defer cancel()
		m.sweepFailed(ctx, m.store.DeleteUsage(ctx, chat.UsageFilter{To: now.Add(-m.cfg.UsageRetention)}))
	}
}

func (m *Manager) sweepFailed(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		m.log.Warn("what is too old could not be removed; it is tried again", "error", err)
	}
}

func (m *Manager) sweepSessions(ctx context.Context, before time.Time) (removed int, err error) {
	kept := make(map[string]bool)
	var failures []error
	for ctx.Err() == nil {
		ids, err := m.store.IdleSessions(ctx, before, len(kept)+sweepPage)
		if err != nil {
			return removed, err
		}
		progress := false
		for _, id := range ids {
			if kept[id] {
				continue
			}
			progress = true
			switch err := m.removeIdle(ctx, id, before); {
			case errors.Is(err, chat.ErrStale):
				kept[id] = true
			case err != nil:
				kept[id] = true
				if failures = append(failures, err); len(failures) >= sweepFailures {
					return removed, errors.Join(failures...)
				}
			default:
				removed++
			}
		}
		if !progress {
			return removed, errors.Join(failures...)
		}
	}
	return removed, ctx.Err()
}

// removeIdle removes a session that nobody has in memory and that was not active since a time; else it is ErrStale. What
// the journal still has of one is settled first.
func (m *Manager) removeIdle(ctx context.Context, id string, since time.Time) error {
	release, free := m.occupy(id)
	if !free {
		return chat.ErrStale
	}
	defer release()
	record, err := m.store.Session(ctx, id)
	if errors.Is(err, chat.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if elsewhere, err := m.isElsewhere(ctx, record.Claim); err != nil {
		return err
	} else if elsewhere {
		return chat.ErrStale
	}
	if record.Status != chat.SessionStatusEnded {
		// So that another server which opens it meanwhile does so before, and has it, or after, and waits.
		if err := m.leases.hold(ctx); err != nil {
			return err
		}
		if _, err := m.store.ClaimSession(ctx, id, record.Claim, m.newClaim(record.Claim.Epoch)); err != nil {
			return err
		}
	}
	if err := m.store.DeleteSession(ctx, id, since); err != nil {
		return err
	}
	m.forget(id)
	return nil
}

// occupy takes the place of a session that is not in memory, so that whoever wants to open it waits for release. It is
// not free where somebody has it, and where the journal has something of it that is not settled.
func (m *Manager) occupy(id string) (release func(), free bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, here := m.sessions[id]
	_, unsettled := m.recovered[id]
	_, dead := m.dead[id]
	if here || unsettled || dead {
		return nil, false
	}
	place := &slot{ready: make(chan struct{}), err: errLeft}
	m.sessions[id] = place
	return func() {
		m.mu.Lock()
		delete(m.sessions, id)
		m.mu.Unlock()
		close(place.ready)
	}, true
}

// releaseOrphans lets go of the sessions that this server has claimed and does not have: it went down, or the store
// failed it, between the one and the other. Nothing of them is in the journal: they end cleanly.
func (m *Manager) releaseOrphans(ctx context.Context) {
	released, after := 0, ""
	for ctx.Err() == nil {
		ids, err := m.store.ClaimedSessions(ctx, m.journal.ID(), after, sweepPage)
		if err != nil {
			m.log.Warn("whether sessions are claimed for nobody is not known; it is asked again", "error", err)
			return
		}
		for _, id := range ids {
			after = id
			switch done, err := m.releaseOrphan(ctx, id); {
			case err != nil:
				m.log.Warn("a session that is claimed for nobody could not be let go of; it is tried again", "session", id, "error", err)
				return
			case done:
				released++
			}
		}
		if len(ids) < sweepPage {
			break
		}
	}
	if released > 0 {
		m.log.Info("sessions that were claimed for nobody are let go of", "sessions", released)
	}
}

func (m *Manager) releaseOrphan(ctx context.Context, id string) (done bool, err error) {
	release, free := m.occupy(id)
	if !free {
		return false, nil
	}
	defer release()
	record, err := m.store.Session(ctx, id)
	if errors.Is(err, chat.ErrNotFound) || err == nil && (!m.isMine(record.Claim) || record.Status == chat.SessionStatusEnded) {
		return false, nil
	}
	if err == nil {
		_, err = m.store.ClaimSession(ctx, id, record.Claim, chat.Claim{Epoch: record.Claim.Epoch})
	}
	if errors.Is(err, chat.ErrStale) {
		return false, nil
	}
	return err == nil, err
}
