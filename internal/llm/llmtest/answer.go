package llmtest

import (
	"context"
	"testing"

	"github.com/parley-chat/parley/chat"
)

// Answer is all that a provider gave.
type Answer struct {
	Text         string            `json:"text"`
	Reasoning    string            `json:"reasoning"`
	FinishReason chat.FinishReason `json:"finish_reason"`
	Usage        *chat.Usage       `json:"usage"` // the last one
	State        string            `json:"state"` // the last one
}

// Question is a request with one message of the user, of three words.
func Question(model string) chat.Request {
	return chat.Request{
		SessionID: "session-1",
		UserID:    "user-1",
		MessageID: "answer-1",
		Model:     model,
		Messages:  []chat.PromptMessage{{ID: "question-1", Role: chat.RoleUser, Text: "How are you?"}},
	}
}

// Ask streams an answer to its end, or to the error that it ends with. The test fails where the sequence is none that a
// [chat.Provider] may give.
func Ask(ctx context.Context, tb testing.TB, p chat.Provider, request chat.Request) (a Answer, err error) {
	tb.Helper()
	for chunk, e := range p.Stream(ctx, request) {
		switch {
		case err != nil:
			tb.Errorf("%+v, %v after the error %v", chunk, e, err)
		case e != nil && chunk != chat.Chunk{}:
			tb.Errorf("%+v beside the error %v", chunk, e)
		case e != nil && a.FinishReason != "":
			tb.Errorf("the error %v after the finish reason", e)
		case a.FinishReason != "" && (chunk.Text != "" || chunk.Reasoning != "" || chunk.FinishReason != ""):
			tb.Errorf("%+v after the finish reason", chunk)
		}
		err = e
		a.Text += chunk.Text
		a.Reasoning += chunk.Reasoning
		a.FinishReason += chunk.FinishReason
		if chunk.Usage != nil {
			a.Usage = chunk.Usage
		}
		if chunk.State != "" {
			a.State = chunk.State
		}
	}
	return a, err
}
