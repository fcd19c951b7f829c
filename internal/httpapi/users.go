package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/audit"
	"github.com/parley-chat/parley/internal/wire"
)

// UserID is the part of a request's path that names a user: the sub of the user's tokens.
type UserID struct {
	ID string `path:"id" maxLength:"256"`
}

// revoked says what was revoked.
type revoked struct {
	UserID    string     `json:"user_id"`
	TokenID   string     `json:"jti,omitempty"`
	RevokedAt wire.Time  `json:"revoked_at" doc:"Tokens that were issued (iat) up to then, and those that do not say when, are not valid any more."`
	ExpiresAt *wire.Time `json:"expires_at,omitempty"`
}

// revocation is what is to be revoked.
type revocation struct {
	TokenID   string    `json:"jti,omitempty" maxLength:"256" doc:"Revoke the token of this ID alone; absent: all that were issued until now."`
	ExpiresAt time.Time `json:"expires_at,omitempty" doc:"When the last of these tokens expires: so long the revocation is kept; absent: for good."`
	Reason    string    `json:"reason,omitempty" maxLength:"1000" doc:"For the audit log."`
}

func decodeRevocation(raw []byte) (r revocation, err error) {
	if len(raw) == 0 {
		return r, nil
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](json.Unmarshal(raw, &r)); ok {
		return r, chat.InvalidField(wrong.Field, "it is of another type")
	} else if json.Unmarshal(raw, &r) != nil {
		return r, chat.InvalidField("expires_at", "it has to be a time as of RFC 3339")
	}
	r.Reason = chat.CleanText(r.Reason)
	switch {
	case len(r.TokenID) > 256:
		return r, chat.InvalidField("jti", "it is too long")
	case utf8.RuneCountInString(r.Reason) > wire.MaxReasonLength:
		return r, chat.InvalidField("reason", "it is too long")
	case r.ExpiresAt.UTC().Year() > 9999:
		return r, chat.InvalidField("expires_at", "it has to be a time as of RFC 3339")
	case !r.ExpiresAt.IsZero() && !r.ExpiresAt.After(time.Now()):
		return r, chat.InvalidField("expires_at", "it has passed: the revocation would be over at once")
	}
	return r, nil
}

func (h *Handler) revoke(ctx context.Context, in *struct {
	UserID
	Body *body[revocation]
},
) (*answer[revoked], error) {
	wanted, err := decodeRevocation(in.Body.bytes())
	if err != nil {
		return nil, err
	}
	r := chat.Revocation{UserID: in.ID, TokenID: wanted.TokenID, At: chat.Now(), Until: wanted.ExpiresAt}
	var details []string
	if wanted.TokenID != "" {
		details = append(details, "jti "+wanted.TokenID)
	}
	if !wanted.ExpiresAt.IsZero() {
		details = append(details, "until "+wanted.ExpiresAt.UTC().Format(time.RFC3339))
	}
	detail := strings.Join(append(details, wanted.Reason), ", ")
	detail = strings.TrimSuffix(detail, ", ")
	err = h.audited(ctx, chat.AuditRecord{Action: audit.ActionRevoke, UserID: in.ID, Detail: detail},
		func(ctx context.Context) error { return stored(h.cfg.Revocations.Revoke(ctx, r)) })
	out := revoked{UserID: r.UserID, TokenID: r.TokenID, RevokedAt: wire.Time(r.At)}
	if !r.Until.IsZero() {
		out.ExpiresAt = new(wire.Time(r.Until))
	}
	return answered(out, err)
}

// erased says how much was erased.
type erased struct {
	Sessions int `json:"sessions"`
}

func (h *Handler) eraseUser(ctx context.Context, in *UserID) (*answer[erased], error) {
	var n int
	err := h.audited(ctx, chat.AuditRecord{Action: audit.ActionEraseUser, UserID: in.ID}, func(ctx context.Context) (err error) {
		n, err = h.cfg.EraseUser(ctx, in.ID)
		return err
	})
	return answered(erased{n}, err)
}

// auditEntry is an action of staff as it is shown.
type auditEntry struct {
	ID           string       `json:"id"`
	At           wire.Time    `json:"at"`
	Actor        *chat.Author `json:"actor" doc:"Who did it."`
	Address      string       `json:"address" doc:"From where."`
	Action       string       `json:"action"`
	UserID       string       `json:"user_id,omitempty" doc:"On whom."`
	SessionID    string       `json:"session_id,omitempty"`
	ConnectionID string       `json:"connection_id,omitempty"`
	Detail       string       `json:"detail,omitempty"`
	Outcome      string       `json:"outcome,omitempty" doc:"done, or an error's code; absent: the server or its storage went down meanwhile."`
}

func newAuditEntry(r *chat.AuditRecord) auditEntry {
	return auditEntry{
		r.ID, wire.Time(r.At), &chat.Author{ID: r.ActorID, Name: r.ActorName}, r.Address, r.Action, r.UserID, r.SessionID,
		r.ConnectionID, r.Detail, r.Outcome,
	}
}

func (h *Handler) listAudit(ctx context.Context, in *struct {
	PageParams
	ActorID   string    `query:"actor_id" maxLength:"256"`
	Action    string    `query:"action" maxLength:"64"`
	UserID    string    `query:"user_id" maxLength:"256"`
	SessionID string    `query:"session_id" maxLength:"128"`
	From      time.Time `query:"from"`
	To        time.Time `query:"to"`
},
) (*answer[page[auditEntry]], error) {
	after, err := readCursor[chat.AuditPlace](in.Cursor)
	if err != nil {
		return nil, err
	}
	rows, err := h.cfg.Store.Audit(ctx, chat.AuditFilter{
		ActorID: in.ActorID, Action: in.Action, UserID: in.UserID, SessionID: in.SessionID, From: in.From, To: in.To,
	}, after, in.Limit+1)
	if err != nil {
		return nil, stored(err)
	}
	return answered(paginate(rows, in.Limit,
		func(r *chat.AuditRecord) any { return chat.AuditPlace{At: r.At, ID: r.ID} }, newAuditEntry), nil)
}
