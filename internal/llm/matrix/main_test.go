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
	open func(config upstream.Config) (provider, error)
}{
	{openAI, func(c upstream.Config) (provider, error) { return openai.New(c) }},
	{anthropicAI, func(c upstream.Config) (provider, error) { return anthropic.New(c) }},
	{difyAI, func(c upstream.Config) (provider, error) { return dify.New(c) }},
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
			p, err := kind.open(upstream.Config{ID: providerID, APIKey: key, BaseURL: fake.BaseURL})
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

func openInMemory(t *testing.T, open func(config upstream.Config) (provider, error)) *inMemory {
	t.Helper()
	m := &inMemory{Handler: llmtest.NewHandler()}
	dial := llmtest.Pipes(t, m.Handler)
	t.Cleanup(m.Close)
	count := func(ctx context.Context, network, addr string) (net.Conn, error) {
		m.dialled++
		return dial(ctx, network, addr)
	}
	p, err := open(upstream.Config{ID: providerID, BaseURL: "http://upstream/v1", APIKey: key, Dial: count})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	m.Provider = p
	return m
}
