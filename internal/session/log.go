package session

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/parley-chat/parley/chat"
)

// maxDelta is the most text, in bytes, that one delta of the log holds and that one joined delta carries. Written as
// JSON it grows sixfold at the worst, to less than the 64 KiB that a joined frame may have.
const maxDelta = 10 << 10

// eventLog is a session's log in memory: its newest messages and what else happened, each at its place. It has no
// lock of its own; the session's guards it.
//
// Items stand in the order of their seq. Where seqs are missing between two items, the later one stands for them: a
// finished message gives up its deltas after a while and is one item, at its last seq. Up to floor the store alone has
// the messages; from there to shown readers are served from here; what lies after shown is on its way to the journal.
type eventLog struct {
	items    []item
	floor    int64
	shown    int64
	end      int64 // the highest seq given so far
	messages map[string]*message
	older    bool // the store holds messages that are older than those here
	textSize int64
	rested   int64 // what happened up to here was there when the log was compacted last
	changed  int64 // the seq of the last change of the session up to the floor; 0: there is none to be told
}

type itemKind uint8

const (
	itemMessage   itemKind = iota // a whole message
	itemStarted                   // the message.created of a response
	itemDeltas                    // a run of deltas of one response, nothing else between them
	itemCompleted                 // its message.completed
	itemOther                     // what concerns the session itself: body
)

type item struct {
	kind  itemKind
	seq   int64 // the last one of a run
	first int64 // of a run: the seq of its first delta
	mark  int   // of a run: the index of its first delta in the message's marks
	msg   *message
	body  chat.EventBody
}

// message is a message as the log holds it.
type message struct {
	chat.Message                   // its Text and Reasoning are set once it is final, its Seq once the store has that
	begin, last  int64             // the first and the last seq of it so far
	unstored     bool              // a response whose end the store did not take yet
	cost         *chat.UsageRecord // of it, that the store did not take yet either; nil: none

	// Of a response, until it is compacted.
	text, reasoning strings.Builder
	marks           []mark
	finished        time.Time
}

// mark is where a delta ends: a length of the text, or of the reasoning where the top bit is set.
type mark uint32

const reasoningMark mark = 1 << 31

func (m mark) kind() chat.DeltaKind {
	if m&reasoningMark != 0 {
		return chat.DeltaReasoning
	}
	return chat.DeltaText
}

func (m mark) end() int { return int(m &^ reasoningMark) }

// whole gives the message as far as it goes.
func (m *message) whole() chat.Message {
	s := m.Message
	if s.Status == chat.StatusStreaming {
		s.Text, s.Reasoning = m.text.String(), m.reasoning.String()
	}
	return s
}

// begun gives a response as it began.
func (m *message) begun() chat.Message {
	s := m.Message
	s.Status, s.Text, s.Reasoning = chat.StatusStreaming, "", ""
	s.FinishReason, s.Error, s.Usage, s.FirstTokenMS, s.DurationMS = "", nil, nil, 0, 0
	return s
}

func newEventLog() eventLog { return eventLog{messages: make(map[string]*message)} }

func (l *eventLog) add(it item) {
	l.end++
	it.seq = l.end
	if it.msg != nil {
		it.msg.last = l.end
	}
	l.items = append(l.items, it)
}

// addMessage appends a message that is whole, or the start of a response.
func (l *eventLog) addMessage(m chat.Message) *message {
	msg := &message{Message: m, begin: l.end + 1}
	l.messages[m.ID] = msg
	l.textSize += int64(len(m.Text) + len(m.Reasoning))
	if m.Status == chat.StatusStreaming {
		l.add(item{kind: itemStarted, msg: msg})
	} else {
		l.add(item{kind: itemMessage, msg: msg})
	}
	return msg
}

// addDelta appends text to a response. It must not be longer than maxDelta.
func (l *eventLog) addDelta(msg *message, kind chat.DeltaKind, text string) {
	l.textSize += int64(len(text))
	if kind == chat.DeltaReasoning {
		msg.reasoning.WriteString(text)
		msg.marks = append(msg.marks, mark(msg.reasoning.Len())|reasoningMark)
	} else {
		msg.text.WriteString(text)
		msg.marks = append(msg.marks, mark(msg.text.Len()))
	}
	if n := len(l.items); n > 0 && l.items[n-1].kind == itemDeltas && l.items[n-1].msg == msg {
		l.end++
		l.items[n-1].seq, msg.last = l.end, l.end
		return
	}
	l.add(item{kind: itemDeltas, first: l.end + 1, mark: len(msg.marks) - 1, msg: msg})
}

// addCompleted ends a response: final has its text and all that is known of its end.
func (l *eventLog) addCompleted(msg *message, final chat.Message, now time.Time) {
	msg.Message, msg.finished = final, now
	l.add(item{kind: itemCompleted, msg: msg})
}

func (l *eventLog) addOther(body chat.EventBody) { l.add(item{kind: itemOther, body: body}) }

// next gives the first event after a seq that is shown, joining deltas that wait. Its From is not set. The seq is not
// below the floor.
func (l *eventLog) next(after int64) (chat.Event, bool) {
	if after >= l.shown {
		return chat.Event{}, false
	}
	i, _ := slices.BinarySearchFunc(l.items, after+1, func(it item, seq int64) int { return int(it.seq - seq) })
	if i == len(l.items) {
		return chat.Event{}, false
	}
	it := &l.items[i]
	if it.kind == itemDeltas {
		if it.first > l.shown {
			return chat.Event{}, false
		}
		return it.msg.join(it, after, min(it.seq, l.shown)), true
	}
	if it.seq > l.shown {
		return chat.Event{}, false
	}
	e := chat.Event{Seq: it.seq, Body: it.body}
	switch it.kind {
	case itemCompleted:
		e.Body = it.msg.completion()
	case itemStarted:
		e.Body = chat.MessageCreated{Message: it.msg.begun()}
	case itemMessage:
		e.Body = chat.MessageCreated{Message: it.msg.whole()}
	}
	return e, true
}

// join gives the deltas of a run after a seq, and not beyond last, as one event: those of one kind, up to maxDelta
// bytes.
func (m *message) join(run *item, after, last int64) chat.Event {
	from := max(after+1, run.first)
	i := run.mark + int(from-run.first)
	end := run.mark + int(last-run.first)
	kind := m.marks[i].kind()
	start := m.length(kind, i-1)
	j := i
	for j < end && m.marks[j+1].kind() == kind && m.marks[j+1].end()-start <= maxDelta {
		j++
	}
	text := &m.text
	if kind == chat.DeltaReasoning {
		text = &m.reasoning
	}
	return chat.Event{
		Seq:  from + int64(j-i),
		Body: chat.MessageDelta{MessageID: m.ID, Kind: kind, Text: text.String()[start:m.marks[j].end()]},
	}
}

// length gives how much text of a kind there is after the i-th delta.
func (m *message) length(kind chat.DeltaKind, i int) int {
	for ; i >= 0; i-- {
		if m.marks[i].kind() == kind {
			return m.marks[i].end()
		}
	}
	return 0
}

func (m *message) completion() chat.MessageCompleted {
	return chat.MessageCompleted{
		MessageID: m.ID, Status: m.Status, FinishReason: m.FinishReason, Usage: m.Usage,
		FirstTokenMS: m.FirstTokenMS, DurationMS: m.DurationMS, Length: len(m.Text), Error: m.Error,
	}
}

// newest gives the newest messages up to a seq, each whole and at its last seq, in order; and whether there are older
// ones. A response in progress is among them whatever the limit: the deltas that follow would mean nothing without it.
//
// What follows that seq is to be read from the log as it is: a reader that is cut off in between goes on from where it
// was, and must not find itself between the beginning of a response, which was passed over, and its end.
func (l *eventLog) newest(limit int) (events []chat.Event, end int64, more bool) {
	end = l.settled()
	seen := make(map[*message]bool)
	for i := len(l.items) - 1; i >= 0; i-- {
		it := &l.items[i]
		if it.msg == nil || seen[it.msg] || max(it.first, 1) > l.shown || it.kind != itemDeltas && it.seq > l.shown {
			continue
		}
		seen[it.msg] = true
		m := l.shownOf(it)
		if len(seen) > limit && m.Status != chat.StatusStreaming {
			more = true
			continue
		}
		if seq := min(it.seq, l.shown); seq <= end {
			events = append(events, chat.Event{Seq: seq, Body: chat.MessageCreated{Message: m}})
		}
	}
	slices.Reverse(events)
	return events, end, more || l.older
}

// settled gives the seq up to which, of what is shown, no message stands within another one's deltas.
func (l *eventLog) settled() int64 {
	var response *message
	for i := range l.items {
		it := &l.items[i]
		switch {
		case it.seq > l.shown:
			return l.shown
		case it.kind == itemStarted:
			response = it.msg
		case it.kind == itemMessage && response != nil && response.last > it.seq:
			return response.begin - 1
		}
	}
	return l.shown
}

// shownOf gives a message as far as it is shown; it is the last item of it of which something is.
func (l *eventLog) shownOf(it *item) chat.Message {
	if it.msg.last <= l.shown {
		return it.msg.whole()
	}
	m := it.msg.begun()
	if it.kind == itemDeltas {
		i := it.mark + int(min(it.seq, l.shown)-it.first)
		m.Text = it.msg.text.String()[:it.msg.length(chat.DeltaText, i)]
		m.Reasoning = it.msg.reasoning.String()[:it.msg.length(chat.DeltaReasoning, i)]
	}
	return m
}

// count tells how many messages have their place after a seq and up to another.
func (l *eventLog) count(after, upTo int64) (n int64) {
	for _, m := range l.messages {
		if m.last > after && m.last <= upTo {
			n++
		}
	}
	return n
}

// history gives the messages in the order of the log, as far as they go. Their numbers may have another order: a
// message whose first attempt to be stored was lost has the number of that.
func (l *eventLog) history() []chat.Message {
	ordered := slices.SortedFunc(maps.Values(l.messages), func(a, b *message) int { return int(a.last - b.last) })
	all := make([]chat.Message, 0, len(ordered))
	for _, msg := range ordered {
		all = append(all, msg.whole())
	}
	return all
}
