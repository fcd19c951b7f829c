package llmtest_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// answer is what a client understood of a stream.
type answer struct {
	Text, Reasoning string
	Reason          string // as the provider calls it
	Input, Output   int
	Whole           bool // the end mark came
	Tool            bool
	Fault           string // the type or code of an error event
}

// speaker is the client's side of a dialect.
type speaker struct {
	name, path string
	body       func(model string) string
	hear       func(a *answer, event map[string]any)
}

var (
	openAI    = speaker{"openai", "/chat/completions", openAIBody, hearOpenAI}
	anthropic = speaker{"anthropic", "/messages", anthropicBody, hearAnthropic}
	dify      = speaker{"dify", "/chat-messages", difyBody, hearDify}

	speakers = [3]speaker{openAI, anthropic, dify}
)

func openAIBody(model string) string {
	return `{"model":"` + model + `","stream":true,"stream_options":{"include_usage":true},"max_completion_tokens":64,` +
		`"temperature":0.5,"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"one two"}]}`
}

func anthropicBody(model string) string {
	return `{"model":"` + model + `","stream":true,"max_tokens":64,"temperature":0.5,"system":"Be brief.",` +
		`"messages":[{"role":"user","content":[{"type":"text","text":"one two"}]}]}`
}

func difyBody(model string) string {
	return `{"inputs":{"model":"` + model + `"},"query":"one two","response_mode":"streaming","conversation_id":"",` +
		`"user":"ann"}`
}

func (s speaker) request(ctx context.Context, baseURL, model string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, baseURL+s.path, strings.NewReader(s.body(model)))
	if err != nil {
		panic(err)
	}
	if s.name == "anthropic" {
		r.Header.Set("X-Api-Key", "sk-1")
		r.Header.Set("Anthropic-Version", "2023-06-01")
	} else {
		r.Header.Set("Authorization", "Bearer sk-1")
	}
	return r
}

// ask performs a script without a network.
func (s speaker) ask(t *testing.T, model string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	llmtest.NewHandler().ServeHTTP(w, s.request(t.Context(), "/v1", model))
	return w
}

// listen reads what is whole of a stream: an event ends with a blank line. It says whether all was JSON.
func (s speaker) listen(stream string) (a answer, ok bool) {
	ok = true
	stream = strings.ReplaceAll(stream, "\r\n", "\n")
	stream = strings.ReplaceAll(stream, "\r", "\n")
	for block := range strings.SplitSeq(stream, "\n\n") {
		for line := range strings.SplitSeq(block, "\n") {
			data, found := strings.CutPrefix(line, "data: ")
			var event map[string]any
			switch {
			case !found:
			case data == "[DONE]":
				a.Whole = true
			case json.Unmarshal([]byte(data), &event) != nil:
				ok = false
			default:
				s.hear(&a, event)
			}
		}
	}
	return a, ok
}

// at follows a path of keys; what is not there is nil.
func at(v any, path ...string) any {
	for _, key := range path {
		object, _ := v.(map[string]any)
		v = object[key]
	}
	return v
}

func str(v any, path ...string) string { s, _ := at(v, path...).(string); return s }
func num(v any, path ...string) int    { n, _ := at(v, path...).(float64); return int(n) }

func hearOpenAI(a *answer, event map[string]any) {
	if fault, ok := event["error"].(map[string]any); ok {
		a.Fault = "error"
		if num(fault, "code") == 503 {
			a.Fault = "overloaded"
		}
	}
	a.Input += num(event, "usage", "prompt_tokens")
	a.Output += num(event, "usage", "completion_tokens")
	choices, _ := event["choices"].([]any)
	for _, choice := range choices {
		a.Text += str(choice, "delta", "content")
		a.Reasoning += str(choice, "delta", "reasoning_content")
		a.Tool = a.Tool || at(choice, "delta", "tool_calls") != nil
		a.Reason += str(choice, "finish_reason")
	}
}

func hearAnthropic(a *answer, event map[string]any) {
	switch event["type"] {
	case "message_start":
		a.Input = num(event, "message", "usage", "input_tokens")
	case "content_block_start":
		a.Tool = a.Tool || str(event, "content_block", "type") == "tool_use"
	case "content_block_delta":
		a.Text += str(event, "delta", "text")
		a.Reasoning += str(event, "delta", "thinking")
	case "message_delta":
		a.Reason = str(event, "delta", "stop_reason")
		a.Output = num(event, "usage", "output_tokens")
	case "message_stop":
		a.Whole = true
	case "error":
		a.Fault = str(event, "error", "type")
	}
}

func hearDify(a *answer, event map[string]any) {
	switch event["event"] {
	case "message", "agent_message":
		a.Text += str(event, "answer")
	case "message_replace":
		a.Reason = "replaced"
	case "reasoning_chunk":
		a.Reasoning += str(event, "data", "reasoning")
	case "agent_thought":
		a.Tool = a.Tool || str(event, "tool") != ""
	case "message_end":
		a.Whole = true
		a.Input = num(event, "metadata", "usage", "prompt_tokens")
		a.Output = num(event, "metadata", "usage", "completion_tokens")
	case "error":
		a.Fault = str(event, "code")
	}
}
