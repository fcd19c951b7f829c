// Package chat holds the nouns of Parley (users, sessions, messages, events, commands, errors) and the two
// contracts that have several implementations: [Store] and [Provider].
//
// Everything else in Parley speaks in these types. The package imports the standard library only, does no I/O
// and starts no goroutine.
package chat

import (
	"crypto/rand"
	"maps"
	"slices"
	"strings"
	"time"
)

// NewID makes an identifier that cannot be guessed: 26 characters of A-Z and 2-7, 130 bits of randomness.
func NewID() string { return rand.Text() }

// Now is the present as Parley stores and sends it: UTC, whole milliseconds.
func Now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// The roles of a user that mean something to Parley. A token may carry others; they are ignored.
const (
	UserRoleAdmin = "admin"
	UserRoleAgent = "agent"
)

// User is who speaks, as the token says. It is never stored: each connection carries its own.
type User struct {
	ID        string
	Name      string
	Roles     []string
	TokenID   string    // the token's jti; may be empty
	IssuedAt  time.Time // the token's iat, in whole seconds; zero: it has none
	ExpiresAt time.Time // the token's exp
}

// IsStaff reports whether the user may attach to sessions that are not the user's own.
func (u User) IsStaff() bool {
	return slices.Contains(u.Roles, UserRoleAgent) || slices.Contains(u.Roles, UserRoleAdmin)
}

// Author is the user as others in a session see it.
func (u User) Author() Author { return Author{ID: u.ID, Name: u.Name} }

// Author is who wrote a message or joined a session. The server sets it; a client cannot.
type Author struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// SessionStatus is the state of a session as it is stored.
type SessionStatus string

// The states of a session. An ended session never becomes active again.
const (
	SessionStatusActive SessionStatus = "active"
	SessionStatusEnded  SessionStatus = "ended"
)

// EndReason says who ended a session.
type EndReason string

// The reasons for which a session ends.
const (
	EndedByUser  EndReason = "user"
	EndedByAdmin EndReason = "admin"
	EndedByAge   EndReason = "expired"
)

// EndedByErasure is stored with a session of which the removal has begun, and is to be completed. The protocol does not
// have it.
const EndedByErasure = EndReason("erased")

// Session is the record of one conversation, without its messages.
type Session struct {
	ID            string
	UserID        string // the owner: only this user, and staff, may open it
	Title         string
	Model         string // a model's ID as configured, never a provider's name for it
	Status        SessionStatus
	CreatedAt     time.Time
	LastActiveAt  time.Time
	AssistedBy    *Author // the agent who has taken the session over; nil where the model answers
	HelpRequested bool
	HelpReason    string
	EndReason     EndReason // set when Status is SessionStatusEnded
	Metadata      map[string]string
	ResponseTimes []ResponseTime // of the latest responses, oldest first
	Usage         Usage          // of all responses together
	Messages      int64          // how many messages have a place in the log up to LogEnd; once it has ended, in all of it

	// ProviderStates holds, by the provider's ID, what each wants to be kept with the session: see [Chunk].
	ProviderStates map[string]string

	// Sealed: Title and HelpReason are encrypted. Only what stands between the store and its encryption sees that.
	Sealed bool

	Claim    Claim // who continues the session's log
	Revision int64 // rises with each attempt to store a change, so that none comes after a later one
	LogEnd   int64 // the store knows the log up to this seq
	Changed  int64 // the seq, up to there, of the last event that was a change of the session; 0: there was none
}

// Claim says who continues a session's log, and which one. Whoever wants to append to it claims the session first.
type Claim struct {
	Owner string // names one life of a server's journal; empty: nobody has the session
	Epoch string // names one unbroken life of the log; empty: it has had none
}

// View calls f with the session. It makes a plain value a [SessionView].
func (s *Session) View(f func(*Session)) { f(s) }

// SessionView gives access to a session's record under the lock that guards it. f must neither keep the pointer,
// nor block, nor change the record.
type SessionView interface {
	View(f func(*Session))
}

// Snapshot reads a session's record under the lock that guards it. The copy shares no memory with the session.
func Snapshot(view SessionView) Session {
	var c Session
	view.View(func(s *Session) {
		c = *s
		c.Metadata, c.ProviderStates = maps.Clone(s.Metadata), maps.Clone(s.ProviderStates)
		c.ResponseTimes = slices.Clone(s.ResponseTimes)
		if s.AssistedBy != nil {
			c.AssistedBy = new(*s.AssistedBy)
		}
	})
	return c
}

// CleanText makes text safe to store, send and log without rewriting what a person may have typed. It drops
// control characters (C0, DEL and C1) except newline and tab, and the bidirectional overrides U+202D and U+202E,
// which make text read as something else (Unicode TR #36 §2.10.3). Isolates, joiners, markup and composed or
// decomposed letters stay. Invalid UTF-8 becomes U+FFFD. It is idempotent.
func CleanText(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r < 0x20 || r >= 0x7f && r <= 0x9f:
			return -1
		case r == 0x202d || r == 0x202e:
			return -1
		}
		return r
	}, s)
}

// CleanLine is [CleanText] for what stands on one line, such as a title: newlines and tabs become spaces, and the
// spaces around it go.
func CleanLine(s string) string {
	return strings.TrimSpace(strings.NewReplacer("\n", " ", "\t", " ").Replace(CleanText(s)))
}
