package pool

import (
	"time"

	"jobstream/jobs"
)

// lane is what the pool knows of one queue.
type lane struct {
	jobs.Lane
	typ       *poolType
	index     int         // in its row
	buf       []*delivery // delivered, waiting for a worker
	asked     int         // pulled, not yet delivered
	most      int         // of both, see prefetch
	extra     int         // of that, what is beyond the lane's share
	refilled  time.Time
	committed uint64 // highest sequence of this lane that the tracker has committed
	delivered uint64 // highest sequence delivered, or given up on
	expected  time.Time
	early     bool // it is in Pool.early
}

type poolType struct {
	*jobs.Type
	gates gates
	pause *pauseGate // one of them
	cap   *capGate   // one of them
}

// pop removes the first delivery.
func (l *lane) pop() *delivery {
	d := l.buf[0]
	l.buf[0] = nil
	if len(l.buf) > 1 {
		l.buf = l.buf[1:]
	} else {
		l.buf = l.buf[:0] // else the next delivery would need memory for its place
	}
	return d
}

// Bounds of how much a lane holds in advance: enough for the workers while more
// comes. Each delivery held has a lease to renew, so slow jobs are not fetched early. A lane that uses up half of what it may hold within quickly asks for twice as
// much the next time: fewer requests and fewer wake-ups, each for more jobs.
const (
	minPrefetch     = 16
	maxPrefetch     = 512
	maxPrefetchFast = 2048
	quickly         = 10 * time.Millisecond
	// All lanes together hold no more than sharedPrefetch, which each has its share of,
	// however many they are, but one at least; and extraPrefetch, which goes to those that
	// are quick. The broker drops a connection that has too many bytes before it, too.
	sharedPrefetch = 4096
	extraPrefetch  = 4096
)

// arrived counts n deliveries that have come, or will not.
func (l *lane) arrived(n int) { l.asked -= min(n, l.asked) }

// prefetch is how much a lane that is refilled now may hold or be waiting for. It has so
// many, and spare is how many it may have beyond the least.
func (l *lane) prefetch(least, have, spare int, now time.Time) int {
	switch took := now.Sub(l.refilled); {
	case took > 10*quickly:
		l.most = have // about half, unless it had nothing to do
	case took < quickly:
		l.most *= 2
	}
	l.most = min(max(l.most, least), maxPrefetchFast, least+max(spare, 0))
	l.refilled = now
	return l.most
}
