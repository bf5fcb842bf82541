package figures

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestHistogramIsExactToTwoPercent(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var h Histogram
	all := make([]time.Duration, 20_000)
	for i := range all {
		all[i] = time.Duration(math.Exp(r.NormFloat64()*4) * float64(50*time.Millisecond))
		h.Add(all[i])
	}
	slices.Sort(all)
	for _, q := range []float64{0.001, 0.05, 0.5, 0.9, 0.95, 0.99, 0.999, 1} {
		want := all[int(math.Ceil(q*float64(len(all))-1e-9))-1]
		got := h.Quantile(q)
		if off := math.Abs(float64(got-want)) - float64(time.Microsecond); off > 0.02*float64(want) {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	if len(h.buckets) > lastBucket {
		t.Errorf("%d buckets", len(h.buckets))
	}
	h.Add(math.MaxInt64)
	h.Add(-5)
	if got := h.Quantile(1); got < longest*time.Microsecond {
		t.Errorf("the longest duration came out as %v", got)
	}
}

// TestHistogramStored stores histograms and reads them back, and merges their parts.
func TestHistogramStored(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		var all, one, other, read Histogram
		for range r.IntN(50) {
			d := time.Duration(r.Int64N(1 << r.IntN(62)))
			all.Add(d)
			if r.IntN(2) == 0 {
				one.Add(d)
			} else {
				other.Add(d)
			}
		}
		stored := all.append(nil)
		from := &reader{b: stored}
		if read.read(from); from.err != nil || len(from.b) > 0 {
			t.Fatalf("read: %v, %d bytes left", from.err, len(from.b))
		}
		one.Merge(&other)
		for name, h := range map[string]*Histogram{"read": &read, "merged": &one} {
			if h.n != all.n || h.Sum() != all.Sum() || h.max != all.max || h.Quantile(0.5) != all.Quantile(0.5) {
				t.Fatalf("%s: %d, %v, %v; want %d, %v, %v", name, h.n, h.Sum(), h.max, all.n, all.Sum(), all.max)
			}
		}
		for cut := range stored {
			h, from := &Histogram{}, &reader{b: stored[:cut]}
			if h.read(from); from.err == nil {
				t.Fatalf("%d of %d bytes were read as a histogram", cut, len(stored))
			}
		}
	}
}

func TestSeconds(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]float64{
		0: 0, time.Microsecond: 0.000001, 1234567 * time.Nanosecond: 0.00123, 45678 * time.Microsecond: 0.0457,
		12345 * time.Millisecond: 12.3, 7201 * time.Second: 7201, 123456 * time.Second: 123456,
	} {
		if got := seconds(d); got != want {
			t.Errorf("seconds(%v) = %v, want %v", d, got, want)
		}
	}
}
