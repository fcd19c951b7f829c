package router_test

import (
	"slices"
	"strings"

	"github.com/parley-chat/parley/chat"
)

// compare holds what a connected client has read against what is stored.
func (w *world) compare(l *link, t *talk) {
	w.tally["compared"]++
	m := l.seen
	stored := make(map[string]chat.Message)
	ended := !slices.Contains(w.open, t.id)
	for _, s := range w.store.stored(t.id) {
		stored[s.ID] = s
		h, has := m.messages[s.ID]
		seq, shown := t.life(m.epoch).created[s.ID]
		switch {
		case has:
			w.compareMessage(l, t, h, s)
		case m.whole && !w.doubtful(t, s), shown && seq > m.start:
			w.failLocked(t, "%s has read %d and does not hold %s (%+v)", l, m.last, s.ID, s)
		}
	}
	for id, h := range m.messages {
		if _, ok := stored[id]; !ok && !notStored(h) {
			w.failLocked(t, "%s holds %s, which is not stored", l, id)
		}
	}
	if known := t.life(m.epoch); m.last != known.last && !m.ended {
		w.failLocked(t, "%s has read %d, others %d", l, m.last, known.last)
	}
	if ended && t.over && t.epoch == m.epoch && !m.ended {
		w.failLocked(t, "%s was not told of the end", l)
	}
}

// notStored reports whether the client was told that a response could not be stored.
func notStored(h *heldMessage) bool {
	return h.Error != nil && h.Error.Code == chat.CodeStorageUnavailable
}

// doubtful reports whether a message may be stored and not be in the log: its sender was told that storing it failed,
// but only the answer was lost.
func (w *world) doubtful(t *talk, m chat.Message) bool {
	if !w.store.fails {
		return false
	}
	if m.ReplyTo != "" {
		m.ID = m.ReplyTo
	}
	_, accepted := t.accepted[m.ID]
	_, receipted := t.receipts[m.ID]
	return !accepted && !receipted
}

func (w *world) compareMessage(l *link, t *talk, h *heldMessage, s chat.Message) {
	switch {
	case notStored(h):
		if !strings.HasPrefix(h.Text, s.Text) {
			w.failLocked(t, "%s holds %s, of which a part should be stored: %+v", l, h.ID, s)
		}
	case h.streaming || h.Text != s.Text || h.Reasoning != s.Reasoning || h.Status != s.Status || h.N != s.N || h.Role != s.Role:
		w.failLocked(t, "%s holds %+v, stored is %+v", l, h, s)
	}
}

// audit holds what is stored of a session against what was accepted, and what the provider has said.
func (w *world) audit(t *talk) {
	ids, answers, owed, replacing := make(map[string]int), make(map[string]int), 0, 0
	for _, s := range w.store.stored(t.id) {
		ids[s.ID]++
		switch s.Role {
		case chat.RoleUser:
			if s.AnswerID != "" {
				owed++
			}
		case chat.RoleAssistant:
			answers[s.ReplyTo]++
			if s.Replaces != "" {
				replacing++
			}
			w.auditAnswer(t, s)
		}
	}
	for _, texts := range []map[string]string{t.accepted, t.receipts} {
		for id := range texts {
			if ids[id] != 1 {
				w.failLocked(t, "message %s was accepted and is stored %d times", id, ids[id])
			}
		}
	}
	again := 0
	for question, calls := range t.calls {
		id, _, _ := strings.Cut(question, " ")
		if again += calls - 1; calls > answers[id] && !w.store.fails {
			w.failLocked(t, "the provider was asked %q %d times for %d answers", question, calls, answers[id])
		}
	}
	total := 0
	for _, n := range answers {
		total += n
	}
	if again > t.retries || !w.store.fails && total != owed+t.retries {
		w.failLocked(t, "%d questions and %d retries have %d answers and %d repeated calls", owed, t.retries, total, again)
	}
}

// auditAnswer makes sure that a stored answer is what the provider has said.
func (w *world) auditAnswer(t *talk, s chat.Message) {
	call, _, ok := strings.Cut(s.Text, "]")
	said := t.speech[call+"]"]
	switch {
	case s.Text == "":
	case !ok || !strings.HasPrefix(said, s.Text):
		w.failLocked(t, "the provider has said %q, stored is %q", said, s.Text)
	case s.Status == chat.StatusComplete && said != s.Text:
		w.failLocked(t, "the provider has said %q, complete is %q", said, s.Text)
	}
	if s.Status == chat.StatusStreaming && !w.store.fails {
		w.failLocked(t, "%s is still streaming", s.ID)
	}
}
