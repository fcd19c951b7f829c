package llmtest_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

func TestAnthropicRefusesWhatTheAPIDoes(t *testing.T) {
	const ask = `{"role":"user","content":"hi"}`
	tests := []struct {
		name    string
		without string // this header
		body    string
		status  int
	}{
		{"whole", "", `{"model":"words-1","max_tokens":9,"messages":[` + ask + `]}`, 200},
		{"a system prompt of blocks", "", `{"model":"words-1","max_tokens":9,"system":[{"type":"text","text":"x"}],` +
			`"messages":[` + ask + `]}`, 200},
		{"no key", "X-Api-Key", `{"model":"words-1","max_tokens":9,"messages":[` + ask + `]}`, 401},
		{"no version", "Anthropic-Version", `{"model":"words-1","max_tokens":9,"messages":[` + ask + `]}`, 400},
		{"no max_tokens", "", `{"model":"words-1","messages":[` + ask + `]}`, 400},
		{"no messages", "", `{"model":"words-1","max_tokens":9,"messages":[]}`, 400},
		{"a system message", "", `{"model":"words-1","max_tokens":9,"messages":[{"role":"system","content":"x"},` +
			ask + `]}`, 400},
		{"an empty message", "", `{"model":"words-1","max_tokens":9,"messages":[{"role":"assistant","content":""},` +
			ask + `]}`, 400},
		{"not JSON", "", `{`, 400},
	}
	for _, test := range tests {
		r := httptest.NewRequest(http.MethodPost, "/v1/messages", strings.NewReader(test.body))
		r.Header.Set("X-Api-Key", "sk-1")
		r.Header.Set("Anthropic-Version", "2023-06-01")
		r.Header.Del(test.without)
		w := httptest.NewRecorder()
		llmtest.NewHandler().ServeHTTP(w, r)
		if w.Code != test.status {
			t.Errorf("%s: status %d, want %d: %s", test.name, w.Code, test.status, w.Body)
		}
	}
}

// The example of "Streaming messages", with a thought before it.
func TestAnthropicEvents(t *testing.T) {
	want := `event: message_start
data: {"type":"message_start","message":{"model":"reasoning-1","id":"msg_1","type":"message","role":"assistant",` +
		`"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":4,"cache_creation_input_tokens":0,` +
		`"cache_read_input_tokens":0,"output_tokens":1,"service_tier":"standard"}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: ping
data: {"type":"ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"alpha1"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqQBCgIYAhIM"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"alpha1"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":1}}

event: message_stop
data: {"type":"message_stop"}

`
	if got := anthropic.ask(t, "reasoning-1").Body.String(); got != want {
		t.Errorf("got %s", got)
	}
}
