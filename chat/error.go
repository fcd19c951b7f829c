package chat

import (
	"errors"
	"time"
)

// Code is an error code of the protocol.
type Code string

// The error codes of the protocol.
const (
	CodeInvalidJSON        Code = "invalid_json"
	CodeInvalidRequest     Code = "invalid_request"
	CodeInvalidMessage     Code = "invalid_message"
	CodeUnknownType        Code = "unknown_type"
	CodeMessageTooLarge    Code = "message_too_large"
	CodeUnauthenticated    Code = "unauthenticated"
	CodeForbidden          Code = "forbidden"
	CodeOriginForbidden    Code = "origin_forbidden"
	CodeSessionNotFound    Code = "session_not_found"
	CodeSessionMismatch    Code = "session_mismatch"
	CodeSessionNotOpen     Code = "session_not_open"
	CodeSessionEnded       Code = "session_ended"
	CodeSessionBusy        Code = "session_busy"
	CodeMessageConflict    Code = "message_conflict"
	CodeResponseInProgress Code = "response_in_progress"
	CodeTakeoverConflict   Code = "takeover_conflict"
	CodeRateLimited        Code = "rate_limited"
	CodeConnectionLimit    Code = "connection_limit"
	CodeModelNotFound      Code = "model_not_found"
	CodeLLMTimeout         Code = "llm_timeout"
	CodeLLMUnavailable     Code = "llm_unavailable"
	CodeLLMRejected        Code = "llm_rejected"
	CodeContentFiltered    Code = "content_filtered"
	CodeBudgetExceeded     Code = "budget_exceeded"
	CodeStorageUnavailable Code = "storage_unavailable"
	CodeServerDraining     Code = "server_draining"
	CodeInternal           Code = "internal"
)

// Retryable reports whether the same request may succeed later without being changed.
func (c Code) Retryable() bool {
	switch c {
	case CodeSessionBusy, CodeResponseInProgress, CodeTakeoverConflict, CodeRateLimited, CodeConnectionLimit,
		CodeLLMTimeout, CodeLLMUnavailable, CodeBudgetExceeded, CodeStorageUnavailable, CodeServerDraining,
		CodeInternal:
		return true
	}
	return false
}

// Error is an error that is safe to show to a client. What must not be shown is its cause, which reaches the log
// only. Any other error reaches the client as CodeInternal.
type Error struct {
	Code       Code
	Message    string        // for people; no secret, no stack trace, no provider's raw answer
	RetryAfter time.Duration // 0: not known
	Field      string        // the field that is wrong, for CodeInvalidMessage
	TraceID    string        // of the trace that it came up in; empty: there is none
	Cause      error         // for the log; nil where there is nothing to add
}

// NewError makes an error of a code with a message for people.
func NewError(code Code, message string) *Error { return &Error{Code: code, Message: message} }

// InvalidField makes the error for a frame or request with a field that is not as the protocol says.
func InvalidField(field, message string) *Error {
	return &Error{Code: CodeInvalidMessage, Field: field, Message: message}
}

// WithCause returns a copy of e that has cause, for the log.
func (e *Error) WithCause(cause error) *Error {
	c := *e
	c.Cause = cause
	return &c
}

// Error gives the code, the message and the cause: for logs, not for clients.
func (e *Error) Error() string {
	s := string(e.Code) + ": " + e.Message
	if e.Field != "" {
		s = string(e.Code) + " (" + e.Field + "): " + e.Message
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is makes errors.Is match any error of the same code, so that a bare NewError can be a sentinel.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Message == "" && t.Cause == nil
}

// AsError finds the error to show for err: the [Error] in its chain, else one of CodeInternal that has err as its
// cause. It returns nil for nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if shown, ok := errors.AsType[*Error](err); ok {
		return shown
	}
	return &Error{Code: CodeInternal, Message: "something went wrong on the server", Cause: err}
}
