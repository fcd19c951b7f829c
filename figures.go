package parley

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/parley-chat/parley/internal/ratelimit"
)

// newMetrics registers what /metrics tells. docs/METRICS.md describes all of it.
func (s *Server) newMetrics() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.MustRegister(s.models.metrics...)
	r.MustRegister(s.store, s.journal, s.sessions, s.sockets, s.api, figures{s})
	return r
}

// figures is a [prometheus.Collector] of what the server holds at present, and of what its parts count by themselves.
type figures struct{ server *Server }

var (
	buildDesc       = prometheus.NewDesc("parley_build_info", "1, with what was built in the labels.", []string{"version", "commit", "goversion"}, nil)
	drainingDesc    = prometheus.NewDesc("parley_draining", "1 while the server sends its connections away to shut down, else 0.", nil, nil)
	connectionsDesc = prometheus.NewDesc("parley_connections", "WebSocket connections, upgrades under way included.", nil, nil)
	mostDesc        = prometheus.NewDesc("parley_connections_limit", "Connections that the server takes: websocket.max_connections; 0: any number.", nil, nil)
	replacedDesc    = prometheus.NewDesc("parley_connections_replaced_total", "Connections that gave way to a newer one to the same session.", nil, nil)
	respondingDesc  = prometheus.NewDesc("parley_responses_in_progress", "Responses being written.", nil, nil)
	sessionsDesc    = prometheus.NewDesc("parley_sessions", "Sessions in memory, by state.", []string{"state"}, nil)
	messagesDesc    = prometheus.NewDesc("parley_session_messages", "Messages of the sessions in memory.", nil, nil)
	bytesDesc       = prometheus.NewDesc("parley_session_bytes", "Estimated bytes that the sessions take in memory.", nil, nil)
	decisionsDesc   = prometheus.NewDesc("parley_rate_limit_decisions_total", "What the rate limits were asked, by bucket and decision.", []string{"bucket", "decision"}, nil)
	keysDesc        = prometheus.NewDesc("parley_rate_limit_keys", "Users or networks that a bucket holds.", []string{"bucket"}, nil)
	evictedDesc     = prometheus.NewDesc("parley_rate_limit_keys_evicted_total", "Users or networks that a full bucket forgot before their time.", []string{"bucket"}, nil)
)

// Describe implements [prometheus.Collector].
func (f figures) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		buildDesc, drainingDesc, connectionsDesc, mostDesc, replacedDesc, respondingDesc, sessionsDesc, messagesDesc, bytesDesc,
		decisionsDesc, keysDesc, evictedDesc,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (f figures) Collect(ch chan<- prometheus.Metric) {
	s := f.server
	version, commit := Version()
	gauge(ch, buildDesc, 1, version, commit, runtime.Version())
	draining := 0.0
	if s.router.Draining() {
		draining = 1
	}
	gauge(ch, drainingDesc, draining)
	gauge(ch, connectionsDesc, float64(s.router.Connections()))
	gauge(ch, mostDesc, float64(s.cfg.WebSocket.MaxConnections))
	counter(ch, replacedDesc, float64(s.router.Replacements()))
	stats := s.sessions.MemoryStats()
	gauge(ch, respondingDesc, float64(s.sessions.Running()))
	gauge(ch, sessionsDesc, float64(stats.Active), "active")
	gauge(ch, sessionsDesc, float64(stats.Inactive), "inactive")
	gauge(ch, messagesDesc, float64(stats.Messages))
	gauge(ch, bytesDesc, float64(stats.Bytes))
	for bucket, stats := range s.limits.stats() {
		counter(ch, decisionsDesc, float64(stats.Allowed), bucket, "allowed")
		counter(ch, decisionsDesc, float64(stats.Refused), bucket, "refused")
		gauge(ch, keysDesc, float64(stats.Keys), bucket)
		counter(ch, evictedDesc, float64(stats.Evicted), bucket)
	}
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
}

// stats gives the figures of each bucket, by its name.
func (l limits) stats() map[string]ratelimit.Stats {
	return map[string]ratelimit.Stats{
		"messages": l.messages.Stats(), "requests": l.requests.Stats(), "admin": l.admin.Stats(),
		"unauthenticated": l.unauthenticated.Stats(),
	}
}
