// Package sse reads server-sent events, the format in which language models stream their answers.
//
// The one [Reader] serves all providers. It follows the WHATWG HTML Living Standard §9.2.6 (interpreting an event
// stream), with two differences for those who read machines rather than web pages: lines and events have a limit, and
// a stream that stops within an event is told from one that ends between two.
package sse

import (
	"bytes"
	"errors"
	"io"
)

// DefaultLimit is the limit of a [Reader] made with 0 as its limit: 1 MiB.
const DefaultLimit = 1 << 20

// ErrTooLong means that a line, or the data of an event, is longer than the reader's limit.
var ErrTooLong = errors.New("sse: line or event is too long")

// Event is one event of a stream. Its slices belong to the [Reader] and hold until the next call of Next.
type Event struct {
	Name []byte // the event field; empty where the stream has none, which stands for "message"
	Data []byte // the data fields, joined by newlines; bytes as they came, not checked to be UTF-8
}

// Reader reads events from a stream. It allocates nothing per event once its buffers have grown to the size of the
// largest one. It is not safe for concurrent use.
type Reader struct {
	src   io.Reader
	limit int
	err   error // what ended src; reported after all that was read before

	buf      []byte // buf[pos:end] is read and not yet consumed
	pos, end int
	scan     int  // buf[pos:scan] has no line end
	lf       int  // buf[pos:lf] has no LF
	hasLF    bool // buf[lf] is one
	afterCR  bool // the last line ended with CR: an LF that follows belongs to it
	started  bool // the first line, which may begin with a byte order mark, is behind

	name, data []byte
}

// NewReader returns a reader of the events in src. Lines, and the data of an event, may have at most limit bytes; 0
// means [DefaultLimit].
func NewReader(src io.Reader, limit int) *Reader {
	if limit == 0 {
		limit = DefaultLimit
	}
	return &Reader{src: src, limit: limit, buf: make([]byte, min(4096, limit+1))}
}

// Next returns the next event that has data. The errors are io.EOF at the end of the stream; io.ErrUnexpectedEOF where
// it stops within a line or within an event that has data, which is never returned; [ErrTooLong]; and those of the
// underlying reader. After an error every call returns it again.
func (r *Reader) Next() (Event, error) {
	r.name, r.data = r.name[:0], r.data[:0]
	for {
		line, err := r.line()
		if errors.Is(err, io.EOF) && len(r.data) > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return Event{}, r.fail(err)
		}
		if len(line) > 0 {
			if err := r.field(line); err != nil {
				return Event{}, r.fail(err)
			}
			continue
		}
		if n := len(r.data); n > 0 {
			return Event{Name: r.name, Data: r.data[:n-1]}, nil
		}
		r.name = r.name[:0]
	}
}

// fail makes err the reader's last word.
func (r *Reader) fail(err error) error {
	r.err = err
	r.pos, r.end, r.scan, r.lf, r.hasLF = 0, 0, 0, 0, false
	r.data = r.data[:0]
	return err
}

// field takes one line that is not blank. Comments (an empty name), id, retry and unknown fields are ignored.
func (r *Reader) field(line []byte) error {
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "data":
		if len(r.data)+len(value) > r.limit {
			return ErrTooLong
		}
		r.data = append(append(r.data, value...), '\n')
	case "event":
		r.name = append(r.name[:0], value...)
	}
	return nil
}

// line returns the next line without its end, which is CR LF, LF or CR. It holds until the next call.
func (r *Reader) line() ([]byte, error) {
	for {
		if line, ok := r.buffered(); ok {
			if len(line) > r.limit {
				return nil, ErrTooLong
			}
			return r.trimMark(line), nil
		}
		if r.end-r.pos > r.limit {
			return nil, ErrTooLong
		}
		if r.err != nil {
			if errors.Is(r.err, io.EOF) && len(r.trimMark(r.buf[r.pos:r.end])) > 0 {
				return nil, io.ErrUnexpectedEOF
			}
			return nil, r.err
		}
		r.fill()
	}
}

// buffered takes a line from the buffer, if a whole one is there. A line that ends with CR is whole at once: waiting
// for the LF that may follow would hold an event back until the next one.
func (r *Reader) buffered() ([]byte, bool) {
	if r.afterCR && r.pos < r.end {
		r.afterCR = false
		if r.buf[r.pos] == '\n' {
			r.pos++
		}
	}
	// What was searched once is not searched again: neither a long line that arrives in small pieces, for any line
	// end, nor many short lines that end with CR, for LF.
	r.scan = max(r.scan, r.pos)
	if r.lf < r.pos {
		r.lf, r.hasLF = r.pos, false
	}
	if !r.hasLF {
		i := bytes.IndexByte(r.buf[r.lf:r.end], '\n')
		if r.hasLF = i >= 0; r.hasLF {
			r.lf += i
		} else {
			r.lf = r.end
		}
	}
	if i := bytes.IndexByte(r.buf[r.scan:r.lf], '\r'); i >= 0 {
		r.afterCR = true
		return r.take(r.scan + i), true
	}
	r.scan = r.lf
	if !r.hasLF {
		return nil, false
	}
	return r.take(r.lf), true
}

// take consumes the line that ends at index end of the buffer.
func (r *Reader) take(end int) []byte {
	line := r.buf[r.pos:end]
	r.pos = end + 1
	return line
}

// fill reads once from the source, after making room for at least one byte.
func (r *Reader) fill() {
	if r.pos > 0 {
		copy(r.buf, r.buf[r.pos:r.end])
		r.scan -= r.pos
		r.lf -= r.pos
		r.end -= r.pos
		r.pos = 0
	}
	if r.end == len(r.buf) {
		grown := make([]byte, min(2*len(r.buf), r.limit+1))
		copy(grown, r.buf[:r.end])
		r.buf = grown
	}
	for range 100 {
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		r.err = err
		if n > 0 || err != nil {
			return
		}
	}
	r.err = io.ErrNoProgress
}

// trimMark removes the byte order mark that a stream may begin with.
func (r *Reader) trimMark(line []byte) []byte {
	if r.started {
		return line
	}
	r.started = true
	return bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
}
