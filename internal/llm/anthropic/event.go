package anthropic

import (
	"encoding/json"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/jsonscan"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

// wireEvent is what is read of an event ("Streaming messages").
type wireEvent struct {
	Type    string `json:"type"`
	Message struct {
		Usage json.RawMessage `json:"usage"`
	} `json:"message"` // of message_start
	ContentBlock struct {
		Type string `json:"type"`
	} `json:"content_block"` // of content_block_start
	Delta struct {
		Type       string `json:"type"`
		Text       string `json:"text"`
		Thinking   string `json:"thinking"`
		StopReason string `json:"stop_reason"`
	} `json:"delta"` // of content_block_delta and message_delta
	Usage json.RawMessage `json:"usage"` // of message_delta
	Error wireError       `json:"error"` // of error
}

// wireUsage counts from the beginning of the answer. What the cache has is no part of the input, but beside it.
type wireUsage struct {
	InputTokens              int `json:"input_tokens"`
	CacheCreationInputTokens int `json:"cache_creation_input_tokens"`
	CacheReadInputTokens     int `json:"cache_read_input_tokens"`
	OutputTokens             int `json:"output_tokens"`
}

// answer is what has to be known of an answer's events when the next one comes.
type answer struct {
	client *upstream.Client
	usage  wireUsage
}

// decode reads one event. Unknown ones, and unknown kinds of blocks and deltas, are passed over ("Versions").
func (a *answer) decode(data []byte) (chunk chat.Chunk, done bool, err error) {
	if chunk, ok := decodeDelta(data); ok {
		return chunk, false, nil
	}
	return a.decodeAny(data)
}

// deltaPaths are all that [answer.decodeAny] reads of a content_block_delta, and what it would stumble over.
var deltaPaths = jsonscan.NewPaths("type", "delta.type", "delta.text", "delta.thinking", "delta.stop_reason",
	"message", "content_block", "error")

// What is found at deltaPaths, in their order.
const (
	atType = iota
	atDeltaType
	atText
	atThinking
	atStopReason
	atMessage
	atContentBlock
	atError
	deltaValues
)

// decodeDelta reads an event that carries text or thinking on, as nearly all do, without encoding/json. It returns
// false for all others, and wherever it is not sure that [answer.decodeAny] gives the same.
func decodeDelta(data []byte) (chat.Chunk, bool) {
	var found [deltaValues][]byte
	if !deltaPaths.Scan(data, found[:]) || string(found[atType]) != `"content_block_delta"` {
		return chat.Chunk{}, false
	}
	for _, foreign := range found[atStopReason:] {
		if !jsonscan.IsNull(foreign) {
			return chat.Chunk{}, false
		}
	}
	text, ok1 := jsonscan.String(found[atText])
	thinking, ok2 := jsonscan.String(found[atThinking])
	if !ok1 || !ok2 {
		return chat.Chunk{}, false
	}
	switch string(found[atDeltaType]) {
	case `"text_delta"`:
		return chat.Chunk{Text: text}, true
	case `"thinking_delta"`:
		return chat.Chunk{Reasoning: thinking}, true
	}
	return chat.Chunk{}, false
}

// decodeAny reads any event, with encoding/json.
func (a *answer) decodeAny(data []byte) (chunk chat.Chunk, done bool, err error) {
	var wire wireEvent
	if err := json.Unmarshal(data, &wire); err != nil {
		return chat.Chunk{}, false, a.garbled(err, data)
	}
	switch wire.Type {
	case "message_start":
		chunk.Usage, err = a.count(wire.Message.Usage, data)
	case "content_block_start":
		if wire.ContentBlock.Type == "tool_use" {
			err = upstream.ToolCall // without waiting for what the tool is to be given
		}
	case "content_block_delta":
		switch wire.Delta.Type {
		case "text_delta":
			chunk.Text = wire.Delta.Text
		case "thinking_delta":
			chunk.Reasoning = wire.Delta.Thinking
		}
	case "message_delta":
		return a.finish(wire, data)
	case "message_stop":
		done = true
	case "error":
		err = a.client.WithQuote(wire.Error.meaning(), "error event", data)
	}
	return chunk, done, err
}

// finish reads a message_delta ("Stop reasons and fallback"). It is as good an end mark as message_stop, which follows.
func (a *answer) finish(wire wireEvent, data []byte) (chunk chat.Chunk, done bool, err error) {
	switch wire.Delta.StopReason {
	case "":
	case "max_tokens", "model_context_window_exceeded":
		chunk.FinishReason = chat.FinishLength
	case "refusal":
		chunk.FinishReason = chat.FinishContentFilter
	case "tool_use":
		return chat.Chunk{}, false, upstream.ToolCall
	case "pause_turn": // to be asked to go on, as only those are who have given the model tools of the API
		return chat.Chunk{}, false, a.client.WithQuote(upstream.CutOff, "stop reason pause_turn", data)
	default: // end_turn, stop_sequence, and those to come
		chunk.FinishReason = chat.FinishStop
	}
	chunk.Usage, err = a.count(wire.Usage, data)
	return chunk, false, err
}

// count gives the usage as far as it is known; nil: the event tells nothing of it. A count stays until there is another:
// they are totals, and not all of them are repeated.
func (a *answer) count(usage json.RawMessage, data []byte) (*chat.Usage, error) {
	if jsonscan.IsNull(usage) {
		return nil, nil
	}
	if err := json.Unmarshal(usage, &a.usage); err != nil {
		return nil, a.garbled(err, data)
	}
	return &chat.Usage{
		InputTokens:  a.usage.InputTokens + a.usage.CacheCreationInputTokens + a.usage.CacheReadInputTokens,
		OutputTokens: a.usage.OutputTokens,
	}, nil
}

func (a *answer) garbled(err error, data []byte) error {
	return a.client.WithQuote(upstream.Garbled, err.Error(), data)
}
