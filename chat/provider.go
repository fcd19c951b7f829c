package chat

import (
	"context"
	"iter"
)

// Request is what a model is asked: the conversation so far, oldest first.
type Request struct {
	SessionID  string
	UserID     string // the session's owner
	MessageID  string // the ID of the answer
	Model      string // for a pool of models: the configured ID; for a provider: its own name for the model
	Messages   []PromptMessage
	Parameters Parameters
	States     map[string]string // by the provider's ID: what it gave as Chunk.State when it last answered in this session
}

// Parameters say how a model is to answer.
type Parameters struct {
	Temperature     *float64 // nil: as the provider likes
	MaxOutputTokens int      // 0: as the provider likes
}

// PromptMessage is one message of a [Request].
type PromptMessage struct {
	ID      string // the message's; empty for the system prompt
	Role    Role   // RoleAgent does not occur: an agent's message goes as the assistant's
	Text    string
	Unasked bool // a user's message that no provider has been given yet
}

// Chunk is a piece of a response as it arrives. Any of its fields may be empty.
type Chunk struct {
	Text         string
	Reasoning    string
	Provider     string       // the ID of the provider that answers; on the first chunk
	State        string       // what the provider wants to be kept with the session, and finds in Request.States next time
	FinishReason FinishReason // the provider's own end mark
	Usage        *Usage
}

// Provider streams responses of a language model.
type Provider interface {
	// Stream asks the model and yields what it answers, in order. It ends after the chunk with the end mark (usage
	// may follow it), or with an error as the last pair. An [Error] among them is shown to the client. A sequence that
	// ends with neither was cut off: what it gave is not the whole answer.
	//
	// When ctx ends the request is cancelled, its socket closed, and ctx's error is the last pair, unless the end mark
	// was there already. Leaving the loop does the same. All resources are released when the loop ends; the sequence can be used once.
	Stream(ctx context.Context, request Request) iter.Seq2[Chunk, error]
}
