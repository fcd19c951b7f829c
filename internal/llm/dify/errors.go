package dify

import (
	"encoding/json"
	"net/http"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

// paused is for a workflow that asks a person to go on, who cannot do so here. Asked again it would stop there again.
var paused = chat.NewError(chat.CodeLLMRejected, "the application waits for somebody, who cannot be asked here")

// wireError is the body of an answer that is no success, and what is read of an event error ("Errors & Rate Limits").
type wireError struct {
	Code   string `json:"code"`
	Status int    `json:"status"`
}

// refused reads the body of an answer that is no success.
func (a *answer) refused(status int, body []byte) *chat.Error {
	var wire wireError
	_ = json.Unmarshal(body, &wire) // the page of a proxy has no code
	wire.Status = status
	return a.meaning(wire)
}

// failure is the error that an event stands for. The status of its answer was 200.
func (a *answer) failure(data []byte) error {
	var wire wireError
	if err := json.Unmarshal(data, &wire); err != nil {
		return a.garbled(err, data)
	}
	return a.client.WithQuote(a.meaning(wire), "error event", data)
}

// meaning is the error to show. The code is looked at where the status says less, or something else.
func (a *answer) meaning(e wireError) *chat.Error {
	switch e.Code {
	case "conversation_completed":
		a.lost = a.asked.conversation != ""
	case "completion_request_error": // a 400, whatever the model behind Dify said: it may have been too busy
		return upstream.StatusError(http.StatusBadGateway)
	case "app_unavailable", "not_chat_app", "provider_not_initialize", "provider_quota_exceeded",
		"model_currently_not_support", // 400, each of them about the application and not the request
		"rate_limit_error":            // 429, but a quota, while too_many_requests passes
		return upstream.StatusError(http.StatusPaymentRequired)
	}
	if e.Status == http.StatusNotFound {
		a.lost = a.asked.conversation != "" // the code is the same for all that is not found
	}
	return upstream.StatusError(e.Status)
}
