package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/journal"
	"github.com/parley-chat/parley/internal/seal"
)

// loadedMessages is how many of its newest messages a session has in memory when it comes from the store: as many as
// a client may ask for.
const loadedMessages = 200

// loading is a session on its way from the store, and from the journal, into memory.
type loading struct {
	manager *Manager
	record  chat.Session
	found   chat.Claim     // that it had
	broken  error          // why its log does not go on in the epoch that it had; nil: it does
	stored  []chat.Message // the newest messages, in the order of their numbers
	older   bool
	log     eventLog
	nextN   int64

	// What is to be appended before anybody reads.
	ends   []chat.Message     // of responses that the log has the beginning of
	wholes []chat.Message     // messages that the log does not have
	others []chat.EventBody   // changes of the session
	newest *journal.Recovered // what the journal has; nil: nothing
}

// read brings a session in. What the server went down under is closed: in the store first, so that a failure here
// leaves nothing half done, then in the log.
func (m *Manager) read(id string) (*Session, error) {
	ctx, cancel := m.storeContext()
	defer cancel()
	l := loading{manager: m, newest: m.recoveredOf(id)}
	var err error
	l.record, err = m.store.Session(ctx, id)
	switch {
	case errors.Is(err, chat.ErrNotFound):
		// Erased, perhaps, by somebody else: then the journal's part is to go, too.
		if err := m.journal.Erase(ctx, id); err != nil {
			m.log.Warn("what the journal has of a session that is not stored could not be erased", "session", id, "error", err)
		}
		m.forget(id)
		return nil, notFound()
	case err != nil:
		return nil, storageError(err)
	case l.record.Status == chat.SessionStatusEnded:
		m.forget(id)
		return newSession(m, l.record, newEventLog(), 0), nil
	}
	for _, step := range []func(context.Context) error{
		l.claimIt, l.readMessages, l.continueLog, l.closeResponses, l.closeQuestions, l.settleRecord,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return l.session()
}

// readMessages reads the newest messages: by their numbers, and all that have no place yet; and, where there are older
// ones, by their places too, so that none is missing from where the log in memory begins.
func (l *loading) readMessages(ctx context.Context) (err error) {
	before, unplaced := int64(0), true
	for l.older = true; l.older && unplaced; {
		page, err := l.manager.store.Messages(ctx, l.record.ID, before, loadedMessages+1)
		if err != nil {
			return storageError(err)
		}
		if l.older = len(page) > loadedMessages; l.older {
			page = page[1:]
			before = page[0].N
		}
		unplaced = slices.ContainsFunc(page, func(m chat.Message) bool { return m.Seq == 0 })
		l.stored = append(page, l.stored...)
	}
	if l.older {
		if l.stored, err = l.addLate(ctx, l.stored); err != nil {
			return err
		}
	}
	l.nextN = 1
	if n := len(l.stored); n > 0 {
		l.nextN = l.stored[n-1].N + 1
	}
	return nil
}

// addLate adds the messages that have a smaller number than those read, and a place among theirs: a response that
// ended after messages which came later.
func (l *loading) addLate(ctx context.Context, stored []chat.Message) ([]chat.Message, error) {
	first, known := int64(0), make(map[string]bool)
	for _, m := range stored {
		known[m.ID] = true
		if m.Seq > 0 && (first == 0 || m.Seq < first) {
			first = m.Seq
		}
	}
	if first == 0 {
		return stored, nil
	}
	placed, err := l.manager.store.MessagesAfter(ctx, l.record.ID, first, len(stored)+loadedMessages)
	if err != nil {
		return nil, storageError(err)
	}
	for _, m := range placed {
		if !known[m.ID] {
			stored = append(stored, m)
		}
	}
	slices.SortFunc(stored, func(a, b chat.Message) int { return int(a.N - b.N) })
	return stored, nil
}

// claimIt claims the session, before anything else of it is read: what a former owner has written by then is there, and
// nothing more of it comes. A session of another server that may be alive is session_busy. Where its log cannot go on,
// as far as that is known yet, it is claimed under a new epoch at once.
func (l *loading) claimIt(ctx context.Context) error {
	m, from := l.manager, l.record.Claim
	if err := m.leases.hold(ctx); err != nil {
		return storageError(err)
	}
	elsewhere, err := m.isElsewhere(ctx, from)
	if err != nil {
		return storageError(err)
	}
	if from.Owner != "" && !m.isMine(from) {
		m.forget(l.record.ID) // it has gone on without this server: what the journal has of it is over
		l.newest = nil
	}
	if elsewhere {
		return errBusy(fmt.Errorf("its owner is %s", from.Owner))
	}
	l.found = from
	if l.broken = l.whyBroken(); l.broken != nil {
		return l.claimAs(ctx, chat.NewID())
	}
	return l.claimAs(ctx, from.Epoch)
}

// claimAs claims the session under an epoch. The record is what it is then.
func (l *loading) claimAs(ctx context.Context, epoch string) error {
	// Also where it is claimed already: an earlier attempt to let go of it may be under way still.
	record, err := l.manager.store.ClaimSession(ctx, l.record.ID, l.record.Claim,
		l.manager.newClaim(epoch))
	switch {
	case errors.Is(err, chat.ErrStale):
		return errBusy(err)
	case err != nil:
		return storageError(err)
	}
	l.record = record
	return nil
}

// whyBroken says why the log cannot go on in its epoch, as far as that can be told without reading it; nil: it can.
func (l *loading) whyBroken() error {
	owner, epoch := l.found.Owner, l.found.Epoch
	mine := l.manager.isMine(l.found)
	switch {
	case epoch == "":
		return errors.New("it had none")
	case !mine && owner != "":
		return errors.New("its journal is not this one, or is gone")
	case l.manager.isDead(l.record.ID, epoch):
		return errors.New("the journal has failed it")
	case !l.hasMore(epoch):
		return nil // a clean end, or the journal's part is of an epoch that is over
	case !mine:
		return errors.New("it ended cleanly, and the journal has more of it")
	case l.newest.From > l.record.LogEnd:
		return fmt.Errorf("%w: it begins after %d, the store knows %d", errReplay, l.newest.From, l.record.LogEnd)
	}
	return nil
}

// hasMore reports whether the journal has more of an epoch than the store knows.
func (l *loading) hasMore(epoch string) bool {
	return l.newest != nil && l.newest.Epoch == epoch && l.newest.End > l.record.LogEnd
}

// continueLog builds the log as readers know it, where the journal, or a clean end, vouches for it. Else a new epoch
// begins, whose numbers lie above all that the store knows.
func (l *loading) continueLog(ctx context.Context) error {
	if l.broken == nil {
		l.broken = l.whyBroken() // as the record is now
	}
	if l.broken == nil {
		if l.broken = l.resume(ctx); l.broken == nil {
			return nil
		}
		if shown, ok := errors.AsType[*chat.Error](l.broken); ok {
			return shown // the store's: no reason to drop what the journal has
		}
	}
	level := slog.LevelInfo
	if errors.Is(l.broken, seal.ErrUndecryptable) {
		level = slog.LevelWarn // what it had beyond the last checkpoint is lost
	}
	l.manager.log.Log(ctx, level, "a session goes on under a new epoch", "session", l.record.ID, "user", l.record.UserID,
		"reason", l.broken)
	if l.record.Claim.Epoch == l.found.Epoch {
		if err := l.claimAs(ctx, chat.NewID()); err != nil {
			return err
		}
	}
	l.begin()
	l.manager.forget(l.record.ID) // what there is of the epoch before
	return nil
}

// resume continues the log in its epoch, or says why that cannot be.
func (l *loading) resume(ctx context.Context) error {
	if !l.hasMore(l.record.Claim.Epoch) {
		l.begin()
		return nil
	}
	l.log = newEventLog()
	l.log.restore(l.stored, l.older, l.record.LogEnd, l.record.Changed, state(&l.record))
	for e, err := range l.newest.Events() {
		if err == nil {
			err = l.log.replay(e, func(id string) (chat.Message, error) {
				m, err := l.message(ctx, id)
				if err != nil && !errors.Is(err, chat.ErrNotFound) {
					err = storageError(err)
				}
				return m, err
			})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// message gives a message that the store has.
func (l *loading) message(ctx context.Context, id string) (chat.Message, error) {
	if i := slices.IndexFunc(l.stored, func(m chat.Message) bool { return m.ID == id }); i >= 0 {
		return l.stored[i], nil
	}
	return l.manager.store.Message(ctx, l.record.ID, id)
}

// begin starts a log with what has a place already. That may be more than the record says: an attempt to store it whose
// answer was lost is followed by an older one.
func (l *loading) begin() {
	end := l.record.LogEnd
	for _, m := range l.stored {
		end = max(end, m.Seq)
	}
	l.log = newEventLog()
	l.log.restore(l.stored, l.older, end, l.record.Changed, state(&l.record))
}

// closeResponses gives each response that the server went down under its end. One that ended in the store has that end,
// else one that ended in the journal has that; any other is interrupted, with all the text there is.
func (l *loading) closeResponses(ctx context.Context) error {
	open := make(map[string]bool)
	for _, msg := range l.log.messages {
		l.nextN = max(l.nextN, msg.N+1)
	}
	for _, msg := range l.log.messages {
		if msg.Role != chat.RoleAssistant || msg.begin <= l.record.LogEnd {
			continue
		}
		open[msg.ID] = true
		if err := l.closeResponse(ctx, msg); err != nil {
			return err
		}
	}
	for _, m := range l.stored {
		if open[m.ID] {
			continue
		}
		if m.Status == chat.StatusStreaming {
			m.Status = chat.StatusInterrupted
			if err := l.accountFor(ctx, &m); err != nil {
				return err
			}
			if err := l.manager.store.UpdateMessage(ctx, l.record.ID, l.record.Claim, m); err != nil {
				return storageError(fmt.Errorf("close an interrupted response: %w", err))
			}
		}
		if m.Seq == 0 && m.Role == chat.RoleAssistant {
			// Whoever stored its end may have gone before what it cost was stored.
			if err := l.accountFor(ctx, &m); err != nil {
				return err
			}
		}
		if _, ok := l.log.messages[m.ID]; !ok && m.Seq == 0 {
			l.wholes = append(l.wholes, m)
		}
	}
	return nil
}

// closeResponse has the store and the log agree on the end of a response that the log has from the journal.
func (l *loading) closeResponse(ctx context.Context, msg *message) error {
	final, ended := msg.whole(), msg.Status != chat.StatusStreaming
	row, err := l.message(ctx, msg.ID)
	if err == nil {
		msg.Provider, final.Provider = row.Provider, row.Provider
	}
	switch {
	case err == nil && row.Status != chat.StatusStreaming:
		final = row
		if err := l.accountFor(ctx, &final); err != nil {
			return err
		}
	case err == nil || errors.Is(err, chat.ErrNotFound):
		store := l.manager.store.UpdateMessage
		if err != nil {
			store = l.manager.store.InsertMessage
		}
		if !ended {
			final.Status = chat.StatusInterrupted
		}
		if err != nil && slices.ContainsFunc(l.stored, func(m chat.Message) bool { return m.N == final.N }) {
			final.N, msg.N = l.nextN, l.nextN // its own is taken, by a message that came late
			l.nextN++
		}
		if err := l.accountFor(ctx, &final); err != nil {
			return err
		}
		if err := store(ctx, l.record.ID, l.record.Claim, final); err != nil {
			return storageError(fmt.Errorf("close a response: %w", err))
		}
	default:
		return storageError(err)
	}
	if !ended {
		l.ends = append(l.ends, final)
	}
	return nil
}

// closeQuestions gives each question that got no answer the empty one it is owed, so that it can be retried.
func (l *loading) closeQuestions(ctx context.Context) error {
	for _, question := range l.stored {
		if question.AnswerID == "" {
			continue
		}
		if _, ok := l.log.messages[question.AnswerID]; ok {
			continue
		}
		switch _, err := l.message(ctx, question.AnswerID); {
		case err == nil:
			continue
		case !errors.Is(err, chat.ErrNotFound):
			return storageError(err)
		}
		answer := chat.Message{
			ID: question.AnswerID, N: l.nextN, Role: chat.RoleAssistant,
			Status: chat.StatusInterrupted, CreatedAt: chat.Now(), ReplyTo: question.ID,
		}
		if err := l.manager.insertMessage(ctx, l.record.ID, l.record.Claim, answer); err != nil {
			return storageError(fmt.Errorf("close an unanswered question: %w", err))
		}
		l.nextN++
		l.wholes = append(l.wholes, answer)
	}
	return nil
}

// settleRecord undoes what cannot be any more: a takeover, which holds its session in memory, ended with the server that
// had it; a model may have left the configuration.
func (l *loading) settleRecord(context.Context) error {
	if agent := l.record.AssistedBy; agent != nil {
		l.record.AssistedBy = nil
		l.others = append(l.others, chat.AgentLeft{Author: *agent})
	}
	if models := l.manager.models; !models.Has(l.record.Model) {
		l.record.Model = models.Default()
		l.others = append(l.others, chat.SessionUpdated{Model: new(l.record.Model)})
	}
	return nil
}

// endResponse ends a response. The store may have more of its text than the journal was able to take. The lock is held.
func (s *Session) endResponse(msg *message, final chat.Message) {
	for part := range split(strings.TrimPrefix(final.Reasoning, msg.reasoning.String())) {
		s.addDelta(msg, chat.DeltaReasoning, part)
	}
	for part := range split(strings.TrimPrefix(final.Text, msg.text.String())) {
		s.addDelta(msg, chat.DeltaText, part)
	}
	s.addCompleted(msg, final)
}

// session puts the session into memory, and what is to be told into its log.
func (l *loading) session() (*Session, error) {
	s := newSession(l.manager, l.record, l.log, l.nextN)
	s.change(func() {
		for _, final := range l.ends {
			s.endResponse(s.log.messages[final.ID], final)
		}
		for _, m := range l.wholes {
			s.addMessage(m)
		}
		for _, body := range l.others {
			s.addOther(body)
		}
	})
	if err := s.awaitWritten(l.manager.storing); err != nil {
		return nil, storageError(err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.lost != nil {
		return nil, s.lost
	}
	l.manager.settled(s.id)
	if l.newest != nil && l.newest.Epoch == s.epoch {
		s.journal.Stored(s.record.LogEnd)
	}
	return s, nil
}
