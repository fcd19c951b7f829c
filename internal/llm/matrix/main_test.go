package matrix_test

import (
	"context"
	"net"
	"testing"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/anthropic"
	"github.com/parley-chat/parley/internal/llm/dify"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/llm/openai"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// provider is what there is to close.
type provider interface {
	chat.Provider
	Close() error
}

const (
	openAI      = "openai"
	anthropicAI = "anthropic"
	difyAI      = "dify"
)

var types = []struct {
	name string
	open func(config upstream.Config, baseURL string) (provider, error)
}{
	{openAI, func(config upstream.Config, baseURL string) (provider, error) {
		return openai.New(openai.Config{Config: config, BaseURL: baseURL})
	}},
	{anthropicAI, func(config upstream.Config, baseURL string) (provider, error) {
		return anthropic.New(anthropic.Config{Config: config, BaseURL: baseURL})
	}},
	{difyAI, func(config upstream.Config, baseURL string) (provider, error) {
		return dify.New(dify.Config{Config: config, BaseURL: baseURL})
	}},
}

const (
	providerID = "provider-7"
	key        = "sk-the-secret-key"
)

// each runs a test for each type, with an upstream of its own over real sockets.
func each(t *testing.T, test func(t *testing.T, name string, fake *llmtest.Server, p chat.Provider)) {
	for _, kind := range types {
		t.Run(kind.name, func(t *testing.T) {
			fake := llmtest.NewServer(t)
			p, err := kind.open(upstream.Config{ID: providerID, APIKey: key}, fake.BaseURL)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Close() })
			test(t, kind.name, fake, p)
		})
	}
}

// inMemory is an upstream over pipes, for bubbles of synctest.
type inMemory struct {
	*llmtest.Handler
	chat.Provider
	dialled int
}

func openInMemory(
	t *testing.T, open func(config upstream.Config, baseURL string) (provider, error),
) *inMemory {
	t.Helper()
	m := &inMemory{Handler: llmtest.NewHandler()}
	dial := llmtest.Pipes(t, m.Handler)
	t.Cleanup(m.Close)
	p, err := open(upstream.Config{ID: providerID, APIKey: key, Dial: func(
		ctx context.Context, network, addr string,
	) (net.Conn, error) {
		m.dialled++
		return dial(ctx, network, addr)
	}}, "http://upstream/v1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	m.Provider = p
	return m
}
