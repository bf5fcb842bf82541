package metrics

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"jobstream/jobs/figures"
)

// Requests counts what the REST door answers, by operation. Any goroutine may use it.
type Requests struct {
	count, took *prometheus.Desc

	mu  sync.Mutex
	all map[string]*Operation
}

// Operation counts the answers of one operation.
type Operation struct {
	codes [600]atomic.Uint64 // by HTTP status

	mu   sync.Mutex
	took figures.Histogram
}

func newRequests() *Requests {
	return &Requests{
		count: prometheus.NewDesc(namespace+"_http_requests_total", "Answers of the REST door.", []string{"operation", "code"}, nil),
		took:  prometheus.NewDesc(namespace+"_http_request_duration_seconds", "How long answers took, but for those that waited for a job or were followed.", []string{"operation"}, nil),
		all:   make(map[string]*Operation),
	}
}

// Of is the operation with this name, which comes from the program.
func (r *Requests) Of(name string) *Operation {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.all[name]
	if o == nil {
		o = &Operation{}
		r.all[name] = o
	}
	return o
}

// Answered counts an answer. waited says that it took as long as the client wanted.
func (o *Operation) Answered(status int, took time.Duration, waited bool) {
	if status < http.StatusContinue || status >= len(o.codes) {
		status = 0
	}
	o.codes[status].Add(1)
	if !waited {
		o.mu.Lock()
		o.took.Add(took)
		o.mu.Unlock()
	}
}

// Describe is part of [prometheus.Collector].
func (r *Requests) Describe(to chan<- *prometheus.Desc) { to <- r.count; to <- r.took }

// Collect is part of [prometheus.Collector].
func (r *Requests) Collect(to chan<- prometheus.Metric) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, o := range r.all {
		for code := range o.codes {
			if n := o.codes[code].Load(); n > 0 {
				to <- prometheus.MustNewConstMetric(r.count, counter, float64(n), name, strconv.Itoa(code))
			}
		}
		var took figures.Histogram
		o.mu.Lock()
		took.Merge(&o.took)
		o.mu.Unlock()
		if took.Count() > 0 {
			to <- newHistogram(r.took, &took, name)
		}
	}
}
