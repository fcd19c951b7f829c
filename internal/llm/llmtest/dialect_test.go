package llmtest_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// inputs are the tokens of the speakers' requests: Dify's have no system prompt.
var inputs = [3]int{4, 4, 2}

func TestAnswers(t *testing.T) {
	stop := [3]string{"stop", "end_turn", ""}
	tests := []struct {
		model, text string
		reasons     [3]string // of the speakers
	}{
		{"words-9", llmtest.Text(9), stop},
		{"words-0", "", stop},
		{"words", llmtest.Text(10), stop},
		{"echo", "one two", stop},
		{"paced-2-1ms", llmtest.Text(2), stop},
		{"crlf-9", llmtest.Text(9), stop},
		{"cr-9", llmtest.Text(9), stop},
		{"comments-9", llmtest.Text(9), stop},
		{"pings-9", llmtest.Text(9), stop},
		{"bytes-9", llmtest.Text(9), stop},
		{"escaped-9", llmtest.Text(9), stop},
		{"gzip-9", llmtest.Text(9), stop},
		{"line-1000000", strings.Repeat("x", 1_000_000), stop},
		{"huge-line", strings.Repeat("x", 2<<20), stop},
		{"agent-9", llmtest.Text(9), stop},
		{"workflow-9", llmtest.Text(9), stop},
		{"flaky-0-500-9", llmtest.Text(9), stop},
		{"length-9", llmtest.Text(9), [3]string{"length", "max_tokens", ""}},
		{"filter-9", llmtest.Text(9), [3]string{"content_filter", "refusal", "replaced"}},
		{"refusal-9", llmtest.Text(9), [3]string{"content_filter", "refusal", "replaced"}},
		{"sequence-9", llmtest.Text(9), [3]string{"stop", "stop_sequence", ""}},
		{"window-9", llmtest.Text(9), [3]string{"length", "model_context_window_exceeded", ""}},
		{"tools", "", [3]string{"tool_calls", "tool_use", ""}},
		{"tools-after-9", llmtest.Text(9), [3]string{"tool_calls", "tool_use", ""}},
		{"reasoning-9", llmtest.Text(9), stop},
	}
	for i, s := range speakers {
		for _, test := range tests {
			t.Run(s.name+"/"+test.model, func(t *testing.T) {
				want := answer{
					Text:   test.text,
					Reason: test.reasons[i],
					Input:  inputs[i],
					Output: len(strings.Fields(test.text)),
					Whole:  true,
					Tool:   strings.HasPrefix(test.model, "tools"),
				}
				if strings.HasPrefix(test.model, "reasoning") {
					want.Reasoning = test.text
				}
				w := s.ask(t, test.model)
				got, ok := s.listen(w.Body.String())
				if got != want || !ok || w.Code != http.StatusOK {
					t.Errorf("got status %d, %.300v (JSON: %t), want %.300v", w.Code, got, ok, want)
				}
				if got := w.Header().Get("Content-Type"); got != "text/event-stream; charset=utf-8" {
					t.Errorf("content type %q", got)
				}
			})
		}
	}
}

// What an answer lacks in one dialect and cannot lack in another.
func TestEndings(t *testing.T) {
	tests := []struct {
		speaker speaker
		model   string
		want    answer
	}{
		{openAI, "unmetered-3", answer{Reason: "stop", Whole: true}},
		{openAI, "bare-3", answer{Reason: "stop"}},
		{openAI, "unfinished-3", answer{Whole: true}},
		{openAI, "pause-3", answer{Reason: "length", Input: 4, Output: 3, Whole: true}},
		{openAI, "workflow-failed-3", answer{Fault: "error"}},
		{anthropic, "unmetered-3", answer{Reason: "end_turn", Whole: true}},
		{anthropic, "bare-3", answer{Reason: "end_turn", Input: 4, Output: 3}},
		{anthropic, "unfinished-3", answer{Input: 4, Whole: true}},
		{anthropic, "pause-3", answer{Reason: "pause_turn", Input: 4, Output: 3, Whole: true}},
		{anthropic, "workflow-failed-3", answer{Input: 4, Fault: "api_error"}},
		{dify, "unmetered-3", answer{Whole: true}},
		{dify, "bare-3", answer{Input: 2, Output: 3, Whole: true}},
		{dify, "unfinished-3", answer{Input: 2, Output: 3, Whole: true}},
		{dify, "pause-3", answer{}},
		{dify, "workflow-failed-3", answer{Fault: "internal_server_error"}},
	}
	for _, test := range tests {
		test.want.Text = llmtest.Text(3)
		if got, ok := test.speaker.listen(test.speaker.ask(t, test.model).Body.String()); got != test.want || !ok {
			t.Errorf("%s: %s: got %+v, want %+v", test.speaker.name, test.model, got, test.want)
		}
	}
}

// flushes keeps what was written at each flush.
type flushes struct {
	*httptest.ResponseRecorder
	sizes []int
}

func (f *flushes) Flush() { f.sizes = append(f.sizes, f.Body.Len()) }

func TestEveryWordIsFlushedCompressed(t *testing.T) {
	for _, s := range speakers {
		w := &flushes{ResponseRecorder: httptest.NewRecorder()}
		r := s.request(t.Context(), "", "gzip-9")
		r.Header.Set("Accept-Encoding", "gzip")
		llmtest.NewHandler().ServeHTTP(w, r)
		if got := w.Header().Get("Content-Encoding"); got != "gzip" {
			t.Fatalf("%s: encoded as %q", s.name, got)
		}
		words := make(map[string]bool)
		for i, size := range append(w.sizes[1:], w.Body.Len()) { // the first are the headers
			unzipped, err := gzip.NewReader(bytes.NewReader(w.Body.Bytes()[:size]))
			if err != nil {
				t.Fatal(err)
			}
			stream, err := io.ReadAll(unzipped)
			got, _ := s.listen(string(stream))
			words[got.Text] = true
			last := i == len(w.sizes)-1
			if !strings.HasSuffix(string(stream), "\n\n") || (err == nil) != last || last && !got.Whole {
				t.Errorf("%s: flush %d of %d: %v, %q", s.name, i, len(w.sizes), err, stream)
			}
		}
		for n := range 9 {
			if !words[llmtest.Text(n+1)] {
				t.Errorf("%s: no flush after %d words", s.name, n+1)
			}
		}
	}
}

func TestEveryByteIsFlushed(t *testing.T) {
	for _, s := range speakers {
		w := &flushes{ResponseRecorder: httptest.NewRecorder()}
		llmtest.NewHandler().ServeHTTP(w, s.request(t.Context(), "", "bytes-9"))
		for i, size := range w.sizes {
			if size != i { // the first are the headers
				t.Fatalf("%s: %d bytes at flush %d", s.name, size, i)
			}
		}
		if len(w.sizes) != w.Body.Len()+1 {
			t.Errorf("%s: %d flushes of %d bytes", s.name, len(w.sizes), w.Body.Len())
		}
	}
}

func TestEscapedTextIsASCII(t *testing.T) {
	for _, s := range speakers {
		body := s.ask(t, "escaped-9").Body.String()
		if strings.ContainsFunc(body, func(r rune) bool { return r >= 0x80 }) || !strings.Contains(body, `\ud83e\udd8a`) {
			t.Errorf("%s: %s", s.name, body)
		}
	}
}

func TestLineEnds(t *testing.T) {
	for _, s := range speakers {
		if body := s.ask(t, "crlf-2").Body.String(); strings.Count(body, "\n") != strings.Count(body, "\r\n") {
			t.Errorf("%s: crlf: %q", s.name, body)
		}
		if body := s.ask(t, "cr-2").Body.String(); strings.Contains(body, "\n") || !strings.Contains(body, "\r\r") {
			t.Errorf("%s: cr: %q", s.name, body)
		}
	}
}

func TestRequestsAreRecorded(t *testing.T) {
	h := llmtest.NewHandler()
	for _, s := range speakers {
		h.ServeHTTP(httptest.NewRecorder(), s.request(t.Context(), "/v1", "words-1"))
	}
	w := httptest.NewRecorder() // as tests in another process see them
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/requests", nil))
	var all []llmtest.Request
	if err := json.Unmarshal(w.Body.Bytes(), &all); err != nil || len(all) != len(speakers) {
		t.Fatalf("%d requests, %v", len(all), err)
	}
	for i, s := range speakers {
		got := all[i]
		if got.Dialect != s.name || got.Path != "/v1"+s.path || got.Model != "words-1" || !got.Stream ||
			string(got.Body) != s.body("words-1") {
			t.Errorf("got %+v", got)
		}
		system := llmtest.Message{Role: "system", Content: "Be brief."}
		user := llmtest.Message{Role: "user", Content: "one two"}
		switch s.name {
		case "openai":
			if !slices.Equal(got.Messages, []llmtest.Message{system, user}) || got.MaxCompletionTokens != 64 ||
				got.Temperature == nil || *got.Temperature != 0.5 || got.Authorization != "Bearer sk-1" {
				t.Errorf("got %+v", got)
			}
		case "anthropic":
			if got.System != "Be brief." || !slices.Equal(got.Messages, []llmtest.Message{user}) || got.MaxTokens != 64 ||
				got.Temperature == nil || *got.Temperature != 0.5 || got.APIKey != "sk-1" || got.Version != "2023-06-01" {
				t.Errorf("got %+v", got)
			}
		case "dify":
			if got.Query != "one two" || !slices.Equal(got.Messages, []llmtest.Message{user}) || got.User != "ann" ||
				got.Inputs["model"] != "words-1" || got.Temperature != nil || got.Authorization != "Bearer sk-1" {
				t.Errorf("got %+v", got)
			}
		}
	}
}
