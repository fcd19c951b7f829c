package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math"
	"os"
	"slices"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/seal"
)

// Recovered is what Open found of a session: its newest records that follow on each other. The store may know some of
// them, or all and more, and the session may have another epoch in the meantime: compare both.
type Recovered struct {
	Epoch string
	From  int64 // the log's end before the first event
	End   int64 // and after the last

	sessionID string
	keys      *seal.Keyset // that open what is sealed; nil: there are none
	payloads  []byte       // of its records, each with its length before it
	segment   uint64       // the number of that which holds the last one
	holed     bool         // a seq is missing: Events gives an error
	erased    bool         // nothing of it counts
}

// Events gives the events in order: one for each seq from From+1 to End. Of a message that does not stream there are
// only ID and N, as the store has the rest. An error, of a seq that is missing or of a record that cannot be read, is the
// last: then more was shown than can be given. A record that is encrypted cannot be read without the keys for it.
func (r *Recovered) Events() iter.Seq2[chat.Event, error] {
	return func(yield func(chat.Event, error) bool) {
		if r.holed {
			yield(chat.Event{}, fmt.Errorf("read the events of session %s: one between %d and %d is missing",
				r.sessionID, r.From, r.End))
			return
		}
		response := ""
		for rest := (fields{data: r.payloads}); len(rest.data) > 0; {
			payload := rest.bytes()
			kind := recordKind(payload[0])
			if kind == kindBegin {
				begin, _ := decodeBegin(payload) // which replay did already
				response = begin.response
				continue
			}
			_, seq, document, _ := decodeEvent(payload) // and here, too
			body, err := r.body(kind, seq, document, response)
			if err != nil {
				yield(chat.Event{}, fmt.Errorf("read event %d of session %s: %w", seq, r.sessionID, err))
				return
			}
			if kind&^sealedFlag == kindResponse {
				response = body.(chat.MessageCreated).Message.ID
			}
			if !yield(chat.Event{SessionID: r.sessionID, From: seq, Seq: seq, Body: body}, nil) {
				return
			}
		}
	}
}

func (r *Recovered) keep(payload []byte) {
	r.payloads = append(binary.AppendUvarint(r.payloads, uint64(len(payload))), payload...)
}

// untrusted is why a journal's files cannot be relied upon, as opposed to why they cannot be read.
type untrusted string

func (u untrusted) Error() string { return string(u) }

func untrustedf(format string, args ...any) error { return untrusted(fmt.Sprintf(format, args...)) }

// finding is what is in a journal's folder.
type finding struct {
	id       string   // the journal's; empty: there is none
	numbers  []uint64 // of all its segments, in order
	segments []*segment
	stale    []uint64 // the numbers of those that are not needed
	sessions map[string]*Recovered
}

// last is the highest number of a segment.
func (f *finding) last() uint64 {
	if len(f.numbers) == 0 {
		return 0
	}
	return f.numbers[len(f.numbers)-1]
}

// replay reads the journal in a folder. Where it cannot be trusted, the error is of the type [untrusted] and only the
// numbers are found.
func replay(cfg Config, boot string, log *slog.Logger) (finding, error) {
	numbers, err := segmentNumbers(cfg.Path)
	if err != nil {
		return finding{}, err
	}
	r := replayer{cfg: cfg, boot: boot, finding: finding{numbers: numbers, sessions: make(map[string]*Recovered)}}
	if r.mark, err = readMark(cfg.Path); errors.Is(err, errNoMark) && len(numbers) == 0 {
		return r.finding, nil
	}
	if err == nil {
		err = r.run()
	}
	if err != nil {
		return finding{numbers: numbers}, err
	}
	r.drop(log)
	return r.finding, nil
}

// replayer reads segments in order.
type replayer struct {
	cfg  Config
	boot string
	mark mark
	finding
}

func (r *replayer) run() error {
	newest, err := r.newest()
	if err != nil {
		return err
	}
	removed := removedIn(newest.records())
	var listed []uint64
	for _, e := range newest.header.Earlier {
		if e.Segment >= newest.header.Segment || len(listed) > 0 && e.Segment <= listed[len(listed)-1] {
			return untrustedf("segment %d has a header that makes no sense", newest.header.Segment)
		}
		if removed[e.Segment] {
			continue
		}
		listed = append(listed, e.Segment)
		if err := r.earlier(e); err != nil {
			return err
		}
	}
	for _, n := range r.numbers {
		if _, needed := slices.BinarySearch(listed, n); n < newest.header.Segment && !needed {
			r.stale = append(r.stale, n)
		}
	}
	end := r.read(newest, int64(len(newest.data)))
	if r.mark.segment == newest.header.Segment && end < r.mark.offset {
		return untrustedf("segment %d is damaged or cut off at %d, before the mark at %d",
			r.mark.segment, end, r.mark.offset)
	}
	r.id = r.mark.journal
	if end < int64(len(newest.data)) {
		return os.Truncate(segmentPath(r.cfg.Path, newest.header.Segment), end)
	}
	return nil
}

// newest reads the last segment that was begun. Those after it were about to be, and nothing in them was shown.
func (r *replayer) newest() (segmentData, error) {
	for _, n := range slices.Backward(r.numbers) {
		if n < r.mark.segment {
			break
		}
		d, sound, err := r.open(n)
		if err != nil || sound {
			return d, err
		}
		if n == r.mark.segment {
			return d, untrustedf("segment %d has a damaged header", n)
		}
		r.stale = append(r.stale, n)
	}
	return segmentData{}, untrustedf("segment %d is missing", r.mark.segment)
}

// earlier reads a segment that has to be there, up to its end.
func (r *replayer) earlier(e extent) error {
	d, sound, err := r.open(e.Segment)
	if errors.Is(err, os.ErrNotExist) {
		return untrustedf("segment %d is missing", e.Segment)
	}
	if err != nil {
		return err
	}
	if !sound {
		return untrustedf("segment %d has a damaged header", e.Segment)
	}
	if e.End < d.start || e.End > int64(len(d.data)) {
		return untrustedf("segment %d is cut off at %d, before its end at %d", e.Segment, len(d.data), e.End)
	}
	if end := r.read(d, e.End); end < e.End {
		return untrustedf("segment %d is damaged at %d, before its end at %d", e.Segment, end, e.End)
	}
	return nil
}

// segmentData is a segment in memory.
type segmentData struct {
	header header
	data   []byte
	start  int64 // where the records begin
}

func (d segmentData) records() []byte { return d.data[d.start:] }

// open reads a segment's file. A header that is whole, and says that the segment is not to be trusted, is an error;
// one that is not whole is not sound.
func (r *replayer) open(number uint64) (d segmentData, sound bool, err error) {
	if d.data, err = os.ReadFile(segmentPath(r.cfg.Path, number)); err != nil {
		return d, false, err
	}
	h, start, ok := decodeHeader(d.data)
	if !ok || h.Segment != number {
		return d, false, nil
	}
	d.header, d.start = h, int64(start)
	switch {
	case h.Store != r.cfg.StoreID:
		err = untrustedf("segment %d belongs to another store", number)
	case h.Journal != r.mark.journal:
		err = untrustedf("segment %d and the mark belong to different journals", number)
	case !h.Sync && (h.Boot == "" || h.Boot != r.boot):
		err = untrustedf("segment %d was written without sync, before the machine was started again", number)
	}
	return d, true, err
}

// removedIn gives the numbers of the segments that the records say are removed.
func removedIn(records []byte) map[uint64]bool {
	removed := make(map[uint64]bool)
	for payload, rest, ok := nextRecord(records); ok; payload, rest, ok = nextRecord(rest) {
		if recordKind(payload[0]) == kindRemoved {
			f := fields{data: payload[1:]}
			removed[f.uvarint()] = true
		}
	}
	return removed
}

// read takes in a segment's records up to a limit, and gives where the sound ones end.
func (r *replayer) read(d segmentData, limit int64) (end int64) {
	s := newSegment(d.header.Segment)
	r.segments = append(r.segments, s)
	handles := make(map[uint64]*Recovered)
	data := d.data[:limit]
	rest := data[d.start:]
	for {
		payload, next, ok := nextRecord(rest)
		if !ok || !r.apply(s, handles, payload) {
			break
		}
		rest = next
	}
	s.end = int64(len(data) - len(rest))
	s.size = s.end
	return s.end
}

// apply takes in one record. It reports false, and does nothing, where the record makes no sense.
func (r *replayer) apply(s *segment, handles map[uint64]*Recovered, payload []byte) bool {
	switch kind := recordKind(payload[0]); {
	case kind == kindBegin:
		begin, ok := decodeBegin(payload)
		if ok {
			session := r.begin(begin)
			session.segment = s.number
			session.keep(payload)
			handles[begin.handle], s.holds[begin.sessionID] = session, true
		}
		return ok
	case kind == kindErased:
		upTo, sessionID, ok := decodeErased(payload)
		if ok {
			r.erase(s, sessionID, upTo)
		}
		return ok
	case kind == kindRemoved:
		f := fields{data: payload[1:]}
		f.uvarint()
		return !f.bad
	case !kind.isEvent():
		return false
	}
	handle, seq, _, ok := decodeEvent(payload)
	session := handles[handle]
	if !ok || session == nil {
		return false
	}
	if session.erased {
		return true
	}
	session.segment = s.number
	if session.End == math.MaxInt64 || seq != session.End+1 {
		session.holed, session.payloads = true, nil
	}
	session.End = max(session.End, seq)
	if !session.holed {
		session.keep(payload)
	}
	s.needs[session.sessionID] = need{epoch: session.Epoch, seq: seq}
	return true
}

// begin gives the session that a begin record goes on with. Where it does not follow on what was read, that is dropped.
func (r *replayer) begin(b beginRecord) *Recovered {
	before := r.sessions[b.sessionID]
	if before != nil && before.Epoch == b.epoch && before.End == b.end && !before.holed {
		return before
	}
	session := &Recovered{Epoch: b.epoch, From: b.end, End: b.end, sessionID: b.sessionID, keys: r.cfg.Keys}
	r.sessions[b.sessionID] = session
	return session
}

func (r *replayer) release(sessionID string) {
	for _, s := range r.segments {
		delete(s.needs, sessionID)
	}
}

// drop leaves out the sessions of which there is nothing to give.
func (r *replayer) drop(log *slog.Logger) {
	for id, session := range r.sessions {
		if session.holed {
			log.Warn("a session's records in the journal do not follow on each other", "session", id)
		}
		if session.From == session.End {
			delete(r.sessions, id)
			r.release(id)
		}
	}
}
