package metrics

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"jobstream/jobs/figures"
)

// namespace begins the name of every metric of the server's own. Those of the process and
// of Go's runtime have the names that they have everywhere.
const namespace = "jobstream"

// snapshotTime is how long a snapshot may take. Prometheus gives up after ten seconds.
const snapshotTime = 5 * time.Second

// Source takes a snapshot. It is nil while there is none, as the server heals.
type Source func(ctx context.Context) *Snapshot

// Metrics are all metrics of a server.
type Metrics struct {
	Requests *Requests
	registry *prometheus.Registry
	source   Source
	descs    []*prometheus.Desc // of the table
	log      *slog.Logger
}

// New makes the metrics of a server, which asks source for each answer.
func New(source Source, log *slog.Logger) *Metrics {
	m := &Metrics{Requests: newRequests(), registry: prometheus.NewRegistry(), source: source, log: log}
	for i := range table {
		m.descs = append(m.descs, prometheus.NewDesc(prometheus.BuildFQName(namespace, "", table[i].name), table[i].help, table[i].labels, nil))
	}
	m.registry.MustRegister(m, m.Requests, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler answers GET /metrics, in the format that the client asks for. Native histograms
// are in that of protocol buffers only.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true, MaxRequestsInFlight: scrapes, Timeout: 2 * snapshotTime,
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelError),
	})
}

// scrapes is how many answers are made at a time. Others get 503.
const scrapes = 4

// Describe is part of [prometheus.Collector].
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range m.descs {
		to <- d
	}
}

// Collect is part of [prometheus.Collector].
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), snapshotTime)
	defer cancel()
	s := m.source(ctx)
	if s == nil {
		return
	}
	for i := range table {
		desc := m.descs[i]
		table[i].values(s, emit{
			value: func(v float64, labels ...string) {
				to <- prometheus.MustNewConstMetric(desc, table[i].kind, v, labels...)
			},
			histogram: func(h *figures.Histogram, labels ...string) { to <- newHistogram(desc, h, labels...) },
		})
	}
}
