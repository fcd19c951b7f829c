package parley

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
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

// newMetrics registers what /metrics tells.
func (s *Server) newMetrics() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), figures{s})
	r.MustRegister(s.models.metrics...)
	r.MustRegister(s.store)
	return r
}

// figures is a [prometheus.Collector] of what the server holds at present.
type figures struct{ server *Server }

var (
	connectionsDesc = prometheus.NewDesc("parley_connections", "WebSocket connections, upgrades under way included.", nil, nil)
	respondingDesc  = prometheus.NewDesc("parley_responses_in_progress", "Responses being written.", nil, nil)
	sessionsDesc    = prometheus.NewDesc("parley_sessions", "Sessions in memory, by state.", []string{"state"}, nil)
	messagesDesc    = prometheus.NewDesc("parley_session_messages", "Messages of the sessions in memory.", nil, nil)
	bytesDesc       = prometheus.NewDesc("parley_session_bytes", "Estimated bytes that the sessions take in memory.", nil, nil)
	journalDesc     = prometheus.NewDesc("parley_journal_bytes", "Bytes that the journal takes on its disk.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (f figures) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{connectionsDesc, respondingDesc, sessionsDesc, messagesDesc, bytesDesc, journalDesc} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (f figures) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	stats := f.server.sessions.MemoryStats()
	gauge(connectionsDesc, float64(f.server.router.Connections()))
	gauge(respondingDesc, float64(f.server.sessions.Running()))
	gauge(sessionsDesc, float64(stats.Active), "active")
	gauge(sessionsDesc, float64(stats.Inactive), "inactive")
	gauge(messagesDesc, float64(stats.Messages))
	gauge(bytesDesc, float64(stats.Bytes))
	gauge(journalDesc, float64(f.server.journal.Stats().Bytes))
}
