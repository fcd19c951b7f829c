package llmtest

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// anthropic is Anthropic's Messages API, as of the pages "Streaming messages", "Errors" and "Stop reasons" of its
// documentation.
type anthropic struct {
	e     *exchange
	block string // the type of the open content block; empty: none is open
	index int    // its index, or that of the next one
}

// requestID is in the header and the errors of every answer.
const requestID = "req_011CT1a2b3c4d5e6f7g8h9i0"

func newAnthropic(e *exchange) dialect { return &anthropic{e: e} }

func (a *anthropic) read(body []byte) error {
	var wire struct {
		Request
		System content `json:"system"` // hides the one of Request, which takes no blocks
	}
	err := json.Unmarshal(body, &wire)
	a.e.request = wire.Request
	a.e.request.System = string(wire.System)
	return err
}

func (a *anthropic) admit() bool {
	if a.e.request.APIKey == "" && a.e.request.Authorization == "" {
		a.refuse(http.StatusUnauthorized, "", "x-api-key header is required")
		return false
	}
	if why := invalid(a.e.request); why != "" {
		a.refuse(http.StatusBadRequest, "", why)
		return false
	}
	return true
}

// invalid says what is wrong with the request; empty: nothing.
func invalid(r Request) string {
	switch {
	case r.Version == "":
		return "anthropic-version: header is required"
	case r.MaxTokens < 1:
		return "max_tokens: Field required"
	case len(r.Messages) == 0:
		return "messages: at least one message is required"
	}
	for i, m := range r.Messages {
		if m.Role != "user" && m.Role != "assistant" {
			return fmt.Sprintf("messages.%d: unexpected role %q; the system prompt is a parameter", i, m.Role)
		}
		if m.Content == "" && (m.Role == "user" || i < len(r.Messages)-1) {
			return fmt.Sprintf("messages.%d: only the last message of the assistant may be empty", i)
		}
	}
	return ""
}

func (a *anthropic) refuse(status int, _, message string) {
	a.e.w.Header().Set("Request-Id", requestID)
	a.e.writeError(status, `{"type":"error","error":`+a.problem(errorType(status), message)+
		`,"request_id":"`+requestID+`"}`)
}

func (a *anthropic) problem(kind, message string) string {
	return `{"type":"` + kind + `","message":` + a.e.quote(message) + `}`
}

func errorType(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "authentication_error"
	case http.StatusPaymentRequired:
		return "billing_error"
	case http.StatusForbidden:
		return "permission_error"
	case http.StatusNotFound:
		return "not_found_error"
	case http.StatusConflict:
		return "conflict_error"
	case http.StatusRequestEntityTooLarge:
		return "request_too_large"
	case http.StatusTooManyRequests:
		return "rate_limit_error"
	case http.StatusGatewayTimeout:
		return "timeout_error"
	case 529:
		return "overloaded_error"
	}
	if status >= 400 && status < 500 {
		return "invalid_request_error"
	}
	return "api_error"
}

func (a *anthropic) start() {
	a.e.w.Header().Set("Request-Id", requestID)
	a.e.open()
	usage := ""
	if !a.e.unmetered {
		input, _ := a.e.tokens()
		usage = fmt.Sprintf(`,"usage":{"input_tokens":%d,"cache_creation_input_tokens":0,`+
			`"cache_read_input_tokens":0,"output_tokens":1,"service_tier":"standard"}`, input)
	}
	a.event("message_start", `"message":{"model":`+a.e.quote(a.e.request.Model)+`,"id":"msg_1","type":"message",`+
		`"role":"assistant","content":[],"stop_reason":null,"stop_sequence":null`+usage+`}`)
}

func (a *anthropic) text(text string) {
	a.open("text", `,"text":""`)
	a.delta("text_delta", `"text":`+a.e.quote(text))
}

func (a *anthropic) reasoning(text string) {
	a.open("thinking", `,"thinking":"","signature":""`)
	a.delta("thinking_delta", `"thinking":`+a.e.quote(text))
}

func (a *anthropic) toolCall() {
	a.open("tool_use", `,"id":"toolu_1","name":"lookup","input":{}`)
	a.delta("input_json_delta", `"partial_json":""`)
	a.delta("input_json_delta", `"partial_json":"{\"key\":1}"`)
	a.close()
}

func (a *anthropic) ping() { a.event("ping", "") }

func (a *anthropic) finish(why reason) {
	a.close()
	stopReason, stopSequence := "end_turn", "null"
	switch why {
	case length:
		stopReason = "max_tokens"
	case filter, refusal:
		stopReason = "refusal"
	case tools:
		stopReason = "tool_use"
	case pause:
		stopReason = "pause_turn"
	case sequence:
		stopReason, stopSequence = "stop_sequence", `"STOP"`
	case window:
		stopReason = "model_context_window_exceeded"
	}
	usage := ""
	if !a.e.unmetered {
		_, output := a.e.tokens()
		usage = fmt.Sprintf(`,"usage":{"output_tokens":%d}`, output)
	}
	a.event("message_delta", `"delta":{"stop_reason":"`+stopReason+`","stop_sequence":`+stopSequence+`}`+usage)
}

func (a *anthropic) usage() {}

func (a *anthropic) end() {
	a.close()
	a.event("message_stop", "")
}

func (a *anthropic) fault(overloaded bool) {
	kind := "api_error"
	if overloaded {
		kind = "overloaded_error"
	}
	a.event("error", `"error":`+a.problem(kind, Detail))
}

func (a *anthropic) garbage() {
	a.e.event("content_block_delta", `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":`)
}

// open begins a content block of the kind, unless one is open. After the first one Anthropic sends a ping.
func (a *anthropic) open(kind, fields string) {
	if a.block == kind {
		return
	}
	a.close()
	a.block = kind
	a.event("content_block_start",
		fmt.Sprintf(`"index":%d,"content_block":{"type":"%s"%s}`, a.index, kind, fields))
	if a.index == 0 {
		a.ping()
	}
}

// close ends the content block that is open.
func (a *anthropic) close() {
	if a.block == "" {
		return
	}
	if a.block == "thinking" {
		a.delta("signature_delta", `"signature":"EqQBCgIYAhIM"`)
	}
	a.event("content_block_stop", fmt.Sprintf(`"index":%d`, a.index))
	a.block = ""
	a.index++
}

func (a *anthropic) delta(kind, field string) {
	a.event("content_block_delta", fmt.Sprintf(`"index":%d,"delta":{"type":"%s",%s}`, a.index, kind, field))
}

// event sends an event, whose data repeats its name as its type.
func (a *anthropic) event(name, fields string) {
	if fields != "" {
		fields = "," + fields
	}
	a.e.event(name, `{"type":"`+name+`"`+fields+`}`)
}
