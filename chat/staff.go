package chat

import "time"

// SessionFilter chooses sessions. A zero field chooses all.
type SessionFilter struct {
	UserID        string
	Status        SessionStatus
	Model         string
	Assisted      *bool // whether an agent has the session
	HelpRequested *bool

	// From and To choose the sessions that lived between these times: active at From or later, made before To.
	From, To time.Time
}

// SessionSort is what a list of sessions is ordered by.
type SessionSort string

// The orders of a list of sessions. Those alike come in the order of their IDs.
const (
	SortByLastActive SessionSort = "last_active_at"
	SortByCreated    SessionSort = "created_at"
	SortByUser       SessionSort = "user_id"
	SortByMessages   SessionSort = "messages"
	SortByTokens     SessionSort = "tokens" // input and output together
)

// SessionOrder is the order of a list of sessions, IDs included.
type SessionOrder struct {
	By         SessionSort
	Descending bool
}

// SessionPlace is a place in an ordered list of sessions: that of a session. The zero one stands before all.
type SessionPlace struct {
	Number int64  // what is ordered by, where that is a number, or a time in milliseconds since 1970
	Text   string // where it is a text
	ID     string // the session's
}

// Place gives the place of a session in a list of this order.
func (o SessionOrder) Place(s *Session) SessionPlace {
	p := SessionPlace{ID: s.ID}
	switch o.By {
	case SortByCreated:
		p.Number = s.CreatedAt.UnixMilli()
	case SortByUser:
		p.Text = s.UserID
	case SortByMessages:
		p.Number = s.Messages
	case SortByTokens:
		p.Number = int64(s.Usage.InputTokens) + int64(s.Usage.OutputTokens)
	default:
		p.Number = s.LastActiveAt.UnixMilli()
	}
	return p
}

// Revocation says that tokens are not valid any more, although they have not expired.
type Revocation struct {
	UserID  string    // whose tokens: the sub
	TokenID string    // the jti of the one that is revoked; empty: all that were issued by At
	At      time.Time // when it was revoked
	Until   time.Time // by then all of these tokens have expired; zero: it is not known, and the revocation is kept
}

// AuditRecord is one action of a member of the staff.
type AuditRecord struct {
	ID           string // made by [NewID]
	At           time.Time
	ActorID      string // who
	ActorName    string
	Address      string // from where: the client's IP address
	Action       string // what, such as session.end
	UserID       string // on whom, as far as that is known
	SessionID    string // on which session; empty: on none
	ConnectionID string // on which connection; empty: on none
	Detail       string // what else there is to tell, such as a reason; never a conversation's text
	Outcome      string // AuditDone, or the code of the error that it ended with; empty: the server went down meanwhile
}

// AuditDone is the outcome of an action that was carried out.
const AuditDone = "done"

// AuditFilter chooses audit records. A zero field chooses all.
type AuditFilter struct {
	ActorID   string
	Action    string
	UserID    string
	SessionID string
	From, To  time.Time // to the millisecond; From belongs to the time, To does not
}

// AuditPlace is a place in the list of audit records: that of a record. The zero one stands before all.
type AuditPlace struct {
	At time.Time
	ID string
}
