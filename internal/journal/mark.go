package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
)

// mark is how far the records reach that were shown, or soon will be. It is written after each batch and before
// anybody is told of it. A record that is damaged before it means that something is lost; one after it, that a write
// was cut short which nobody was shown.
type mark struct {
	journal string
	segment uint64
	offset  int64
}

const (
	markName  = "00000000.mark" // it stands before the segments
	lockName  = "00000000.lock"
	markMagic = "parleym\x01"
	markID    = 32 // the room for the journal's ID
	markSize  = len(markMagic) + markID + 8 + 8 + 4
)

// encode gives the mark's bytes. They are always as many, and fewer than a disk's sector has, so that they are
// written in place.
func (m mark) encode() []byte {
	buf := make([]byte, 0, markSize)
	buf = append(buf, markMagic...)
	buf = append(buf, m.journal...)
	buf = append(buf, make([]byte, markID-len(m.journal))...)
	buf = binary.LittleEndian.AppendUint64(buf, m.segment)
	buf = binary.LittleEndian.AppendUint64(buf, uint64(m.offset))
	return binary.LittleEndian.AppendUint32(buf, crc32.Checksum(buf, castagnoli))
}

func decodeMark(data []byte) (m mark, ok bool) {
	// What follows it was written by nobody here, and does no harm.
	if len(data) < markSize || !bytes.HasPrefix(data, []byte(markMagic)) {
		return m, false
	}
	body, sum := data[:markSize-4], binary.LittleEndian.Uint32(data[markSize-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return m, false
	}
	body = body[len(markMagic):]
	m.journal = string(bytes.TrimRight(body[:markID], "\x00"))
	m.segment = binary.LittleEndian.Uint64(body[markID:])
	m.offset = int64(binary.LittleEndian.Uint64(body[markID+8:]))
	return m, true
}

const errNoMark = untrusted("the mark is missing")

// readMark reads a folder's mark. What is wrong with it is of the type [untrusted].
func readMark(folder string) (mark, error) {
	data, err := os.ReadFile(filepath.Join(folder, markName))
	if errors.Is(err, os.ErrNotExist) {
		return mark{}, errNoMark
	}
	if err != nil {
		return mark{}, err
	}
	m, ok := decodeMark(data)
	if !ok {
		return mark{}, untrusted("the mark is damaged")
	}
	return m, nil
}
