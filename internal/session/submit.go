package session

import (
	"context"
	"errors"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
)

// submission is a message on its way into the store. The same one submitted again meanwhile waits for it.
type submission struct{ done chan struct{} }

// Send appends a message of role user or agent, after it is stored. A user's message starts a turn, unless an agent
// has taken the session over.
//
// The message's ID is the idempotency key: the same message again does nothing, and returns the event of the stored
// one, marked as a repeat, for the sender alone. The same ID with another text or author is message_conflict.
func (s *Session) Send(ctx context.Context, author chat.Author, role chat.Role, cmd chat.SendMessage) (*chat.Event, error) {
	if again, err := s.findOlder(author, cmd); again != nil || err != nil {
		return again, err
	}
	var grant *llm.Grant
	for {
		if grant == nil && role == chat.RoleUser && s.isForModel(cmd.MessageID) {
			var err error
			if grant, err = s.grant(ctx, cmd.Text); err != nil {
				return s.refuse(author, cmd, err)
			}
		}
		a, err := s.admit(ctx, author, role, cmd, grant)
		if a.turn == nil && a.wait == nil {
			grant.Settle(chat.Usage{}) // nothing is asked
		}
		switch {
		case err != nil || a.again != nil:
			return a.again, err
		case a.wait == nil:
			return s.submit(a.message, a.turn, a.submission)
		}
		if err := await(ctx, a.wait); err != nil {
			grant.Settle(chat.Usage{})
			return nil, err
		}
	}
}

// isForModel reports whether a user's message would be one that a model is asked to answer.
func (s *Session) isForModel(messageID string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, held := s.log.messages[messageID]
	_, coming := s.submissions[messageID]
	return !held && !coming && s.record.AssistedBy == nil
}

// refuse gives the error for a message that cannot be answered now, unless the store has it: then it was answered.
func (s *Session) refuse(author chat.Author, cmd chat.SendMessage, cause error) (*chat.Event, error) {
	ctx, cancel := s.manager.storeContext()
	defer cancel()
	stored, err := s.manager.store.Message(ctx, s.id, cmd.MessageID)
	if err != nil || stored.Seq == 0 {
		return nil, cause
	}
	return s.repeat(&stored, stored.Seq, author, cmd.Text)
}

// findOlder looks for a message among those that are in the store only, before it would be refused, or interrupt
// something, because of the response in progress. Without one the attempt to store the message finds it.
func (s *Session) findOlder(author chat.Author, cmd chat.SendMessage) (*chat.Event, error) {
	if !s.mayBeOlder(cmd.MessageID) {
		return nil, nil
	}
	ctx, cancel := s.manager.storeContext()
	defer cancel()
	stored, err := s.manager.store.Message(ctx, s.id, cmd.MessageID)
	switch {
	case errors.Is(err, chat.ErrNotFound) || err == nil && stored.Seq == 0:
		return nil, nil
	case err != nil:
		return nil, storageError(err)
	}
	return s.repeat(&stored, stored.Seq, author, cmd.Text)
}

func (s *Session) mayBeOlder(messageID string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, held := s.log.messages[messageID]
	_, coming := s.submissions[messageID]
	return s.turn != nil && s.log.older && !held && !coming
}

// await waits for something to be done, as long as ctx lasts.
func await(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// alreadyDone is what need not be waited for.
var alreadyDone = func() <-chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}()

// admission is what becomes of a message that somebody sends: it is there already, or has to wait and be tried again,
// or is to be submitted.
type admission struct {
	again *chat.Event
	wait  <-chan struct{}

	message    chat.Message
	turn       *turn // which will answer it; nil: none will
	submission *submission
}

// admit decides on a message, and reserves what it needs.
func (s *Session) admit(
	ctx context.Context, author chat.Author, role chat.Role, cmd chat.SendMessage, grant *llm.Grant,
) (a admission, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return a, err
	}
	if held, ok := s.log.messages[cmd.MessageID]; ok {
		m := held.whole()
		a.again, err = s.repeat(&m, held.last, author, cmd.Text)
		return a, err
	}
	if sub, ok := s.submissions[cmd.MessageID]; ok {
		return admission{wait: sub.done}, nil
	}
	if err := s.checkReplaced(cmd.Replaces, author.ID); err != nil {
		return a, err
	}
	answered := role == chat.RoleUser && s.record.AssistedBy == nil
	if answered {
		if a.wait, err = s.makeRoom(cmd.Interrupt); a.wait != nil || err != nil {
			return a, err
		}
		if grant == nil && s.manager.cfg.Budget != nil {
			// A moment ago it was for an agent, or was being stored by another attempt, which has failed.
			return admission{wait: alreadyDone}, nil
		}
	}
	a.message = chat.Message{
		ID: cmd.MessageID, N: s.takeN(), Role: role, Text: cmd.Text, Status: chat.StatusComplete,
		CreatedAt: chat.Now(), Author: &author, Replaces: cmd.Replaces,
	}
	if answered {
		if a.turn, err = s.reserveTurn(ctx, cmd.MessageID, "", grant); err != nil {
			return a, err
		}
		a.message.AnswerID = a.turn.answer.ID
	}
	a.submission = &submission{done: make(chan struct{})}
	s.submissions[cmd.MessageID] = a.submission
	return a, nil
}

// submit stores the message, publishes it and starts the turn that was reserved for it, if any.
func (s *Session) submit(m chat.Message, t *turn, sub *submission) (again *chat.Event, err error) {
	stored, err := s.insert(m)
	older := err == nil && stored.Seq > 0
	if older {
		again, err = s.repeat(&stored, stored.Seq, *m.Author, m.Text)
	}
	s.change(func() {
		delete(s.submissions, m.ID)
		close(sub.done)
		if err == nil {
			err = s.lost
		}
		if err != nil || older {
			if t != nil {
				s.abandonTurn(t)
			}
			return
		}
		s.addMessage(stored)
		s.lastMessage = stored.CreatedAt
		if t == nil {
			return
		}
		if stored.AnswerID != "" {
			t.answer.ID = stored.AnswerID // an earlier attempt's promise
		}
		if s.ending != nil || s.record.AssistedBy != nil {
			t.cancel(errCancelled) // meanwhile; the answer that is owed is an empty one
		}
		s.startTurn(t)
	})
	if t != nil && err != nil && s.Lost() {
		s.manager.remove(s) // which waited for the turn
	}
	if t == nil {
		s.checkpointAfterMany()
	} else if err != nil || older {
		s.wake() // whoever waits for the turn to be over
	}
	return again, err
}

// maxUnstored is how many events may follow a checkpoint before the next one, where no turn's end brings it.
const maxUnstored = 64

// checkpointAfterMany sees to it that what the store does not know of the log stays little.
func (s *Session) checkpointAfterMany() {
	s.mu.RLock()
	due := s.turn == nil && s.log.shown-s.record.LogEnd >= maxUnstored
	s.mu.RUnlock()
	if !due {
		return
	}
	if err := s.checkpoint(s.manager.storing, nil); err != nil {
		s.logger().Warn("storing how far a session has come failed", "error", err)
	}
}

// insert stores a user's or agent's message. One that is stored already, by an attempt whose answer was lost or in an
// earlier life of the session, is returned as it is stored.
func (s *Session) insert(m chat.Message) (chat.Message, error) {
	ctx, cancel := s.manager.storeContext()
	defer cancel()
	for {
		switch err := s.manager.insertMessage(ctx, s.id, s.claim, m); {
		case err == nil:
			return m, nil
		case errors.Is(err, chat.ErrStale):
			err = errBusy(err)
			s.lose(err)
			return m, err
		case errors.Is(err, chat.ErrNotFound):
			return m, s.vanish(err)
		case !errors.Is(err, chat.ErrExists):
			return m, storageError(err)
		}
		stored, err := s.manager.store.Message(ctx, s.id, m.ID)
		switch {
		case errors.Is(err, chat.ErrNotFound):
			// Its number is taken: by a message of this session's former owner that came late.
			s.mu.Lock()
			m.N = s.takeN()
			s.mu.Unlock()
		case err != nil:
			return m, storageError(err)
		case !stored.SameSubmission(m.Author.ID, m.Text):
			return m, conflict()
		default:
			return stored, nil
		}
	}
}

// repeat gives the event of a message that is there already, for a sender who submitted it again.
func (s *Session) repeat(held *chat.Message, seq int64, author chat.Author, text string) (*chat.Event, error) {
	if !held.SameSubmission(author.ID, text) {
		return nil, conflict()
	}
	return &chat.Event{
		SessionID: s.id, From: seq, Seq: seq, Repeat: true, Body: chat.MessageCreated{Message: *held},
	}, nil
}

func conflict() error {
	return chat.NewError(chat.CodeMessageConflict, "another message has this message_id already")
}

// makeRoom makes sure that a turn can begin: none is in progress, or it is interrupted and its end is to be waited
// for. The lock is held.
func (s *Session) makeRoom(interrupt bool) (wait <-chan struct{}, err error) {
	switch {
	case s.turn == nil:
		return nil, nil
	case s.manager.stopped():
		return nil, errDraining() // before a response is interrupted for nothing
	case !interrupt:
		return nil, chat.NewError(chat.CodeResponseInProgress, "a response is in progress")
	}
	s.turn.cancel(errCancelled)
	return s.turn.done, nil
}

// checkReplaced makes sure that an edit names its author's last message. The lock is held.
func (s *Session) checkReplaced(replaces, authorID string) error {
	if replaces == "" {
		return nil
	}
	if last := s.lastUserMessage(); last == nil || last.ID != replaces || last.Author.ID != authorID {
		return chat.InvalidField("replaces", "only the last message of one's own can be replaced")
	}
	return nil
}

// lastUserMessage gives the newest message of role user. The lock is held.
func (s *Session) lastUserMessage() *message {
	var last *message
	for _, m := range s.log.messages {
		if m.Role == chat.RoleUser && (last == nil || m.last > last.last) {
			last = m
		}
	}
	return last
}

// takeN gives the next message's number. The lock is held. A number whose message could not be stored is not used
// again: the store may have it all the same.
func (s *Session) takeN() int64 {
	n := s.nextN
	s.nextN++
	return n
}

// Retry answers the last user message anew. The new response replaces the last one that the message got.
func (s *Session) Retry(ctx context.Context, interrupt bool) error {
	grant, err := s.grant(ctx, "")
	if err != nil {
		return err
	}
	for {
		wait, err := s.tryRetry(ctx, interrupt, grant)
		if err == nil && wait == nil {
			return nil
		}
		if err == nil {
			err = await(ctx, wait)
		}
		if err != nil {
			grant.Settle(chat.Usage{})
			return err
		}
	}
}

func (s *Session) tryRetry(ctx context.Context, interrupt bool, grant *llm.Grant) (wait <-chan struct{}, err error) {
	s.change(func() {
		if err = s.usable(); err != nil {
			return
		}
		if s.record.AssistedBy != nil {
			err = chat.NewError(chat.CodeForbidden, "an agent has taken the session over: no model answers")
			return
		}
		if wait, err = s.makeRoom(interrupt); wait != nil || err != nil {
			return
		}
		question := s.lastUserMessage()
		if question == nil {
			err = chat.NewError(chat.CodeInvalidRequest, "there is no message to answer")
			return
		}
		var answer *message
		for _, m := range s.log.messages {
			if m.ReplyTo == question.ID && (answer == nil || m.last > answer.last) {
				answer = m
			}
		}
		replaces := ""
		if answer != nil {
			replaces = answer.ID
		}
		var t *turn
		if t, err = s.reserveTurn(ctx, question.ID, replaces, grant); err == nil {
			s.startTurn(t)
		}
	})
	return wait, err
}
