package pool

import (
	"time"

	"jobstream/jobs"
)

// poolType is a type with its gates. Deliveries refer to it, while its definition may
// be exchanged; see [Pool.SetTypes].
type poolType struct {
	*jobs.Type // its definition
	gates      gates
	pause      *pauseGate // one of them
	key        *keyGate   // one of them
	cap        *capGate   // one of them
	rate       *rateGate  // one of them; nil without a rate
	// asks counts the remote workers that wait for its jobs, and asked is when there were
	// some the last time. unwanted says that there were none for a while; then nothing is
	// fetched.
	asks     int
	asked    time.Time
	unwanted bool
	// target is one of them, right behind pause, while the target of the type is busy.
	target *targetGate
}

// removed says whether the type does not exist at present.
func (t *poolType) removed() bool { return t.pause.removed }

// empty says whether no delivery is inside its gates.
func (t *poolType) empty() bool { return t.cap.inside == 0 }

// lane is the pool's side of one queue.
type lane struct {
	jobs.Lane
	typ *poolType

	// Fields of the choice.
	index     int         // in its row
	buf       []*delivery // the deliveries that wait for a worker
	committed uint64      // the highest committed sequence of this lane
	delivered uint64      // the highest sequence that was delivered or given up
	expected  time.Time   // the moment since which a committed job is missing here
	early     bool        // it is in choice.early

	// Fields of the supply.
	asked    int // pulled, not yet delivered
	most     int // bound of both, see prefetch
	extra    int // the part of that beyond the lane's share
	refilled time.Time
}

// pop removes the first delivery.
func (l *lane) pop() *delivery {
	d := l.buf[0]
	l.buf[0] = nil
	if len(l.buf) > 1 {
		l.buf = l.buf[1:]
	} else {
		l.buf = l.buf[:0] // else the next delivery would need memory
	}
	return d
}

// arrived counts n deliveries that have come, or will not come.
func (l *lane) arrived(n int) { l.asked -= min(n, l.asked) }

// Bounds of a lane's prefetch: enough for the workers until more has come. Each
// delivery has a lease to renew, so slow jobs are not fetched early. A lane that uses
// up half of its prefetch quickly asks for twice as much the next time. That makes
// fewer requests and fewer wake-ups, each for more jobs.
const (
	minPrefetch     = 16
	maxPrefetch     = 512
	maxPrefetchFast = 2048
	quickly         = 10 * time.Millisecond
	// All lanes together get at most sharedPrefetch, in equal shares of at least one.
	// Quick lanes get up to extraPrefetch more. The broker also drops a connection that
	// has too many unread bytes.
	sharedPrefetch = 4096
	extraPrefetch  = 4096
)

// prefetch is how many deliveries a lane may now have or wait for. have is the present
// number, least the guaranteed one, and spare the number left for all lanes.
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
