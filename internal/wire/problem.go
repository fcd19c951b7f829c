package wire

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/parley-chat/parley/chat"
)

// Problem is an error as an HTTP answer: a problem document (RFC 9457) with the protocol's code.
type Problem struct {
	Title   string    `json:"title"`
	Status  int       `json:"status"`
	Detail  string    `json:"detail"`
	Code    chat.Code `json:"code"`
	Field   string    `json:"field,omitempty"`
	TraceID string    `json:"trace_id,omitempty"`
}

// WriteProblem answers a request with e, under the status of its code.
func WriteProblem(w http.ResponseWriter, e *chat.Error) { WriteProblemStatus(w, HTTPStatus(e.Code), e) }

// bodyPatience is how long the rest of a refused request's body is waited for: so that a client that still sends it gets
// the answer, and one that never will does not keep its connection.
const bodyPatience = time.Second

// Refuse is WriteProblem for a request whose body is not read: where it has one, its connection ends.
func Refuse(w http.ResponseWriter, r *http.Request, e *chat.Error) {
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyPatience)) // a test's recorder has none
	}
	WriteProblem(w, e)
}

// WriteProblemStatus answers a request with e, under a status that is more exact than that of its code. 429 and 503
// carry Retry-After (RFC 9110 §10.2.3), at least one second.
func WriteProblemStatus(w http.ResponseWriter, status int, e *chat.Error) {
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		seconds := max(1, int(math.Ceil(e.RetryAfter.Seconds())))
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer") // RFC 6750 §3
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// A failed write means that the client has gone; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(NewProblem(status, e))
}

// NewProblem gives the document for e under a status.
func NewProblem(status int, e *chat.Error) Problem {
	return Problem{
		Title: http.StatusText(status), Status: status, Detail: e.Message, Code: e.Code, Field: e.Field, TraceID: e.TraceID,
	}
}

// HTTPStatus gives the HTTP status for an error code.
func HTTPStatus(code chat.Code) int {
	switch code {
	case chat.CodeInvalidJSON, chat.CodeInvalidRequest, chat.CodeInvalidMessage, chat.CodeUnknownType,
		chat.CodeModelNotFound, chat.CodeSessionMismatch, chat.CodeSessionNotOpen:
		return http.StatusBadRequest
	case chat.CodeUnauthenticated:
		return http.StatusUnauthorized
	case chat.CodeForbidden, chat.CodeOriginForbidden:
		return http.StatusForbidden
	case chat.CodeSessionNotFound:
		return http.StatusNotFound
	case chat.CodeMessageTooLarge:
		return http.StatusRequestEntityTooLarge
	case chat.CodeMessageConflict, chat.CodeResponseInProgress, chat.CodeTakeoverConflict, chat.CodeSessionEnded:
		return http.StatusConflict
	case chat.CodeRateLimited, chat.CodeConnectionLimit, chat.CodeBudgetExceeded:
		return http.StatusTooManyRequests
	case chat.CodeContentFiltered, chat.CodeLLMRejected:
		return http.StatusUnprocessableEntity
	case chat.CodeServerDraining, chat.CodeSessionBusy, chat.CodeStorageUnavailable, chat.CodeLLMUnavailable:
		return http.StatusServiceUnavailable
	case chat.CodeLLMTimeout:
		return http.StatusGatewayTimeout
	default:
		return http.StatusInternalServerError
	}
}
