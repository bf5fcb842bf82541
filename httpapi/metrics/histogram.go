package metrics

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"jobstream/jobs/figures"
)

// bounds are those of the classic buckets, in seconds.
var bounds = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600}

// A native histogram has eight buckets for each power of two, so a quantile is off by less
// than 5 %.
const (
	schema = 3
	zero   = 1e-6 // seconds that count as none; figures count microseconds
)

// histogram is a metric with the buckets of a [figures.Histogram], classic and native.
type histogram struct {
	prometheus.Metric // the native one
	classic           []*dto.Bucket
}

// newHistogram makes a histogram. Its buckets are narrower than those of both forms, and
// each goes by its middle to one of these.
func newHistogram(desc *prometheus.Desc, h *figures.Histogram, labels ...string) prometheus.Metric {
	count, zeros, native := uint64(0), uint64(0), make(map[int]int64)
	classic := make([]*dto.Bucket, len(bounds))
	for i := range bounds {
		classic[i] = &dto.Bucket{UpperBound: &bounds[i], CumulativeCount: new(uint64)}
	}
	at, low := 0, time.Duration(0)
	for high, n := range h.Buckets() {
		middle := ((max(low, high-high/32) + high) / 2).Seconds()
		for ; at < len(bounds) && middle > bounds[at]; at++ {
			*classic[at].CumulativeCount = count
		}
		count, low = count+n, high
		if high.Seconds() <= zero {
			zeros += n
			continue
		}
		native[int(math.Ceil(math.Log2(middle)*(1<<schema)))] += int64(n) //nolint:gosec // a count
	}
	for ; at < len(bounds); at++ {
		*classic[at].CumulativeCount = count
	}
	m, err := prometheus.NewConstNativeHistogram(desc, count, h.Sum().Seconds(), native, nil, zeros, schema, zero, time.Time{}, labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return histogram{m, classic}
}

// Write writes both forms.
func (h histogram) Write(m *dto.Metric) error {
	err := h.Metric.Write(m)
	if err == nil {
		m.Histogram.Bucket = h.classic
		m.Histogram.CreatedTimestamp = nil
	}
	return err
}
