// Package openai streams answers from whatever speaks OpenAI's Chat Completions API: OpenAI itself, Azure, OpenRouter,
// Ollama, vLLM, llama.cpp. Where these differ from OpenAI's own documentation, the code says whose difference it is.
package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/sse"
)

const (
	dialTimeout         = 10 * time.Second
	tlsHandshakeTimeout = 10 * time.Second
	idleConnTimeout     = 90 * time.Second

	// maxIdleConns is how many connections wait for the next request. A server has as many requests running as there
	// are people waiting for an answer, and a handshake costs more than an idle socket.
	maxIdleConns = 1000

	// pingInterval finds HTTP/2 connections that died without a word: all requests of a host share one, and without
	// pings each would run into its own timeout until the system gives the connection up.
	pingInterval = 15 * time.Second

	// maxAnswer bounds the text and the reasoning of one answer together, in bytes. Models stop at a few hundred
	// kilobytes; what goes on is a model in a loop or no model.
	maxAnswer = 8 << 20

	// afterError is how long an upstream may take to say what is wrong, after a status that says that something is.
	afterError = 2 * time.Second

	// afterFinish is how long usage and [DONE] may take once the model has given its finish reason, and afterDone how
	// long the end of the HTTP answer may take after [DONE]; a connection that was read to the end can be used again.
	afterFinish = 2 * time.Second
	afterDone   = 100 * time.Millisecond
)

// Config is how a provider is reached.
type Config struct {
	ID      string // names the provider in errors
	BaseURL string // without /chat/completions, such as https://api.openai.com/v1
	APIKey  string // sent as a bearer token; empty: none is sent
}

// Provider is a [chat.Provider]. It is safe for concurrent use.
type Provider struct {
	id, apiKey string
	url        string
	transport  *http.Transport
	client     *http.Client
}

var _ chat.Provider = (*Provider)(nil)

// New returns a provider with connections of its own. It asks nothing of the upstream yet. The proxy is the one that
// the environment names (HTTPS_PROXY, HTTP_PROXY, NO_PROXY).
func New(config Config) *Provider {
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: tlsHandshakeTimeout,
		MaxIdleConnsPerHost: maxIdleConns,
		IdleConnTimeout:     idleConnTimeout,
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingInterval, PingTimeout: pingInterval},
		// How long headers may take is up to the request's context: models think before the first byte.
	}
	return &Provider{
		id:        config.ID,
		apiKey:    config.APIKey,
		url:       strings.TrimRight(config.BaseURL, "/") + "/chat/completions",
		transport: transport,
		client: &http.Client{
			Transport: transport,
			// The key and the conversation are for the configured address and no other.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Close closes the connections that no request uses. Running requests go on.
func (p *Provider) Close() error {
	p.transport.CloseIdleConnections()
	return nil
}

// Stream implements [chat.Provider]. Its errors are those of ctx, as they are, and [chat.Error]s:
//
//   - llm_unavailable where asking again, or elsewhere, may help: the upstream is not reached, is overloaded or broken
//     (408, 429, 5xx), redirects, answers what is no event stream, or stops without a finish reason and [DONE];
//   - llm_rejected where it will not: the upstream refuses the request (400, 401, 403, 404 and the rest of 4xx), the
//     model wants to call a tool, or the answer exceeds 8 MiB;
//   - content_filtered where the upstream's content filter refuses the request.
//
// What the upstream said about it is in the error's cause, at most 2 KiB of it, without the key. An answer is
// whole with its finish reason: text and errors after it are dropped, and an end of ctx cuts no more than the usage.
func (p *Provider) Stream(ctx context.Context, request chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(yield func(chat.Chunk, error) bool) {
		left := false
		err := p.stream(ctx, request, func(chunk chat.Chunk) bool {
			left = !yield(chunk, nil)
			return !left
		})
		if err != nil && !left {
			yield(chat.Chunk{}, p.explain(ctx, err))
		}
	}
}

// explain turns what went wrong into what [Provider.Stream] promises.
func (p *Provider) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	shown, ok := errors.AsType[*chat.Error](err)
	if !ok {
		shown = unavailable.WithCause(err)
	}
	if shown.Cause == nil {
		return shown
	}
	return shown.WithCause(fmt.Errorf("provider %s: %w", p.id, shown.Cause))
}

// stream sends the request and gives the answer to emit, until that returns false.
func (p *Provider) stream(ctx context.Context, request chat.Request, emit func(chat.Chunk) bool) error {
	// Ending the context closes the socket of an answer that was not read to its end. It comes before the body is
	// closed, which may otherwise wait for more.
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()

	response, err := p.post(ctx, request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	defer hangUp()
	if response.StatusCode != http.StatusOK {
		return p.refusal(response, peek(response.Body, hangUp))
	}
	if mediaType, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); mediaType != "text/event-stream" {
		about := fmt.Sprintf("status 200 with content type %q", mediaType)
		return unavailable.WithCause(p.quote(about, peek(response.Body, hangUp)))
	}
	return p.relay(response.Body, emit, hangUp)
}

func (p *Provider) post(ctx context.Context, request chat.Request) (*http.Response, error) {
	body, err := encode(request)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("User-Agent", "parley")
	if p.apiKey != "" {
		r.Header.Set("Authorization", "Bearer "+p.apiKey)
	}
	return p.client.Do(r)
}

// encode writes the request as the API wants it.
func encode(request chat.Request) ([]byte, error) {
	type message struct {
		Role    chat.Role `json:"role"`
		Content string    `json:"content"`
	}
	type streamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	}
	messages := make([]message, len(request.Messages))
	for i, m := range request.Messages {
		messages[i] = message{Role: m.Role, Content: m.Text}
	}
	return json.Marshal(struct {
		Model         string        `json:"model"`
		Messages      []message     `json:"messages"`
		Stream        bool          `json:"stream"`
		StreamOptions streamOptions `json:"stream_options"`
	}{request.Model, messages, true, streamOptions{IncludeUsage: true}})
}

// relay reads the events of an answer. hangUp ends the request; the read that waits fails.
func (p *Provider) relay(body io.Reader, emit func(chat.Chunk) bool, hangUp func()) error {
	events := sse.NewReader(body, 0)
	size, finished := 0, false
	for {
		event, err := events.Next()
		switch {
		case err != nil && finished:
			return nil // the end mark was there, whatever became of the connection
		case errors.Is(err, sse.ErrTooLong):
			return garbled.WithCause(err)
		case err != nil:
			return cutOff.WithCause(err)
		case len(event.Data) == 0:
			continue
		case string(event.Data) == "[DONE]":
			if !finished && !emit(chat.Chunk{FinishReason: chat.FinishStop}) {
				return nil
			}
			read(body, 4<<10, afterDone, hangUp)
			return nil
		}
		chunk, err := p.decode(event.Data)
		if finished {
			chunk, err = chat.Chunk{Usage: chunk.Usage}, nil
		}
		if err != nil {
			return err
		}
		size += len(chunk.Text) + len(chunk.Reasoning)
		if size > maxAnswer {
			return tooLong
		}
		if chunk.FinishReason != "" {
			finished = true
			defer time.AfterFunc(afterFinish, hangUp).Stop()
		}
		if chunk != (chat.Chunk{}) && !emit(chunk) {
			return nil
		}
	}
}

// peek reads the beginning of a body that is no answer.
func peek(body io.Reader, hangUp func()) []byte { return read(body, maxErrorBody, afterError, hangUp) }

// read reads up to limit bytes, and hangs up where that takes longer than timeout.
func read(body io.Reader, limit int64, timeout time.Duration, hangUp func()) []byte {
	defer time.AfterFunc(timeout, hangUp).Stop()
	begin, _ := io.ReadAll(io.LimitReader(body, limit))
	return begin
}
