package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// segment is one file of records, or one to be.
type segment struct {
	number uint64

	// Owned by the writer.
	file file  // nil: not open
	end  int64 // where its good records end; 0: there is no file

	// Guarded by the journal's mu.
	size    int64           // that it counts for
	handles uint64          // how many were given out
	needs   map[string]need // by session ID; what makes the segment stay

	// Sessions of which there are records, or may be, and by session ID up to which segment the records say that what
	// there is of one is erased. Guarded by the journal's mu, too.
	holds  map[string]bool
	erased map[string]uint64
}

func newSegment(number uint64) *segment {
	return &segment{
		number: number, needs: make(map[string]need), holds: make(map[string]bool), erased: make(map[string]uint64),
	}
}

// erase notes that the segment's records say so.
func (s *segment) erase(sessionID string, upTo uint64) {
	s.erased[sessionID] = max(s.erased[sessionID], upTo)
}

// need is up to where a segment has records of a log that are needed.
type need struct {
	epoch string
	seq   int64
}

// file is what the writer does with a file.
type file interface {
	io.Writer
	io.WriterAt
	io.Closer
	Sync() error
	Truncate(size int64) error
}

// disk is how the writer reaches files and what it knows of the machine. Tests have their own.
type disk struct {
	open   func(path string) (file, error) // to write it; made where it is missing
	remove func(path string) error
	boot   string // names this run of the machine; empty: nobody knows
}

func openFile(path string) (file, error) { return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) }

// header is the first record of a segment.
type header struct {
	Journal string `json:"journal"`
	Store   string `json:"store"`
	Boot    string `json:"boot"`
	Sync    bool   `json:"sync"`
	Segment uint64 `json:"segment"`

	// Earlier are the segments before this one that were there when it began. With the removed records that follow, it
	// tells those that were removed from those that are missing, and where each ends.
	Earlier []extent `json:"earlier,omitempty"`
}

// extent says where a segment's good records end: what follows there was never shown.
type extent struct {
	Segment uint64 `json:"segment"`
	End     int64  `json:"end"`
}

// magic begins every segment. Its last byte is the version of the format.
const magic = "parleyj\x01"

func encodeHeader(h header) ([]byte, error) {
	document, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	buf, start := openRecord([]byte(magic))
	return sealRecord(append(buf, document...), start), nil
}

// decodeHeader gives a segment's header and its length in bytes.
func decodeHeader(data []byte) (h header, length int, ok bool) {
	framed, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok {
		return h, 0, false
	}
	document, rest, ok := nextRecord(framed)
	if !ok || json.Unmarshal(document, &h) != nil {
		return h, 0, false
	}
	return h, len(data) - len(rest), true
}

const suffix = ".segment"

func segmentPath(folder string, number uint64) string {
	return filepath.Join(folder, fmt.Sprintf("%08d%s", number, suffix))
}

// segmentNumbers lists the segments in a folder, in order.
func segmentNumbers(folder string) ([]uint64, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, entry := range entries {
		name, found := strings.CutSuffix(entry.Name(), suffix)
		number, err := strconv.ParseUint(name, 10, 64)
		if found && err == nil && segmentPath("", number) == entry.Name() {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// syncFolder makes the names in a folder outlive a crash of the machine.
func syncFolder(path string) error {
	if runtime.GOOS == "windows" { // which keeps them with the file, and cannot sync a folder
		return nil
	}
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
