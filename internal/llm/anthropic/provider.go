// Package anthropic streams answers from Anthropic's Messages API, and from what else speaks it. The names of pages in
// its comments are those of Anthropic's documentation.
package anthropic

import (
	"context"
	"iter"
	"net/http"
	"strings"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/sse"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

const (
	// version is that of the API ("Versions"). It says what may be relied on, not how old the models are.
	version = "2023-06-01"

	// defaultMaxTokens is for requests without a limit of their own: the API has none, and wants one. It is more than
	// answers in a chat are long, and no more than all but the oldest models can write.
	defaultMaxTokens = 8192

	// maxTemperature is the API's. Others go up to 2.
	maxTemperature = 1.0

	// opening is said before a model or an agent that spoke first: the conversation has to begin with the user, at
	// least elsewhere than at Anthropic itself.
	opening = "(The assistant begins the conversation.)"
)

// Provider is a [chat.Provider]. It is safe for concurrent use.
type Provider struct {
	client *upstream.Client
	url    string
	header http.Header
}

var _ chat.Provider = (*Provider)(nil)

// New returns a provider with connections of its own. It asks nothing of the upstream yet. The BaseURL is that before
// /messages, such as https://api.anthropic.com/v1; the APIKey is sent as x-api-key, an empty one is not. The errors are
// those of [upstream.New].
func New(config upstream.Config) (*Provider, error) {
	client, err := upstream.New(config)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Anthropic-Version": {version}}
	if config.APIKey != "" {
		header.Set("X-Api-Key", config.APIKey)
	}
	return &Provider{client: client, url: client.URL("messages").String(), header: header}, nil
}

// Close closes the connections that no request uses. Running requests go on.
func (p *Provider) Close() error { return p.client.Close() }

// Stream implements [chat.Provider]. Its errors are those of [upstream.Client.Stream], and llm_rejected where the model
// wants to call a tool.
//
// Usage comes twice: with the first chunk what the request cost, and with the finish reason all of it. Without
// Parameters.MaxOutputTokens an answer ends after 8192 tokens; a temperature above 1 is 1.
func (p *Provider) Stream(ctx context.Context, request chat.Request) iter.Seq2[chat.Chunk, error] {
	a := answer{client: p.client}
	return p.client.Stream(ctx, upstream.Call{
		URL:     p.url,
		Header:  p.header,
		Body:    body(request),
		Decode:  func(event sse.Event) (chunk chat.Chunk, done bool, err error) { return a.decode(event.Data) },
		Refused: refused,
	})
}

// wireRequest is the request as the API wants it ("Create a Message").
type wireRequest struct {
	Model       string        `json:"model"`
	MaxTokens   int           `json:"max_tokens"`
	System      string        `json:"system,omitempty"`
	Messages    []wireMessage `json:"messages"`
	Stream      bool          `json:"stream"`
	Temperature *float64      `json:"temperature,omitempty"`
}

type wireMessage struct {
	Role    chat.Role `json:"role"`
	Content string    `json:"content"`
}

func body(request chat.Request) wireRequest {
	body := wireRequest{
		Model:       request.Model,
		MaxTokens:   request.Parameters.MaxOutputTokens,
		Stream:      true,
		Temperature: request.Parameters.Temperature,
	}
	if body.MaxTokens == 0 {
		body.MaxTokens = defaultMaxTokens
	}
	if t := body.Temperature; t != nil && *t > maxTemperature {
		limited := maxTemperature
		body.Temperature = &limited
	}
	body.System, body.Messages = split(request.Messages)
	return body
}

// split parts what is told to the model from what was said. Turns of one role in a row are fine ("Create a Message"),
// empty texts are not. What follows the user's last message, an agent's words, is left out: the API would take it for
// the beginning of the answer.
func split(prompt []chat.PromptMessage) (system string, messages []wireMessage) {
	var instructions []string
	end := 0
	for _, m := range prompt {
		switch {
		case strings.TrimSpace(m.Text) == "":
		case m.Role == chat.RoleSystem:
			instructions = append(instructions, m.Text)
		default:
			if len(messages) == 0 && m.Role != chat.RoleUser {
				messages = append(messages, wireMessage{chat.RoleUser, opening})
			}
			messages = append(messages, wireMessage{m.Role, m.Text})
			if m.Role == chat.RoleUser {
				end = len(messages)
			}
		}
	}
	return strings.Join(instructions, "\n\n"), messages[:end]
}
