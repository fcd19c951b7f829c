package chat

// Command is what a client asks for, after it was decoded, validated and sanitised. It is one of the types below.
type Command interface{ command() }

// Bound is the part of a command that may name the session it is for. It has to be the one that the connection is bound
// to.
type Bound struct{ SessionID string } // empty: not named

// Session returns the ID of the session that the command names; "" for none.
func (b Bound) Session() string { return b.SessionID }

// AttachAs is the part that a connection plays in a session.
type AttachAs string

// The parts a connection can play.
const (
	AsUser     AttachAs = "user"
	AsAgent    AttachAs = "agent"    // takes the session over; staff only
	AsObserver AttachAs = "observer" // reads; staff only
)

// OpenSession binds the connection to a session: a new one where SessionID is empty.
type OpenSession struct {
	SessionID string
	After     *int64 // the highest seq that the client holds; nil: none
	Epoch     string // the epoch that After belongs to
	Model     string // for a new session; empty: the default
	As        AttachAs
	History   int // how many of the newest messages the client wants, where it does not resume
	Metadata  map[string]string
}

// LeaveSession unbinds the connection.
type LeaveSession struct{ Bound }

// SendMessage appends a message and, where a model answers, starts a turn.
type SendMessage struct {
	Bound
	MessageID string // the client's idempotency key
	Text      string
	Interrupt bool   // stop a response in progress first
	Replaces  string // the ID of the caller's last message: this one is an edit of it
}

// CancelResponse stops the response in progress, if it is this one.
type CancelResponse struct {
	Bound
	MessageID string // empty: whichever is in progress
}

// RetryResponse answers the last user message anew.
type RetryResponse struct {
	Bound
	Interrupt bool
}

// UpdateSession changes a session's title, its model or both.
type UpdateSession struct {
	Bound
	Title *string
	Model *string
}

// EndSession ends the bound session for good.
type EndSession struct{ Bound }

// RequestHelp asks for a human.
type RequestHelp struct {
	Bound
	Reason string
}

// SetTyping tells the other side that this one is typing, or has stopped.
type SetTyping struct {
	Bound
	Active bool
}

// RefreshAuth gives the connection a new token for the same user.
type RefreshAuth struct {
	Bound
	Token string
}

// Ping asks for a [Pong].
type Ping struct{ Bound }

func (OpenSession) command()    {}
func (LeaveSession) command()   {}
func (SendMessage) command()    {}
func (CancelResponse) command() {}
func (RetryResponse) command()  {}
func (UpdateSession) command()  {}
func (EndSession) command()     {}
func (RequestHelp) command()    {}
func (SetTyping) command()      {}
func (RefreshAuth) command()    {}
func (Ping) command()           {}
