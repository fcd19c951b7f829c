package journal

import "github.com/prometheus/client_golang/prometheus"

// metrics are what the writer counts.
type metrics struct {
	seconds  prometheus.Histogram
	events   prometheus.Counter
	failures prometheus.Counter
}

func newMetrics() *metrics {
	return &metrics{
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "parley_journal_write_seconds", Help: "Time that a write of all that had gathered took.",
			Buckets: []float64{0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5},
		}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_journal_events_written_total", Help: "Events that were written.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "parley_journal_failures_total", Help: "Writes that failed, or were given up as there was no room.",
		}),
	}
}

var (
	bytesDesc   = prometheus.NewDesc("parley_journal_bytes", "Bytes that the journal takes on its disk.", nil, nil)
	limitDesc   = prometheus.NewDesc("parley_journal_limit_bytes", "Bytes that the journal may take: storage.journal.max_bytes.", nil, nil)
	waitingDesc = prometheus.NewDesc("parley_journal_waiting_events", "Events that wait to be written, those being written included.", nil, nil)
	downDesc    = prometheus.NewDesc("parley_journal_down", "1 while the journal takes nothing: its disk fails, or it is full. Else 0.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (j *Journal) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{bytesDesc, limitDesc, waitingDesc, downDesc} {
		ch <- d
	}
	j.metrics.seconds.Describe(ch)
	j.metrics.events.Describe(ch)
	j.metrics.failures.Describe(ch)
}

// Collect implements [prometheus.Collector].
func (j *Journal) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	stats, down := j.Stats(), 0.0
	if j.Err() != nil {
		down = 1
	}
	gauge(bytesDesc, float64(stats.Bytes))
	gauge(limitDesc, float64(j.cfg.MaxBytes))
	gauge(waitingDesc, float64(stats.Waiting))
	gauge(downDesc, down)
	j.metrics.seconds.Collect(ch)
	j.metrics.events.Collect(ch)
	j.metrics.failures.Collect(ch)
}
