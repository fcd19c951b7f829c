// Package httpapi answers what clients ask over plain HTTP, beside their conversation: which models there are.
package httpapi

import (
	"cmp"
	"encoding/json"
	"log/slog"
	"net/http"

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

// Handler serves everything under /api/, and refuses with problem documents (RFC 9457). What it says is for one user
// at one moment: nothing of it may be cached.
type Handler struct {
	mux      *http.ServeMux
	verifier Verifier
	models   Models
	log      *slog.Logger
}

// New makes a Handler. Mount it with [http.StripPrefix] under a path prefix.
func New(v Verifier, m Models, log *slog.Logger) *Handler {
	h := &Handler{mux: http.NewServeMux(), verifier: v, models: m, log: log}
	h.mux.HandleFunc("GET /api/v1/models", h.forUsers(h.listModels))
	h.mux.HandleFunc("/api/v1/models", onlyGet)
	h.mux.HandleFunc("/", notFound)
	return h
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	h.mux.ServeHTTP(w, r)
}

// forUsers lets requests with a valid token through to next.
func (h *Handler) forUsers(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h.authenticate(r); err != nil {
			shown := chat.AsError(err)
			h.log.Info("request refused", "code", shown.Code, "path", r.URL.Path, "address", r.RemoteAddr, "error", err)
			wire.WriteProblem(w, shown)
			return
		}
		next(w, r)
	}
}

func (h *Handler) authenticate(r *http.Request) error {
	if err := auth.RefuseQueryToken(r); err != nil {
		return err
	}
	token, err := auth.FromRequest(r)
	if err != nil {
		return err
	}
	_, err = h.verifier.Verify(token)
	return err
}

// model is a model as clients see it.
type model struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Default bool   `json:"default,omitempty"`
}

func (h *Handler) listModels(w http.ResponseWriter, _ *http.Request) {
	defaultID := h.models.Default()
	items := []model{}
	for _, m := range h.models.Models() {
		items = append(items, model{ID: m.ID, Name: cmp.Or(m.Name, m.ID), Default: m.ID == defaultID})
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]any{"items": items}) // It fails only where the client has gone.
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	wire.WriteProblemStatus(w, http.StatusNotFound,
		chat.NewError(chat.CodeInvalidRequest, "there is nothing at this address"))
}

func onlyGet(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Allow", "GET, HEAD") // RFC 9110 §15.5.6
	wire.WriteProblemStatus(w, http.StatusMethodNotAllowed,
		chat.NewError(chat.CodeInvalidRequest, "this address answers GET only"))
}
