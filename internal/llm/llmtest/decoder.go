package llmtest

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/sse"
)

// A Decoder makes a chunk of the data of an event.
type Decoder func(data []byte) (chat.Chunk, error)

// TestAllocations has events read and decoded. The test fails on more than two allocations a chunk.
func TestAllocations(t *testing.T, events [][]byte, decode Decoder) {
	t.Helper()
	reader := sse.NewReader(repeat(events), 0)
	allocations := testing.AllocsPerRun(10, func() {
		for range events {
			event, err := reader.Next()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decode(event.Data); err != nil {
				t.Fatal(err)
			}
		}
	})
	if limit := float64(2 * len(events)); allocations > limit {
		t.Errorf("%v allocations for %d chunks, want %v at most", allocations, len(events), limit)
	}
}

// BenchmarkDecoder reads and decodes events, over and over. One op is one chunk.
func BenchmarkDecoder(b *testing.B, events [][]byte, decode Decoder) {
	size := 0
	for _, event := range events {
		size += len(event) + len("data: \n\n")
	}
	b.ReportAllocs()
	b.SetBytes(int64(size / len(events)))
	reader := sse.NewReader(repeat(events), 0)
	for b.Loop() {
		event, err := reader.Next()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := decode(event.Data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "chunks/s")
}

// repeat reads as an event stream that has events over and over.
func repeat(events [][]byte) io.Reader {
	once := slices.Concat([]byte("data: "), bytes.Join(events, []byte("\n\ndata: ")), []byte("\n\n"))
	return &endless{stream: bytes.Repeat(once, 1000)}
}

type endless struct {
	stream []byte
	pos    int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.stream[e.pos:])
	e.pos = (e.pos + n) % len(e.stream)
	return n, nil
}
