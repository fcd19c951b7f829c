// Package httpapi answers what clients ask over plain HTTP, beside their conversation: which models there are, and that
// what is stored of them be erased.
package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/auth"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/wire"
)

// Verifier checks a token and tells whose it is.
type Verifier interface {
	Verify(token string) (chat.User, error)
}

// Models are the models that a user can choose from, in the order in which they are shown.
type Models interface {
	Models() []llm.Model
	Default() string // the ID of the one that is used where nobody chose
}

// Eraser removes what is stored for good, and what is in memory of it.
type Eraser interface {
	// EraseSession removes a session of a user's. One that is not is session_not_found.
	EraseSession(ctx context.Context, userID, sessionID string) error

	// EraseUser removes all of a user's sessions, and what they cost. After an error it may be called again.
	EraseUser(ctx context.Context, userID string) (sessions int, err error)
}

// Handler serves everything under /api/, and refuses with problem documents (RFC 9457). What it says is for one user
// at one moment: nothing of it may be cached.
type Handler struct {
	mux      *http.ServeMux
	verifier Verifier
	models   Models
	eraser   Eraser
	log      *slog.Logger
}

// New makes a Handler. Mount it with [http.StripPrefix] under a path prefix.
func New(v Verifier, m Models, e Eraser, log *slog.Logger) *Handler {
	h := &Handler{mux: http.NewServeMux(), verifier: v, models: m, eraser: e, log: log}
	h.mux.HandleFunc("GET /api/v1/models", h.forUsers(h.listModels))
	h.mux.HandleFunc("/api/v1/models", only("GET, HEAD"))
	h.mux.HandleFunc("DELETE /api/v1/sessions/{id}", h.forUsers(h.eraseSession))
	h.mux.HandleFunc("/api/v1/sessions/{id}", only("DELETE"))
	h.mux.HandleFunc("DELETE /api/v1/admin/users/{id}/data", h.forUsers(forAdmins(h.eraseUser)))
	h.mux.HandleFunc("/api/v1/admin/users/{id}/data", only("DELETE"))
	h.mux.HandleFunc("/", notFound)
	return h
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	h.mux.ServeHTTP(w, r)
}

// userHandler answers a request of a user. What it returns is told as a problem.
type userHandler func(w http.ResponseWriter, r *http.Request, user chat.User) error

// forUsers lets requests with a valid token through to next.
func (h *Handler) forUsers(next userHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, err := h.authenticate(r)
		if err == nil {
			err = next(w, r, user)
		}
		if err != nil {
			shown := chat.AsError(err)
			h.log.Info("request refused", "code", shown.Code, "path", r.URL.Path, "address", r.RemoteAddr, "user", user.ID,
				"error", err)
			wire.WriteProblem(w, shown)
		}
	}
}

func (h *Handler) authenticate(r *http.Request) (chat.User, error) {
	if err := auth.RefuseQueryToken(r); err != nil {
		return chat.User{}, err
	}
	token, err := auth.FromRequest(r)
	if err != nil {
		return chat.User{}, err
	}
	return h.verifier.Verify(token)
}

// forAdmins lets requests of admins through to next.
func forAdmins(next userHandler) userHandler {
	return func(w http.ResponseWriter, r *http.Request, user chat.User) error {
		if !slices.Contains(user.Roles, chat.UserRoleAdmin) {
			return chat.NewError(chat.CodeForbidden, "this takes the role admin")
		}
		return next(w, r, user)
	}
}

func (h *Handler) eraseSession(w http.ResponseWriter, r *http.Request, user chat.User) error {
	if err := h.eraser.EraseSession(r.Context(), user.ID, r.PathValue("id")); err != nil {
		return err
	}
	h.log.Info("a session was erased", "session", r.PathValue("id"), "user", user.ID)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *Handler) eraseUser(w http.ResponseWriter, r *http.Request, user chat.User) error {
	n, err := h.eraser.EraseUser(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	h.log.Info("a user's data was erased", "of", r.PathValue("id"), "sessions", n, "user", user.ID)
	answer(w, map[string]any{"sessions": n})
	return nil
}

// model is a model as clients see it.
type model struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Default bool   `json:"default,omitempty"`
}

func (h *Handler) listModels(w http.ResponseWriter, _ *http.Request, _ chat.User) error {
	defaultID := h.models.Default()
	items := []model{}
	for _, m := range h.models.Models() {
		items = append(items, model{ID: m.ID, Name: cmp.Or(m.Name, m.ID), Default: m.ID == defaultID})
	}
	answer(w, map[string]any{"items": items})
	return nil
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(body) // It fails only where the client has gone.
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	wire.WriteProblemStatus(w, http.StatusNotFound,
		chat.NewError(chat.CodeInvalidRequest, "there is nothing at this address"))
}

// only refuses what is none of an address's methods.
func only(methods string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", methods) // RFC 9110 §15.5.6
		wire.WriteProblemStatus(w, http.StatusMethodNotAllowed,
			chat.NewError(chat.CodeInvalidRequest, "this address answers "+methods+" only"))
	}
}
