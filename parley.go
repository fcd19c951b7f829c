// Package parley is the chat server for products with a language model inside: it takes WebSocket connections, keeps
// each conversation as a session, streams every token of the model's answers exactly once, and stores it all.
//
// The command in cmd/parley runs it. A Go server of one's own can embed it instead: [New] it, [Server.Register] it on
// a mux, and [Server.Shutdown] it at the end.
package parley

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-chat/parley/config"
	"github.com/parley-chat/parley/internal/audit"
	"github.com/parley-chat/parley/internal/auth"
	"github.com/parley-chat/parley/internal/gate"
	"github.com/parley-chat/parley/internal/httpapi"
	"github.com/parley-chat/parley/internal/journal"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/origin"
	"github.com/parley-chat/parley/internal/router"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/retry"
	"github.com/parley-chat/parley/internal/telemetry"
	"github.com/parley-chat/parley/internal/ui"
	"github.com/parley-chat/parley/internal/websocket"
)

// What each floor needs of the one below it, and gets.
var (
	_ gate.Verifier       = (*auth.Verifier)(nil)
	_ gate.Origins        = (*origin.Policy)(nil)
	_ websocket.Router    = (*router.Router)(nil)
	_ router.Verifier     = (*auth.Verifier)(nil)
	_ router.Audit        = (*audit.Log)(nil)
	_ httpapi.Models      = (*llm.Pool)(nil)
	_ httpapi.Sessions    = (*session.Manager)(nil)
	_ httpapi.Store       = (*retry.Store)(nil)
	_ httpapi.Connections = (*router.Router)(nil)
	_ httpapi.Revocations = (*auth.Revocations)(nil)
	_ session.Models      = (*llm.Pool)(nil)
)

// ErrForced is returned by [Server.Shutdown] when its context was about to end before all was done: responses were
// interrupted (their text is stored, unless the storage hangs too), or connections were cut.
var ErrForced = errors.New("the shutdown deadline passed: responses were interrupted or connections were cut")

// Server is a whole Parley.
type Server struct {
	cfg         config.Config
	log         *slog.Logger
	tracer      *telemetry.Tracer // nil: there are no traces
	opened      closers           // what it stands on, in the order in which it was opened
	store       *retry.Store
	models      *models
	journal     *journal.Journal
	sessions    *session.Manager
	revocations *auth.Revocations
	verifier    *auth.Verifier
	audit       *audit.Log
	limits      limits
	origins     *origin.Policy
	gate        *gate.Gate
	router      *router.Router
	sockets     *websocket.Handler
	api         *httpapi.Handler
	metrics     *prometheus.Registry
}

// closers are what is to be closed at the end: the last opened first.
type closers []func() error

func (c *closers) add(close func() error) { *c = append(*c, close) }

func (c closers) close() error {
	var errs []error
	for _, close := range slices.Backward(c) {
		errs = append(errs, close())
	}
	return errors.Join(errs...)
}

// New makes a server of a valid configuration and opens its storage. [Server.Shutdown] ends it.
func New(cfg config.Config, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: log}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.close(context.Background()))
	}
	return s, nil
}

// open opens all that the server stands on, and puts its floors one on top of the other.
func (s *Server) open() (err error) {
	if s.tracer, err = newTracer(s.cfg.Telemetry, s.log); err != nil {
		return err
	}
	if s.models, err = newModels(s.cfg.LLM, s.tracer, s.log); err != nil {
		return err
	}
	s.opened.add(s.models.close)
	if err := s.openStorage(); err != nil {
		return err
	}
	if err := s.openDoor(); err != nil {
		return err
	}
	s.sessions = session.NewManager(s.sessionConfig(), s.store, s.journal, s.models.pool, s.log)
	s.router = router.New(router.Config{
		MaxConnections:           s.cfg.WebSocket.MaxConnections,
		MaxConnectionsPerUser:    s.cfg.WebSocket.MaxConnectionsPerUser,
		MaxConnectionsPerAddress: s.cfg.WebSocket.MaxConnectionsPerAddress,
		Messages:                 s.limits.messages,
		Audit:                    s.audit,
		Revoked:                  s.revocations.Revoked,
	}, s.sessions, s.verifier, s.log)
	s.revocations.OnChange(s.router.CloseRevoked)
	s.sockets = websocket.New(websocket.Config{
		MaxMessageBytes: int(s.cfg.WebSocket.MaxMessageBytes),
		PingInterval:    s.cfg.WebSocket.PingInterval,
		PongTimeout:     s.cfg.WebSocket.PongTimeout,
		WriteTimeout:    s.cfg.WebSocket.WriteTimeout,
		Tracer:          s.tracer,
	}, s.router, s.gate, s.log)
	s.api = s.newAPI()
	s.metrics = s.newMetrics()
	return nil
}

// openStorage opens the store, and the journal that belongs to it.
func (s *Server) openStorage() error {
	keys, err := readKeys(s.cfg.Storage)
	if err != nil {
		return err
	}
	if s.store, err = openStore(s.cfg.Storage, keys, s.log); err != nil {
		return err
	}
	s.opened.add(s.store.Close)
	if keys == nil {
		s.log.Info("texts are stored as they are: storage.encryption.keyset_file is not set")
	}
	if s.journal, err = openJournal(s.cfg.Storage, s.store.ID(), keys, s.log); err != nil {
		return err
	}
	s.opened.add(s.journal.Close)
	return nil
}

// openDoor makes what decides who gets in, and what of it staff do is remembered.
func (s *Server) openDoor() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), storageTimeout)
	defer cancel()
	if s.revocations, err = auth.NewRevocations(ctx, s.store, s.log); err != nil {
		return err
	}
	s.opened.add(closing(s.revocations.Close))
	if s.verifier, err = auth.New(s.cfg.Auth, s.revocations, s.log); err != nil {
		return err
	}
	s.opened.add(closing(s.verifier.Close))
	s.audit = audit.New(s.store, s.log)
	s.limits = newLimits(s.cfg.RateLimit, s.log)
	s.opened.add(closing(s.limits.stop))
	s.origins = origin.New(s.cfg.WebSocket.AllowedOrigins, s.cfg.WebSocket.AllowAnyOrigin, s.cfg.Server.TrustedProxies)
	s.gate = gate.New(s.cfg.Server.TrustedProxies, s.origins, s.verifier, s.limits.door(), s.log)
	return nil
}

// closing makes a closer of what cannot fail.
func closing(f func()) func() error {
	return func() error {
		f()
		return nil
	}
}

func (s *Server) sessionConfig() session.Config {
	return session.Config{
		CheckpointInterval: s.cfg.Storage.CheckpointInterval,
		IdleTimeout:        s.cfg.Session.IdleTimeout,
		GracePeriod:        s.cfg.Session.GracePeriod,
		CleanupInterval:    s.cfg.Session.CleanupInterval,
		WarnThreshold:      s.cfg.Session.WarnThreshold,
		MaxResponseTimes:   s.cfg.Session.MaxResponseTimes,
		Budget:             newBudget(s.cfg.LLM.Budget, s.store),
		TitleModel:         s.cfg.LLM.TitleModel,
		Tracer:             s.tracer,
		LeaseTimeout:       s.cfg.Storage.LeaseTimeout,
		Retention:          s.cfg.Storage.Retention,
		UsageRetention:     usageRetention(s.cfg),
	}
}

// apiMethods are the methods that the WebSocket and the HTTP API answer, if only to refuse them. Patterns without a method would not
// go together with an app's own "GET /".
var apiMethods = []string{
	http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
}

// Register sets up the public routes on mux, under the configured path prefix.
func (s *Server) Register(mux *http.ServeMux) {
	prefix := s.cfg.Server.PathPrefix
	api := http.StripPrefix(prefix, s.api)
	for _, method := range apiMethods {
		mux.Handle(method+" "+prefix+"/ws", s.sockets)
		mux.Handle(method+" "+prefix+"/api/", api)
	}
	mux.Handle("GET "+prefix+"/openapi.json", api)
	if s.cfg.UI.Enabled {
		pages := http.StripPrefix(prefix, ui.New(ui.Options{FrameAncestors: s.cfg.UI.FrameAncestors, Admit: s.admit}))
		mux.Handle("GET "+prefix+"/", pages)
		mux.Handle("POST "+prefix+"/ui/", pages)
	}
}

// newAPI makes the HTTP API.
func (s *Server) newAPI() *httpapi.Handler {
	release, _ := Version()
	return httpapi.New(httpapi.Config{
		PathPrefix:  s.cfg.Server.PathPrefix,
		Version:     release,
		Gate:        s.gate,
		Origins:     s.origins,
		Models:      s.models.pool,
		Sessions:    s.sessions,
		Store:       s.store,
		Connections: s.router,
		Revocations: s.revocations,
		Audit:       s.audit,
		EraseUser:   s.eraseUser,
		Tracer:      s.tracer,
		Log:         s.log,
	})
}

// admit lets a request of a user's in, and counts it.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.gate.Enter(r)
	if err != nil {
		return err
	}
	return s.gate.Charge(caller, w.Header())
}
