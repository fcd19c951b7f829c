package session

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/parley-chat/parley/chat"
)

// restore takes in what the store knows of a log up to end: the messages that have their place there, all of them final
// and in the order of their numbers; and of the changes of the session, what they have come to, where the last one was.
func (l *eventLog) restore(stored []chat.Message, older bool, end, changed int64, state chat.SessionUpdated) {
	l.older, l.end, l.shown = older, end, end
	for _, m := range stored {
		if m.Seq == 0 || m.Seq > end {
			continue
		}
		msg := &message{Message: m, begin: m.Seq, last: m.Seq}
		l.messages[m.ID] = msg
		l.textSize += int64(len(m.Text) + len(m.Reasoning))
		l.items = append(l.items, item{kind: itemMessage, seq: m.Seq, msg: msg})
	}
	if changed > 0 && changed <= end {
		l.items = append(l.items, item{kind: itemOther, seq: changed, body: state})
	}
	slices.SortFunc(l.items, func(a, b item) int { return int(a.seq - b.seq) })
	if older {
		l.floor = end
		first := slices.IndexFunc(l.items, func(it item) bool { return it.kind == itemMessage })
		if first >= 0 {
			l.floor = l.items[first].seq - 1
		}
		if len(l.items) > 0 && l.items[0].seq <= l.floor {
			l.changed, l.items = changed, l.items[1:]
		}
	}
}

// lastChange gives the seq of the last change of the session up to a seq; 0: none is known.
func (l *eventLog) lastChange(upTo int64) int64 {
	for _, it := range slices.Backward(l.items) {
		if it.kind == itemOther && it.seq <= upTo {
			return it.seq
		}
	}
	return l.changed
}

var errReplay = errors.New("the journal does not go on where the store ends")

// replay appends what the journal has of the log beyond what the store knows of it. stored gives a message that the
// store has.
func (l *eventLog) replay(e chat.Event, stored func(id string) (chat.Message, error)) error {
	switch {
	case e.Seq <= l.end:
		return nil
	case e.Seq != l.end+1:
		return fmt.Errorf("%w: %d follows %d", errReplay, e.Seq, l.end)
	}
	switch b := e.Body.(type) {
	case chat.MessageCreated:
		if b.Message.Status == chat.StatusStreaming {
			l.addMessage(b.Message)
			break
		}
		m, err := stored(b.Message.ID)
		if err != nil {
			return fmt.Errorf("%w: message %s: %w", errReplay, b.Message.ID, err)
		}
		l.addMessage(m)
	case chat.MessageDelta:
		msg, ok := l.messages[b.MessageID]
		if !ok || msg.Status != chat.StatusStreaming {
			return fmt.Errorf("%w: a delta of no response", errReplay)
		}
		l.addDelta(msg, b.Kind, b.Text)
	case chat.MessageCompleted:
		msg, ok := l.messages[b.MessageID]
		if !ok || msg.Status != chat.StatusStreaming {
			return fmt.Errorf("%w: the end of no response", errReplay)
		}
		l.addCompleted(msg, msg.completedAs(b), time.Now())
	default:
		l.addOther(b)
	}
	l.shown = l.end
	return nil
}

// completedAs gives a response as its end left it.
func (m *message) completedAs(b chat.MessageCompleted) chat.Message {
	final := m.whole()
	final.Status, final.FinishReason, final.Error, final.Usage = b.Status, b.FinishReason, b.Error, b.Usage
	final.FirstTokenMS, final.DurationMS = b.FirstTokenMS, b.DurationMS
	return final
}

// unplaced gives the places of the messages up to a seq which the store does not know yet.
func (l *eventLog) unplaced(upTo int64) []chat.Place {
	var places []chat.Place
	for _, msg := range l.messages {
		if msg.Seq == 0 && msg.last <= upTo {
			places = append(places, chat.Place{MessageID: msg.ID, Seq: msg.last})
		}
	}
	return places
}

// storable gives the highest seq that a checkpoint may have: all up to it is shown, and it lies neither within a message
// nor beyond one that the store does not have as it is.
func (l *eventLog) storable() int64 {
	end := l.shown
	for lower := true; lower; {
		lower = false
		for _, m := range l.messages {
			if m.begin <= end && (m.last > end || m.unstored || m.Status == chat.StatusStreaming) {
				end, lower = m.begin-1, true
			}
		}
	}
	return end
}

// placed notes that the store knows the places.
func (l *eventLog) placed(places []chat.Place) {
	for _, p := range places {
		if msg, ok := l.messages[p.MessageID]; ok {
			msg.Seq = p.Seq
		}
	}
}
