package llmtest

import (
	"encoding/json"
	"net/http"
	"strings"
)

// Request is one request for an answer as it arrived. What a dialect does not have is empty.
type Request struct {
	Dialect string `json:"dialect"` // openai, anthropic or dify
	Path    string `json:"path"`

	Model         string    `json:"model"`
	System        string    `json:"system"`   // Anthropic's; in OpenAI's dialect it is a message
	Messages      []Message `json:"messages"` // of Dify the query, as the one message of the user
	Stream        bool      `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	MaxTokens           int      `json:"max_tokens"`
	MaxCompletionTokens int      `json:"max_completion_tokens"` // what OpenAI calls it since its reasoning models
	Temperature         *float64 `json:"temperature"`

	ConversationID string         `json:"conversation_id"`
	Query          string         `json:"query"`
	User           string         `json:"user"`
	Inputs         map[string]any `json:"inputs"`

	Authorization string `json:"authorization"`     // the header
	APIKey        string `json:"x_api_key"`         // the header x-api-key
	Version       string `json:"anthropic_version"` // the header

	Body json.RawMessage `json:"body"`

	CancelledAt int64 `json:"cancelled_at"` // when the client left before the end, in nanoseconds since 1970; else 0
}

// Message is one message of a [Request]. Content that came as a list of blocks is the text of these.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *Message) UnmarshalJSON(data []byte) error {
	var wire struct {
		Role    string  `json:"role"`
		Content content `json:"content"`
	}
	err := json.Unmarshal(data, &wire)
	*m = Message{Role: wire.Role, Content: string(wire.Content)}
	return err
}

// content is a text that may come as a list of blocks.
type content string

func (c *content) UnmarshalJSON(data []byte) error {
	if json.Unmarshal(data, (*string)(c)) == nil {
		return nil
	}
	var blocks []struct {
		Text string `json:"text"`
	}
	if err := json.Unmarshal(data, &blocks); err != nil {
		return err
	}
	var text strings.Builder
	for _, block := range blocks {
		text.WriteString(block.Text)
	}
	*c = content(text.String())
	return nil
}

// describe adds what is not in the body.
func (r *Request) describe(dialect string, from *http.Request, body []byte) {
	r.Dialect = dialect
	r.Path = from.URL.Path
	r.Authorization = from.Header.Get("Authorization")
	r.APIKey = from.Header.Get("X-Api-Key")
	r.Version = from.Header.Get("Anthropic-Version")
	r.Body = body
}

// Usage returns the usage that an answer of n words to the request reports: every word is a token.
func (r Request) Usage(n int) (input, output int) {
	input = len(strings.Fields(r.System))
	for _, m := range r.Messages {
		input += len(strings.Fields(m.Content))
	}
	return input, n
}
