package sse_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/parley-chat/parley/internal/llm/sse"
)

// read returns the events of a stream as "name|data", and the error that ended it.
func read(src io.Reader, limit int) ([]string, error) {
	r := sse.NewReader(src, limit)
	var events []string
	for {
		event, err := r.Next()
		if err != nil {
			return events, err
		}
		events = append(events, fmt.Sprintf("%s|%s", event.Name, event.Data))
	}
}

func TestReader(t *testing.T) {
	tests := []struct {
		name   string
		stream string
		events []string
		err    error
	}{
		{"empty", "", nil, io.EOF},
		{"LF", "data: a\n\ndata: b\n\n", []string{"|a", "|b"}, io.EOF},
		{"CRLF", "data: a\r\n\r\ndata: b\r\n\r\n", []string{"|a", "|b"}, io.EOF},
		{"CR", "data: a\r\rdata: b\r\r", []string{"|a", "|b"}, io.EOF},
		{"mixed line ends", "data: a\r\ndata: b\r\rdata: c\n\r\n", []string{"|a\nb", "|c"}, io.EOF},
		{"several data lines", "data: a\ndata\ndata:b\n\n", []string{"|a\n\nb"}, io.EOF},
		{"one space is removed", "data:a\ndata: b\ndata:  c\n\n", []string{"|a\nb\n c"}, io.EOF},
		{"empty data", "data\n\ndata:\n\n", []string{"|", "|"}, io.EOF},
		{"name", "event: error\ndata: a\n\ndata: b\n\n", []string{"error|a", "|b"}, io.EOF},
		{"last name counts", "event: x\nevent: y\ndata: a\n\n", []string{"y|a"}, io.EOF},
		{"name without data", "event: x\n\ndata: a\n\n", []string{"|a"}, io.EOF},
		{"comments", ": OPENROUTER PROCESSING\n\n:\ndata: a\n: b\ndata: c\n\n", []string{"|a\nc"}, io.EOF},
		{"id, retry, unknown", "id: 1\nretry: 5\nfoo: bar\nfoo\ndata: a\n\n", []string{"|a"}, io.EOF},
		{"case and leading space matter", "Data: a\n data: b\ndata: c\n\n", []string{"|c"}, io.EOF},
		{"byte order mark", "\xef\xbb\xbfdata: a\n\n", []string{"|a"}, io.EOF},
		{"only the first byte order mark", "\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", []string{"|b"}, io.EOF},
		{"nothing but a byte order mark", "\xef\xbb\xbf", nil, io.EOF},
		{"colons in data", "data: a: b\n\n", []string{"|a: b"}, io.EOF},
		{"cut within a line", "data: a\n\ndata: b", []string{"|a"}, io.ErrUnexpectedEOF},
		{"cut before the blank line", "data: a\n\ndata: b\n", []string{"|a"}, io.ErrUnexpectedEOF},
		{"ended after a comment", "data: a\n\n: bye\n", []string{"|a"}, io.EOF},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for how, src := range map[string]io.Reader{
				"whole":         strings.NewReader(test.stream),
				"by bytes":      iotest.OneByteReader(strings.NewReader(test.stream)),
				"end with data": iotest.DataErrReader(strings.NewReader(test.stream)),
			} {
				events, err := read(src, 0)
				if !slices.Equal(events, test.events) || err != test.err {
					t.Errorf("%s: got %q, %v; want %q, %v", how, events, err, test.events, test.err)
				}
			}
		})
	}
}

func TestAnEventIsReturnedBeforeMoreArrives(t *testing.T) {
	for _, blank := range []string{"\n\n", "\r\r", "\r\n\r\n", "\r\n\r"} {
		src, upstream := io.Pipe()
		r := sse.NewReader(src, 0)
		go upstream.Write([]byte("data: a" + blank)) // returns once all of it was read
		event, err := r.Next()
		if err != nil || string(event.Data) != "a" {
			t.Errorf("%q: got %q, %v", blank, event.Data, err)
		}
		src.Close()
	}
}

func TestLimit(t *testing.T) {
	const limit = 64
	long := strings.Repeat("x", limit-len("data: "))
	tests := []struct {
		name   string
		stream string
		events int
		err    error
	}{
		{"line at the limit", "data: " + long + "\n\n", 1, io.EOF},
		{"line at the limit, CRLF", "data: " + long + "\r\n\r\n", 1, io.EOF},
		{"line above", "data: " + long + "x\n\n", 0, sse.ErrTooLong},
		{"line above without an end", strings.Repeat("x", 4*limit), 0, sse.ErrTooLong},
		{"comment above", "data: a\n\n:" + strings.Repeat("x", limit) + "\n\n", 1, sse.ErrTooLong},
		{"event above", strings.Repeat("data: 0123456789\n", 6) + "\n", 0, sse.ErrTooLong},
		{"many events", strings.Repeat("data: 0123456789\n\n", 50), 50, io.EOF},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, src := range []io.Reader{
				strings.NewReader(test.stream), iotest.OneByteReader(strings.NewReader(test.stream)),
			} {
				events, err := read(src, limit)
				if len(events) != test.events || err != test.err {
					t.Errorf("got %d events, %v; want %d, %v", len(events), err, test.events, test.err)
				}
			}
		})
	}
}

func TestErrorOfTheSource(t *testing.T) {
	broken := errors.New("connection reset")
	src := io.MultiReader(strings.NewReader("data: a\n\ndata: b"), iotest.ErrReader(broken))
	r := sse.NewReader(src, 0)
	if event, err := r.Next(); err != nil || string(event.Data) != "a" {
		t.Fatalf("got %q, %v; want what came before the error", event.Data, err)
	}
	for range 2 {
		if _, err := r.Next(); err != broken {
			t.Errorf("got %v; want %v, again and again", err, broken)
		}
	}
}

func TestASourceThatGivesNothing(t *testing.T) {
	if _, err := read(iotest.OneByteReader(silent{}), 0); err != io.ErrNoProgress {
		t.Errorf("got %v, want %v", err, io.ErrNoProgress)
	}
}

type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, nil }

func TestNoAllocationPerEvent(t *testing.T) {
	const events = 1000
	r := sse.NewReader(strings.NewReader(strings.Repeat(chunk, events+2)), 0)
	r.Next()
	allocations := testing.AllocsPerRun(events, func() {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	})
	if allocations != 0 {
		t.Errorf("%v allocations per event", allocations)
	}
}

const chunk = `data: {"id":"chatcmpl-9","object":"chat.completion.chunk","created":1760000000,"model":"m",` +
	`"choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}],"usage":null}` + "\n\n"

func BenchmarkReader(b *testing.B) {
	stream := strings.Repeat(chunk, 1000)
	src := strings.NewReader(stream)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	r := sse.NewReader(src, 0)
	for b.Loop() {
		if _, err := r.Next(); err == io.EOF {
			src.Reset(stream)
			r = sse.NewReader(src, 0)
		}
	}
}

// naive is §9.2.6 of the standard, word by word, over a stream held whole.
func naive(stream string) (events []string, err error) {
	stream = strings.TrimPrefix(stream, "\xef\xbb\xbf")
	stream = strings.ReplaceAll(stream, "\r\n", "\n")
	stream = strings.ReplaceAll(stream, "\r", "\n")
	lines := strings.Split(stream, "\n")
	last := lines[len(lines)-1] // what no line end follows
	name, data := "", ""
	for _, line := range lines[:len(lines)-1] {
		if line == "" {
			if data != "" {
				events = append(events, name+"|"+strings.TrimSuffix(data, "\n"))
			}
			name, data = "", ""
			continue
		}
		if strings.HasPrefix(line, ":") {
			continue
		}
		field, value := line, ""
		if i := strings.Index(line, ":"); i >= 0 {
			field, value = line[:i], strings.TrimPrefix(line[i+1:], " ")
		}
		switch field {
		case "event":
			name = value
		case "data":
			data += value + "\n"
		}
	}
	if last != "" || data != "" {
		return events, io.ErrUnexpectedEOF
	}
	return events, io.EOF
}

// pieces gives a stream in pieces of n bytes.
type pieces struct {
	stream []byte
	n      int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.stream) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.stream[:min(p.n, len(p.stream))])
	p.stream = p.stream[n:]
	return n, nil
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("data: a\n\ndata: b\r\n\r\n: c\rdata\r\r"), 3)
	f.Add([]byte("\xef\xbb\xbfevent: error\ndata: {}\ndata: é\n\nid: 1"), 7)
	f.Add([]byte("data:\r\n\r\ndata: x\n\revent\r"), 1)
	f.Add(bytes.Repeat([]byte(chunk), 40), 1000)
	f.Fuzz(func(t *testing.T, stream []byte, split int) {
		want, wantErr := naive(string(stream))
		sources := map[string]io.Reader{
			"whole":    bytes.NewReader(stream),
			"by bytes": iotest.OneByteReader(bytes.NewReader(stream)),
			"pieces":   &pieces{stream, max(split, 1)},
		}
		if len(stream) > 0 { // two reads, split somewhere
			at := int(uint(split) % uint(len(stream)))
			sources["split"] = io.MultiReader(bytes.NewReader(stream[:at]), bytes.NewReader(stream[at:]))
		}
		for how, src := range sources {
			if events, err := read(src, 0); !slices.Equal(events, want) || err != wantErr {
				t.Errorf("%s: got %q, %v; want %q, %v", how, events, err, want, wantErr)
			}
		}
	})
}
