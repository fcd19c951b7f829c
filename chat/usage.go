package chat

import "time"

// UsageRecord is what one response cost.
type UsageRecord struct {
	SessionID string
	MessageID string    // the response's
	UserID    string    // the session's owner, who is charged
	Model     string    // a model's ID as configured
	At        time.Time // when it began
	Usage     Usage

	// CostMicros is the price in millionths of the unit in which the operator gave the model's prices; 0 where there
	// are none.
	CostMicros int64
}

// UsageFilter chooses usage records. A zero field chooses all.
type UsageFilter struct {
	UserID   string
	From, To time.Time // to the millisecond; From belongs to the time, To does not
}

// UsageSum is the usage of one user with one model on one day.
type UsageSum struct {
	UserID       string
	Model        string
	Day          time.Time // its first moment, UTC
	Responses    int64
	Estimated    int64 // of the responses: those whose tokens are Parley's own estimate
	InputTokens  int64
	OutputTokens int64
	CostMicros   int64
}
