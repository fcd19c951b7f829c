package anthropic_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/anthropic"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "sk-ant-the-secret-key"

// open returns a provider that is closed when the test ends, and before the servers that the test started.
func open(t *testing.T, baseURL string) chat.Provider {
	t.Helper()
	p, err := anthropic.New(upstream.Config{ID: "upstream", APIKey: key, BaseURL: baseURL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestTranscripts(t *testing.T) { llmtest.TestTranscripts(t, open) }

func TestTruncatedTranscripts(t *testing.T) {
	llmtest.TestTruncated(t, "text", `"stop_reason":"end_turn"`, open)
	llmtest.TestTruncated(t, "web-search", `"stop_reason":"end_turn"`, open)
}

// asked returns what the API is asked for a request.
func asked(t *testing.T, request chat.Request) llmtest.Request {
	t.Helper()
	fake := llmtest.NewServer(t)
	p := open(t, fake.BaseURL+"/")
	if _, err := llmtest.Ask(t.Context(), t, p, request); err != nil {
		t.Fatal(err)
	}
	requests := fake.Requests()
	if len(requests) != 1 {
		t.Fatalf("%d requests", len(requests))
	}
	return requests[0]
}

func TestRequest(t *testing.T) {
	request := llmtest.Question("words-1")
	request.Messages = slices.Insert(request.Messages, 0, chat.PromptMessage{Role: chat.RoleSystem, Text: "Be brief."})
	got := asked(t, request)
	want := llmtest.Request{
		Dialect: "anthropic", Path: "/v1/messages", Model: "words-1", System: "Be brief.", MaxTokens: 8192, Stream: true,
		Messages: []llmtest.Message{{Role: "user", Content: "How are you?"}}, APIKey: key, Version: "2023-06-01",
	}
	if want.Body = got.Body; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	var fields map[string]any
	if err := json.Unmarshal(got.Body, &fields); err != nil || len(fields) != 5 {
		t.Errorf("got the body %s, %v", got.Body, err)
	}
}

func TestMessages(t *testing.T) {
	type m = chat.PromptMessage
	user := llmtest.Message{Role: "user", Content: "Hi <b>&\u2028"}
	assistant := llmtest.Message{Role: "assistant", Content: "Hello."}
	said, answered := m{Role: chat.RoleUser, Text: user.Content}, m{Role: chat.RoleAssistant, Text: assistant.Content}
	begun := llmtest.Message{Role: "user", Content: "(The assistant begins the conversation.)"}
	tests := []struct {
		name   string
		prompt []m
		system string
		want   []llmtest.Message
	}{
		{"one", []m{said}, "", []llmtest.Message{user}},
		{"several", []m{said, answered, said}, "", []llmtest.Message{user, assistant, user}},
		{"in a row", []m{said, said, answered, answered, said}, "", []llmtest.Message{user, user, assistant, assistant, user}},
		{"system messages", []m{{Role: chat.RoleSystem, Text: "A"}, said, {Role: chat.RoleSystem, Text: "B"}}, "A\n\nB",
			[]llmtest.Message{user}},
		{"empty ones", []m{{Role: chat.RoleSystem, Text: " "}, {Role: chat.RoleUser, Text: " \n"}, said,
			{Role: chat.RoleAssistant}, said}, "", []llmtest.Message{user, user}},
		{"the assistant first", []m{answered, answered, said}, "", []llmtest.Message{begun, assistant, assistant, user}},
		{"the assistant last", []m{said, answered, said, answered}, "", []llmtest.Message{user, assistant, user}},
	}
	for _, test := range tests {
		got := asked(t, chat.Request{Model: "words-1", Messages: test.prompt})
		if got.System != test.system || !slices.Equal(got.Messages, test.want) {
			t.Errorf("%s: got %q, %q; want %q, %q", test.name, got.System, got.Messages, test.system, test.want)
		}
	}
}

func TestParameters(t *testing.T) {
	for given, want := range map[float64]float64{0: 0, 0.7: 0.7, 1: 1, 1.5: 1} {
		request := llmtest.Question("words-1")
		request.Parameters = chat.Parameters{Temperature: &given, MaxOutputTokens: 64}
		got := asked(t, request)
		if got.Temperature == nil || *got.Temperature != want || got.MaxTokens != 64 {
			t.Errorf("for %v: got %+v", given, got)
		}
	}
}

func TestNoKeyNoHeader(t *testing.T) {
	fake := llmtest.NewServer(t)
	p, err := anthropic.New(upstream.Config{BaseURL: fake.BaseURL})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	llmtest.Ask(t.Context(), t, p, llmtest.Question("words-1"))
	if got := fake.Requests()[0].APIKey; got != "" {
		t.Errorf("x-api-key: %q", got)
	}
}

// An aborted answer has cost its input.
func TestTheInputIsToldAtOnce(t *testing.T) {
	p := open(t, llmtest.NewServer(t).BaseURL)
	for chunk, err := range p.Stream(t.Context(), llmtest.Question("words-3")) {
		if want := (chat.Usage{InputTokens: 3, OutputTokens: 1}); err != nil || chunk.Usage == nil || *chunk.Usage != want {
			t.Errorf("the first chunk is %+v, %v; want the usage %+v", chunk, err, want)
		}
		break
	}
}

func TestErrorEvents(t *testing.T) {
	tests := []struct {
		event         string
		code          chat.Code
		misconfigured bool
	}{
		{`{"type":"error","error":{"type":"overloaded_error","message":"no"}}`, chat.CodeLLMUnavailable, false},
		{`{"type":"error","error":{"type":"api_error","message":"no"}}`, chat.CodeLLMUnavailable, false},
		{`{"type":"error","error":{"type":"rate_limit_error","message":"no"}}`, chat.CodeLLMUnavailable, false},
		{`{"type":"error","error":{"type":"timeout_error","message":"no"}}`, chat.CodeLLMUnavailable, false},
		{`{"type":"error","error":{"type":"conflict_error","message":"no"}}`, chat.CodeLLMUnavailable, false},
		{`{"type":"error","error":{"type":"strange_error","message":"no"}}`, chat.CodeLLMUnavailable, false},
		{`{"type":"error"}`, chat.CodeLLMUnavailable, false},
		{`{"type":"error","error":"no"}`, chat.CodeLLMUnavailable, false},
		{`{"type":"error","error":{"type":"invalid_request_error","message":"no"}}`, chat.CodeLLMRejected, false},
		{`{"type":"error","error":{"type":"request_too_large","message":"no"}}`, chat.CodeLLMRejected, false},
		{`{"type":"error","error":{"type":"authentication_error","message":"no"}}`, chat.CodeLLMRejected, true},
		{`{"type":"error","error":{"type":"permission_error","message":"no"}}`, chat.CodeLLMRejected, true},
		{`{"type":"error","error":{"type":"not_found_error","message":"no"}}`, chat.CodeLLMRejected, true},
		{`{"type":"error","error":{"type":"billing_error","message":"no"}}`, chat.CodeLLMRejected, true},
		{`{"type":"content_block_start","content_block":{"type":"tool_use"}}`, chat.CodeLLMRejected, false},
		{`{"type":"message_delta","delta":{"stop_reason":"tool_use"}}`, chat.CodeLLMRejected, false},
		{`{"type":"message_delta","delta":{"stop_reason":"pause_turn"}}`, chat.CodeLLMUnavailable, false},
		{`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":"many"}`, chat.CodeLLMUnavailable, false},
		{`<html>`, chat.CodeLLMUnavailable, false},
	}
	for _, test := range tests {
		var before string
		p := open(t, llmtest.ServeStream(t, func(w http.ResponseWriter) {
			io.WriteString(w, before+"data: "+test.event+"\n\n")
		}))
		// As the first event after the status 200, too.
		for text, event := range map[string]string{
			"": "", "So far": `{"type":"content_block_delta","delta":{"type":"text_delta","text":"So far"}}`,
		} {
			before = ""
			if event != "" {
				before = fmt.Sprintf("data: %s\n\n", event)
			}
			got, err := llmtest.Ask(t.Context(), t, p, llmtest.Question("any"))
			if !errors.Is(err, chat.NewError(test.code, "")) || got.Text != text || got.FinishReason != "" {
				t.Errorf("%s: got %q, %v; want %q, %s", test.event, got.Text, err, text, test.code)
			}
			if errors.Is(err, upstream.ErrMisconfigured) != test.misconfigured {
				t.Errorf("%s: got %v", test.event, err)
			}
		}
	}
}

func TestBadBaseURL(t *testing.T) {
	if _, err := anthropic.New(upstream.Config{BaseURL: "http://user:hunter2@[::1"}); err == nil {
		t.Error("no error")
	}
}
