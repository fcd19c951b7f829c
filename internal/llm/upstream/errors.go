package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/parley-chat/parley/chat"
)

// What people are told, by providers too. Why, and by whom, is in the cause and stays in the log.
var (
	Garbled  = chat.NewError(chat.CodeLLMUnavailable, "the model's provider sent what cannot be understood")
	CutOff   = chat.NewError(chat.CodeLLMUnavailable, "the model's answer was cut off")
	ToolCall = chat.NewError(chat.CodeLLMRejected, "the model asked for a tool, and there are none here")
	Filtered = chat.NewError(chat.CodeContentFiltered, "the provider's content filter refused the request")

	unavailable = chat.NewError(chat.CodeLLMUnavailable, "the model cannot be reached right now")
	overloaded  = chat.NewError(chat.CodeLLMUnavailable, "the model has too much to do right now")
	tooSlow     = chat.NewError(chat.CodeLLMTimeout, "the model took too long to answer")
	rejected    = chat.NewError(chat.CodeLLMRejected, "the model's provider refused the request")
	credentials = chat.NewError(chat.CodeLLMRejected, "the model's provider refused the server's credentials")
	tooLong     = chat.NewError(chat.CodeLLMRejected, "the model's answer was too long")
)

// ErrMisconfigured is in the chain of an error that is about the server's settings for an upstream (its key, its
// account, the name of the model) and not about what a user asked: another upstream may answer.
var ErrMisconfigured = errors.New("the provider's settings do not fit the upstream")

const (
	maxErrorBody  = 16 << 10 // read of an answer that is no success
	maxQuote      = 2 << 10  // of it in a cause
	maxRetryAfter = time.Hour
)

// refusal is the error that an answer with another status than 200 stands for.
func (c *Client) refusal(call Call, response *http.Response, body []byte) error {
	shown := StatusError(response.StatusCode)
	if call.Refused != nil {
		if said := call.Refused(response.StatusCode, body); said != nil {
			shown = said
		}
	}
	shown = c.WithQuote(shown, response.Status, body)
	if shown.Code.Retryable() {
		shown.RetryAfter = retryAfter(response.Header.Get("Retry-After"), time.Now())
	}
	return shown
}

// StatusError is the error that an HTTP status stands for: it tells those that may be others next time from those that
// will not. 529 is what Anthropic and others answer when they are overloaded. A wrong key, an empty account, a forbidden
// and an unknown model are also [ErrMisconfigured].
func StatusError(status int) *chat.Error {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return credentials.WithCause(ErrMisconfigured)
	case status == http.StatusPaymentRequired, status == http.StatusNotFound:
		return rejected.WithCause(ErrMisconfigured)
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable, status == 529:
		return overloaded
	case status == http.StatusRequestTimeout, status < 400, status >= 500:
		return unavailable
	}
	return rejected
}

// retryAfter reads a Retry-After header (RFC 9110 §10.2.3), seconds or a date; 0 where there is none. More than an
// hour is an hour.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	if date, err := http.ParseTime(header); err == nil {
		return min(max(date.Sub(now), 0), maxRetryAfter)
	}
	return 0
}

// Quote makes a cause of what the upstream said: bounded, and without the key, which some repeat.
func (c *Client) Quote(about string, said []byte) error {
	text := strings.ToValidUTF8(string(said), "\uFFFD")
	text = c.secrets.Replace(text)
	if len(text) > maxQuote {
		text = strings.ToValidUTF8(text[:maxQuote], "")
	}
	return fmt.Errorf("%.200s: %s", c.secrets.Replace(about), text)
}

// WithQuote returns a copy of shown whose cause is also what the upstream said, as [Client.Quote] has it.
func (c *Client) WithQuote(shown *chat.Error, about string, said []byte) *chat.Error {
	cause := c.Quote(about, said)
	if shown.Cause != nil {
		cause = fmt.Errorf("%w: %w", shown.Cause, cause)
	}
	return shown.WithCause(cause)
}
