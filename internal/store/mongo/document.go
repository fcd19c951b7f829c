package mongo

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/parley-chat/parley/chat"
)

// sessionDocument is a session as it is stored. It shares no memory with the session.
type sessionDocument struct {
	ID        string         `bson:"_id"`
	V         int            `bson:"v"`
	UserID    string         `bson:"user_id"`
	CreatedAt bson.DateTime  `bson:"created_at"`
	Metadata  []pair         `bson:"metadata"`
	Claim     claimDocument  `bson:"claim"`
	LogEnd    int64          `bson:"log_end"`
	Changed   int64          `bson:"changed"`
	Replaced  sessionChanges `bson:",inline"`
}

// sessionChanges are the fields of a session that an update replaces.
type sessionChanges struct {
	Title          string             `bson:"title"`
	Model          string             `bson:"model"`
	Status         chat.SessionStatus `bson:"status"`
	LastActiveAt   bson.DateTime      `bson:"last_active_at"`
	AssistedBy     *authorDocument    `bson:"assisted_by"`
	HelpRequested  bool               `bson:"help_requested"`
	HelpReason     string             `bson:"help_reason"`
	EndReason      chat.EndReason     `bson:"end_reason"`
	ResponseTimes  []responseTime     `bson:"response_times"`
	Usage          usageDocument      `bson:"usage"`
	ProviderStates []pair             `bson:"provider_states"`
	Sealed         bool               `bson:"sealed"`
	Revision       int64              `bson:"revision"`
	Messages       int64              `bson:"messages"`
	Tokens         int64              `bson:"tokens"` // the sum of the usage's, to sort by
}

// What follows differs from what it stands for only in the names that its fields are stored under.
type (
	claimDocument struct {
		Owner string `bson:"owner"`
		Epoch string `bson:"epoch"`
	}
	authorDocument struct {
		ID   string `bson:"id"`
		Name string `bson:"name"`
	}
	responseTime struct {
		FirstTokenMS int64 `bson:"first_token_ms"`
		TotalMS      int64 `bson:"total_ms"`
	}
	usageDocument struct {
		InputTokens  int  `bson:"input_tokens"`
		OutputTokens int  `bson:"output_tokens"`
		Estimated    bool `bson:"estimated"`
	}
)

func tokens(u usageDocument) int64 { return int64(u.InputTokens) + int64(u.OutputTokens) }

// pair is an entry of a map, of which the keys may be any text: the name of a field may not.
type pair struct {
	Key   string `bson:"key"`
	Value string `bson:"value"`
}

// sessionToDocument serialises a session under the lock that guards it: all of it is read before View returns.
func sessionToDocument(view chat.SessionView) (d sessionDocument) {
	view.View(func(session *chat.Session) {
		d = sessionDocument{
			ID:        session.ID,
			V:         schemaVersion,
			UserID:    session.UserID,
			CreatedAt: bson.NewDateTimeFromTime(session.CreatedAt),
			Metadata:  pairs(session.Metadata),
			Claim:     claimDocument(session.Claim),
			LogEnd:    session.LogEnd,
			Changed:   session.Changed,
			Replaced: sessionChanges{
				Title:          session.Title,
				Model:          session.Model,
				Status:         session.Status,
				LastActiveAt:   bson.NewDateTimeFromTime(session.LastActiveAt),
				AssistedBy:     converted(session.AssistedBy, func(a chat.Author) authorDocument { return authorDocument(a) }),
				HelpRequested:  session.HelpRequested,
				HelpReason:     session.HelpReason,
				EndReason:      session.EndReason,
				ResponseTimes:  convertedAll(session.ResponseTimes, func(t chat.ResponseTime) responseTime { return responseTime(t) }),
				Usage:          usageDocument(session.Usage),
				ProviderStates: pairs(session.ProviderStates),
				Sealed:         session.Sealed,
				Revision:       session.Revision,
				Messages:       session.Messages,
				Tokens:         tokens(usageDocument(session.Usage)),
			},
		}
	})
	return d
}

func (d *sessionDocument) session() chat.Session {
	c := &d.Replaced
	return chat.Session{
		ID:             d.ID,
		UserID:         d.UserID,
		Title:          c.Title,
		Model:          c.Model,
		Status:         c.Status,
		CreatedAt:      moment(d.CreatedAt),
		LastActiveAt:   moment(c.LastActiveAt),
		AssistedBy:     converted(c.AssistedBy, func(a authorDocument) chat.Author { return chat.Author(a) }),
		HelpRequested:  c.HelpRequested,
		HelpReason:     c.HelpReason,
		EndReason:      c.EndReason,
		Metadata:       mapOf(d.Metadata),
		ResponseTimes:  convertedAll(c.ResponseTimes, func(t responseTime) chat.ResponseTime { return chat.ResponseTime(t) }),
		Usage:          chat.Usage(c.Usage),
		Messages:       c.Messages,
		ProviderStates: mapOf(c.ProviderStates),
		Sealed:         c.Sealed,
		Claim:          chat.Claim(d.Claim),
		Revision:       c.Revision,
		LogEnd:         d.LogEnd,
		Changed:        d.Changed,
	}
}

func sessionsOf(documents []sessionDocument) (sessions []chat.Session) {
	for _, d := range documents {
		sessions = append(sessions, d.session())
	}
	return sessions
}

// messageDocument is a message as it is stored.
type messageDocument struct {
	ID        bson.ObjectID   `bson:"_id"` // names this insertion of the message
	V         int             `bson:"v"`
	SessionID string          `bson:"session_id"`
	N         int64           `bson:"n"`
	MessageID string          `bson:"message_id"`
	Seq       int64           `bson:"seq"`
	Claim     claimDocument   `bson:"claim"` // under which it may still be changed
	Role      chat.Role       `bson:"role"`
	CreatedAt bson.DateTime   `bson:"created_at"`
	Author    *authorDocument `bson:"author"`
	Model     string          `bson:"model"`
	ReplyTo   string          `bson:"reply_to"`
	Replaces  string          `bson:"replaces"`
	AnswerID  string          `bson:"answer_id"`
	Replaced  messageChanges  `bson:",inline"`
}

// messageChanges are the fields of a message that an update replaces.
type messageChanges struct {
	Text         string            `bson:"text"`
	Reasoning    string            `bson:"reasoning"`
	Sealed       bool              `bson:"sealed"`
	Status       chat.Status       `bson:"status"`
	FinishReason chat.FinishReason `bson:"finish_reason"`
	Error        *errorDocument    `bson:"error"`
	Provider     string            `bson:"provider"`
	Usage        *usageDocument    `bson:"usage"`
	FirstTokenMS int64             `bson:"first_token_ms"`
	DurationMS   int64             `bson:"duration_ms"`
	Write        bson.ObjectID     `bson:"write"` // names the write that set these
}

// errorDocument is a [chat.Error] as it is stored. Its cause is for the log and stays there.
type errorDocument struct {
	Code         chat.Code `bson:"code"`
	Message      string    `bson:"message"`
	RetryAfterMS int64     `bson:"retry_after_ms"`
	Field        string    `bson:"field"`
	TraceID      string    `bson:"trace_id,omitempty"`
}

func messageToDocument(sessionID string, by chat.Claim, m *chat.Message) messageDocument {
	id := bson.NewObjectID()
	return messageDocument{
		ID:        id,
		V:         schemaVersion,
		SessionID: sessionID,
		N:         m.N,
		MessageID: m.ID,
		Seq:       m.Seq,
		Claim:     claimDocument(by),
		Role:      m.Role,
		CreatedAt: bson.NewDateTimeFromTime(m.CreatedAt),
		Author:    converted(m.Author, func(a chat.Author) authorDocument { return authorDocument(a) }),
		Model:     m.Model,
		ReplyTo:   m.ReplyTo,
		Replaces:  m.Replaces,
		AnswerID:  m.AnswerID,
		Replaced:  changesOf(m, id),
	}
}

func changesOf(m *chat.Message, write bson.ObjectID) messageChanges {
	return messageChanges{
		Text:         m.Text,
		Reasoning:    m.Reasoning,
		Sealed:       m.Sealed,
		Status:       m.Status,
		FinishReason: m.FinishReason,
		Error: converted(m.Error, func(e chat.Error) errorDocument {
			return errorDocument{e.Code, e.Message, e.RetryAfter.Milliseconds(), e.Field, e.TraceID}
		}),
		Provider:     m.Provider,
		Usage:        converted(m.Usage, func(u chat.Usage) usageDocument { return usageDocument(u) }),
		FirstTokenMS: m.FirstTokenMS,
		DurationMS:   m.DurationMS,
		Write:        write,
	}
}

func (d *messageDocument) message() chat.Message {
	c := &d.Replaced
	return chat.Message{
		ID:           d.MessageID,
		N:            d.N,
		Seq:          d.Seq,
		Role:         d.Role,
		Text:         c.Text,
		Reasoning:    c.Reasoning,
		Status:       c.Status,
		FinishReason: c.FinishReason,
		Error: converted(c.Error, func(e errorDocument) chat.Error {
			return chat.Error{
				Code: e.Code, Message: e.Message, RetryAfter: time.Duration(e.RetryAfterMS) * time.Millisecond, Field: e.Field,
				TraceID: e.TraceID,
			}
		}),
		CreatedAt:    moment(d.CreatedAt),
		Author:       converted(d.Author, func(a authorDocument) chat.Author { return chat.Author(a) }),
		Model:        d.Model,
		Provider:     c.Provider,
		ReplyTo:      d.ReplyTo,
		Replaces:     d.Replaces,
		AnswerID:     d.AnswerID,
		Usage:        converted(c.Usage, func(u usageDocument) chat.Usage { return chat.Usage(u) }),
		FirstTokenMS: c.FirstTokenMS,
		DurationMS:   c.DurationMS,
		Sealed:       c.Sealed,
	}
}

func messagesOf(documents []messageDocument) (messages []chat.Message) {
	for _, d := range documents {
		messages = append(messages, d.message())
	}
	return messages
}

// recordDocument is a [chat.UsageRecord] as it is stored.
type recordDocument struct {
	ID           bson.ObjectID `bson:"_id"`
	V            int           `bson:"v"`
	SessionID    string        `bson:"session_id"`
	MessageID    string        `bson:"message_id"`
	UserID       string        `bson:"user_id"`
	Model        string        `bson:"model"`
	At           bson.DateTime `bson:"at"`
	Day          bson.DateTime `bson:"day"` // the first moment of its day, UTC, so that sums need no arithmetic
	InputTokens  int64         `bson:"input_tokens"`
	OutputTokens int64         `bson:"output_tokens"`
	Estimated    int64         `bson:"estimated"` // 1 or 0, so that it can be summed
	CostMicros   int64         `bson:"cost_micros"`
}

func recordToDocument(r chat.UsageRecord) recordDocument {
	d := recordDocument{
		ID:           bson.NewObjectID(),
		V:            schemaVersion,
		SessionID:    r.SessionID,
		MessageID:    r.MessageID,
		UserID:       r.UserID,
		Model:        r.Model,
		At:           bson.NewDateTimeFromTime(r.At),
		Day:          bson.NewDateTimeFromTime(r.At.UTC().Truncate(24 * time.Hour)),
		InputTokens:  int64(r.Usage.InputTokens),
		OutputTokens: int64(r.Usage.OutputTokens),
		CostMicros:   r.CostMicros,
	}
	if r.Usage.Estimated {
		d.Estimated = 1
	}
	return d
}

func (d *recordDocument) record() chat.UsageRecord {
	return chat.UsageRecord{
		SessionID: d.SessionID,
		MessageID: d.MessageID,
		UserID:    d.UserID,
		Model:     d.Model,
		At:        moment(d.At),
		Usage: chat.Usage{
			InputTokens: int(d.InputTokens), OutputTokens: int(d.OutputTokens), Estimated: d.Estimated > 0,
		},
		CostMicros: d.CostMicros,
	}
}

// revocationDocument is a [chat.Revocation] as it is stored.
type revocationDocument struct {
	UserID  string        `bson:"user_id"`
	TokenID string        `bson:"token_id"`
	At      bson.DateTime `bson:"at"`
	Until   bson.DateTime `bson:"until"` // forever: it is not known
}

// forever stands for an Until that is not known: it is later than any other.
const forever bson.DateTime = math.MaxInt64

func (d *revocationDocument) revocation() chat.Revocation {
	r := chat.Revocation{UserID: d.UserID, TokenID: d.TokenID, At: moment(d.At)}
	if d.Until != forever {
		r.Until = moment(d.Until)
	}
	return r
}

// auditDocument is a [chat.AuditRecord] as it is stored.
type auditDocument struct {
	ID           string        `bson:"_id"`
	V            int           `bson:"v"`
	At           bson.DateTime `bson:"at"`
	ActorID      string        `bson:"actor_id"`
	ActorName    string        `bson:"actor_name"`
	Address      string        `bson:"address"`
	Action       string        `bson:"action"`
	UserID       string        `bson:"user_id"`
	SessionID    string        `bson:"session_id"`
	ConnectionID string        `bson:"connection_id"`
	Detail       string        `bson:"detail"`
	Outcome      string        `bson:"outcome"`
}

func auditToDocument(r chat.AuditRecord) auditDocument {
	return auditDocument{
		ID:           r.ID,
		V:            schemaVersion,
		At:           bson.NewDateTimeFromTime(r.At),
		ActorID:      r.ActorID,
		ActorName:    r.ActorName,
		Address:      r.Address,
		Action:       r.Action,
		UserID:       r.UserID,
		SessionID:    r.SessionID,
		ConnectionID: r.ConnectionID,
		Detail:       r.Detail,
		Outcome:      r.Outcome,
	}
}

func (d *auditDocument) record() chat.AuditRecord {
	return chat.AuditRecord{
		ID:           d.ID,
		At:           moment(d.At),
		ActorID:      d.ActorID,
		ActorName:    d.ActorName,
		Address:      d.Address,
		Action:       d.Action,
		UserID:       d.UserID,
		SessionID:    d.SessionID,
		ConnectionID: d.ConnectionID,
		Detail:       d.Detail,
		Outcome:      d.Outcome,
	}
}

// decode reads a document. Of one with a newer version nobody can say here what it means.
func decode[D any](raw bson.Raw) (d D, err error) {
	if v, _ := raw.Lookup("v").AsInt64OK(); v > schemaVersion {
		return d, &newerError{v}
	}
	err = bson.Unmarshal(raw, &d)
	return d, err
}

// newerError tells of a database, or a record, that a newer Parley wrote.
type newerError struct{ version int64 }

func (e *newerError) Error() string {
	return fmt.Sprintf("what is stored has schema version %d and this Parley knows versions up to %d: start the Parley "+
		"that wrote it, or a newer one, or restore a backup from before the upgrade", e.version, schemaVersion)
}

// moment is a stored time.
func moment(t bson.DateTime) time.Time { return time.UnixMilli(int64(t)).UTC() }

// converted gives a copy of what p points to, as another type; nil for nil.
func converted[T, U any](p *T, convert func(T) U) *U {
	if p == nil {
		return nil
	}
	u := convert(*p)
	return &u
}

// pairs gives the entries of a map, in the order of their keys; nil for nil.
func pairs(m map[string]string) []pair {
	if m == nil {
		return nil
	}
	all := make([]pair, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		all = append(all, pair{key, m[key]})
	}
	return all
}

// mapOf is the inverse of pairs.
func mapOf(all []pair) map[string]string {
	if all == nil {
		return nil
	}
	m := make(map[string]string, len(all))
	for _, p := range all {
		m[p.Key] = p.Value
	}
	return m
}

// convertedAll is converted for each element of a slice.
func convertedAll[T, U any](all []T, convert func(T) U) []U {
	if all == nil {
		return nil
	}
	converted := make([]U, 0, len(all))
	for _, v := range all {
		converted = append(converted, convert(v))
	}
	return converted
}
