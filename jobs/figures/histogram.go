package figures

import (
	"encoding/binary"
	"errors"
	"iter"
	"math"
	"math/bits"
	"time"
)

// Histogram counts spans of time in buckets that grow with them: each power of two of
// microseconds has 32. So it takes about 10 KB at most, and a quantile is off by less
// than 2 %. The zero value is empty.
type Histogram struct {
	buckets []uint64
	n       uint64
	sum     time.Duration
	max     time.Duration
}

const (
	subBits    = 5
	subBuckets = 1 << subBits
	longest    = 1 << 45 // µs, a year and more
	lastBucket = (45-subBits)<<subBits + subBuckets
)

// Add counts d; a negative one counts as 0.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	i := bucketOf(uint64(d / time.Microsecond))
	h.grow(i + 1)
	h.buckets[i]++
	h.n++
	h.sum += d
	h.max = max(h.max, d)
}

func (h *Histogram) grow(size int) {
	if size > len(h.buckets) {
		h.buckets = append(h.buckets, make([]uint64, size-len(h.buckets))...)
	}
}

// Merge adds all that o has counted.
func (h *Histogram) Merge(o *Histogram) {
	if o.n == 0 {
		return
	}
	h.grow(len(o.buckets))
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.n += o.n
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

// Count is how many spans were added.
func (h *Histogram) Count() uint64 { return h.n }

// Sum is all spans together. It stays at its bound if it would overflow.
func (h *Histogram) Sum() time.Duration {
	if h.sum < 0 {
		return math.MaxInt64
	}
	return h.sum
}

// Buckets are those that have something, in ascending order, with the upper bound of
// each.
func (h *Histogram) Buckets() iter.Seq2[time.Duration, uint64] {
	return func(yield func(time.Duration, uint64) bool) {
		for i, n := range h.buckets {
			if n > 0 && !yield(lowest(i+1), n) {
				return
			}
		}
	}
}

func bucketOf(us uint64) int {
	us = min(us, longest)
	if us < subBuckets {
		return int(us)
	}
	shift := bits.Len64(us) - 1 - subBits
	return (shift+1)<<subBits + int(us>>shift) - subBuckets
}

// lowest is the lower end of a bucket.
func lowest(i int) time.Duration {
	if i < subBuckets {
		return time.Duration(i) * time.Microsecond
	}
	shift := i>>subBits - 1
	return time.Duration(uint64(i&(subBuckets-1)+subBuckets)<<shift) * time.Microsecond
}

// middle is the middle of a bucket.
func middle(i int) time.Duration {
	if i < subBuckets {
		return lowest(i)
	}
	return (lowest(i) + lowest(i+1)) / 2
}

// Quantile is the smallest span that at least the share q of all does not exceed; 0 if
// there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := max(int64(math.Ceil(q*float64(h.n)-1e-9)), 1) // 1e-9: 0.95·20 is 19, not 19.000000000000004
	for i, n := range h.buckets {
		if rank -= int64(n); rank <= 0 {
			return min(middle(i), h.max)
		}
	}
	return h.max
}

// percentiles are those of the spans in h; nil if there are none.
func (h *Histogram) percentiles() *Percentiles {
	if h.n == 0 {
		return nil
	}
	return &Percentiles{seconds(h.Quantile(0.5)), seconds(h.Quantile(0.95)), seconds(h.Quantile(0.99))}
}

// seconds is d in seconds, with three digits that count, to the microsecond.
func seconds(d time.Duration) float64 {
	if d < time.Microsecond {
		return 0
	}
	unit := math.Pow10(int(math.Floor(math.Log10(d.Seconds()))) - 2)
	if unit >= 1 {
		return math.Round(d.Seconds())
	}
	per := math.Round(1 / max(unit, 1e-6))
	return math.Round(d.Seconds()*per) / per
}

// errDamaged says that bytes are not what an append method of this package has made.
var errDamaged = errors.New("damaged figures")

// append appends the stored form: its bounds, then the buckets that have something.
func (h *Histogram) append(b []byte) []byte {
	used := 0
	for _, n := range h.buckets {
		if n > 0 {
			used++
		}
	}
	b = binary.AppendUvarint(b, uint64(used))
	if used == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(h.Sum()))
	b = binary.AppendUvarint(b, uint64(h.max))
	next := 0
	for i, n := range h.buckets {
		if n > 0 {
			b = binary.AppendUvarint(b, uint64(i-next))
			b = binary.AppendUvarint(b, n)
			next = i + 1
		}
	}
	return b
}

// read is the inverse of append.
func (h *Histogram) read(r *reader) {
	*h = Histogram{}
	used := r.uint()
	if used == 0 || used > lastBucket {
		r.check(used == 0)
		return
	}
	h.sum, h.max = time.Duration(r.uint()), time.Duration(r.uint())
	for i := 0; used > 0; used-- {
		skip := r.uint()
		if r.check(skip <= lastBucket && i+int(skip) <= lastBucket); r.err != nil {
			return
		}
		i += int(skip)
		h.grow(i + 1)
		h.buckets[i] = r.uint()
		h.n += h.buckets[i]
		i++
	}
}

// reader reads stored numbers. After its first error it returns zeros.
type reader struct {
	b   []byte
	err error
}

func (r *reader) uint() uint64 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.err = errDamaged
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.err = errDamaged
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) text() string {
	n := r.uint()
	if r.check(n <= uint64(len(r.b))); r.err != nil {
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) check(ok bool) {
	if !ok && r.err == nil {
		r.err = errDamaged
	}
}
