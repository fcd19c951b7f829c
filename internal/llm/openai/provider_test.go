package openai_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/llm/openai"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "sk-the-secret-key"

// newProvider returns a provider that is closed when the test ends, and before the servers that the test started.
func newProvider(t *testing.T, baseURL string) chat.Provider {
	t.Helper()
	return open(t, upstream.Config{ID: "upstream", APIKey: key, BaseURL: baseURL})
}

func open(t *testing.T, config upstream.Config) chat.Provider {
	t.Helper()
	p, err := openai.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestRequest(t *testing.T) {
	fake := llmtest.NewServer(t)
	p := newProvider(t, fake.BaseURL+"/")
	temperature := 1.5
	request := chat.Request{Model: "words-1", Messages: []chat.PromptMessage{
		{Role: chat.RoleSystem, Text: "Be brief."},
		{Role: chat.RoleUser, Text: "Hi <b>&\u2028"},
		{Role: chat.RoleAssistant, Text: "Hello."},
		{Role: chat.RoleUser, Text: "Bye"},
	}, Parameters: chat.Parameters{Temperature: &temperature, MaxOutputTokens: 64}}
	if _, err := llmtest.Ask(t.Context(), t, p, request); err != nil {
		t.Fatal(err)
	}
	requests := fake.Requests()
	if len(requests) != 1 {
		t.Fatalf("%d requests", len(requests))
	}
	got := requests[0]
	want := []llmtest.Message{
		{Role: "system", Content: "Be brief."},
		{Role: "user", Content: "Hi <b>&\u2028"},
		{Role: "assistant", Content: "Hello."},
		{Role: "user", Content: "Bye"},
	}
	if got.Model != "words-1" || !got.Stream || !got.StreamOptions.IncludeUsage || !slices.Equal(got.Messages, want) {
		t.Errorf("got %+v", got)
	}
	if got.MaxTokens != 64 || got.MaxCompletionTokens != 0 || got.Temperature == nil || *got.Temperature != temperature {
		t.Errorf("got the parameters %+v", got)
	}
	if got.Authorization != "Bearer "+key {
		t.Errorf("Authorization: %q", got.Authorization)
	}
}

func TestNoKeyNoHeader(t *testing.T) {
	fake := llmtest.NewServer(t)
	p := open(t, upstream.Config{BaseURL: fake.BaseURL})
	if _, err := llmtest.Ask(t.Context(), t, p, llmtest.Question("words-1")); err != nil {
		t.Fatal(err)
	}
	if got := fake.Requests()[0].Authorization; got != "" {
		t.Errorf("Authorization: %q", got)
	}
}

// What differs at OpenAI itself, and at Azure, is known by the host, which is reached through a proxy here.
func TestHosts(t *testing.T) {
	tests := []struct {
		base, target        string
		authorization, key  string
		tokens, completions int
	}{
		{"http://api.openai.com/v1", "http://api.openai.com/v1/chat/completions", "Bearer " + key, "", 0, 64},
		{
			"http://a.openai.azure.com/openai/deployments/d?api-version=2024-10-21",
			"http://a.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21", "", key, 0, 64,
		},
		{"http://openrouter.example/api/v1/", "http://openrouter.example/api/v1/chat/completions", "Bearer " + key, "", 64, 0},
	}
	for _, test := range tests {
		fake := llmtest.NewHandler()
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.String() != test.target || r.Header.Get("Authorization") != test.authorization ||
				r.Header.Get("Api-Key") != test.key {
				t.Errorf("got %s with %v", r.URL, r.Header)
			}
			r.URL.Path = "/chat/completions"
			fake.ServeHTTP(w, r)
		}))
		config := upstream.Config{APIKey: key, Proxy: proxy.URL, BaseURL: test.base}
		request := llmtest.Question("words-1")
		request.Parameters.MaxOutputTokens = 64
		p := open(t, config)
		if got, err := llmtest.Ask(t.Context(), t, p, request); err != nil || got.Text != llmtest.Text(1) {
			t.Errorf("got %+v, %v", got, err)
		}
		if got := fake.Requests()[0]; got.MaxTokens != test.tokens || got.MaxCompletionTokens != test.completions {
			t.Errorf("%s: got the limits %d, %d", test.base, got.MaxTokens, got.MaxCompletionTokens)
		}
		p.(io.Closer).Close()
		proxy.Close()
	}
}
