package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/audit"
	"github.com/parley-chat/parley/internal/router"
	"github.com/parley-chat/parley/internal/wire"
)

const (
	adminPath        = "/api/v1/admin"
	adminSessionPath = adminPath + "/sessions/{id}"
	connectionsPath  = adminPath + "/connections"
	usersPath        = adminPath + "/users/{id}"
)

// registerAdmin has the API answer what staff ask.
func (h *Handler) registerAdmin() {
	get, post, del := http.MethodGet, http.MethodPost, http.MethodDelete
	register(h, operation{get, adminPath + "/sessions", "admin-list-sessions", "List everybody's sessions", 0, tagAdmin}, h.adminListSessions)
	register(h, operation{get, adminSessionPath, "admin-get-session", "Get a session", 0, tagAdmin}, h.adminGetSession)
	register(h, operation{get, adminSessionPath + "/messages", "admin-list-messages", "Read a session's messages", 0, tagAdmin}, h.adminListMessages)
	register(h, operation{post, adminSessionPath + "/messages", "admin-post-message",
		"Append a message of the host application's; the same message_id again gives the stored one", 201, tagAdmin}, h.adminPostMessage)
	register(h, operation{post, adminSessionPath + "/end", "admin-end-session", "End a session for good", 0, tagAdmin}, h.adminEndSession)
	register(h, operation{get, connectionsPath, "admin-list-connections", "List who is connected to this server", 0, tagAdmin}, h.listConnections)
	register(h, operation{del, connectionsPath, "admin-close-connections", "Close a user's connections to this server", 0, tagAdmin}, h.closeConnections)
	register(h, operation{get, connectionsPath + "/{id}", "admin-get-connection", "Get a connection", 0, tagAdmin}, h.getConnection)
	register(h, operation{del, connectionsPath + "/{id}", "admin-close-connection", "Close a connection", 204, tagAdmin}, h.closeConnection)
	register(h, operation{get, adminPath + "/stats", "admin-stats", "What the server holds at present", 0, tagAdmin}, h.stats)
	register(h, operation{post, usersPath + "/revoke", "admin-revoke", "Revoke a user's tokens, and close the connections that have them", 0, tagAdmin}, h.revoke)
	register(h, operation{del, usersPath + "/data", "admin-erase-user", "Erase all that is stored of a user's conversations", 0, tagAdmin}, h.eraseUser)
	register(h, operation{get, adminPath + "/audit", "admin-list-audit", "List what staff did, the latest first", 0, tagAdmin}, h.listAudit)
}

// audited carries out an action of staff, with a record of it: the caller's, on what the record says.
func (h *Handler) audited(ctx context.Context, record chat.AuditRecord, action func(context.Context) error) error {
	c := callerOf(ctx)
	record.ActorID, record.ActorName, record.Address = c.User.ID, c.User.Name, c.Address.String()
	return h.cfg.Audit.Do(ctx, record, action)
}

// adminSession is a session as staff see it.
type adminSession struct {
	wire.Session
	UserID     string         `json:"user_id"`
	Messages   int64          `json:"messages" doc:"How many messages the session had when it was last stored."`
	Tokens     int64          `json:"tokens" doc:"Input and output of all its responses together."`
	HelpReason string         `json:"help_reason,omitempty"`
	EndReason  chat.EndReason `json:"end_reason,omitempty"`
}

func newAdminSession(s *chat.Session) adminSession {
	return adminSession{
		Session: wire.NewSession(s), UserID: s.UserID, Messages: s.Messages,
		Tokens: int64(s.Usage.InputTokens) + int64(s.Usage.OutputTokens), HelpReason: s.HelpReason, EndReason: s.EndReason,
	}
}

func (h *Handler) adminListSessions(ctx context.Context, in *struct {
	PageParams
	UserID        string    `query:"user_id" maxLength:"256"`
	Status        string    `query:"status" enum:"active,ended"`
	Assisted      string    `query:"assisted" enum:"true,false" doc:"Whether an agent has taken the session over."`
	HelpRequested string    `query:"help_requested" enum:"true,false"`
	Model         string    `query:"model" maxLength:"128"`
	From          time.Time `query:"from" doc:"Only sessions that were active at this time or later."`
	To            time.Time `query:"to" doc:"Only sessions that were made before this time."`
	Sort          string    `query:"sort" default:"-last_active_at" doc:"What is ordered by; with a - before it, descending." enum:"last_active_at,created_at,user_id,messages,tokens,-last_active_at,-created_at,-user_id,-messages,-tokens"`
},
) (*answer[page[adminSession]], error) {
	by, descending := strings.CutPrefix(in.Sort, "-")
	return pageOfSessions(ctx, h, chat.SessionFilter{
		UserID: in.UserID, Status: chat.SessionStatus(in.Status), Model: in.Model,
		Assisted: truth(in.Assisted), HelpRequested: truth(in.HelpRequested), From: in.From, To: in.To,
	}, chat.SessionOrder{By: chat.SessionSort(by), Descending: descending}, in.PageParams, newAdminSession)
}

// truth reads a parameter that may be absent.
func truth(s string) *bool {
	if s == "" {
		return nil
	}
	return new(s == "true")
}

func (h *Handler) adminGetSession(ctx context.Context, in *SessionID) (*answer[adminSession], error) {
	s, err := h.find(ctx, in.ID, anybodys)
	return answered(newAdminSession(&s), err)
}

func (h *Handler) adminListMessages(ctx context.Context, in *messageParams) (*answer[page[wire.Message]], error) {
	s, err := h.find(ctx, in.ID, anybodys)
	if err != nil {
		return nil, err
	}
	var out *answer[page[wire.Message]]
	err = h.audited(ctx, chat.AuditRecord{Action: audit.ActionRead, UserID: s.UserID, SessionID: s.ID},
		func(ctx context.Context) (err error) {
			out, err = h.pageOfMessages(ctx, in)
			return err
		})
	return out, err
}

// postedMessage is what the host application may say.
type postedMessage struct {
	MessageID string    `json:"message_id" pattern:"^[A-Za-z0-9_-]{1,64}$" doc:"Yours, unique in the session: the same one again is stored once."`
	Text      string    `json:"text" minLength:"1"`
	Role      chat.Role `json:"role,omitempty" enum:"system,agent" default:"system"`
}

// decodePost reads a message of the host application's.
func decodePost(raw []byte) (message chat.SendMessage, role chat.Role, err error) {
	cmd, err := wire.DecodeBody("message.send", raw)
	if err != nil {
		return message, "", err
	}
	var post struct{ Role *string }
	if err := json.Unmarshal(raw, &post); err != nil {
		return message, "", chat.InvalidField("role", "it has to be a string")
	}
	role = chat.RoleSystem
	if post.Role != nil {
		role = chat.Role(*post.Role)
	}
	if role != chat.RoleSystem && role != chat.RoleAgent {
		return message, "", chat.InvalidField("role", "it has to be system or agent")
	}
	message = cmd.(chat.SendMessage)
	message.Replaces = "" // it is nobody's edit
	return message, role, nil
}

// posted is the stored message; the status says whether it is a new one.
type posted struct {
	Status int
	Body   wire.Message
}

func (h *Handler) adminPostMessage(ctx context.Context, in *struct {
	SessionID
	Body body[postedMessage]
},
) (*posted, error) {
	message, role, err := decodePost(in.Body.bytes())
	if err != nil {
		return nil, err
	}
	found, err := h.find(ctx, in.ID, anybodys)
	if err != nil {
		return nil, err
	}
	out := &posted{Status: http.StatusCreated}
	record := chat.AuditRecord{
		Action: audit.ActionPostMessage, UserID: found.UserID, SessionID: in.ID, Detail: string(role) + " " + message.MessageID,
	}
	err = h.audited(ctx, record, func(ctx context.Context) error {
		again, err := h.post(ctx, in.ID, role, message)
		if err != nil {
			return err
		}
		if again {
			out.Status = http.StatusOK
		}
		m, err := h.cfg.Store.Message(ctx, in.ID, message.MessageID)
		out.Body = wire.NewMessage(&m)
		return stored(err)
	})
	return out, err
}

// post appends a message, and reports whether it was there already.
func (h *Handler) post(ctx context.Context, id string, role chat.Role, message chat.SendMessage) (again bool, err error) {
	s, err := h.cfg.Sessions.Open(ctx, id, anybodys)
	if err != nil {
		return false, err
	}
	defer s.Release()
	event, err := s.Send(ctx, callerOf(ctx).User.Author(), role, message)
	return event != nil, err
}

func (h *Handler) adminEndSession(ctx context.Context, in *SessionID) (*answer[adminSession], error) {
	found, err := h.find(ctx, in.ID, anybodys)
	if err != nil {
		return nil, err
	}
	err = h.audited(ctx, chat.AuditRecord{Action: audit.ActionEndSession, UserID: found.UserID, SessionID: in.ID},
		func(ctx context.Context) error {
			_, err := h.end(ctx, in.ID, chat.EndedByAdmin, anybodys)
			return err
		})
	if err != nil {
		return nil, err
	}
	return h.adminGetSession(ctx, in)
}

// connection is a connection as staff see it.
type connection struct {
	ID          string    `json:"id"`
	UserID      string    `json:"user_id"`
	Name        string    `json:"name,omitempty"`
	Roles       []string  `json:"roles,omitempty"`
	Address     string    `json:"address"`
	ConnectedAt wire.Time `json:"connected_at"`
	SessionID   string    `json:"session_id,omitempty" doc:"The session that it is bound to."`
}

func newConnection(c *router.ConnectionInfo) connection {
	return connection{c.ID, c.UserID, c.Name, c.Roles, c.Address, wire.Time(c.Since), c.SessionID}
}

func (h *Handler) listConnections(_ context.Context, in *struct {
	PageParams
	UserID    string `query:"user_id" maxLength:"256"`
	SessionID string `query:"session_id" maxLength:"128"`
},
) (*answer[page[connection]], error) {
	after, err := readCursor[string](in.Cursor)
	if err != nil {
		return nil, err
	}
	rows := slices.DeleteFunc(h.cfg.Connections.List(), func(c router.ConnectionInfo) bool {
		return c.ID <= after || in.UserID != "" && c.UserID != in.UserID || in.SessionID != "" && c.SessionID != in.SessionID
	})
	return answered(paginate(rows, in.Limit, func(c *router.ConnectionInfo) any { return c.ID }, newConnection), nil)
}

// errNoConnection is the answer for a connection that is not there, or not any more.
var errNoConnection = &problem{wire.NewProblem(http.StatusNotFound,
	chat.NewError(chat.CodeInvalidRequest, "there is no such connection on this server")), 0}

// connectionID is the part of a request's path that names a connection.
type connectionID struct {
	ID string `path:"id"`
}

func (h *Handler) findConnection(id string) (router.ConnectionInfo, error) {
	all := h.cfg.Connections.List()
	i := slices.IndexFunc(all, func(c router.ConnectionInfo) bool { return c.ID == id })
	if i < 0 {
		return router.ConnectionInfo{}, errNoConnection
	}
	return all[i], nil
}

func (h *Handler) getConnection(_ context.Context, in *connectionID) (*answer[connection], error) {
	c, err := h.findConnection(in.ID)
	return answered(newConnection(&c), err)
}

const closedByAdmin = "closed by an admin"

func (h *Handler) closeConnection(ctx context.Context, in *connectionID) (*nothing, error) {
	c, err := h.findConnection(in.ID)
	if err != nil {
		return nil, err
	}
	record := chat.AuditRecord{Action: audit.ActionDisconnect, UserID: c.UserID, SessionID: c.SessionID, ConnectionID: c.ID}
	return &nothing{}, h.audited(ctx, record, func(context.Context) error {
		h.cfg.Connections.CloseConnections(func(o router.ConnectionInfo) bool { return o.ID == c.ID }, closedByAdmin)
		return nil
	})
}

// closedConnections says how many connections were closed.
type closedConnections struct {
	Connections int `json:"connections"`
}

func (h *Handler) closeConnections(ctx context.Context, in *struct {
	UserID string `query:"user_id" maxLength:"256" doc:"Whose connections. It is required: nobody closes everybody's by leaving it out."`
},
) (*answer[closedConnections], error) {
	if in.UserID == "" {
		return nil, badParameter("user_id", "it is required")
	}
	var closed closedConnections
	err := h.audited(ctx, chat.AuditRecord{Action: audit.ActionDisconnectAll, UserID: in.UserID}, func(context.Context) error {
		closed.Connections = h.cfg.Connections.CloseConnections(
			func(c router.ConnectionInfo) bool { return c.UserID == in.UserID }, closedByAdmin)
		return nil
	})
	return answered(closed, err)
}

// stats is what the server holds at present.
type stats struct {
	Connections         int `json:"connections"`
	ResponsesInProgress int `json:"responses_in_progress"`
	Memory              struct {
		Active   int   `json:"active_sessions"`
		Inactive int   `json:"inactive_sessions"`
		Messages int   `json:"messages"`
		Bytes    int64 `json:"bytes" doc:"Estimated."`
	} `json:"memory"`
	Stored struct {
		Sessions  int64 `json:"sessions"`
		Messages  int64 `json:"messages"`
		Responses int64 `json:"responses" doc:"Those whose cost is recorded."`
	} `json:"stored"`
}

func (h *Handler) stats(ctx context.Context, _ *struct{}) (*answer[stats], error) {
	counts, err := h.cfg.Store.Count(ctx)
	if err != nil {
		return nil, stored(err)
	}
	memory := h.cfg.Sessions.MemoryStats()
	var s stats
	s.Connections, s.ResponsesInProgress = len(h.cfg.Connections.List()), h.cfg.Sessions.Running()
	s.Memory.Active, s.Memory.Inactive = memory.Active, memory.Inactive
	s.Memory.Messages, s.Memory.Bytes = memory.Messages, memory.Bytes
	s.Stored.Sessions, s.Stored.Messages, s.Stored.Responses = counts.Sessions, counts.Messages, counts.Usage
	return answered(s, nil)
}
