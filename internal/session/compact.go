package session

import (
	"slices"
	"strings"
	"time"

	"github.com/parley-chat/parley/chat"
)

// compact drops the deltas of responses that were finished before a time: such a message is one item, at its last
// seq. Of what else had happened when the log was compacted the time before, the last alone stays, as the present
// state of the session.
func (l *eventLog) compact(before time.Time, state chat.SessionUpdated) {
	old := func(msg *message) bool {
		return msg != nil && !msg.finished.IsZero() && msg.finished.Before(before) && msg.last <= l.shown
	}
	lastOther, others := -1, 0
	kept := l.items[:0]
	for _, it := range l.items {
		switch {
		case old(it.msg):
			if it.kind != itemCompleted {
				continue
			}
			it.kind = itemMessage
		case it.kind == itemOther && it.seq <= l.rested:
			others++
			if lastOther >= 0 {
				kept = slices.Delete(kept, lastOther, lastOther+1)
			}
			lastOther = len(kept)
		}
		kept = append(kept, it)
	}
	if others > 1 {
		kept[lastOther].body = state
	}
	clear(l.items[len(kept):])
	l.items, l.rested = kept, l.shown
	for _, msg := range l.messages {
		if old(msg) {
			// The builders have room to spare that nobody needs any more.
			msg.Text, msg.Reasoning = strings.Clone(msg.Text), strings.Clone(msg.Reasoning)
			msg.text, msg.reasoning, msg.marks, msg.finished = strings.Builder{}, strings.Builder{}, nil, time.Time{}
		}
	}
}

// trim leaves the oldest messages to the store, so that keep are left, as far as it knows the log: up to stored.
func (l *eventLog) trim(keep int, stored int64) {
	excess, cut := len(l.messages)-keep, 0
trim:
	for excess > 0 && cut < len(l.items) && l.items[cut].seq <= stored {
		switch it := &l.items[cut]; it.kind {
		case itemMessage:
			l.textSize -= int64(len(it.msg.Text) + len(it.msg.Reasoning))
			delete(l.messages, it.msg.ID)
			excess--
		case itemOther:
			l.changed = it.seq
		default:
			break trim // the deltas of a response: it is not old enough
		}
		cut++
	}
	if cut > 0 {
		l.floor, l.older = l.items[cut-1].seq, true
		l.items = slices.Clone(l.items[cut:])
	}
}

// bytes estimates the memory that the log takes, its text first of all.
func (l *eventLog) bytes() int64 {
	const perItem, perMessage = 64, 400
	return l.textSize + int64(len(l.items))*perItem + int64(len(l.messages))*perMessage
}
