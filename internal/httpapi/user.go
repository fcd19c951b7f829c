package httpapi

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/wire"
)

const (
	sessionsPath = "/api/v1/sessions"
	sessionPath  = sessionsPath + "/{id}"
)

// registerUser has the API answer what users ask about their own.
func (h *Handler) registerUser() {
	get, post, patch, del := http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete
	register(h, operation{get, "/api/v1/models", "list-models", "List the models that can be chosen", 0, tagUser}, h.listModels)
	register(h, operation{get, sessionsPath, "list-sessions", "List your sessions, the latest active first", 0, tagUser}, h.listSessions)
	register(h, operation{post, sessionsPath, "create-session", "Make a session", 201, tagUser}, h.createSession)
	register(h, operation{get, sessionPath, "get-session", "Get a session of yours", 0, tagUser}, h.getSession)
	register(h, operation{patch, sessionPath, "update-session", "Change a session's title or model", 0, tagUser}, h.updateSession)
	register(h, operation{del, sessionPath, "erase-session", "Erase a session, with its messages, for good", 204, tagUser}, h.eraseSession)
	register(h, operation{post, sessionPath + "/end", "end-session", "End a session for good", 0, tagUser}, h.endSession)
	register(h, operation{get, sessionPath + "/messages", "list-messages", "List a session's messages", 0, tagUser}, h.listMessages)
}

// model is a model as clients see it.
type model struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Default bool   `json:"default,omitempty"`
}

func (h *Handler) listModels(context.Context, *struct{}) (*answer[page[model]], error) {
	defaultID := h.cfg.Models.Default()
	items := []model{}
	for _, m := range h.cfg.Models.Models() {
		items = append(items, model{ID: m.ID, Name: cmp.Or(m.Name, m.ID), Default: m.ID == defaultID})
	}
	return &answer[page[model]]{page[model]{Items: items}}, nil
}

// SessionID is the part of a request's path that names a session. Any text is one that may not exist.
type SessionID struct {
	ID string `path:"id"`
}

// owned says whether a session may be seen by who makes a request: its user, as long as it is not being erased.
func owned(ctx context.Context) func(*chat.Session) bool {
	userID := callerOf(ctx).User.ID
	return func(s *chat.Session) bool { return s.UserID == userID && exists(s) }
}

// exists reports whether a session is there for anybody: one whose erasure has begun is not.
func exists(s *chat.Session) bool { return s.EndReason != chat.EndedByErasure }

// find reads a session that may be seen. All others are session_not_found.
func (h *Handler) find(ctx context.Context, id string, may func(*chat.Session) bool) (chat.Session, error) {
	s, err := h.cfg.Store.Session(ctx, id)
	if errors.Is(err, chat.ErrNotFound) || err == nil && !may(&s) {
		return s, chat.NewError(chat.CodeSessionNotFound, "there is no such session")
	}
	return s, stored(err)
}

// stored is what a client is told of a store's error; nil for nil.
func stored(err error) error {
	if err == nil {
		return nil
	}
	return chat.NewError(chat.CodeStorageUnavailable, "the storage cannot be reached").WithCause(err)
}

// sessionOrder is that of a user's list.
var sessionOrder = chat.SessionOrder{By: chat.SortByLastActive, Descending: true}

func (h *Handler) listSessions(ctx context.Context, in *struct {
	PageParams
	Status string `query:"status" enum:"active,ended" doc:"Only sessions in this state."`
},
) (*answer[page[wire.Session]], error) {
	filter := chat.SessionFilter{UserID: callerOf(ctx).User.ID, Status: chat.SessionStatus(in.Status)}
	return pageOfSessions(ctx, h, filter, sessionOrder, in.PageParams, wire.NewSession)
}

// pageOfSessions reads a page of a list of sessions. One that is being erased is left out, so a page may be short.
func pageOfSessions[T any](
	ctx context.Context, h *Handler, filter chat.SessionFilter, order chat.SessionOrder, params PageParams, shown func(*chat.Session) T,
) (*answer[page[T]], error) {
	type place struct {
		Order chat.SessionOrder // of the list that the place is in
		At    chat.SessionPlace
	}
	after, err := readCursor[place](params.Cursor)
	if err != nil {
		return nil, err
	}
	if params.Cursor != "" && after.Order != order {
		return nil, badParameter("cursor", "it is of a list in another order")
	}
	rows, err := h.cfg.Store.FindSessions(ctx, filter, order, after.At, params.Limit+1)
	if err != nil {
		return nil, stored(err)
	}
	p := page[T]{Items: []T{}}
	for i := range rows[:min(len(rows), params.Limit)] {
		if exists(&rows[i]) {
			p.Items = append(p.Items, shown(&rows[i]))
		}
	}
	if len(rows) > params.Limit {
		p.NextCursor = encodeCursor(place{order, order.Place(&rows[params.Limit-1])})
	}
	return &answer[page[T]]{p}, nil
}

// newSession is what a session may be made with.
type newSession struct {
	Model    string            `json:"model,omitempty" minLength:"1" maxLength:"128" doc:"A model's ID; absent: the default."`
	Title    string            `json:"title,omitempty" maxLength:"200"`
	Metadata map[string]string `json:"metadata,omitempty" doc:"At most 4 KiB, all names and values together."`
}

func (h *Handler) createSession(ctx context.Context, in *struct{ Body *body[newSession] }) (*answer[wire.Session], error) {
	wanted, err := wire.DecodeBody("session.open", in.Body.bytes())
	if err != nil {
		return nil, err
	}
	titled, err := wire.DecodeBody("session.update", in.Body.bytes())
	if err != nil {
		return nil, err
	}
	open, update := wanted.(chat.OpenSession), titled.(chat.UpdateSession)
	s, err := h.cfg.Sessions.Create(callerOf(ctx).User.ID, open.Model, open.Metadata)
	if err != nil {
		return nil, err
	}
	defer s.Release()
	if update.Title != nil && *update.Title != "" {
		if err := s.Update(ctx, update.Title, nil); err != nil {
			return nil, err
		}
	}
	return show(s), nil
}

// show answers with a session as it is in memory.
func show(s *session.Session) *answer[wire.Session] {
	record := chat.Snapshot(s)
	return &answer[wire.Session]{wire.NewSession(&record)}
}

func (h *Handler) getSession(ctx context.Context, in *SessionID) (*answer[wire.Session], error) {
	s, err := h.find(ctx, in.ID, owned(ctx))
	return answered(wire.NewSession(&s), err)
}

// sessionChange is what can change of a session.
type sessionChange struct {
	Title string `json:"title,omitempty" maxLength:"200"`
	Model string `json:"model,omitempty" minLength:"1" maxLength:"128" doc:"A model's ID. It counts from the next response on."`
}

func (h *Handler) updateSession(ctx context.Context, in *struct {
	SessionID
	Body body[sessionChange]
},
) (*answer[wire.Session], error) {
	cmd, err := wire.DecodeBody("session.update", in.Body.bytes())
	if err != nil {
		return nil, err
	}
	change := cmd.(chat.UpdateSession)
	s, err := h.cfg.Sessions.Open(ctx, in.ID, owned(ctx))
	if err != nil {
		return nil, err
	}
	defer s.Release()
	if err := s.Update(ctx, change.Title, change.Model); err != nil {
		return nil, err
	}
	return show(s), nil
}

func (h *Handler) eraseSession(ctx context.Context, in *SessionID) (*nothing, error) {
	may := func(s *chat.Session) bool { return s.UserID == callerOf(ctx).User.ID } // also one of which the erasure has begun
	if err := h.cfg.Sessions.Erase(ctx, in.ID, chat.EndedByUser, may); err != nil {
		return nil, err
	}
	h.cfg.Log.Info("a session was erased", "session", in.ID, "user", callerOf(ctx).User.ID)
	return &nothing{}, nil
}

func (h *Handler) endSession(ctx context.Context, in *SessionID) (*answer[wire.Session], error) {
	return h.end(ctx, in.ID, chat.EndedByUser, owned(ctx))
}

func (h *Handler) end(
	ctx context.Context, id string, reason chat.EndReason, may func(*chat.Session) bool,
) (*answer[wire.Session], error) {
	s, err := h.cfg.Sessions.Open(ctx, id, may)
	if err != nil {
		return nil, err
	}
	defer s.Release()
	if err := s.End(ctx, reason); err != nil {
		return nil, err
	}
	return show(s), nil
}

// messageParams are how a session's messages are asked for.
type messageParams struct {
	SessionID
	PageParams
	Order  string `query:"order" enum:"asc,desc" default:"asc" doc:"asc: the oldest first; desc: the newest first."`
	Before string `query:"before" maxLength:"64" doc:"A message's ID: only what comes before it."`
}

func (h *Handler) listMessages(ctx context.Context, in *messageParams) (*answer[page[wire.Message]], error) {
	if _, err := h.find(ctx, in.ID, owned(ctx)); err != nil {
		return nil, err
	}
	return h.pageOfMessages(ctx, in)
}

func (h *Handler) pageOfMessages(ctx context.Context, in *messageParams) (*answer[page[wire.Message]], error) {
	type place struct{ N int64 }
	from, err := readCursor[place](in.Cursor)
	if err != nil {
		return nil, err
	}
	before, err := h.numberOf(ctx, in.ID, in.Before)
	if err != nil {
		return nil, err
	}
	var rows []chat.Message
	if in.Order == "desc" {
		if from.N > 0 && (before == 0 || from.N < before) {
			before = from.N
		}
		rows, err = h.cfg.Store.Messages(ctx, in.ID, before, in.Limit+1)
		slices.Reverse(rows)
	} else {
		rows, err = h.cfg.Store.MessagesFrom(ctx, in.ID, from.N, in.Limit+1)
		rows = until(rows, before)
	}
	if err != nil {
		return nil, stored(err)
	}
	return answered(paginate(rows, in.Limit, func(m *chat.Message) any { return place{m.N} }, wire.NewMessage), nil)
}

// numberOf gives the number of a message in its session; 0 for none.
func (h *Handler) numberOf(ctx context.Context, sessionID, messageID string) (int64, error) {
	if messageID == "" {
		return 0, nil
	}
	m, err := h.cfg.Store.Message(ctx, sessionID, messageID)
	if errors.Is(err, chat.ErrNotFound) {
		return 0, badParameter("before", "the session has no such message")
	}
	return m.N, stored(err)
}

// until gives those of messages in ascending order that come before a number; 0: all.
func until(messages []chat.Message, before int64) []chat.Message {
	for i := range messages {
		if before > 0 && messages[i].N >= before {
			return messages[:i]
		}
	}
	return messages
}

// anybodys lets staff have every session that is there.
func anybodys(s *chat.Session) bool { return exists(s) }
