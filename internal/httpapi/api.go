// Package httpapi is what users, admins and host applications ask over plain HTTP: conversations beside the WebSocket,
// and all that staff see and do. It is described by the OpenAPI document that it serves.
//
// huma makes the document and checks requests against it; what gets in is the gate's, and what the fields of a body may
// be is said by the table of the wire's frames.
package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"go.opentelemetry.io/otel/trace"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/audit"
	"github.com/parley-chat/parley/internal/gate"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/router"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/telemetry"
	"github.com/parley-chat/parley/internal/wire"
)

// Models are the models that a user can choose from, in the order in which they are shown.
type Models interface {
	Models() []llm.Model
	Default() string // the ID of the one that is used where nobody chose
}

// Sessions are the conversations in memory, and those that can be loaded.
type Sessions interface {
	Create(userID, model string, metadata map[string]string) (*session.Session, error)
	Open(ctx context.Context, id string, may func(*chat.Session) bool) (*session.Session, error)
	Erase(ctx context.Context, id string, reason chat.EndReason, may func(*chat.Session) bool) error
	MemoryStats() session.MemoryStats
	Running() int
}

// Store is what is stored.
type Store interface {
	Session(ctx context.Context, id string) (chat.Session, error)
	FindSessions(ctx context.Context, filter chat.SessionFilter, order chat.SessionOrder, after chat.SessionPlace, limit int) ([]chat.Session, error)
	Message(ctx context.Context, sessionID, messageID string) (chat.Message, error)
	Messages(ctx context.Context, sessionID string, before int64, limit int) ([]chat.Message, error)
	MessagesFrom(ctx context.Context, sessionID string, after int64, limit int) ([]chat.Message, error)
	Audit(ctx context.Context, filter chat.AuditFilter, after chat.AuditPlace, limit int) ([]chat.AuditRecord, error)
	Count(ctx context.Context) (chat.Counts, error)
}

// Connections are who is connected.
type Connections interface {
	List() []router.ConnectionInfo
	CloseConnections(chosen func(router.ConnectionInfo) bool, reason string) (closed int)
}

// Revocations are the tokens that are not valid any more.
type Revocations interface {
	Revoke(ctx context.Context, r chat.Revocation) error
}

// Config is what the API stands on.
type Config struct {
	PathPrefix  string // told in the OpenAPI document: mount the handler with [http.StripPrefix] under it
	Version     string // of the server, for the same document
	Gate        *gate.Gate
	Origins     gate.Origins
	Models      Models
	Sessions    Sessions
	Store       Store
	Connections Connections
	Revocations Revocations
	Audit       *audit.Log
	EraseUser   func(ctx context.Context, userID string) (sessions int, err error) // after an error it may be called again
	Log         *slog.Logger
	Tracer      *telemetry.Tracer // nil: there are no traces
}

// Handler serves everything under /api/, and /openapi.json. It refuses with problem documents (RFC 9457). What it says
// is for one user at one moment: nothing of it may be cached.
type Handler struct {
	cfg Config
	mux *http.ServeMux
	api huma.API

	operations map[string]string // their IDs, by the mux's patterns
	metrics    *metrics
}

// New makes a Handler.
func New(cfg Config) *Handler {
	h := &Handler{cfg: cfg, mux: http.NewServeMux(), operations: make(map[string]string), metrics: newMetrics()}
	h.api = newHuma(h.mux, cfg.PathPrefix, cfg.Version)
	h.registerUser()
	h.registerAdmin()
	h.nameOperations()
	h.refuseOtherMethods()
	h.mux.HandleFunc("/", notFound)
	return h
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.count(w, r, h.serve) }

func (h *Handler) serve(w *statusWriter, r *http.Request) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'") // it is for no page to show
	switch {
	case h.crossOrigin(w, r):
	case !strings.HasPrefix(r.URL.Path, "/api/"):
		h.mux.ServeHTTP(w, r)
	default:
		r, end := h.startSpan(w, r)
		defer end()
		h.answer(w, r)
	}
}

// answer lets a request in, and has it answered.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request) {
	caller, err := h.admit(w, r)
	if err != nil {
		h.refuse(w, r, caller, err)
		return
	}
	if h.cfg.Tracer.On() {
		telemetry.Set(r.Context(), telemetry.EndUser.String(caller.User.ID))
	}
	h.mux.ServeHTTP(w, r.WithContext(withCaller(r.Context(), caller)))
}

// admit lets a request in, and counts it.
func (h *Handler) admit(w http.ResponseWriter, r *http.Request) (gate.Caller, error) {
	caller, err := h.cfg.Gate.Enter(r)
	if err != nil {
		return caller, err
	}
	if !strings.HasPrefix(r.URL.Path, adminPath+"/") {
		return caller, h.cfg.Gate.Charge(caller, w.Header())
	}
	roles := []string{chat.UserRoleAdmin}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		roles = append(roles, chat.UserRoleAgent) // who may look
	}
	return caller, h.cfg.Gate.ChargeAdmin(caller, r, w.Header(), roles...)
}

// crossOrigin lets pages of allowed origins read the answers (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol),
// and answers the question that browsers ask before: then it reports true. Tokens are no cookies: a page has to hold one
// to send it.
func (h *Handler) crossOrigin(w http.ResponseWriter, r *http.Request) (answered bool) {
	header := w.Header()
	header.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || !h.cfg.Origins.Allowed(r) {
		return false // the gate refuses it, if it is to be refused
	}
	header.Set("Access-Control-Allow-Origin", origin)
	header.Set("Access-Control-Expose-Headers",
		"RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, RateLimit-Policy, Retry-After")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	header.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PATCH, DELETE")
	header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
	header.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// refuse answers with an error, and logs it as what it is: the client's business, or the server's.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, caller gate.Caller, err error) {
	h.logRefusal(r.Context(), r.Method, r.URL.Path, caller, err)
	wire.Refuse(w, r, telemetry.Mark(r.Context(), chat.AsError(err)))
}

func (h *Handler) logRefusal(ctx context.Context, method, path string, caller gate.Caller, err error) {
	shown, level := chat.AsError(err), slog.LevelInfo
	switch shown.Code {
	case chat.CodeInternal, chat.CodeStorageUnavailable:
		level = slog.LevelError
	case chat.CodeRateLimited:
		level = slog.LevelDebug // a flood of requests is none of lines; the gate tells of it
	}
	telemetry.Fail(trace.SpanFromContext(ctx), shown.Code)
	telemetry.Log(ctx, h.cfg.Log).Log(ctx, level, "request refused", "code", shown.Code, "method", method, "path", path,
		"address", caller.Address.String(), "user", caller.User.ID, "field", shown.Field, "error", err)
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	wire.WriteProblemStatus(w, http.StatusNotFound,
		chat.NewError(chat.CodeInvalidRequest, "there is nothing at this address"))
}

// refuseOtherMethods has each address say what it answers to, for what it does not (RFC 9110 §15.5.6).
func (h *Handler) refuseOtherMethods() {
	for path, item := range h.api.OpenAPI().Paths {
		var methods []string
		for method, op := range map[string]*huma.Operation{
			"GET, HEAD": item.Get, "POST": item.Post, "PATCH": item.Patch, "DELETE": item.Delete,
		} {
			if op != nil {
				methods = append(methods, method)
			}
		}
		slices.Sort(methods)
		allowed := strings.Join(methods, ", ")
		h.mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", allowed)
			wire.WriteProblemStatus(w, http.StatusMethodNotAllowed,
				chat.NewError(chat.CodeInvalidRequest, "this address answers "+allowed+" only"))
		})
	}
}

type callerKey struct{}

func withCaller(ctx context.Context, c gate.Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerOf gives who makes the request.
func callerOf(ctx context.Context) gate.Caller { return ctx.Value(callerKey{}).(gate.Caller) }
