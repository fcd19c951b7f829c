package dify

import (
	"encoding/json"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/jsonscan"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

// wireEvent is what is read of every event ("SSE Streaming").
type wireEvent struct {
	Event          string `json:"event"`
	TaskID         string `json:"task_id"`
	ConversationID string `json:"conversation_id"`
}

// wireMessage is what is read of a message or an agent_message besides.
type wireMessage struct {
	Answer string `json:"answer"`
}

// wireReasoning is what is read of a reasoning_chunk besides.
type wireReasoning struct {
	Data struct {
		Reasoning string `json:"reasoning"`
	} `json:"data"`
}

// wireEnd is what is read of a message_end besides.
type wireEnd struct {
	Metadata struct {
		Usage struct {
			PromptTokens     *int `json:"prompt_tokens"`
			CompletionTokens *int `json:"completion_tokens"`
		} `json:"usage"`
	} `json:"metadata"`
}

// answer is what has to be known of an answer's events when the next one comes.
type answer struct {
	client *upstream.Client
	asked  question
	next   state // its ConversationID is empty until Dify has told it

	limit int    // of its tokens, which Dify is not told; 0: none
	size  int    // in bytes, so far
	task  string // empty: not known yet
	agent bool   // there was an agent_message
	ended bool   // at Dify, well or badly
	lost  bool   // it has failed because Dify does not have the conversation
}

// decode reads one event. The events and apps that there are grow in number: unknown ones are passed over.
func (a *answer) decode(data []byte) (chunk chat.Chunk, done bool, err error) {
	chunk, ok := a.decodeDelta(data)
	if !ok {
		chunk, done, err = a.decodeAny(data)
	}
	a.size += len(chunk.Text) + len(chunk.Reasoning)
	if err == nil && !done && a.limit > 0 && a.size >= a.limit*bytesPerToken {
		chunk.FinishReason, done = chat.FinishLength, true // and the task is stopped
	}
	return chunk, done, err
}

// bytesPerToken is how much text makes a token, about.
const bytesPerToken = 4

// deltaPaths are all that [answer.decodeAny] reads of the events that carry text or reasoning.
var deltaPaths = jsonscan.NewPaths("event", "task_id", "conversation_id", "answer", "data.reasoning")

// What is found at deltaPaths, in their order.
const (
	atEvent = iota
	atTaskID
	atConversationID
	atAnswer
	atReasoning
	deltaValues
)

// decodeDelta reads an event that carries text or reasoning on, as nearly all do, without encoding/json. It returns
// false for all others, the first one among them, and wherever it is not sure that [answer.decodeAny] gives the same.
func (a *answer) decodeDelta(data []byte) (chunk chat.Chunk, ok bool) {
	var found [deltaValues][]byte
	if a.task == "" || a.next.ConversationID == "" || !deltaPaths.Scan(data, found[:]) ||
		!isText(found[atTaskID]) || !isText(found[atConversationID]) {
		return chat.Chunk{}, false
	}
	switch string(found[atEvent]) {
	case `"message"`, `"agent_message"`:
		if a.agent != (string(found[atEvent]) == `"agent_message"`) {
			return chat.Chunk{}, false
		}
		chunk.Text, ok = jsonscan.String(found[atAnswer])
	case `"reasoning_chunk"`:
		chunk.Reasoning, ok = jsonscan.String(found[atReasoning])
	}
	return chunk, ok
}

func isText(value []byte) bool { return jsonscan.IsNull(value) || value[0] == '"' }

// decodeAny reads any event, with encoding/json.
func (a *answer) decodeAny(data []byte) (chunk chat.Chunk, done bool, err error) {
	var wire wireEvent
	if err := json.Unmarshal(data, &wire); err != nil {
		return chat.Chunk{}, false, a.garbled(err, data)
	}
	if a.task == "" {
		a.task = wire.TaskID
	}
	switch wire.Event {
	case "message", "agent_message", "reasoning_chunk":
		chunk, err = a.delta(wire.Event, data)
	case "message_replace": // what was shown cannot be taken back ("Send Chat Message": by output moderation)
		chunk.FinishReason = chat.FinishContentFilter
	case "message_end":
		a.ended, done = true, true
		chunk.Usage = usage(data)
	case "workflow_paused": // and message_end does not come
		err = a.client.WithQuote(paused, "event workflow_paused", data)
	case "error":
		a.ended = true
		err = a.failure(data)
	}
	if err == nil && a.next.ConversationID == "" && wire.ConversationID != "" {
		a.next.ConversationID = wire.ConversationID
		chunk.State = a.next.String()
	}
	return chunk, done, err
}

func (a *answer) delta(event string, data []byte) (chunk chat.Chunk, err error) {
	if event == "reasoning_chunk" {
		var wire wireReasoning
		if err := json.Unmarshal(data, &wire); err != nil {
			return chat.Chunk{}, a.garbled(err, data)
		}
		return chat.Chunk{Reasoning: wire.Data.Reasoning}, nil
	}
	if event == "message" && a.agent {
		return chat.Chunk{}, nil // the whole of it, once more: so ends an agent of the new kind
	}
	a.agent = event == "agent_message"
	var wire wireMessage
	if err := json.Unmarshal(data, &wire); err != nil {
		return chat.Chunk{}, a.garbled(err, data)
	}
	return chat.Chunk{Text: wire.Answer}, nil
}

// usage gives the tokens of the whole answer; nil: Dify does not know them, or only their sum. The answer is whole
// without them too.
func usage(data []byte) *chat.Usage {
	var wire wireEnd
	u := &wire.Metadata.Usage
	if json.Unmarshal(data, &wire) != nil || u.PromptTokens == nil || u.CompletionTokens == nil {
		return nil
	}
	return &chat.Usage{InputTokens: *u.PromptTokens, OutputTokens: *u.CompletionTokens}
}

func (a *answer) garbled(err error, data []byte) error {
	return a.client.WithQuote(upstream.Garbled, err.Error(), data)
}
