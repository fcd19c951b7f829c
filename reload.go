package parley

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/parley-chat/parley/config"
	"github.com/parley-chat/parley/internal/gate"
	"github.com/parley-chat/parley/internal/ratelimit"
)

// limits are the buckets of all that is limited by rate.
type limits struct {
	messages        *ratelimit.Limiter[string]
	requests        *ratelimit.Limiter[string]
	admin           *ratelimit.Limiter[string]
	unauthenticated *ratelimit.Limiter[netip.Prefix]
}

func newLimits(cfg config.RateLimit, log *slog.Logger) limits {
	bucket := func(name string, rate config.Rate) ratelimit.Config {
		return ratelimit.Config{
			Name: name, Limit: rate.Limit, Window: rate.Window, CleanupInterval: cfg.CleanupInterval, Log: log,
		}
	}
	return limits{
		messages:        ratelimit.New[string](bucket("messages", cfg.Messages)),
		requests:        ratelimit.New[string](bucket("requests", cfg.Requests)),
		admin:           ratelimit.New[string](bucket("admin", cfg.Admin)),
		unauthenticated: ratelimit.New[netip.Prefix](bucket("unauthenticated", cfg.Unauthenticated)),
	}
}

// door gives those of the buckets that requests are counted in.
func (l limits) door() gate.Limits {
	return gate.Limits{Requests: l.requests, Admin: l.admin, Unauthenticated: l.unauthenticated}
}

func (l limits) set(cfg config.RateLimit) {
	l.messages.SetRate(cfg.Messages.Limit, cfg.Messages.Window)
	l.requests.SetRate(cfg.Requests.Limit, cfg.Requests.Window)
	l.admin.SetRate(cfg.Admin.Limit, cfg.Admin.Window)
	l.unauthenticated.SetRate(cfg.Unauthenticated.Limit, cfg.Unauthenticated.Window)
	l.messages.SetCleanupInterval(cfg.CleanupInterval)
	l.requests.SetCleanupInterval(cfg.CleanupInterval)
	l.admin.SetCleanupInterval(cfg.CleanupInterval)
	l.unauthenticated.SetCleanupInterval(cfg.CleanupInterval)
}

func (l limits) stop() {
	l.messages.Stop()
	l.requests.Stop()
	l.admin.Stop()
	l.unauthenticated.Stop()
}

// reloadable are the keys, and the beginnings of keys, that may change while the server runs.
var reloadable = []string{"websocket.allowed_origins", "websocket.allow_any_origin", "rate_limit.", "log.level"}

// Reload takes over from a valid configuration what may change while the server runs: the allowed origins and the rate
// limits. (The log's level is the caller's, like the logger.) What else has changed is named in the log: it takes a
// restart. It may be called at any time, also before [Server.Run] and during [Server.Shutdown], by one at a time.
func (s *Server) Reload(cfg config.Config) {
	var taken, left []string
	for _, key := range config.Changed(s.cfg, cfg) {
		if slices.ContainsFunc(reloadable, func(r string) bool { return strings.HasPrefix(key, r) }) {
			taken = append(taken, key)
		} else {
			left = append(left, key)
		}
	}
	s.origins.Set(cfg.WebSocket.AllowedOrigins, cfg.WebSocket.AllowAnyOrigin)
	s.limits.set(cfg.RateLimit)
	s.log.Info("configuration taken over", "differs_from_start", taken)
	if len(left) > 0 {
		s.log.Warn("some keys have changed that take a restart", "keys", left)
	}
	s.warnOfOpenOrigins()
}

// originWarningInterval is how often it is said again that the check of origins is off.
const originWarningInterval = time.Hour

// warnOfOpenOrigins says that pages of any origin may connect, where that is so.
func (s *Server) warnOfOpenOrigins() {
	if s.origins.AnyAllowed() {
		s.log.Warn("security: websocket.allow_any_origin is on: any page in the world may connect with its user's token")
	}
}

// repeatWarnings says it again from time to time, as long as ctx lasts.
func (s *Server) repeatWarnings(ctx context.Context) {
	ticker := time.NewTicker(originWarningInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.warnOfOpenOrigins()
		case <-ctx.Done():
			return
		}
	}
}
