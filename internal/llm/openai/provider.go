// Package openai streams answers from whatever speaks OpenAI's Chat Completions API: OpenAI itself, Azure, OpenRouter,
// Ollama, vLLM, llama.cpp. Where these differ from OpenAI's own documentation, the code says whose difference it is.
package openai

import (
	"context"
	"iter"
	"net/http"
	"strings"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/sse"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

// Provider is a [chat.Provider]. It is safe for concurrent use.
type Provider struct {
	client *upstream.Client
	url    string
	header http.Header
	native bool // OpenAI itself, or Azure
}

var _ chat.Provider = (*Provider)(nil)

// New returns a provider with connections of its own. It asks nothing of the upstream yet. The BaseURL is that before
// /chat/completions, such as https://api.openai.com/v1; the APIKey is sent as a bearer token, an empty one is not. The
// errors are those of [upstream.New].
func New(config upstream.Config) (*Provider, error) {
	client, err := upstream.New(config)
	if err != nil {
		return nil, err
	}
	url := client.URL("chat", "completions")
	azure := strings.HasSuffix(url.Hostname(), ".azure.com")
	p := &Provider{
		client: client,
		url:    url.String(),
		header: make(http.Header),
		native: azure || url.Hostname() == "api.openai.com",
	}
	if config.APIKey != "" {
		p.header.Set("Authorization", "Bearer "+config.APIKey)
	}
	if config.APIKey != "" && azure {
		// Azure takes a bearer token for one of its directory, and a key in a header of its own.
		p.header.Del("Authorization")
		p.header.Set("Api-Key", config.APIKey)
	}
	return p, nil
}

// Close closes the connections that no request uses. Running requests go on.
func (p *Provider) Close() error { return p.client.Close() }

// Stream implements [chat.Provider]. Its errors are those of [upstream.Client.Stream], llm_rejected where the model
// wants to call a tool, and content_filtered where the upstream's content filter refuses the request.
func (p *Provider) Stream(ctx context.Context, request chat.Request) iter.Seq2[chat.Chunk, error] {
	return p.client.Stream(ctx, upstream.Call{
		URL:    p.url,
		Header: p.header,
		Body:   p.body(request),
		Decode: func(event sse.Event) (chunk chat.Chunk, done bool, err error) {
			if string(event.Data) == "[DONE]" {
				return chat.Chunk{}, true, nil
			}
			chunk, err = p.decode(event.Data)
			return chunk, false, err
		},
		Refused: refused,
	})
}

// wireRequest is the request as the API wants it.
type wireRequest struct {
	Model         string        `json:"model"`
	Messages      []wireMessage `json:"messages"`
	Stream        bool          `json:"stream"`
	StreamOptions streamOptions `json:"stream_options"`
	Temperature   *float64      `json:"temperature,omitempty"`

	// OpenAI has put the second in the place of the first, which its reasoning models refuse; most others know just the
	// first.
	MaxTokens           int `json:"max_tokens,omitempty"`
	MaxCompletionTokens int `json:"max_completion_tokens,omitempty"`
}

type wireMessage struct {
	Role    chat.Role `json:"role"`
	Content string    `json:"content"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

func (p *Provider) body(request chat.Request) wireRequest {
	body := wireRequest{
		Model:         request.Model,
		Messages:      make([]wireMessage, len(request.Messages)),
		Stream:        true,
		StreamOptions: streamOptions{IncludeUsage: true},
		Temperature:   request.Parameters.Temperature,
	}
	for i, m := range request.Messages {
		body.Messages[i] = wireMessage{Role: m.Role, Content: m.Text}
	}
	if p.native {
		body.MaxCompletionTokens = request.Parameters.MaxOutputTokens
	} else {
		body.MaxTokens = request.Parameters.MaxOutputTokens
	}
	return body
}
