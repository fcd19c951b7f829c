package parley

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// operations gives the routes for those who run the server. They need no token, and show no secret.
func (s *Server) operations() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeStatus(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{}))
	return mux
}

// ready answers 200 where the server can take connections, else 503; the body names what is wrong.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), storageTimeout/5)
	defer cancel()
	status := http.StatusOK
	body := map[string]string{"status": "ready", "storage": "ok", "journal": "ok", "draining": "no"}
	if err := s.store.Ping(ctx); err != nil {
		s.log.Warn("not ready: storage", "error", err)
		status, body["status"], body["storage"] = http.StatusServiceUnavailable, "not ready", "unavailable"
	}
	if err := s.journal.Err(); err != nil {
		s.log.Warn("not ready: journal", "error", err)
		status, body["status"], body["journal"] = http.StatusServiceUnavailable, "not ready", "unavailable"
	}
	if s.router.Draining() {
		status, body["status"], body["draining"] = http.StatusServiceUnavailable, "not ready", "yes"
	}
	writeStatus(w, status, body)
}

func writeStatus(w http.ResponseWriter, status int, body map[string]string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // who asked has gone, if this fails
}
