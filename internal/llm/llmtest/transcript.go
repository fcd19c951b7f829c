package llmtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/sse"
)

// Transcripts returns the names of the transcripts in testdata: those of its files *.sse, each the body of an answer.
func Transcripts(tb testing.TB) []string {
	tb.Helper()
	files, err := filepath.Glob("testdata/*.sse")
	if err != nil || len(files) == 0 {
		tb.Fatalf("no transcripts: %v", err)
	}
	for i, file := range files {
		files[i] = strings.TrimSuffix(filepath.Base(file), ".sse")
	}
	return files
}

// Transcript reads testdata/NAME.sse, and testdata/NAME.json: the answer that a provider must make of it.
func Transcript(tb testing.TB, name string) (stream []byte, want Answer) {
	tb.Helper()
	stream, err := os.ReadFile(filepath.Join("testdata", name+".sse"))
	if err != nil {
		tb.Fatal(err)
	}
	golden, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		tb.Fatal(err)
	}
	if err := json.Unmarshal(golden, &want); err != nil {
		tb.Fatal(err)
	}
	return stream, want
}

// TestTranscripts has a provider read each transcript in testdata, in pieces of several sizes. open returns a provider
// with this base URL that closes when the test ends.
func TestTranscripts(t *testing.T, open func(t *testing.T, baseURL string) chat.Provider) {
	for _, name := range Transcripts(t) {
		t.Run(name, func(t *testing.T) {
			stream, want := Transcript(t, name)
			for _, size := range []int{1, 7, 100, len(stream)} {
				p := open(t, ServeStream(t, func(w http.ResponseWriter) {
					for rest := stream; len(rest) > 0; {
						n := min(size, len(rest))
						w.Write(rest[:n])
						http.NewResponseController(w).Flush()
						rest = rest[n:]
					}
				}))
				if got, err := Ask(t.Context(), t, p, Question("any")); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("in pieces of %d bytes: got %+v, %v; want %+v", size, got, err, want)
				}
			}
		})
	}
}

// TestTruncated has a provider read a transcript in testdata that stops somewhere before the end mark, which is in the
// event where mark stands: none of that may pass for a whole answer.
func TestTruncated(t *testing.T, name, mark string, open func(t *testing.T, baseURL string) chat.Provider) {
	stream, whole := Transcript(t, name)
	end := strings.Index(string(stream), mark)
	if end < 0 {
		t.Fatalf("%s has no %q", name, mark)
	}
	var sent atomic.Int64 // of the stream's bytes
	p := open(t, ServeStream(t, func(w http.ResponseWriter) { w.Write(stream[:sent.Load()]) }))
	for cut := 0; cut < end; cut += 13 {
		sent.Store(int64(cut))
		got, err := Ask(t.Context(), t, p, Question("any"))
		if chat.AsError(err) == nil || chat.AsError(err).Code != chat.CodeLLMUnavailable {
			t.Errorf("cut at %d: got %v", cut, err)
		}
		if !strings.HasPrefix(whole.Text, got.Text) || !strings.HasPrefix(whole.Reasoning, got.Reasoning) {
			t.Errorf("cut at %d: %+v is not how the answer begins", cut, got)
		}
	}
}

// ServeStream starts a server that answers every request with what write writes, as an event stream. It returns its URL.
func ServeStream(tb testing.TB, write func(w http.ResponseWriter)) string {
	tb.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		write(w)
	}))
	tb.Cleanup(server.Close)
	return server.URL
}

// Events returns the data of the events in a transcript.
func Events(tb testing.TB, name string) [][]byte {
	tb.Helper()
	stream, _ := Transcript(tb, name)
	var found [][]byte
	for events := sse.NewReader(bytes.NewReader(stream), 0); ; {
		event, err := events.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
		found = append(found, bytes.Clone(event.Data))
	}
}
