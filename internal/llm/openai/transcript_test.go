package openai_test

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/openai"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

// answer is all that a stream gave.
type answer struct {
	Text         string            `json:"text"`
	Reasoning    string            `json:"reasoning"`
	FinishReason chat.FinishReason `json:"finish_reason"`
	Usage        *chat.Usage       `json:"usage"`
}

// ask streams an answer to its end.
func ask(t *testing.T, p *openai.Provider, model string) (answer, error) {
	t.Helper()
	request := chat.Request{Model: model, Messages: []chat.PromptMessage{{Role: chat.RoleUser, Text: "How are you?"}}}
	var a answer
	for chunk, err := range p.Stream(t.Context(), request) {
		if err != nil {
			return a, err
		}
		if a.FinishReason != "" && (chunk.Text != "" || chunk.FinishReason != "") {
			t.Errorf("%+v after the finish reason", chunk)
		}
		a.Text += chunk.Text
		a.Reasoning += chunk.Reasoning
		a.FinishReason += chunk.FinishReason
		if chunk.Usage != nil {
			a.Usage = chunk.Usage
		}
	}
	return a, nil
}

// newProvider returns a provider that is closed when the test ends, and before the servers that the test started.
func newProvider(t *testing.T, baseURL string) *openai.Provider {
	t.Helper()
	return open(t, openai.Config{Config: upstream.Config{ID: "upstream", APIKey: key}, BaseURL: baseURL})
}

func open(t *testing.T, config openai.Config) *openai.Provider {
	t.Helper()
	p, err := openai.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

const key = "sk-the-secret-key"

// serve starts a server that answers every request with what write writes, as an event stream.
func serve(t *testing.T, write func(w http.ResponseWriter, r *http.Request)) *openai.Provider {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		write(w, r)
	}))
	t.Cleanup(server.Close)
	return newProvider(t, server.URL)
}

func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.sse")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".sse"), func(t *testing.T) {
			stream, want := transcript(t, file)
			for _, size := range []int{1, 7, 100, len(stream)} {
				p := serve(t, func(w http.ResponseWriter, _ *http.Request) {
					for rest := stream; len(rest) > 0; {
						n := min(size, len(rest))
						w.Write(rest[:n])
						w.(http.Flusher).Flush()
						rest = rest[n:]
					}
				})
				if got, err := ask(t, p, "any"); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("in pieces of %d bytes: got %+v, %v; want %+v", size, got, err, want)
				}
			}
		})
	}
}

func transcript(t *testing.T, file string) (stream []byte, want answer) {
	t.Helper()
	stream, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	golden, err := os.ReadFile(strings.TrimSuffix(file, ".sse") + ".json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(golden, &want); err != nil {
		t.Fatal(err)
	}
	return stream, want
}

// A transcript that is cut anywhere before its end mark must not pass for a whole answer.
func TestTruncatedTranscripts(t *testing.T) {
	stream, whole := transcript(t, "testdata/openai.sse")
	end := strings.Index(string(stream), `"finish_reason":"stop"`)
	var cut int
	p := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(stream[:cut]) })
	for cut = 0; cut < end; cut += 13 {
		got, err := ask(t, p, "any")
		if code := codeOf(err); code != chat.CodeLLMUnavailable {
			t.Errorf("cut at %d: got error %v", cut, err)
		}
		if !strings.HasPrefix(whole.Text, got.Text) {
			t.Errorf("cut at %d: %q is not how the text begins", cut, got.Text)
		}
	}
}

func TestGzip(t *testing.T) {
	stream, want := transcript(t, "testdata/openai.sse")
	p := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "gzip" {
			t.Errorf("Accept-Encoding: %q", r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		z.Write(stream)
		z.Close()
	})
	if got, err := ask(t, p, "any"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestErrorEvents(t *testing.T) {
	tests := []struct {
		server, event string
		code          chat.Code
	}{
		{"OpenAI", `{"error":{"message":"no","type":"server_error","param":null,"code":null}}`, chat.CodeLLMUnavailable},
		{"OpenAI's filter", `{"error":{"message":"no","code":"content_filter"}}`, chat.CodeContentFiltered},
		{"OpenRouter, busy", `{"error":{"code":429,"message":"no"},"choices":[]}`, chat.CodeLLMUnavailable},
		{"OpenRouter, refused", `{"error":{"code":400,"message":"no"}}`, chat.CodeLLMRejected},
		{"OpenRouter, broken", `{"choices":[{"delta":{"content":""},"finish_reason":"error"}]}`, chat.CodeLLMUnavailable},
		{"Ollama", `{"error":"no"}`, chat.CodeLLMUnavailable},
		{"vLLM", `{"error":{"object":"error","message":"no","code":"500"}}`, chat.CodeLLMUnavailable},
		{"older vLLM", `{"object":"error","message":"no","type":"BadRequestError","code":400}`, chat.CodeLLMRejected},
		{"no JSON", `<html>`, chat.CodeLLMUnavailable},
		{"another shape", `[1]`, chat.CodeLLMUnavailable},
	}
	for _, test := range tests {
		t.Run(test.server, func(t *testing.T) {
			p := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, "data: {\"choices\":[{\"delta\":{\"content\":\"So far\"}}]}\n\ndata: "+test.event+"\n\n")
			})
			got, err := ask(t, p, "any")
			if codeOf(err) != test.code || got.Text != "So far" {
				t.Errorf("got %q, %v; want the text so far, %s", got.Text, err, test.code)
			}
		})
	}
}
