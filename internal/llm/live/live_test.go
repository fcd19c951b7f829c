package live_test

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/anthropic"
	"github.com/parley-chat/parley/internal/llm/dify"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/llm/openai"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is for one answer.
const patience = 2 * time.Minute

// endpoint is where answers are asked for. The names of its variables begin with name.
type endpoint struct {
	name    string
	open    func(config upstream.Config) (provider, error)
	baseURL string // empty: it has to be in the environment
	model   string
	keyless bool
	app     bool // its usage and the length of its answers are up to the application
}

type provider interface {
	chat.Provider
	Close() error
}

var endpoints = []endpoint{
	{name: "OPENAI", open: openOpenAI, baseURL: "https://api.openai.com/v1", model: "gpt-4.1-mini"},
	{name: "ANTHROPIC", open: openAnthropic, baseURL: "https://api.anthropic.com/v1", model: "claude-haiku-4-5"},
	{name: "OPENROUTER", open: openOpenAI, baseURL: "https://openrouter.ai/api/v1", model: "openai/gpt-4.1-mini"},
	{name: "DIFY", open: openDify, baseURL: "https://api.dify.ai/v1", model: "live", app: true},
	{name: "OLLAMA", open: openOpenAI, model: "qwen3:0.6b", keyless: true},
}

func openOpenAI(config upstream.Config) (provider, error) {
	return openai.New(config)
}

func openAnthropic(config upstream.Config) (provider, error) {
	return anthropic.New(config)
}

func openDify(config upstream.Config) (provider, error) {
	return dify.New(config)
}

// rehearsals are what every run asks: a fake that behaves like a real one.
var rehearsals = []endpoint{
	{name: "OPENAI", open: openOpenAI, model: "live"},
	{name: "ANTHROPIC", open: openAnthropic, model: "live"},
	{name: "DIFY", open: openDify, model: "live", app: true},
}

// each runs a test for a fake of each type, and then for each real endpoint that is there. A key in the environment is
// not enough for these: whoever runs all tests does not want to pay for it.
func each(t *testing.T, test func(t *testing.T, e endpoint, key string)) {
	for _, e := range rehearsals {
		t.Run("rehearsal-"+strings.ToLower(e.name), func(t *testing.T) {
			e.baseURL = llmtest.NewServer(t).BaseURL
			test(t, e, "sk-rehearsal")
		})
	}
	required := slices.Contains(strings.Split(os.Getenv("PARLEY_TEST_REQUIRE"), ","), "live")
	if !required && os.Getenv("PARLEY_TEST_LIVE") == "" {
		return
	}
	for _, e := range endpoints {
		t.Run(strings.ToLower(e.name), func(t *testing.T) {
			e.baseURL = cmp.Or(os.Getenv(e.name+"_BASE_URL"), e.baseURL)
			e.model = cmp.Or(os.Getenv(e.name+"_MODEL"), e.model)
			key := os.Getenv(e.name + "_API_KEY")
			if e.baseURL == "" || key == "" && !e.keyless {
				missing := "the environment does not say how to reach it"
				if required {
					t.Fatal(missing)
				}
				t.Skip(missing)
			}
			test(t, e, key)
		})
	}
}

// ask asks a question of an endpoint.
func (e endpoint) ask(ctx context.Context, t *testing.T, key, question string, maxTokens int) (llmtest.Answer, error) {
	t.Helper()
	p, err := e.open(upstream.Config{ID: e.name, APIKey: key, BaseURL: e.baseURL})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	request := llmtest.Question(e.model)
	request.UserID = "parley-live-test"
	request.Messages[0].Text = question
	request.Parameters.MaxOutputTokens = maxTokens
	return llmtest.Ask(ctx, t, p, request)
}

func TestAShortAnswer(t *testing.T) {
	each(t, func(t *testing.T, e endpoint, key string) {
		got, err := e.ask(t.Context(), t, key, "Say hello in one word.", 0)
		if err != nil || got.Text == "" || got.FinishReason != chat.FinishStop {
			t.Fatalf("got %+v, %v", got, err)
		}
		if got.Usage == nil && !e.app || got.Usage != nil && (got.Usage.InputTokens < 1 || got.Usage.OutputTokens < 1) {
			t.Errorf("got the usage %+v", got.Usage)
		}
		if e.app && got.State == "" {
			t.Error("got no state")
		}
	})
}

func TestTheLimitOfAnAnswer(t *testing.T) {
	each(t, func(t *testing.T, e endpoint, key string) {
		if e.app {
			return
		}
		got, err := e.ask(t.Context(), t, key, "Count to a thousand in words.", 16)
		if err != nil || got.FinishReason != chat.FinishLength || got.Usage == nil || got.Usage.OutputTokens > 16 {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestCancel(t *testing.T) {
	each(t, func(t *testing.T, e endpoint, key string) {
		p, err := e.open(upstream.Config{ID: e.name, APIKey: key, BaseURL: e.baseURL})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		request := llmtest.Question(e.model)
		request.UserID = "parley-live-test"
		request.Messages[0].Text = "Count to a thousand in words."
		var last error
		for chunk, err := range p.Stream(ctx, request) {
			if chunk.Text != "" || chunk.Reasoning != "" {
				cancel()
			}
			if chunk.FinishReason != "" {
				t.Fatalf("it ended by itself: %+v", chunk)
			}
			last = err
		}
		if last != context.Canceled {
			t.Errorf("got %v", last)
		}
	})
}

func TestAWrongKey(t *testing.T) {
	each(t, func(t *testing.T, e endpoint, _ string) {
		if e.keyless {
			return
		}
		got, err := e.ask(t.Context(), t, llmtest.WrongKey, "Say hello.", 0)
		if !errors.Is(err, chat.NewError(chat.CodeLLMRejected, "")) || !errors.Is(err, upstream.ErrMisconfigured) {
			t.Errorf("got %+v, %v", got, err)
		}
		if err != nil && strings.Contains(err.Error(), llmtest.WrongKey) {
			t.Errorf("the error tells the key: %v", err)
		}
	})
}
