package journal

import (
	"fmt"

	"github.com/parley-chat/parley/chat"
)

// Log is what one session appends to, in one epoch. Its methods never wait for I/O.
type Log struct {
	journal   *Journal
	sessionID string
	epoch     string
	report    func(seq int64, err error)

	// Guarded by the journal's mu.
	end     int64           // the last seq that was appended
	written int64           // the last seq that is in a file
	stored  int64           // the last seq that the store knows, as far as the journal was told
	ended   bool            // nothing is appended any more
	told    bool            // report got its error, of a batch that failed
	outcome <-chan struct{} // of the batch that the last append went to

	segment  uint64 // the number of the segment that has the last begin record, 0 for none
	handle   uint64 // and what stands for the log there
	response string // the ID of the response that deltas belong to, as the records so far say

	batch uint64 // the number of the batch that the log is in already
	slot  int    // and its place there
}

// closed is the outcome of what comes to nothing.
var closed = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// batch is what one write takes.
type batch struct {
	number uint64
	buf    []byte
	logs   []entry // each log in it, once
	events int     // of all logs
	err    error   // why nothing of it will be written
	done   chan struct{}

	erasures []erasure // which buf has the records of

	// Set when it is taken out to be written.
	segment  *segment
	earlier  []*segment // those before it that are needed
	obsolete []*segment // and those that are not
}

// entry is a log's part in a batch.
type entry struct {
	log *Log
	seq int64 // its last one
	err error // why the log ends with this batch; nil: it does not
}

// Append adds an event, which has the seq after the last one's. It does no I/O and may be called under the session's
// lock. The channel is closed when the event is written and the log was told so, or when it never will be: which of the
// two, the log was told. To a log that ended nothing is added.
func (l *Log) Append(e chat.Event) (done <-chan struct{}) {
	j := l.journal
	r, err := l.encode(e)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closing {
		l.ended = true
	}
	if l.ended {
		return l.outcome
	}
	if err == nil && e.Seq != l.end+1 {
		err = fmt.Errorf("seq %d was appended after %d", e.Seq, l.end)
	}
	if err == nil {
		err = j.err
	}
	b := j.pending
	if l.batch != b.number {
		l.batch, l.slot, l.outcome = b.number, len(b.logs), b.done
		b.logs = append(b.logs, entry{log: l, seq: l.end})
	}
	if err != nil {
		b.logs[l.slot].err, l.ended = err, true
	} else {
		l.add(b, r, e)
	}
	j.signal()
	return b.done
}

// add puts an event's record into the batch that gathers. The caller holds the journal's mu.
func (l *Log) add(b *batch, r eventRecord, e chat.Event) {
	j := l.journal
	current := j.current()
	size := len(b.buf)
	delta, isDelta := e.Body.(chat.MessageDelta)
	if l.segment != current.number || isDelta && delta.MessageID != l.response {
		l.begin(b, current, delta.MessageID)
	}
	b.buf = appendEvent(b.buf, r.kind, l.handle, e.Seq, r.document, r.text)
	if j.bytes+int64(len(b.buf)) > j.cfg.MaxBytes {
		b.buf = b.buf[:size] // the batch is given up, and takes no more memory than there is room
		b.err, j.err = ErrFull, ErrFull
		return
	}
	if created, ok := e.Body.(chat.MessageCreated); ok && created.Message.Status == chat.StatusStreaming {
		l.response = created.Message.ID
	}
	b.events++
	j.waiting++
	l.end = e.Seq
	b.logs[l.slot].seq = e.Seq
	current.needs[l.sessionID] = need{epoch: l.epoch, seq: e.Seq}
}

// begin writes down which log a handle stands for, and which response deltas belong to: that of the delta that comes,
// if one does.
func (l *Log) begin(b *batch, current *segment, response string) {
	if l.segment != current.number {
		current.handles++
		l.segment, l.handle = current.number, current.handles
		current.holds[l.sessionID] = true
	}
	if response != "" {
		l.response = response
	}
	b.buf = appendBegin(b.buf, beginRecord{
		handle: l.handle, end: l.end, sessionID: l.sessionID, epoch: l.epoch, response: l.response,
	})
}

// Stored says that the store knows this log up to a seq: records up to there are not needed.
func (l *Log) Stored(seq int64) {
	j := l.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	l.stored = max(l.stored, seq)
	j.release(l.sessionID, func(n need) bool { return n.epoch == l.epoch && n.seq <= seq })
}
