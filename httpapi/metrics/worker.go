package metrics

import (
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Worker is the state of a node that is nothing but a worker.
type Worker struct {
	Version      string
	Connected    bool // to a server
	Max, Running int  // jobs at a time
	Attempts     []Attempts
}

// Attempts counts the attempts of a type that have ended in one way.
type Attempts struct {
	Type, End string
	Count     uint64
}

// worker collects the metrics of a [Worker].
type worker struct {
	now                               func() *Worker
	build, connected, max, busy, ends *prometheus.Desc
}

// WorkerHandler answers GET /metrics of a worker, which is asked for its state each time.
func WorkerHandler(now func() *Worker, log *slog.Logger) http.Handler {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
	}
	w := &worker{
		now,
		desc("build_info", "What runs: always 1.", "version"),
		desc("worker_connected", "Whether the worker is connected to a server."),
		desc("worker_max", "Jobs that this worker may run at the same time."),
		desc("worker_busy", "Jobs that this worker runs."),
		desc("worker_attempts_total", "Attempts that have ended here: done, fail, release (given back) or lost.", "type", "end"),
	}
	m := &Metrics{registry: prometheus.NewRegistry(), log: log}
	m.registry.MustRegister(w, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m.Handler()
}

// Describe is part of [prometheus.Collector].
func (w *worker) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{w.build, w.connected, w.max, w.busy, w.ends} {
		to <- d
	}
}

// Collect is part of [prometheus.Collector].
func (w *worker) Collect(to chan<- prometheus.Metric) {
	s := w.now()
	to <- prometheus.MustNewConstMetric(w.build, gauge, 1, s.Version)
	to <- prometheus.MustNewConstMetric(w.connected, gauge, truth(s.Connected))
	to <- prometheus.MustNewConstMetric(w.max, gauge, float64(s.Max))
	to <- prometheus.MustNewConstMetric(w.busy, gauge, float64(s.Running))
	for _, a := range s.Attempts {
		to <- prometheus.MustNewConstMetric(w.ends, counter, float64(a.Count), a.Type, a.End)
	}
}
