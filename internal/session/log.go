package session

import (
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
// finished message gives up its deltas after a while and is one item, at its last seq.
type eventLog struct {
	items    []item
	end      int64 // the highest seq given so far
	messages map[string]*message
	older    bool // the store holds messages that are older than those here
	textSize int64
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
	chat.Message // its Text and Reasoning are set once it is final
	seq          int64

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

// snapshot gives the message as far as it goes.
func (m *message) snapshot() chat.Message {
	s := m.Message
	if s.Status == chat.StatusStreaming {
		s.Text, s.Reasoning = m.text.String(), m.reasoning.String()
	}
	return s
}

func newEventLog() eventLog { return eventLog{messages: make(map[string]*message)} }

// restore takes in what the store holds, at the begin of an epoch: message n at seq n.
func (l *eventLog) restore(stored []chat.Message, older bool) {
	for _, m := range stored {
		msg := &message{Message: m, seq: m.N}
		l.messages[m.ID] = msg
		l.textSize += int64(len(m.Text) + len(m.Reasoning))
		l.items = append(l.items, item{kind: itemMessage, seq: m.N, msg: msg})
		l.end = m.N
	}
	l.older = older
}

func (l *eventLog) add(it item) {
	l.end++
	it.seq = l.end
	if it.msg != nil {
		it.msg.seq = l.end
	}
	l.items = append(l.items, it)
}

// addMessage appends a message that is whole, or the start of a response.
func (l *eventLog) addMessage(m chat.Message) *message {
	msg := &message{Message: m}
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
		l.items[n-1].seq, msg.seq = l.end, l.end
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

// next gives the first event after a seq, joining deltas that wait. Its From is not set.
func (l *eventLog) next(after int64) (chat.Event, bool) {
	if after >= l.end {
		return chat.Event{}, false
	}
	i, _ := slices.BinarySearchFunc(l.items, after+1, func(it item, seq int64) int { return int(it.seq - seq) })
	if i == len(l.items) {
		return chat.Event{}, false
	}
	it := &l.items[i]
	switch it.kind {
	case itemDeltas:
		return it.msg.join(it, after), true
	case itemCompleted:
		return chat.Event{Seq: it.seq, Body: it.msg.completion()}, true
	case itemStarted:
		m := it.msg.Message
		m.Status, m.Text, m.Reasoning = chat.StatusStreaming, "", ""
		m.FinishReason, m.Error, m.Usage = "", nil, nil
		return chat.Event{Seq: it.seq, Body: chat.MessageCreated{Message: m}}, true
	case itemMessage:
		return chat.Event{Seq: it.seq, Body: chat.MessageCreated{Message: it.msg.snapshot()}}, true
	default:
		return chat.Event{Seq: it.seq, Body: it.body}, true
	}
}

// join gives the deltas of a run after a seq as one event: those of one kind, up to maxDelta bytes.
func (m *message) join(run *item, after int64) chat.Event {
	from := max(after+1, run.first)
	i := run.mark + int(from-run.first)
	last := run.mark + int(run.seq-run.first)
	kind := m.marks[i].kind()
	start := 0
	for k := i - 1; k >= 0; k-- {
		if m.marks[k].kind() == kind {
			start = m.marks[k].end()
			break
		}
	}
	j := i
	for j < last && m.marks[j+1].kind() == kind && m.marks[j+1].end()-start <= maxDelta {
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

func (m *message) completion() chat.MessageCompleted {
	return chat.MessageCompleted{
		MessageID: m.ID, Status: m.Status, FinishReason: m.FinishReason, Usage: m.Usage,
		FirstTokenMS: m.FirstTokenMS, DurationMS: m.DurationMS, Length: len(m.Text), Error: m.Error,
	}
}

// newest gives the newest messages, each whole and at its last seq, in order; and whether there are older ones. A
// response in progress is among them whatever the limit: the deltas that follow would mean nothing without it.
func (l *eventLog) newest(limit int) (events []chat.Event, more bool) {
	seen := make(map[*message]bool)
	for i := len(l.items) - 1; i >= 0; i-- {
		msg := l.items[i].msg
		if msg == nil || seen[msg] {
			continue
		}
		seen[msg] = true
		if len(events) >= limit && msg.Status != chat.StatusStreaming {
			more = true
			continue
		}
		events = append(events, chat.Event{Seq: l.items[i].seq, Body: chat.MessageCreated{Message: msg.snapshot()}})
	}
	slices.Reverse(events)
	return events, more || l.older
}

// history gives the messages in the order of their numbers, as far as they go.
func (l *eventLog) history() []chat.Message {
	all := make([]chat.Message, 0, len(l.messages))
	for _, msg := range l.messages {
		all = append(all, msg.snapshot())
	}
	slices.SortFunc(all, func(a, b chat.Message) int { return int(a.N - b.N) })
	return all
}

// compact drops the deltas of responses that were finished before a time: such a message is one item, at its last
// seq.
func (l *eventLog) compact(before time.Time) {
	old := func(msg *message) bool {
		return msg != nil && !msg.finished.IsZero() && msg.finished.Before(before)
	}
	kept := l.items[:0]
	for _, it := range l.items {
		if old(it.msg) {
			if it.kind != itemCompleted {
				continue
			}
			it.kind = itemMessage
		}
		kept = append(kept, it)
	}
	clear(l.items[len(kept):])
	l.items = kept
	for _, msg := range l.messages {
		if old(msg) {
			// The builders have room to spare that nobody needs any more.
			msg.Text, msg.Reasoning = strings.Clone(msg.Text), strings.Clone(msg.Reasoning)
			msg.text, msg.reasoning, msg.marks, msg.finished = strings.Builder{}, strings.Builder{}, nil, time.Time{}
		}
	}
}

// bytes estimates the memory that the log takes, its text first of all.
func (l *eventLog) bytes() int64 {
	const perItem, perMessage = 64, 400
	return l.textSize + int64(len(l.items))*perItem + int64(len(l.messages))*perMessage
}
