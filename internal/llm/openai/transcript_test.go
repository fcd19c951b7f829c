package openai_test

import (
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

func TestTranscripts(t *testing.T) { llmtest.TestTranscripts(t, newProvider) }

func TestTruncatedTranscripts(t *testing.T) {
	llmtest.TestTruncated(t, "openai", `"finish_reason":"stop"`, newProvider)
	llmtest.TestTruncated(t, "done-only", "[DONE]", newProvider)
}

func TestErrorEvents(t *testing.T) {
	tests := []struct {
		server, event string
		code          chat.Code
		misconfigured bool
	}{
		{"OpenAI", `{"error":{"message":"no","type":"server_error","param":null,"code":null}}`, chat.CodeLLMUnavailable, false},
		{"OpenAI's filter", `{"error":{"message":"no","code":"content_filter"}}`, chat.CodeContentFiltered, false},
		{"OpenRouter, busy", `{"error":{"code":429,"message":"no"},"choices":[]}`, chat.CodeLLMUnavailable, false},
		{"OpenRouter, refused", `{"error":{"code":400,"message":"no"}}`, chat.CodeLLMRejected, false},
		{"OpenRouter, no money", `{"error":{"code":402,"message":"no"}}`, chat.CodeLLMRejected, true},
		{"OpenRouter, broken", `{"choices":[{"delta":{"content":""},"finish_reason":"error"}]}`, chat.CodeLLMUnavailable, false},
		{"Ollama", `{"error":"no"}`, chat.CodeLLMUnavailable, false},
		{"vLLM", `{"error":{"object":"error","message":"no","code":"500"}}`, chat.CodeLLMUnavailable, false},
		{"older vLLM", `{"object":"error","message":"no","type":"BadRequestError","code":400}`, chat.CodeLLMRejected, false},
		{"no JSON", `<html>`, chat.CodeLLMUnavailable, false},
		{"another shape", `[1]`, chat.CodeLLMUnavailable, false},
	}
	for _, test := range tests {
		t.Run(test.server, func(t *testing.T) {
			p := newProvider(t, llmtest.ServeStream(t, func(w http.ResponseWriter) {
				io.WriteString(w, "data: {\"choices\":[{\"delta\":{\"content\":\"So far\"}}]}\n\ndata: "+test.event+"\n\n")
			}))
			got, err := llmtest.Ask(t.Context(), t, p, llmtest.Question("any"))
			if !errors.Is(err, chat.NewError(test.code, "")) || got.Text != "So far" {
				t.Errorf("got %q, %v; want the text so far, %s", got.Text, err, test.code)
			}
			if errors.Is(err, upstream.ErrMisconfigured) != test.misconfigured {
				t.Errorf("got %v", err)
			}
		})
	}
}
