package anthropic

import (
	"net/http"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

// statuses are the HTTP statuses that the types of errors have, or mean, where they come as an event ("Errors").
var statuses = map[string]int{
	"invalid_request_error": http.StatusBadRequest,
	"authentication_error":  http.StatusUnauthorized,
	"billing_error":         http.StatusPaymentRequired,
	"permission_error":      http.StatusForbidden,
	"not_found_error":       http.StatusNotFound,
	"conflict_error":        http.StatusInternalServerError, // 409, but Anthropic's own clients ask again
	"request_too_large":     http.StatusRequestEntityTooLarge,
	"rate_limit_error":      http.StatusTooManyRequests,
	"api_error":             http.StatusInternalServerError,
	"timeout_error":         http.StatusGatewayTimeout,
	"overloaded_error":      529,
}

// wireError is the object under "error" in an event.
type wireError struct {
	Type string `json:"type"`
}

// meaning is the error to show; for an unknown type that of a broken upstream.
func (e wireError) meaning() *chat.Error {
	if status, ok := statuses[e.Type]; ok {
		return upstream.StatusError(status)
	}
	return upstream.CutOff
}

// refused knows the one status that means something else here than elsewhere.
func refused(status int, _ []byte) *chat.Error {
	if status == http.StatusConflict {
		return wireError{Type: "conflict_error"}.meaning()
	}
	return nil
}
