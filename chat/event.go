package chat

import "time"

// Event is one entry of a session's log, or several that reach a reader as one.
//
// It stands for everything from From to Seq. Both are numbers of the session's log: 1, 2, 3, … without holes.
type Event struct {
	SessionID string
	From      int64 // the first seq that the event stands for; equal to Seq for a single one
	Seq       int64
	Repeat    bool // a receipt sent again: it does not move the reader's cursor
	Body      EventBody
}

// EventBody is what happened. It is one of [MessageCreated], [MessageDelta], [MessageCompleted], [SessionUpdated],
// [AgentJoined], [AgentLeft] and [SessionEnded].
type EventBody interface{ eventBody() }

// MessageCreated says that a message exists. A reader that holds a message of this ID already replaces it.
type MessageCreated struct{ Message Message }

// DeltaKind tells a response's text from its reasoning.
type DeltaKind string

// The kinds of a delta.
const (
	DeltaText      DeltaKind = "text"
	DeltaReasoning DeltaKind = "reasoning"
)

// MessageDelta is text that a response grew by.
type MessageDelta struct {
	MessageID string
	Kind      DeltaKind
	Text      string
}

// MessageCompleted ends a response. There is exactly one for each.
type MessageCompleted struct {
	MessageID    string
	Status       Status
	FinishReason FinishReason
	Usage        *Usage
	FirstTokenMS int64
	DurationMS   int64
	Length       int // of the whole text, in bytes of UTF-8
	Error        *Error
}

// SessionUpdated carries the fields that changed; nil ones did not.
type SessionUpdated struct {
	Title         *string
	Model         *string
	HelpRequested *bool
	AssistedBy    **Author // to nil: nobody assists any more
}

// AgentJoined says that an agent has taken the session over: no model answers until AgentLeft.
type AgentJoined struct{ Author Author }

// AgentLeft ends a takeover.
type AgentLeft struct{ Author Author }

// SessionEnded is the last event of a session.
type SessionEnded struct{ Reason EndReason }

func (MessageCreated) eventBody()   {}
func (MessageDelta) eventBody()     {}
func (MessageCompleted) eventBody() {}
func (SessionUpdated) eventBody()   {}
func (AgentJoined) eventBody()      {}
func (AgentLeft) eventBody()        {}
func (SessionEnded) eventBody()     {}

// Notice is what a connection is told outside of any log: it has no seq and is not repeated. It is one of
// [SessionOpened], [ErrorNotice], [Typing], [ConnectionLimit], [AuthExpiring], [AuthRefreshed], [ServerDraining]
// and [Pong].
type Notice interface{ notice() }

// SessionOpened answers [OpenSession], before any event of the session.
type SessionOpened struct {
	Session      Session
	Epoch        string // names one unbroken life of the log
	Seq          int64  // the log's end as it was opened
	Resumed      bool   // the reader goes on from where it was
	Reset        bool   // the reader drops what it holds
	InProgress   string // the ID of a response being written, if any
	HasMore      bool   // there are older messages than those that follow
	ConnectionID string
}

// ErrorNotice answers a command that failed.
type ErrorNotice struct{ Err *Error }

// Typing says that the other side is typing, or has stopped.
type Typing struct {
	Author Author
	Active bool
}

// ConnectionLimit says that another connection of the same user was just refused.
type ConnectionLimit struct{ Limit, Current int }

// AuthExpiring warns that the connection's token is about to expire.
type AuthExpiring struct{ ExpiresAt time.Time }

// AuthRefreshed answers [RefreshAuth].
type AuthRefreshed struct{ ExpiresAt time.Time }

// ServerDraining says that the server is going down and when to come back.
type ServerDraining struct{ ReconnectAfter time.Duration }

// Pong answers [Ping].
type Pong struct{}

func (SessionOpened) notice()   {}
func (ErrorNotice) notice()     {}
func (Typing) notice()          {}
func (ConnectionLimit) notice() {}
func (AuthExpiring) notice()    {}
func (AuthRefreshed) notice()   {}
func (ServerDraining) notice()  {}
func (Pong) notice()            {}
