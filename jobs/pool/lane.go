package pool

import (
	"time"

	"jobstream/jobs"
)

// poolType is a type as the pool has it.
type poolType struct {
	*jobs.Type
	gates gates
	pause *pauseGate // one of them
	cap   *capGate   // one of them
}

// lane is the pool's side of one queue.
type lane struct {
	jobs.Lane
	typ *poolType

	// What the choice needs.
	index     int         // in its row
	buf       []*delivery // those that wait for a worker
	committed uint64      // highest sequence of this lane that the tracker has committed
	delivered uint64      // highest sequence delivered, or given up on
	expected  time.Time   // since when a committed job is missing here
	early     bool        // it is in choice.early

	// What the supply needs.
	asked    int // pulled, not yet delivered
	most     int // of both, see prefetch
	extra    int // of that, what is beyond the lane's share
	refilled time.Time
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

// arrived counts n deliveries that have come, or will not.
func (l *lane) arrived(n int) { l.asked -= min(n, l.asked) }

// Bounds of the prefetch of a lane: enough for the workers until more has come. Each
// delivery has a lease to renew, so slow jobs are not fetched early. A lane that uses
// up half of its prefetch quickly asks for twice as much the next time: fewer requests
// and fewer wake-ups, each for more jobs.
const (
	minPrefetch     = 16
	maxPrefetch     = 512
	maxPrefetchFast = 2048
	quickly         = 10 * time.Millisecond
	// All lanes together hold no more than sharedPrefetch, of which each has an equal
	// share, but one at least; and extraPrefetch, which goes to those that are quick. The
	// broker also drops a connection that has too many bytes before it.
	sharedPrefetch = 4096
	extraPrefetch  = 4096
)

// prefetch is how many deliveries a lane that is refilled now may have or wait for. It
// has or waits for have of them. least is what it may always have, spare how many more
// there are for all lanes.
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
