package journal

import (
	"bytes"
	"log/slog"
)

// MarkName is what the mark's file is called.
const MarkName = markName

// File is what a test's disk opens.
type File = file

// OpenOn is Open with a disk of the test's own, on a machine that was started as boot says.
func OpenOn(cfg Config, log *slog.Logger, open func(path string) (File, error), remove func(path string) error,
	boot string) (*Journal, error) {
	return openJournal(cfg, log, disk{open: open, remove: remove, boot: boot})
}

// OpenFile is how the journal opens files itself.
var OpenFile = openFile

// EncodeMark gives a mark file's content.
func EncodeMark(journal string, segment uint64, offset int64) []byte {
	return mark{journal: journal, segment: segment, offset: offset}.encode()
}

// ReadMark gives what a folder's mark says.
func ReadMark(folder string) (journal string, segment uint64, offset int64, err error) {
	m, err := readMark(folder)
	return m.journal, m.segment, m.offset, err
}

// EncodeSegment gives a segment file's content with any payloads, in records that are sound.
func EncodeSegment(journal, store, boot string, number uint64, payloads ...[]byte) []byte {
	buf, err := encodeHeader(header{Journal: journal, Store: store, Boot: boot, Segment: number})
	if err != nil {
		panic(err)
	}
	for _, payload := range payloads {
		var start int
		buf, start = openRecord(buf)
		buf = sealRecord(append(buf, bytes.Clone(payload)...), start)
	}
	return buf
}

// BootID names this run of the machine.
var BootID = bootID

// Payloads gives those of a segment file's records, up to the first that is not sound.
func Payloads(segment []byte) (payloads [][]byte) {
	_, start, ok := decodeHeader(segment)
	if !ok {
		return nil
	}
	for payload, rest, ok := nextRecord(segment[start:]); ok; payload, rest, ok = nextRecord(rest) {
		payloads = append(payloads, payload)
	}
	return payloads
}

// KindErased is the first byte of the payload that says what is erased.
const KindErased = byte(kindErased)
