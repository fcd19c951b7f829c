package journal

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	retryInterval = time.Second

	// idleSize is from when on a segment is ended early, so that it can go, when nothing in it is needed.
	idleSize = 1 << 20

	// maxSpare is the largest buffer that is kept for another batch.
	maxSpare = 1 << 20
)

// segmentSize is from when on a segment is ended.
func (j *Journal) segmentSize() int64 { return min(max(j.cfg.MaxBytes/8, 64<<10), 16<<20) }

// run is the writer's goroutine.
func (j *Journal) run() {
	defer close(j.stopped)
	for b := j.next(); b != nil; b = j.next() {
		err := b.err
		if err == nil {
			started := time.Now()
			err = j.commit(b)
			j.metrics.seconds.Observe(time.Since(started).Seconds())
		}
		if err != nil {
			j.fail(b, err)
		} else {
			j.finish(b)
		}
	}
}

// next waits until there is something to do. After Close, when nothing is left, it gives nil.
func (j *Journal) next() *batch {
	for {
		b, wait, more := j.take()
		if b != nil || !more {
			return b
		}
		if wait == 0 {
			<-j.wake
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-j.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// take gives the batch that waits, or an empty one where there is something else to do. Otherwise it says for how long
// to wait at the most, 0 for no limit, and whether more can come.
func (j *Journal) take() (b *batch, wait time.Duration, more bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	waiting := len(j.pending.logs) > 0
	switch {
	case waiting && (j.pending.err != nil || j.err != nil):
		return j.giveUp(), 0, true
	case !j.retry.IsZero():
		if wait := time.Until(j.retry); j.closing || wait > 0 {
			return nil, wait, !j.closing
		}
		return j.load(), 0, true
	}
	waiting = waiting || len(j.pending.erasures) > 0
	if !waiting && j.idle() {
		j.rotate()
	}
	if !waiting && !j.obsolete() {
		return nil, 0, !j.closing
	}
	return j.load(), 0, true
}

// giveUp takes out what gathered and will not be written; but for its erasures, for which there is always room. The
// caller holds mu.
func (j *Journal) giveUp() *batch {
	b := j.detach()
	if b.err == nil {
		b.err = j.err
	}
	for _, e := range b.erasures {
		j.pending.erase(e)
	}
	b.erasures = b.erasures[:0]
	return b
}

// current is the segment that pending goes to. The caller of this and of what follows holds mu.
func (j *Journal) current() *segment { return j.segments[len(j.segments)-1] }

// rotate makes pending, which is empty, go to a new segment.
func (j *Journal) rotate() { j.add(j.current().number + 1) }

func (j *Journal) add(number uint64) { j.segments = append(j.segments, newSegment(number)) }

// idle reports whether the current segment holds up room for nothing, or keeps what was to be erased.
func (j *Journal) idle() bool {
	s := j.current()
	return s.handles > 0 && len(s.needs) == 0 && (s.size > idleSize || len(s.erased) > 0 || j.err != nil || j.closing)
}

// obsolete reports whether there are segments to remove.
func (j *Journal) obsolete() bool {
	ended := j.segments[:len(j.segments)-1]
	return slices.ContainsFunc(ended, func(s *segment) bool { return len(s.needs) == 0 })
}

// hasRoom reports whether a journal that was full is to be used again: not for a few records only, as each time that
// it is full costs sessions their epoch.
func (j *Journal) hasRoom() bool {
	return len(j.segments) == 1 || j.cfg.MaxBytes-j.bytes >= j.segmentSize()/2
}

// detach takes out what gathered; the next batch gathers from here on.
func (j *Journal) detach() *batch {
	b, next := j.pending, j.spare
	if next == nil {
		next = &batch{}
	}
	j.spare = nil
	j.batches++
	next.number, next.done = j.batches, make(chan struct{})
	j.pending = next
	if b != nil {
		b.segment = j.current()
	}
	return b
}

// load takes out what gathered, to be written, and adds which segments are removed.
func (j *Journal) load() *batch {
	b := j.detach()
	for _, s := range j.segments {
		if s == b.segment {
			break
		}
		if len(s.needs) > 0 {
			b.earlier = append(b.earlier, s)
		} else {
			b.obsolete = append(b.obsolete, s)
		}
	}
	b.carry() // before what follows: should the write be cut short, nothing is removed that is not said again
	for _, s := range b.obsolete {
		b.buf = appendRemoved(b.buf, s.number)
	}
	b.segment.size += int64(len(b.buf))
	j.bytes += int64(len(b.buf))
	if b.segment.size >= j.segmentSize() {
		j.rotate()
	}
	return b
}

// commit writes a batch and how far the journal reaches now. On an error nothing of it counts as written.
func (j *Journal) commit(b *batch) error {
	s := b.segment
	fresh := s != j.active
	if fresh {
		if err := j.create(s, slices.Concat(b.earlier, b.obsolete)); err != nil {
			return fmt.Errorf("begin a segment of the journal: %w", err)
		}
	}
	erases := len(b.erasures) > 0
	if err := j.write(s, b.buf, j.cfg.Sync || erases); err != nil {
		// What was written of it is not read again in any case: the next header tells where this segment ends.
		_ = s.file.Truncate(s.end)
		return fmt.Errorf("write the journal: %w", err)
	}
	end := s.end + int64(len(b.buf))
	_, err := j.markFile.WriteAt(mark{journal: j.id, segment: s.number, offset: end}.encode(), 0)
	if err == nil && (fresh && j.cfg.Sync || erases) {
		err = j.markFile.Sync()
	}
	if err == nil && erases && !j.cfg.Sync {
		err = syncFolder(j.cfg.Path) // which nobody did when the files were made
	}
	if err != nil {
		return fmt.Errorf("write the journal's mark: %w", err)
	}
	s.end = end
	return nil
}

func (j *Journal) write(s *segment, buf []byte, durable bool) error {
	if len(buf) == 0 {
		return nil
	}
	if _, err := s.file.Write(buf); err != nil {
		return err
	}
	if durable {
		return s.file.Sync()
	}
	return nil
}

// create makes a segment's file, with its header, the one that is written to. Earlier segments that are to be removed
// are in the header, too: should it be all that is written, they are still what they were.
func (j *Journal) create(s *segment, earlier []*segment) error {
	h := header{Journal: j.id, Store: j.cfg.StoreID, Boot: j.disk.boot, Sync: j.cfg.Sync, Segment: s.number}
	for _, e := range earlier {
		h.Earlier = append(h.Earlier, extent{Segment: e.number, End: e.end})
	}
	slices.SortFunc(h.Earlier, func(a, b extent) int { return cmp.Compare(a.Segment, b.Segment) })
	head, err := encodeHeader(h)
	if err != nil {
		return err
	}
	path := segmentPath(j.cfg.Path, s.number)
	f, err := j.disk.open(path)
	if err != nil {
		return err
	}
	_, err = f.Write(head)
	if err == nil && j.cfg.Sync {
		if err = f.Sync(); err == nil {
			err = syncFolder(j.cfg.Path)
		}
	}
	if err != nil {
		_ = j.disk.remove(path) // should it stay, it is not among those that the next header knows
		return errors.Join(err, f.Close())
	}
	before := j.active
	s.file, s.end, j.active = f, int64(len(head)), s
	if before != nil {
		return before.file.Close()
	}
	return nil
}

// abandon closes the segment that is written to: it failed, and nothing is appended to it again.
func (j *Journal) abandon() {
	if j.active != nil {
		_ = j.active.file.Close() // it failed already
		j.active = nil
	}
}

// outcome is what a log is told.
type outcome struct {
	report func(seq int64, err error)
	seq    int64
	err    error
}

// finish tells a batch's logs that it is written, and removes the segments that it says are removed.
func (j *Journal) finish(b *batch) {
	outcomes := make([]outcome, 0, len(b.logs))
	j.metrics.events.Add(float64(b.events))
	j.mu.Lock()
	j.waiting -= b.events
	j.settle(b.segment)
	for _, e := range b.logs {
		e.log.written = e.seq
		outcomes = append(outcomes, outcome{e.log.report, e.seq, e.err})
	}
	j.erased(b)
	j.segments = slices.DeleteFunc(j.segments, func(s *segment) bool {
		removed := slices.Contains(b.obsolete, s)
		if removed {
			j.bytes -= s.size
		}
		return removed
	})
	if !j.retry.IsZero() || j.err != nil && j.hasRoom() {
		j.err, j.retry = nil, time.Time{}
	}
	well := j.err == nil
	j.mu.Unlock()

	if well && j.reported {
		j.reported = false
		j.logger.Info("the journal is written again", "folder", j.cfg.Path)
	}
	b.tell(outcomes)
	b.answer(nil)
	for _, s := range b.obsolete {
		j.remove(s.number)
	}
	j.recycle(b)
}

// fail ends the logs of a batch that was not written and, if it was tried, of what waits behind it.
func (j *Journal) fail(b *batch, err error) {
	j.metrics.failures.Inc()
	tried := b.err == nil
	if tried {
		j.abandon()
	}
	if !j.reported {
		j.reported = true
		j.logger.Error("the journal cannot be written: sessions are begun anew", "folder", j.cfg.Path, "error", err)
	}
	j.mu.Lock()
	outcomes := j.end(b, err)
	var behind *batch
	if tried {
		behind = j.detach()
		behind.err = err
		outcomes = append(outcomes, j.end(behind, err)...)
		j.err, j.retry = err, time.Now().Add(retryInterval)
		j.settle(b.segment)
		number := j.current().number + 1
		j.segments = slices.DeleteFunc(j.segments, func(s *segment) bool { return s.end == 0 })
		j.add(number)
	}
	j.mu.Unlock()

	b.tell(outcomes)
	b.answer(err)
	if behind != nil {
		close(behind.done)
		behind.answer(err)
	}
}

// settle makes a segment count for what is in its file. The caller holds mu.
func (j *Journal) settle(s *segment) {
	j.bytes += s.end - s.size
	s.size = s.end
}

// end ends the logs of a batch and gives what to tell those that do not know yet. The caller holds mu.
func (j *Journal) end(b *batch, err error) (outcomes []outcome) {
	j.waiting -= b.events
	for _, e := range b.logs {
		l := e.log
		l.ended = true
		l.unneed(b.segment)
		if l.told {
			continue
		}
		l.told = true
		if e.err == nil {
			e.err = err
		}
		outcomes = append(outcomes, outcome{l.report, l.written, e.err})
	}
	return outcomes
}

// unneed takes back what the log needs of a segment beyond what was written. The caller holds the journal's mu.
func (l *Log) unneed(s *segment) {
	n, ok := s.needs[l.sessionID]
	if !ok || n.epoch != l.epoch || n.seq <= l.written {
		return
	}
	if l.stored >= l.written {
		delete(s.needs, l.sessionID)
	} else {
		s.needs[l.sessionID] = need{epoch: l.epoch, seq: l.written}
	}
}

// tell calls the logs back, and then lets those go on who wait for the batch.
func (b *batch) tell(outcomes []outcome) {
	for _, o := range outcomes {
		o.report(o.seq, o.err)
	}
	close(b.done)
}

// remove removes a segment that nobody needs. Should it stay, the next Open knows that it was to go.
func (j *Journal) remove(number uint64) {
	err := j.disk.remove(segmentPath(j.cfg.Path, number))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		j.logger.Warn("a segment of the journal that nobody needs cannot be removed",
			"folder", filepath.Clean(j.cfg.Path), "segment", number, "error", err)
	}
}

// recycle keeps a batch's memory for another one.
func (j *Journal) recycle(b *batch) {
	clear(b.logs)
	clear(b.earlier)
	clear(b.obsolete)
	clear(b.erasures)
	*b = batch{
		buf: b.buf[:0], logs: b.logs[:0], earlier: b.earlier[:0], obsolete: b.obsolete[:0], erasures: b.erasures[:0],
	}
	if cap(b.buf) <= maxSpare {
		j.spare = b
	}
}
