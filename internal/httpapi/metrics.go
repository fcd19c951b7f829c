package httpapi

import (
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the handler counts. Their labels hold the names of operations, and statuses: they are bounded.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// noOperation stands for a request that is for none.
const noOperation = "none"

func newMetrics() *metrics {
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_http_requests_total", Help: "Requests to the HTTP API, by operation and status.",
		}, []string{"operation", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "parley_http_request_seconds", Help: "Time that a request to the HTTP API took.",
			Buckets: []float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 10},
		}, []string{"operation"}),
	}
}

// Describe implements [prometheus.Collector].
func (h *Handler) Describe(ch chan<- *prometheus.Desc) {
	h.metrics.requests.Describe(ch)
	h.metrics.seconds.Describe(ch)
}

// Collect implements [prometheus.Collector].
func (h *Handler) Collect(ch chan<- prometheus.Metric) {
	h.metrics.requests.Collect(ch)
	h.metrics.seconds.Collect(ch)
}

// nameOperations notes which operation each of the mux's patterns is.
func (h *Handler) nameOperations() {
	for path, item := range h.api.OpenAPI().Paths {
		for method, op := range map[string]*huma.Operation{
			http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPatch: item.Patch, http.MethodDelete: item.Delete,
		} {
			if op != nil {
				h.operations[method+" "+path] = op.OperationID
			}
		}
	}
}

// operationOf names the operation that a request is for, also where it is refused before.
func (h *Handler) operationOf(r *http.Request) string {
	_, pattern := h.mux.Handler(r)
	if id, ok := h.operations[pattern]; ok {
		return id
	}
	return noOperation
}

// count has serve answer, and counts that.
func (h *Handler) count(w http.ResponseWriter, r *http.Request, serve func(*statusWriter, *http.Request)) {
	operation, started := h.operationOf(r), time.Now()
	answer := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	serve(answer, r)
	h.metrics.requests.WithLabelValues(operation, strconv.Itoa(answer.status)).Inc()
	h.metrics.seconds.WithLabelValues(operation).Observe(time.Since(started).Seconds())
}

// statusWriter remembers the status that is answered.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements [http.ResponseWriter].
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
