package pool

import (
	"fmt"
	"math"
	"time"

	"jobstream/jobs"
)

// Times and shares of a pool whose size follows the load.
const (
	growEvery   = 100 * time.Millisecond // the least time between two steps up
	shrinkAfter = 10 * time.Second       // of low use, and the window of measurement
	underused   = 0.5                    // the share of busy workers below which use is low
)

// load is the input for the size of a pool.
type load struct {
	size, min, max int
	running        int
	backlog        bool          // one more worker would have something to do
	used           float64       // mean number of busy workers in the last shrinkAfter
	unchanged      time.Duration // how long the size has been the same
}

// next is the new size. It grows at once when all workers are busy and there is more to
// do. After a time of low use it shrinks to the number in use.
func (l load) next() int {
	if l.min <= 0 {
		return l.max
	}
	size := l.size
	switch {
	case l.backlog && l.running >= l.size:
		if l.unchanged >= growEvery {
			size = 2 * l.size
		}
	case l.unchanged >= shrinkAfter && l.used < underused*float64(l.size):
		size = max(int(math.Ceil(l.used)), l.running)
	}
	return min(max(size, l.min), l.max)
}

// scale is the size of a pool, and its bounds.
type scale struct {
	size, min, max int // min = 0: the size is max
	changed        time.Time
}

func (s *scale) init(lo, hi int) {
	s.min, s.max = min(max(lo, 0), hi), hi
	s.size = load{size: s.min, min: s.min, max: s.max}.next()
}

// bounds applies the bounds of the whole pool from a Resize, or returns an error.
func (s *scale) bounds(r *jobs.Resize) error {
	lo, hi := s.min, s.max
	if r.MaxWorkers != nil {
		hi = *r.MaxWorkers
		lo = min(lo, hi)
	}
	if r.MinWorkers != nil {
		if lo = *r.MinWorkers; lo > hi {
			return jobs.Invalid("/min_workers", fmt.Sprintf("must be at most max_workers, which is %d, not %d", hi, lo))
		}
	}
	s.min, s.max = lo, hi
	s.size = load{size: s.size, min: lo, max: hi}.next()
	return nil
}
