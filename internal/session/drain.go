package session

import (
	"context"
	"sync/atomic"

	"github.com/parley-chat/parley/chat"
)

// beginTurn counts a turn in; false: a drain has begun.
func (m *Manager) beginTurn() bool {
	m.turnMu.Lock()
	defer m.turnMu.Unlock()
	if m.drained {
		return false
	}
	m.running++
	return true
}

func errDraining() error {
	return chat.NewError(chat.CodeServerDraining, "the server is about to restart")
}

func (m *Manager) stopped() bool {
	m.turnMu.Lock()
	defer m.turnMu.Unlock()
	return m.drained
}

func (m *Manager) endTurn() {
	m.turnMu.Lock()
	defer m.turnMu.Unlock()
	m.running--
	if m.drained && m.running == 0 {
		close(m.finished)
	}
}

// Running gives the number of turns in progress.
func (m *Manager) Running() int {
	m.turnMu.Lock()
	defer m.turnMu.Unlock()
	return m.running
}

// StopTurns lets no turn begin any more.
func (m *Manager) StopTurns() {
	m.turnMu.Lock()
	defer m.turnMu.Unlock()
	if !m.drained {
		m.drained = true
		if m.running == 0 {
			close(m.finished)
		}
	}
}

// Drain waits until the last turn has ended. When soft ends before, it interrupts those that are left and waits until
// their text is stored; when hard ends too, nothing is stored any more. It returns how many were interrupted.
// [Manager.StopTurns] comes before it.
func (m *Manager) Drain(soft, hard context.Context) (interrupted int) {
	select {
	case <-m.finished:
		return 0
	case <-soft.Done():
	}
	interrupted = m.Running()
	m.logRunning("interrupted")
	m.cancel(errShutdown)
	select {
	case <-m.finished:
	case <-hard.Done():
		m.logRunning("left to the journal: the storage does not take it in time")
		m.giveUp()
	}
	return interrupted
}

// logRunning tells of each turn in progress what becomes of it.
func (m *Manager) logRunning(what string) {
	for _, s := range m.loaded() {
		s.mu.RLock()
		t, userID := s.turn, s.record.UserID
		s.mu.RUnlock()
		if t != nil {
			m.log.Warn("the shutdown forces a response", "what", what, "session", s.id, "user", userID, "message", t.answer.ID, "model", t.answer.Model)
		}
	}
}

// Close ends the turns that are left and the cleanup, stores how far each session has come and lets go of it, so that
// it can go on wherever it is opened next. It waits for all of that as long as ctx lasts. Nothing is stored afterwards.
func (m *Manager) Close(ctx context.Context) error {
	m.StopTurns()
	m.cancel(errShutdown)
	m.stop()
	err := await(ctx, m.finished)
	defer context.AfterFunc(ctx, m.giveUp)()
	m.titles.Wait()
	unsettled := m.settleAll()
	m.cleanup.Wait()
	m.leases.end(m.storing)
	m.giveUp()
	if unsettled > 0 {
		m.log.Warn("sessions could not be settled; the journal has what is missing", "sessions", unsettled)
	}
	return err
}

// settleAll lets go of every session in memory, and returns how many could not be stored.
func (m *Manager) settleAll() (failed int64) {
	var failures atomic.Int64
	each(m.loaded(), func(s *Session) {
		if err := s.settle(); err != nil {
			failures.Add(1)
		}
	})
	return failures.Load()
}
