package jsonscan_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/parley-chat/parley/internal/llm/jsonscan"
)

// api is what is read of the events of a streaming API, with the scanner and with encoding/json.
type api struct {
	names  []string
	paths  *jsonscan.Paths
	decode func(text []byte) ([]json.RawMessage, error)
}

func newAPI(decode func(text []byte) ([]json.RawMessage, error), names ...string) api {
	return api{names, jsonscan.NewPaths(names...), decode}
}

var chatCompletions = newAPI(func(text []byte) ([]json.RawMessage, error) {
	var event struct {
		Choices []json.RawMessage `json:"choices"`
		Usage   json.RawMessage   `json:"usage"`
		Error   json.RawMessage   `json:"error"`
	}
	var choice struct {
		Delta struct {
			Content   json.RawMessage `json:"content"`
			Reasoning json.RawMessage `json:"reasoning"`
		} `json:"delta"`
		FinishReason json.RawMessage `json:"finish_reason"`
	}
	var usage struct {
		PromptTokens json.RawMessage `json:"prompt_tokens"`
	}
	if err := json.Unmarshal(text, &event); err != nil {
		return nil, err
	}
	event.Choices = append(event.Choices, nil, nil)
	for raw, value := range map[*json.RawMessage]any{&event.Choices[0]: &choice, &event.Usage: &usage} {
		if *raw == nil {
			continue
		}
		if err := json.Unmarshal(*raw, value); err != nil {
			return nil, err
		}
	}
	return []json.RawMessage{choice.Delta.Content, choice.Delta.Reasoning, choice.FinishReason, event.Choices[1],
		event.Usage, usage.PromptTokens, event.Error}, nil
}, "choices.0.delta.content", "choices.0.delta.reasoning", "choices.0.finish_reason", "choices.1",
	"usage", "usage.prompt_tokens", "error")

var messages = newAPI(func(text []byte) ([]json.RawMessage, error) {
	var event struct {
		Type  json.RawMessage `json:"type"`
		Index json.RawMessage `json:"index"`
		Delta struct {
			Type     json.RawMessage `json:"type"`
			Text     json.RawMessage `json:"text"`
			Thinking json.RawMessage `json:"thinking"`
		} `json:"delta"`
	}
	err := json.Unmarshal(text, &event)
	return []json.RawMessage{event.Type, event.Index, event.Delta.Type, event.Delta.Text, event.Delta.Thinking}, err
}, "type", "index", "delta.type", "delta.text", "delta.thinking")

var chatMessages = newAPI(func(text []byte) ([]json.RawMessage, error) {
	var event struct {
		Event          json.RawMessage `json:"event"`
		Answer         json.RawMessage `json:"answer"`
		TaskID         json.RawMessage `json:"task_id"`
		ConversationID json.RawMessage `json:"conversation_id"`
	}
	err := json.Unmarshal(text, &event)
	return []json.RawMessage{event.Event, event.Answer, event.TaskID, event.ConversationID}, err
}, "event", "answer", "task_id", "conversation_id")

// absent stands for no value.
const absent = ""

var events = []struct {
	name string
	api  api
	text string
	want []string
}{
	{"OpenAI", chatCompletions, `{"id":"chatcmpl-CqX1","object":"chat.completion.chunk","created":1760000000,` +
		`"model":"gpt-5.1-2025-11-13","service_tier":"default","system_fingerprint":null,"choices":[{"index":0,` +
		`"delta":{"content":" \"wörd\"\n"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"k3"}`,
		[]string{`" \"wörd\"\n"`, absent, "null", absent, "null", absent, absent}},
	{"Azure", chatCompletions, `{"choices":[{"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}},` +
		`"delta":{"content":"Once"},"finish_reason":null,"index":0,"logprobs":null}],"created":1760000000,` +
		`"id":"chatcmpl-Az1","model":"gpt-4o","object":"chat.completion.chunk","system_fingerprint":"fp_1"}`,
		[]string{`"Once"`, absent, "null", absent, absent, absent, absent}},
	{"OpenRouter", chatCompletions, `{"id":"gen-1","provider":"Novita","model":"deepseek/deepseek-r1","choices":[` +
		`{"index":0,"delta":{"role":"assistant","content":"","reasoning":"Easy","reasoning_details":[{"type":` +
		`"reasoning.text","text":"Easy","index":0}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"cost":1e-05}}`,
		[]string{`""`, `"Easy"`, `"stop"`, absent, `{"prompt_tokens":7,"cost":1e-05}`, "7", absent}},
	{"llama.cpp", chatCompletions, `{"choices":[],"usage":{"completion_tokens":5,"prompt_tokens":12},` +
		`"timings":{"prompt_n":12,"prompt_ms":23.1,"cached":false,"drafted":true}}`,
		[]string{absent, absent, absent, absent, `{"completion_tokens":5,"prompt_tokens":12}`, "12", absent}},
	{"two choices", chatCompletions,
		" { \"choices\" : [ { } , {\"delta\":{\"content\":\"b\"}} , 3 ] ,\r\n\t\"error\" : {} } ",
		[]string{absent, absent, absent, `{"delta":{"content":"b"}}`, absent, absent, "{}"}},
	{"nothing below null", chatCompletions, `{"choices":[{"delta":null}],"usage":null}`,
		[]string{absent, absent, absent, absent, "null", absent, absent}},
	{"null", chatCompletions, `null`, []string{absent, absent, absent, absent, absent, absent, absent}},
	{"keys that only begin alike", chatCompletions, `{"choice":1,"choicest":2,"content":"a","usag":0,"":0}`,
		[]string{absent, absent, absent, absent, absent, absent, absent}},
	{"wanted keys elsewhere", chatCompletions, `{"x":{"choices":[{"delta":{"content":"a","Content":"b","content":"c"}}]}}`,
		[]string{absent, absent, absent, absent, absent, absent, absent}},
	{"many beside each other", chatCompletions, `{"x":[` + strings.Repeat("[{}],", 100) + `0],"error":"a"}`,
		[]string{absent, absent, absent, absent, absent, absent, `"a"`}},
	{"any keys elsewhere", chatCompletions, `{"x":{"a":1,"a":2,"\u0061":3,"ä":4},"error":-0.5E+2}`,
		[]string{absent, absent, absent, absent, absent, absent, "-0.5E+2"}},
	{"Anthropic, text", messages,
		`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}`,
		[]string{`"content_block_delta"`, "0", `"text_delta"`, `"Hello"`, absent}},
	{"Anthropic, thinking", messages,
		`{"type":"content_block_delta","index":10,"delta":{"type":"thinking_delta","thinking":"27 * 453"}}`,
		[]string{`"content_block_delta"`, "10", `"thinking_delta"`, absent, `"27 * 453"`}},
	{"Anthropic, start", messages, `{"type":"message_start","message":{"id":"msg_01","type":"message",` +
		`"role":"assistant","content":[],"model":"claude","stop_reason":null,"usage":{"input_tokens":25,"output_tokens":1}}}`,
		[]string{`"message_start"`, absent, absent, absent, absent}},
	{"Dify", chatMessages, `{"event":"message","task_id":"900bbd43-dc0b-4383-a372-aa6e6c414227","id":"663c5084",` +
		`"conversation_id":"45701982-8118-4bc5-8e9b-64562b4555f2","answer":"\u4f60\u597d","created_at":1679586595}`,
		[]string{`"message"`, `"\u4f60\u597d"`, `"900bbd43-dc0b-4383-a372-aa6e6c414227"`,
			`"45701982-8118-4bc5-8e9b-64562b4555f2"`}},
}

func TestScan(t *testing.T) {
	for _, test := range events {
		values := slices.Repeat([][]byte{[]byte("from before")}, len(test.want))
		if !test.api.paths.Scan([]byte(test.text), values) {
			t.Errorf("%s: not sure", test.name)
			continue
		}
		for i, value := range values {
			if string(value) != test.want[i] || (value == nil) != (test.want[i] == absent) {
				t.Errorf("%s: %s is %q, want %q", test.name, test.api.names[i], value, test.want[i])
			}
		}
	}
}

// What encoding/json refuses, or could see otherwise. Nothing here is wrong at more than one place.
var unsure = []string{
	``, ` `, `{`, `}`, `[]`, `"a"`, `5`, `{} x`, `{}{}`, "{}\x00", "\xef\xbb\xbf{}", `[DONE]`,
	`{"a":1,}`, `{,"a":1}`, `{"a"}`, `{"a":}`, `{"a":1 "b":2}`, `{"a" 1}`, `{a:1}`, `{"a":1]`, `{'a':1}`, `{"a:1}`,
	`{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`, `{"a":[1}`, `{"a":[`, `{"a":[1`, `{"a":1`, `{"a"`, `{"a":"`,
	`{"a":nul}`, `{"a":nulL}`, `{"a":n}`, `{"a":tru}`, `{"a":falsy}`, `{"a":nullx}`, `{"a":undefined}`, `{"a":NaN}`,
	`{"a":01}`, `{"a":-}`, `{"a":+1}`, `{"a":.5}`, `{"a":1.}`, `{"a":1e}`, `{"a":1e+}`, `{"a":0x1}`,
	`{"a":1.e5}`, `{"a":--1}`,
	`{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\u12g4"}`, `{"a":"\`, `{"a":"\"}`, `{"a":"\u123`,
	"{\"a\":\"\n\"}", "{\"a\":\"\x1f\"}",
	`{"choices":{}}`, `{"choices":"a"}`, `{"choices":0}`, `{"choices":[[]]}`, `{"choices":[0]}`,
	`{"choices":[{"delta":true}]}`,
	`{"usage":[]}`, `{"usage":"a"}`,
	`{"choices":[],"choices":[]}`, `{"choices":[{"delta":{"content":"a","content":"b"}}]}`, `{"error":1,"error":null}`,
	`{"Choices":[]}`, `{"choiceS":[]}`, `{"choices":[{"delta":{"CONTENT":"a"}}]}`,
	"{\"u\u017fage\":1}", "{\"to\u212aen\":1}", `{"ä":1}`, "{\"\xff\":1}",
	`{"\u0063hoices":[]}`, `{"erro\u0072":1}`, `{"a\n":1}`, `{"choices":[{"delta":{"\u0063ontent":"a"}}]}`,
	`{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`,
	`{"a":` + strings.Repeat(`{"a":`, 1e6),
}

func TestNotSure(t *testing.T) {
	values := make([][]byte, len(chatCompletions.names))
	for _, text := range unsure {
		if chatCompletions.paths.Scan([]byte(text), values) {
			t.Errorf("sure of %.100q", text)
		}
	}
}

func TestATruncatedTextIsNotSure(t *testing.T) {
	for _, test := range events {
		text := strings.TrimSpace(test.text)
		for end := range text {
			if test.api.paths.Scan([]byte(text[:end]), make([][]byte, len(test.want))) {
				t.Errorf("%s: sure of %q", test.name, text[:end])
			}
		}
	}
}

func TestScanDoesNotAllocate(t *testing.T) {
	for _, test := range events {
		text := []byte(test.text)
		allocations := testing.AllocsPerRun(100, func() {
			var values [8][]byte
			test.api.paths.Scan(text, values[:])
		})
		if allocations != 0 {
			t.Errorf("%s: %v allocations", test.name, allocations)
		}
	}
}

func TestImpossiblePaths(t *testing.T) {
	many := make([]string, 65)
	for i := range many {
		many[i] = "a." + strings.Repeat("x", i+1)
	}
	jsonscan.NewPaths(many[:64]...)
	for _, paths := range [][]string{{"a.0", "a.b"}, {"a.b", "a.0"}, many} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("no panic on %q", paths)
				}
			}()
			jsonscan.NewPaths(paths...)
		}()
	}
}

func FuzzScan(f *testing.F) {
	for _, test := range events {
		f.Add([]byte(test.text))
	}
	for _, text := range unsure {
		if len(text) < 1000 {
			f.Add([]byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, api := range []api{chatCompletions, messages, chatMessages} {
			values := make([][]byte, len(api.names))
			if !api.paths.Scan(text, values) {
				continue
			}
			want, err := api.decode(text)
			if err != nil {
				t.Fatalf("encoding/json refuses it: %v", err)
			}
			for i, value := range values {
				if !bytes.Equal(value, want[i]) || (value == nil) != (want[i] == nil) {
					t.Errorf("%s is %q, encoding/json has %q", api.names[i], value, want[i])
				}
				if value != nil {
					checkValue(t, value)
				}
			}
		}
	})
}

// checkValue compares what a value is to encoding/json.
func checkValue(t *testing.T, value []byte) {
	var text string
	err := json.Unmarshal(value, &text)
	switch got, ok := jsonscan.String(value); {
	case ok && (err != nil || got != text):
		t.Errorf("String(%q) = %q, encoding/json has %q, %v", value, got, text, err)
	case !ok && err == nil && utf8.Valid(value):
		t.Errorf("String(%q) is none, encoding/json has %q", value, text)
	}
	var n int
	err = json.Unmarshal(value, &n)
	switch got, ok := jsonscan.Int(value); {
	case ok && (err != nil || got != n):
		t.Errorf("Int(%q) = %d, encoding/json has %d, %v", value, got, n, err)
	case !ok && err == nil && n >= 0 && len(value) <= 9 && string(value) != "-0":
		t.Errorf("Int(%q) is none, encoding/json has %d", value, n)
	}
}
