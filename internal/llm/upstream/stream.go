package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/http/httptrace"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/sse"
	"github.com/parley-chat/parley/internal/telemetry"
)

const (
	// maxAnswer bounds the text and the reasoning of one answer together, in bytes. Models stop at a few hundred
	// kilobytes; what goes on is a model in a loop or no model.
	maxAnswer = 8 << 20

	// afterError is how long an upstream may take to say what is wrong, after a status that says that something is.
	afterError = 2 * time.Second

	// afterFinish is how long usage and the end of the events may take once the model has given its finish reason, and
	// afterDone how long the end of the HTTP answer may take after the last event; a connection that was read to the
	// end can be used again.
	afterFinish = 2 * time.Second
	afterDone   = 100 * time.Millisecond
)

// Call is one request for an answer.
type Call struct {
	URL    string
	Header http.Header // what the provider needs besides Content-Type, Accept and User-Agent
	Body   any         // sent as JSON

	// Decode reads one event with data. A chunk may be empty. done means that nothing follows; without a finish reason
	// before it the answer ended as stop. The error is a [chat.Error].
	Decode func(event sse.Event) (chunk chat.Chunk, done bool, err error)

	// Refused gives the error that the body of an answer with another status than 200 stands for; nil where the body
	// says no more than the status. It may be nil itself.
	Refused func(status int, body []byte) *chat.Error
}

// Stream sends the request and yields the answer. It fulfils the contract of [chat.Provider]; its errors are those of
// ctx, as they are, and [chat.Error]s:
//
//   - llm_timeout where no connection is there in time;
//   - llm_unavailable where asking again, or elsewhere, may help: the upstream is not reached, is overloaded or broken
//     (408, 429, 5xx), redirects, answers what is no event stream, or stops without an end mark;
//   - llm_rejected where it will not: the upstream refuses the request (the rest of 4xx), or the answer exceeds 8 MiB.
//     Where the refusal is about the upstream's own settings (401, 402, 403, 404) it is also [ErrMisconfigured];
//   - what Decode and Refused give.
//
// What the upstream said about it is in the error's cause, at most 2 KiB of it, without the key. An answer is whole
// with its finish reason: text and errors after it are dropped, and an end of ctx cuts no more than the usage.
func (c *Client) Stream(ctx context.Context, call Call) iter.Seq2[chat.Chunk, error] {
	return func(yield func(chat.Chunk, error) bool) {
		left := false
		err := c.stream(ctx, call, func(chunk chat.Chunk) bool {
			left = !yield(chunk, nil)
			return !left
		})
		if err != nil && !left {
			yield(chat.Chunk{}, c.explain(ctx, err))
		}
	}
}

// explain turns what went wrong into what [Client.Stream] promises.
func (c *Client) explain(ctx context.Context, err error) error {
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
	return shown.WithCause(fmt.Errorf("provider %s: %w", c.id, shown.Cause))
}

// stream sends the request and gives the answer to emit, until that returns false.
func (c *Client) stream(ctx context.Context, call Call, emit func(chat.Chunk) bool) error {
	// Ending the context closes the socket of an answer that was not read to its end. It comes before the body is
	// closed, which may otherwise wait for more.
	ctx, connected, hangUp := c.withConnectTimeout(ctx)
	defer hangUp()

	response, err := c.post(ctx, call, connected)
	if timeout, ok := errors.AsType[*Timeout](context.Cause(ctx)); err != nil && ok {
		return tooSlow.WithCause(timeout)
	}
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	defer hangUp()
	telemetry.Set(ctx, telemetry.ResponseStatus.Int(response.StatusCode))
	if response.StatusCode == http.StatusSwitchingProtocols {
		return unavailable.WithCause(errors.New("status 101")) // its body is the socket itself, and has no end
	}
	if response.StatusCode != http.StatusOK {
		return c.refusal(call, response, peek(response.Body, hangUp))
	}
	if mediaType, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); mediaType != "text/event-stream" {
		about := fmt.Sprintf("status 200 with content type %q", mediaType)
		return unavailable.WithCause(c.Quote(about, peek(response.Body, hangUp)))
	}
	return relay(response.Body, call.Decode, emit, hangUp)
}

func (c *Client) post(ctx context.Context, call Call, connected func()) (*http.Response, error) {
	body, err := json.Marshal(call.Body)
	if err != nil {
		return nil, err
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected() }})
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, call.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header = call.Header.Clone()
	if r.Header == nil {
		r.Header = make(http.Header)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("User-Agent", "parley")
	telemetry.Inject(ctx, r.Header)
	return c.Do(r)
}

// relay reads the events of an answer. hangUp ends the request; the read that waits fails.
func relay(
	body io.Reader, decode func(sse.Event) (chat.Chunk, bool, error), emit func(chat.Chunk) bool, hangUp func(),
) error {
	events := sse.NewReader(body, 0)
	size, finished := 0, false
	for {
		event, err := events.Next()
		switch {
		case err != nil && finished:
			return nil // the end mark was there, whatever became of the connection
		case errors.Is(err, sse.ErrTooLong):
			return Garbled.WithCause(err)
		case err != nil:
			return CutOff.WithCause(err)
		case len(event.Data) == 0:
			continue
		}
		chunk, done, err := decode(event)
		if finished {
			chunk, err = chat.Chunk{Usage: chunk.Usage, State: chunk.State}, nil
		}
		if err != nil {
			return err
		}
		size += len(chunk.Text) + len(chunk.Reasoning)
		if size > maxAnswer {
			return tooLong
		}
		if done && !finished && chunk.FinishReason == "" {
			chunk.FinishReason = chat.FinishStop
		}
		if chunk.FinishReason != "" {
			finished = true
			defer time.AfterFunc(afterFinish, hangUp).Stop()
		}
		if chunk != (chat.Chunk{}) && !emit(chunk) {
			return nil
		}
		if done {
			read(body, 4<<10, afterDone, hangUp)
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
