// Package dify streams answers from the chat applications of Dify: chatbots, chatflows and agents. The names of pages in
// its comments are those of Dify's documentation of its service API.
//
// An application keeps its conversations itself and is asked with one query at a time. The function
// prompt says how that becomes the conversation that Parley's user sees.
package dify

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"sync"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/sse"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

// Provider is a [chat.Provider] of one application. It is safe for concurrent use.
type Provider struct {
	id     string
	client *upstream.Client
	url    *url.URL // of chat-messages
	header http.Header

	closing context.Context
	close   context.CancelFunc

	mu    sync.Mutex     // is held to begin a stop, and to end closing, after which none begins
	stops sync.WaitGroup // the requests that stop answers
}

var _ chat.Provider = (*Provider)(nil)

// New returns a provider with connections of its own. It asks nothing of the upstream yet. The BaseURL is that before
// /chat-messages, such as https://api.dify.ai/v1; the APIKey is that of one application. The errors are those of
// [upstream.New].
func New(config upstream.Config) (*Provider, error) {
	client, err := upstream.New(config)
	if err != nil {
		return nil, err
	}
	p := &Provider{
		id:     config.ID,
		client: client,
		url:    client.URL("chat-messages"),
		header: http.Header{"Authorization": {"Bearer " + config.APIKey}},
	}
	p.closing, p.close = context.WithCancel(context.Background())
	return p, nil
}

// Close cancels the requests that stop answers, waits for them, and closes the connections that no request uses. Running
// answers go on; they are no longer stopped at Dify.
func (p *Provider) Close() error {
	p.mu.Lock()
	p.close()
	p.mu.Unlock()
	p.stops.Wait()
	return p.client.Close()
}

// Stream implements [chat.Provider]. Its errors are those of [upstream.Client.Stream].
//
// The first event gives the State, so that it is kept whatever becomes of the answer. A conversation that Dify does not
// have any more is begun anew, without a word. There is no finish reason length, and content_filter where Dify's
// moderation takes back what the application said. An answer that is left, or whose ctx ends, is stopped at Dify too.
//
// Of the parameters none is sent: temperature and length are the application's. An answer that is longer than
// MaxOutputTokens, by an estimate, is stopped there.
func (p *Provider) Stream(ctx context.Context, request chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(yield func(chat.Chunk, error) bool) {
		s := parseState(request.States[p.id])
		if s.Model != request.Model {
			s = state{}
		}
		if p.stream(ctx, request, s, yield) {
			p.stream(ctx, request, state{}, yield)
		}
	}
}

// stream asks once. It reports whether Dify has lost the conversation; then it has yielded nothing.
func (p *Provider) stream(
	ctx context.Context, request chat.Request, s state, yield func(chat.Chunk, error) bool,
) (lost bool) {
	a := &answer{
		client: p.client,
		limit:  request.Parameters.MaxOutputTokens,
		asked:  prompt(request.Messages, s),
		next:   state{Through: request.MessageID, Model: request.Model},
	}
	// The socket is closed by then: the loop is over.
	defer func() {
		if a.task != "" && !a.ended {
			p.stop(a.task, request.UserID)
		}
	}()
	begun := false
	for chunk, err := range p.client.Stream(ctx, p.call(request, a)) {
		if err != nil && a.lost && !begun && ctx.Err() == nil {
			return true
		}
		begun = true
		if !yield(chunk, err) {
			return false
		}
	}
	return false
}

func (p *Provider) call(request chat.Request, a *answer) upstream.Call {
	body := wireRequest{
		Inputs:         map[string]string{"model": request.Model},
		Query:          a.asked.query,
		ResponseMode:   "streaming",
		ConversationID: a.asked.conversation,
		User:           request.UserID,
	}
	if a.asked.system != "" {
		body.Inputs["system_prompt"] = a.asked.system
	}
	return upstream.Call{
		URL:     p.url.String(),
		Header:  p.header,
		Body:    body,
		Decode:  func(event sse.Event) (chunk chat.Chunk, done bool, err error) { return a.decode(event.Data) },
		Refused: a.refused,
	}
}

// wireRequest is the request as the API wants it ("Send Chat Message"). The inputs are for the application to use as
// variables; it need not know them.
type wireRequest struct {
	Inputs         map[string]string `json:"inputs"`
	Query          string            `json:"query"`
	ResponseMode   string            `json:"response_mode"`
	ConversationID string            `json:"conversation_id"`
	User           string            `json:"user"`

	// Otherwise Dify would have a model give the conversation a title that nobody sees.
	AutoGenerateName bool `json:"auto_generate_name"`
}
