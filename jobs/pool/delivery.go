package pool

import (
	"time"

	"jobstream/jobs"
)

// delivery is one that this process has a lease on. It waits in a lane or among the
// suspects, or a worker has it, or its outcome waits for the commit.
//
// The pool's lock guards it.
type delivery struct {
	jobs.Delivery
	lane       *lane
	typ        *jobs.Type  // as it was when a worker got the delivery
	id         jobs.ID     // of its job, once that is claimed
	inLeases   spot        // in supply.leases
	exec       *execution  // while an attempt runs
	remote     *execution  // its attempt, if a worker elsewhere makes it
	outcome    *jobs.Event // set when the attempt has ended
	inOutcomes spot        // in outcomes.line, once there is one
	asOf       uint64      // claims.surprises when a worker got it
	inside     bool        // it has entered the gates of its type
	token      time.Time   // when it entered, for the rate of its type
	letOut     bool        // it is a suspect that waited and may try again
	keyed      bool        // its job shares a concurrency key
	key        string      // the key under which it counts; "" = none
	ended      *jobs.Job   // its job, if that ended before the attempt began
}

// ends says whether e is the end of d's attempt.
func (d *delivery) ends(e *jobs.Event) bool {
	o := d.outcome
	return o != nil && o.Attempt == e.Attempt && o.Kind == e.Kind && o.StartedAt == e.StartedAt
}

// forget removes a delivery from the pool. p.mu is locked.
func (p *Pool) forget(d *delivery) {
	if d.inside {
		p.vacate(d, time.Now())
	}
	p.supply.forget(d)
	p.outcomes.remove(d)
	p.claims.forget(d)
}

// vacate removes a delivery from the gates of its type and from the meter. p.mu is
// locked.
func (p *Pool) vacate(d *delivery, now time.Time) {
	d.lane.typ.gates.leave(d, d.exec != nil)
	if d.exec != nil {
		if !d.exec.away.Load() {
			p.crew.meter.leave(d.exec.begun, now)
		}
		d.exec = nil
	}
}

// drop removes a delivery that is not to run.
func (p *Pool) drop(d *delivery) {
	p.mu.Lock()
	p.forget(d)
	if p.stopping {
		p.idle.Broadcast()
	}
	p.mu.Unlock()
}

// dismiss acknowledges a delivery that nobody needs.
func (p *Pool) dismiss(d *delivery) verdict {
	p.drop(d)
	p.supply.ack(d)
	return dismissed
}

// giveBack ends a delivery. Its message comes again after delay.
func (p *Pool) giveBack(d *delivery, delay time.Duration) verdict {
	p.drop(d)
	p.nak(d, delay)
	return givenBack
}

// nak asks the queue to deliver a message again after delay.
func (p *Pool) nak(d *delivery, delay time.Duration) {
	if d.Ref == "" {
		return // its message comes by itself
	}
	p.mu.Lock()
	p.supply.asleep.remember(d, delay)
	p.mu.Unlock()
	p.supply.nak(d.Ref, delay)
}

// release gives back a delivery that has not started. p.mu is locked.
func (p *Pool) release(d *delivery) {
	p.forget(d)
	p.supply.nak(d.Ref, 0)
}

// settle ends a delivery whose outcome is durable. A job that waits without a message
// is published again when it is due.
func (p *Pool) settle(d *delivery) {
	switch k := d.outcome.Kind; {
	case (k == jobs.KindRetrying || k == jobs.KindLost) && !(d.keyed && p.supply.needless(d.Seq)), k == jobs.KindSnoozed && !p.supply.needless(d.Seq):
		p.nak(d, max(d.outcome.Due.Sub(jobs.Now()), 0))
	case k == jobs.KindReleased:
		p.nak(d, 0)
	default:
		p.supply.ack(d)
	}
}

// wakeLate gives late deliveries back once more, and forgets those that nobody needs.
func (p *Pool) wakeLate(now time.Time) {
	p.mu.Lock()
	late := p.supply.asleep.late(now)
	p.mu.Unlock()
	var needless []*sleeper
	for _, e := range late {
		if p.supply.needless(e.seq) {
			needless = append(needless, e)
			continue
		}
		p.supply.nak(e.ref, 0)
	}
	if len(needless) == 0 {
		return
	}
	p.mu.Lock()
	for _, e := range needless {
		p.supply.asleep.forget(e.seq)
	}
	p.mu.Unlock()
}
