package openai

import (
	"encoding/json"

	"github.com/parley-chat/parley/chat"
)

// wireChunk is what is read of an event, a chat.completion.chunk of the API reference.
type wireChunk struct {
	Choices []struct {
		Delta struct {
			Content          string `json:"content"`
			ReasoningContent string `json:"reasoning_content"` // llama.cpp, DeepSeek, older vLLM
			Reasoning        string `json:"reasoning"`         // OpenRouter, Ollama, newer vLLM
		} `json:"delta"`
		FinishReason string `json:"finish_reason"`
	} `json:"choices"`
	Usage *struct {
		PromptTokens     int `json:"prompt_tokens"`
		CompletionTokens int `json:"completion_tokens"`
	} `json:"usage"`

	Error  json.RawMessage `json:"error"`
	Object string          `json:"object"`
	Code   errorCode       `json:"code"`
}

// wireError is the object under "error", in an event or as the body of an answer that is no success.
type wireError struct {
	Code errorCode `json:"code"`
}

// errorCode is a word (OpenAI), a status (OpenRouter, vLLM) or null.
type errorCode string

func (c *errorCode) UnmarshalJSON(data []byte) error {
	var word string
	if json.Unmarshal(data, &word) != nil {
		word = string(data)
	}
	*c = errorCode(word)
	return nil
}

// decode reads one event. What it does not know it passes over: providers add fields and kinds of chunks as they like.
func (p *Provider) decode(data []byte) (chat.Chunk, error) {
	var wire wireChunk
	if err := json.Unmarshal(data, &wire); err != nil {
		return chat.Chunk{}, garbled.WithCause(p.quote(err.Error(), data))
	}
	if len(wire.Error) > 0 && string(wire.Error) != "null" {
		var body wireError
		_ = json.Unmarshal(wire.Error, &body) // Ollama's is a string and has no code
		return chat.Chunk{}, failure(body.Code).WithCause(p.quote("error event", data))
	}
	if wire.Object == "error" { // older vLLM: the event is the error itself
		return chat.Chunk{}, failure(wire.Code).WithCause(p.quote("error event", data))
	}

	var chunk chat.Chunk
	if wire.Usage != nil {
		chunk.Usage = &chat.Usage{
			InputTokens:  wire.Usage.PromptTokens,
			OutputTokens: wire.Usage.CompletionTokens,
		}
	}
	if len(wire.Choices) == 0 { // the usage, or Azure's verdict on the prompt
		return chunk, nil
	}
	choice := wire.Choices[0]
	chunk.Text = choice.Delta.Content
	chunk.Reasoning = choice.Delta.ReasoningContent
	if chunk.Reasoning == "" { // some servers send both, with the same text
		chunk.Reasoning = choice.Delta.Reasoning
	}
	switch choice.FinishReason {
	case "":
	case "length":
		chunk.FinishReason = chat.FinishLength
	case "content_filter":
		chunk.FinishReason = chat.FinishContentFilter
	case "tool_calls", "function_call":
		return chat.Chunk{}, toolCall
	case "error", "abort": // OpenRouter and vLLM, where the answer broke on their side
		return chat.Chunk{}, cutOff.WithCause(p.quote("finish reason "+choice.FinishReason, data))
	default: // stop, and what others call it
		chunk.FinishReason = chat.FinishStop
	}
	return chunk, nil
}
