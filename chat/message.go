package chat

import "time"

// Role says on whose behalf a message speaks.
type Role string

// The roles of a message.
const (
	RoleUser      Role = "user"
	RoleAssistant Role = "assistant"
	RoleAgent     Role = "agent"
	RoleSystem    Role = "system"
)

// Status is the state of a message. All but StatusStreaming are final.
type Status string

// The states of a message.
const (
	StatusStreaming   Status = "streaming"
	StatusComplete    Status = "complete"
	StatusCancelled   Status = "cancelled"   // somebody stopped it
	StatusFailed      Status = "failed"      // Message.Error says why
	StatusInterrupted Status = "interrupted" // the server went down under it; the text so far is kept
)

// FinishReason is why a response ended, as the provider tells it.
type FinishReason string

// The reasons for which a response ends.
const (
	FinishStop          FinishReason = "stop"
	FinishLength        FinishReason = "length"
	FinishContentFilter FinishReason = "content_filter"
	FinishCancelled     FinishReason = "cancelled"
)

// Usage counts what a response cost.
type Usage struct {
	InputTokens  int  `json:"input_tokens"`
	OutputTokens int  `json:"output_tokens"`
	Estimated    bool `json:"estimated,omitempty"` // Parley's own count, for a provider that gives none
}

// Add returns the sum of two usages. It is an estimate where one of them is.
func (u Usage) Add(v Usage) Usage {
	return Usage{u.InputTokens + v.InputTokens, u.OutputTokens + v.OutputTokens, u.Estimated || v.Estimated}
}

// Message is one message of a session.
type Message struct {
	ID string // unique in its session; a user's message has the client's
	N  int64  // its number in its session: unique, rising, from 1; gaps are possible

	// Seq is its place in the session's log: its last seq. 0 means that the store does not know it (yet): it is given
	// by [Store.UpdateSession].
	Seq int64

	Role         Role
	Text         string
	Reasoning    string // what a provider streams as its thinking; never part of Text
	Status       Status
	FinishReason FinishReason
	Error        *Error // for StatusFailed
	CreatedAt    time.Time

	Author   *Author // who wrote it; nil for the assistant
	Model    string
	Provider string
	ReplyTo  string // an answer's question
	Replaces string // the message that this one takes the place of: a retry's answer, an edit
	AnswerID string // for a user's message: the ID of the answer that it is owed; empty where no model answers

	Usage        *Usage
	FirstTokenMS int64 // milliseconds from the start of the turn to the first text; 0: there was none
	DurationMS   int64 // milliseconds from the start of the turn to its end

	// Sealed: Text and Reasoning are encrypted. Only what stands between the store and its encryption sees that.
	Sealed bool
}

// SameSubmission reports whether m is what was submitted under its ID: the same author's same text.
func (m *Message) SameSubmission(author, text string) bool {
	return m.Author != nil && m.Author.ID == author && m.Text == text
}
