package openai

import (
	"encoding/json"
	"strconv"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

// codeContentFilter is what OpenAI and Azure call the refusal of a prompt.
const codeContentFilter = "content_filter"

// refused knows the refusal of a prompt from that of a request.
func refused(status int, body []byte) *chat.Error {
	var wire struct {
		Error wireError `json:"error"`
	}
	_ = json.Unmarshal(body, &wire) // a body of another shape has no code
	if wire.Error.Code == codeContentFilter && upstream.StatusError(status).Code == chat.CodeLLMRejected {
		return upstream.Filtered
	}
	return nil
}

// failure is the error that the code in an error event stands for.
func failure(code errorCode) *chat.Error {
	if code == codeContentFilter {
		return upstream.Filtered
	}
	if status, err := strconv.Atoi(string(code)); err == nil {
		return upstream.StatusError(status)
	}
	return upstream.CutOff
}
