package openai

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/parley-chat/parley/chat"
)

// What people are told. Why, and by whom, is in the cause and stays in the log.
var (
	unavailable = chat.NewError(chat.CodeLLMUnavailable, "the model cannot be reached right now")
	overloaded  = chat.NewError(chat.CodeLLMUnavailable, "the model has too much to do right now")
	garbled     = chat.NewError(chat.CodeLLMUnavailable, "the model's provider sent what cannot be understood")
	cutOff      = chat.NewError(chat.CodeLLMUnavailable, "the model's answer was cut off")
	rejected    = chat.NewError(chat.CodeLLMRejected, "the model's provider refused the request")
	credentials = chat.NewError(chat.CodeLLMRejected, "the model's provider refused the server's credentials")
	toolCall    = chat.NewError(chat.CodeLLMRejected, "the model asked for a tool, and there are none here")
	tooLong     = chat.NewError(chat.CodeLLMRejected, "the model's answer was too long")
	filtered    = chat.NewError(chat.CodeContentFiltered, "the provider's content filter refused the request")
)

// codeContentFilter is what OpenAI and Azure call the refusal of a prompt.
const codeContentFilter = "content_filter"

const (
	maxErrorBody  = 16 << 10 // read of an answer that is no success
	maxQuote      = 2 << 10  // of it in a cause
	maxRetryAfter = time.Hour
)

// refusal is the error that an answer with another status than 200 stands for.
func (p *Provider) refusal(response *http.Response, body []byte) error {
	var wire struct {
		Error wireError `json:"error"`
	}
	_ = json.Unmarshal(body, &wire) // a body of another shape has no code
	shown := statusError(response.StatusCode)
	if wire.Error.Code == codeContentFilter && shown.Code == chat.CodeLLMRejected {
		shown = filtered
	}
	shown = shown.WithCause(p.quote(response.Status, body))
	if shown.Code.Retryable() {
		shown.RetryAfter = retryAfter(response.Header.Get("Retry-After"), time.Now())
	}
	return shown
}

// failure is the error that the code in an error event stands for.
func failure(code errorCode) *chat.Error {
	if code == codeContentFilter {
		return filtered
	}
	if status, err := strconv.Atoi(string(code)); err == nil {
		return statusError(status)
	}
	return cutOff
}

// statusError tells the statuses that may be others next time from those that will not.
func statusError(status int) *chat.Error {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return credentials
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

// quote makes a cause of what the upstream said: bounded, and without the key, which some repeat.
func (p *Provider) quote(about string, said []byte) error {
	text := strings.ToValidUTF8(string(said), "\uFFFD")
	if p.apiKey != "" {
		text = strings.ReplaceAll(text, p.apiKey, "[key]")
	}
	if len(text) > maxQuote {
		text = strings.ToValidUTF8(text[:maxQuote], "")
	}
	return fmt.Errorf("%s: %s", about, text)
}
