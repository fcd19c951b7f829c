package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/journal"
)

// loadedMessages is how many of its newest messages a session has in memory when it comes from the store: as many as
// a client may ask for.
const loadedMessages = 200

// loading is a session on its way from the store, and from the journal, into memory.
type loading struct {
	manager *Manager
	record  chat.Session
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
		m.forget(id)
		return nil, notFound()
	case err != nil:
		return nil, storageError(err)
	case l.record.Status == chat.SessionStatusEnded:
		m.forget(id)
		return newSession(m, l.record, newEventLog(), 0), nil
	}
	for _, step := range []func(context.Context) error{
		l.readMessages, l.continueLog, l.closeResponses, l.closeQuestions, l.settleRecord,
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

// continueLog builds the log as readers know it, where the journal, or a clean end, vouches for it. Else a new epoch
// begins, whose numbers lie above all that the store knows. Either way the session is claimed.
func (l *loading) continueLog(ctx context.Context) error {
	from := l.record.Claim
	claim := chat.Claim{Owner: l.manager.journal.ID(), Epoch: from.Epoch}
	err := l.resume(ctx)
	if shown, ok := errors.AsType[*chat.Error](err); ok {
		return shown // the store's: no reason to drop what the journal has
	}
	if err != nil {
		l.manager.log.Info("a session goes on under a new epoch", "session", l.record.ID, "reason", err)
		claim.Epoch = chat.NewID()
		l.begin()
	}
	// Also where it is claimed already: an earlier attempt to let go of it may be under way still.
	err = l.manager.store.ClaimSession(ctx, l.record.ID, from, claim)
	if errors.Is(err, chat.ErrStale) {
		return errBusy(err)
	}
	if err != nil {
		return storageError(err)
	}
	if claim.Epoch != from.Epoch {
		l.manager.forget(l.record.ID) // what there is of the epoch before
	}
	l.record.Claim = claim
	return nil
}

// resume continues the log in its epoch, or says why that cannot be.
func (l *loading) resume(ctx context.Context) error {
	claim := l.record.Claim
	mine := claim.Owner == l.manager.journal.ID()
	switch {
	case claim.Epoch == "":
		return errors.New("it had none")
	case !mine && claim.Owner != "":
		return errors.New("its journal is not this one, or is gone")
	case l.manager.isDead(l.record.ID, claim.Epoch):
		return errors.New("the journal has failed it")
	}
	r := l.newest
	switch {
	case r == nil || r.Epoch != claim.Epoch || r.End <= l.record.LogEnd:
		l.begin() // a clean end, or the journal's part is of an epoch that is over
		return nil
	case !mine:
		return errors.New("it ended cleanly, and the journal has more of it")
	case r.From > l.record.LogEnd:
		return fmt.Errorf("%w: it begins after %d, the store knows %d", errReplay, r.From, l.record.LogEnd)
	}
	l.log = newEventLog()
	l.log.restore(l.stored, l.older, l.record.LogEnd, l.record.Changed, state(&l.record))
	for e, err := range r.Events() {
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
			if err := l.manager.store.UpdateMessage(ctx, l.record.ID, m); err != nil {
				return storageError(fmt.Errorf("close an interrupted response: %w", err))
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
		if err := store(ctx, l.record.ID, final); err != nil {
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
		if err := l.manager.store.InsertMessage(ctx, l.record.ID, answer); err != nil {
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
