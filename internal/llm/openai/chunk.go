package openai

import (
	"cmp"
	"encoding/json"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/jsonscan"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

// wireChunk is what is read of an event, a chat.completion.chunk of the API reference.
type wireChunk struct {
	Choices []struct {
		Delta struct {
			Content          string `json:"content"`
			ReasoningContent string `json:"reasoning_content"` // llama.cpp, DeepSeek, older vLLM
			Reasoning        string `json:"reasoning"`         // OpenRouter, Ollama, newer vLLM
			Refusal          string `json:"refusal"`           // what OpenAI's models say instead of content

			ToolCalls    json.RawMessage `json:"tool_calls"`
			FunctionCall json.RawMessage `json:"function_call"` // what came before tool_calls
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
	if chunk, ok := decodeDelta(data); ok {
		return chunk, nil
	}
	return p.decodeAny(data)
}

// deltaPaths are all that [Provider.decodeAny] reads, but for the code, which only counts beside an error.
var deltaPaths = jsonscan.NewPaths("choices.0.delta.content", "choices.0.delta.reasoning_content",
	"choices.0.delta.reasoning", "choices.0.delta.refusal", "choices.0.delta.tool_calls", "choices.0.delta.function_call",
	"choices.0.finish_reason", "choices.1",
	"usage", "usage.prompt_tokens", "usage.completion_tokens", "error", "object")

// What is found at deltaPaths, in their order.
const (
	atContent = iota
	atReasoningContent
	atReasoning
	atRefusal
	atToolCalls
	atFunctionCall
	atFinishReason
	atSecondChoice
	atUsage
	atPromptTokens
	atCompletionTokens
	atError
	atObject
	deltaValues
)

// decodeDelta reads an event that only carries text or reasoning on, as nearly all do, without encoding/json. It
// returns false for an error, a finish reason, and wherever it is not sure that [Provider.decodeAny] gives the same.
func decodeDelta(data []byte) (chat.Chunk, bool) {
	var found [deltaValues][]byte
	if !deltaPaths.Scan(data, found[:]) || found[atSecondChoice] != nil || !jsonscan.IsNull(found[atError]) ||
		isCall(found[atToolCalls]) || isCall(found[atFunctionCall]) {
		return chat.Chunk{}, false
	}
	switch string(found[atObject]) {
	case "", "null", `""`, `"chat.completion.chunk"`: // "" is Azure
	default:
		return chat.Chunk{}, false
	}
	text, ok1 := jsonscan.String(found[atContent])
	reasoningContent, ok2 := jsonscan.String(found[atReasoningContent])
	reasoning, ok3 := jsonscan.String(found[atReasoning])
	refusal, ok4 := jsonscan.String(found[atRefusal])
	finishReason, ok5 := jsonscan.String(found[atFinishReason])
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || finishReason != "" {
		return chat.Chunk{}, false
	}
	chunk := chat.Chunk{Text: cmp.Or(text, refusal), Reasoning: cmp.Or(reasoningContent, reasoning)}
	if jsonscan.IsNull(found[atUsage]) {
		return chunk, true
	}
	// vLLM has it on every chunk where it is set to continuous_usage_stats.
	input, ok1 := jsonscan.Int(found[atPromptTokens])
	output, ok2 := jsonscan.Int(found[atCompletionTokens])
	chunk.Usage = &chat.Usage{InputTokens: input, OutputTokens: output}
	return chunk, ok1 && ok2
}

// isCall reports whether a field calls for a tool. Some servers have it in every chunk, empty.
func isCall(field []byte) bool { return !jsonscan.IsNull(field) && string(field) != "[]" }

// decodeAny reads any event, with encoding/json.
func (p *Provider) decodeAny(data []byte) (chat.Chunk, error) {
	var wire wireChunk
	if err := json.Unmarshal(data, &wire); err != nil {
		return chat.Chunk{}, upstream.Garbled.WithCause(p.client.Quote(err.Error(), data))
	}
	if len(wire.Error) > 0 && string(wire.Error) != "null" {
		var body wireError
		_ = json.Unmarshal(wire.Error, &body) // Ollama's is a string and has no code
		return chat.Chunk{}, p.client.WithQuote(failure(body.Code), "error event", data)
	}
	if wire.Object == "error" { // older vLLM: the event is the error itself
		return chat.Chunk{}, p.client.WithQuote(failure(wire.Code), "error event", data)
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
	if isCall(choice.Delta.ToolCalls) || isCall(choice.Delta.FunctionCall) {
		return chat.Chunk{}, upstream.ToolCall // whatever reason it finishes for: not all say tool_calls
	}
	chunk.Text = cmp.Or(choice.Delta.Content, choice.Delta.Refusal)
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
		return chat.Chunk{}, upstream.ToolCall
	case "error", "abort": // OpenRouter and vLLM, where the answer broke on their side
		return chat.Chunk{}, upstream.CutOff.WithCause(p.client.Quote("finish reason "+choice.FinishReason, data))
	default: // stop, and what others call it
		chunk.FinishReason = chat.FinishStop
	}
	return chunk, nil
}
