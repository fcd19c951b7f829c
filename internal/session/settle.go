package session

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/journal"
)

// isDead reports whether a session's epoch must not go on, as the journal does not have all that readers were shown.
func (m *Manager) isDead(id, epoch string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead[id] == epoch
}

// recoveredOf gives what the journal had of a session at the start, as long as that is not settled; nil: nothing.
func (m *Manager) recoveredOf(id string) *journal.Recovered {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.recovered[id]
}

// settled notes that what the journal had of a session at the start is in its log.
func (m *Manager) settled(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.recovered, id)
}

// forget drops what the journal has of a session, and what is known of its epochs.
func (m *Manager) forget(id string) {
	m.settled(id)
	m.mu.Lock()
	delete(m.dead, id)
	m.mu.Unlock()
	m.journal.Forget(id)
}

// settlers bounds how many sessions are stored at the same time.
const settlers = 16

// each calls f for each of the sessions, some at the same time, and waits for all.
func each[T any](all []T, f func(T)) {
	next := make(chan T)
	var workers sync.WaitGroup
	for range min(settlers, len(all)) {
		workers.Go(func() {
			for v := range next {
				f(v)
			}
		})
	}
	for _, v := range all {
		next <- v
	}
	close(next)
	workers.Wait()
}

// settleRecovered brings in the sessions that the server went down under, so that their responses are closed and
// stored, whether anybody asks for them or not.
func (m *Manager) settleRecovered(ctx context.Context) {
	m.mu.Lock()
	ids := slices.Collect(maps.Keys(m.recovered))
	m.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	m.settle(ctx, ids)
	m.log.Info("the sessions in the journal are settled", "sessions", len(ids))
}

// settleLost brings in the sessions that were lost, so that the journal need not keep what it has of them; but for
// those that go on elsewhere, or under a new epoch here. It tries those again that could not be settled at the start.
func (m *Manager) settleLost(ctx context.Context) {
	m.mu.Lock()
	dead := maps.Clone(m.dead)
	m.mu.Unlock()
	each(slices.Collect(maps.Keys(dead)), func(id string) { m.letGo(id, dead[id]) })
	m.mu.Lock()
	open := maps.Clone(m.dead)
	for id := range m.recovered {
		open[id] = ""
	}
	m.mu.Unlock()
	m.settle(ctx, slices.Collect(maps.Keys(open)))
}

// letGo forgets a lost session where the store says that its epoch is over: it is another server's, or goes on here.
func (m *Manager) letGo(id, epoch string) {
	ctx, cancel := m.storeContext()
	defer cancel()
	record, err := m.store.Session(ctx, id)
	if err != nil || record.Claim.Epoch == epoch {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead[id] != epoch {
		return // what the store said is of yesterday
	}
	delete(m.dead, id)
	if _, here := m.sessions[id]; !here {
		delete(m.recovered, id)
		m.journal.Forget(id)
	}
}

// settle has the store know all of the sessions, which are brought into memory for that.
func (m *Manager) settle(ctx context.Context, ids []string) {
	each(ids, func(id string) {
		s, err := m.Open(ctx, id, func(*chat.Session) bool { return true })
		if err == nil {
			err = s.checkpoint(ctx, nil)
			s.Release()
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		if code := chat.AsError(err).Code; code != chat.CodeSessionEnded && code != chat.CodeSessionNotFound && code != chat.CodeSessionBusy {
			m.log.Warn("a session could not be settled; it is tried again", "session", id, "error", err)
		}
	})
}
