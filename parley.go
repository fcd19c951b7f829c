// Package parley is the chat server for products with a language model inside: it takes WebSocket connections, keeps
// each conversation as a session, streams every token of the model's answers exactly once, and stores it all.
//
// The command in cmd/parley runs it. A Go server of one's own can embed it instead: [New] it, [Server.Register] it on
// a mux, and [Server.Shutdown] it at the end.
package parley

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-chat/parley/config"
	"github.com/parley-chat/parley/internal/auth"
	"github.com/parley-chat/parley/internal/httpapi"
	"github.com/parley-chat/parley/internal/journal"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/origin"
	"github.com/parley-chat/parley/internal/router"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/retry"
	"github.com/parley-chat/parley/internal/ui"
	"github.com/parley-chat/parley/internal/websocket"
)

// What each floor needs of the one below it, and gets.
var (
	_ websocket.Router   = (*router.Router)(nil)
	_ websocket.Verifier = (*auth.Verifier)(nil)
	_ websocket.Origins  = (*origin.Policy)(nil)
	_ router.Verifier    = (*auth.Verifier)(nil)
	_ httpapi.Verifier   = (*auth.Verifier)(nil)
	_ httpapi.Models     = (*llm.Pool)(nil)
	_ httpapi.Eraser     = eraser{}
	_ session.Models     = (*llm.Pool)(nil)
)

// ErrForced is returned by [Server.Shutdown] when its context was about to end before all was done: responses were
// interrupted (their text is stored, unless the storage hangs too), or connections were cut.
var ErrForced = errors.New("the shutdown deadline passed: responses were interrupted or connections were cut")

// Server is a whole Parley.
type Server struct {
	cfg      config.Config
	log      *slog.Logger
	store    *retry.Store
	models   *models
	journal  *journal.Journal
	sessions *session.Manager
	router   *router.Router
	sockets  *websocket.Handler
	verifier *auth.Verifier
	metrics  *prometheus.Registry
}

// New makes a server of a valid configuration and opens its storage. [Server.Shutdown] ends it.
func New(cfg config.Config, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	models, err := newModels(cfg.LLM, log)
	if err != nil {
		return nil, err
	}
	keys, err := readKeys(cfg.Storage)
	if err != nil {
		return nil, errors.Join(err, models.close())
	}
	store, err := openStore(cfg.Storage, keys, log)
	if err != nil {
		return nil, errors.Join(err, models.close())
	}
	if keys == nil {
		log.Info("texts are stored as they are: storage.encryption.keyset_file is not set")
	}
	verifier, err := auth.New(cfg.Auth, nil, log)
	if err != nil {
		return nil, errors.Join(err, models.close(), store.Close())
	}
	events, err := openJournal(cfg.Storage, store.ID(), keys, log)
	if err != nil {
		verifier.Close()
		return nil, errors.Join(err, models.close(), store.Close())
	}
	s := &Server{cfg: cfg, log: log, store: store, journal: events, models: models, verifier: verifier}
	s.sessions = session.NewManager(session.Config{
		CheckpointInterval: cfg.Storage.CheckpointInterval,
		IdleTimeout:        cfg.Session.IdleTimeout,
		GracePeriod:        cfg.Session.GracePeriod,
		CleanupInterval:    cfg.Session.CleanupInterval,
		WarnThreshold:      cfg.Session.WarnThreshold,
		MaxResponseTimes:   cfg.Session.MaxResponseTimes,
		Budget:             newBudget(cfg.LLM.Budget, store),
		TitleModel:         cfg.LLM.TitleModel,
		LeaseTimeout:       cfg.Storage.LeaseTimeout,
		Retention:          cfg.Storage.Retention,
		UsageRetention:     usageRetention(cfg),
	}, store, events, models.pool, log)
	s.router = router.New(router.Config{
		MaxConnections:        cfg.WebSocket.MaxConnections,
		MaxConnectionsPerUser: cfg.WebSocket.MaxConnectionsPerUser,
	}, s.sessions, verifier, log)
	policy := origin.New(cfg.WebSocket.AllowedOrigins, cfg.WebSocket.AllowAnyOrigin, cfg.Server.TrustedProxies)
	s.sockets = websocket.New(websocket.Config{
		MaxMessageBytes: int(cfg.WebSocket.MaxMessageBytes),
		PingInterval:    cfg.WebSocket.PingInterval,
		PongTimeout:     cfg.WebSocket.PongTimeout,
		WriteTimeout:    cfg.WebSocket.WriteTimeout,
	}, s.router, verifier, policy, log)
	s.metrics = s.newMetrics()
	return s, nil
}

// apiMethods are the methods that the HTTP API answers, if only to refuse them. Patterns without a method would not
// go together with an app's own "GET /".
var apiMethods = []string{
	http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
}

// Register sets up the public routes on mux, under the configured path prefix.
func (s *Server) Register(mux *http.ServeMux) {
	prefix := s.cfg.Server.PathPrefix
	mux.Handle("GET "+prefix+"/ws", s.sockets)
	api := http.StripPrefix(prefix, httpapi.New(s.verifier, s.models.pool, eraser{s}, s.log))
	for _, method := range apiMethods {
		mux.Handle(method+" "+prefix+"/api/", api)
	}
	if s.cfg.UI.Enabled {
		pages := ui.New(ui.Options{
			FrameAncestors: s.cfg.UI.FrameAncestors,
			Verify: func(token string) error {
				_, err := s.verifier.Verify(token)
				return err
			},
		})
		pages = http.StripPrefix(prefix, pages)
		mux.Handle("GET "+prefix+"/", pages)
		mux.Handle("POST "+prefix+"/ui/", pages)
	}
}
