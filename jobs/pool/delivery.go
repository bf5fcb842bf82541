package pool

import (
	"slices"
	"time"

	"jobstream/jobs"
)

// delivery is one that this process has a lease on.
type delivery struct {
	jobs.Delivery
	lane       *lane
	id         jobs.ID     // of its job, once that is a worker's
	inLeases   spot        // in Pool.leases
	exec       *execution  // while an attempt runs
	outcome    *jobs.Event // set when the attempt has ended
	inOutcomes spot        // in Pool.outcomes, once there is one
	asOf       uint64      // Pool.surprises when a worker took it
	inside     bool        // it has entered the gates of its type
	token      time.Time   // when it took one from its type's rate
	letOut     bool        // it is a suspect whose turn has come
	keyed      bool        // its job shares a concurrency key
	key        string      // that it is counted under, "" = none
	ended      *jobs.Job   // its job, if that ended before the attempt began
}

// forget takes a delivery out. p.mu is held.
func (p *Pool) forget(d *delivery) {
	if d.inside {
		p.vacate(d, time.Now())
	}
	if d.outcome != nil {
		p.unsettled.count--
		p.unsettled.bytes -= d.outcome.Size()
	}
	delete(p.leased, d.Seq)
	p.leases.remove(&d.inLeases)
	p.outcomes.remove(&d.inOutcomes)
	if p.begun[d.id] == d {
		delete(p.begun, d.id)
	}
}

// vacate ends what a delivery counts for in the gates of its type and in the meter.
// p.mu is held.
func (p *Pool) vacate(d *delivery, now time.Time) {
	d.lane.typ.gates.leave(d, d.exec != nil)
	if d.exec != nil {
		p.meter.leave(d.exec.begun, now)
		d.exec = nil
	}
}

// drop ends a held delivery without running it.
func (p *Pool) drop(d *delivery) {
	p.mu.Lock()
	p.forget(d)
	if p.stopping {
		p.idle.Broadcast()
	}
	p.mu.Unlock()
}

// dismiss ends a delivery for good that nobody needs.
func (p *Pool) dismiss(d *delivery) {
	p.drop(d)
	p.check("acknowledge", p.o.Queue.Ack(d.Delivery))
}

func (p *Pool) giveBack(d *delivery, delay time.Duration) {
	p.drop(d)
	p.nak(d, delay)
}

// putBack lets a delivery wait in its lane again that a worker has taken. p.mu is
// held.
func (p *Pool) putBack(d *delivery) {
	if p.stopping { // nobody would take it out again
		p.release(d)
		return
	}
	p.vacate(d, time.Now())
	l := d.lane
	at := 0 // others may have been put back just now
	for at < len(l.buf) && l.buf[at].Seq < d.Seq {
		at++
	}
	l.buf = slices.Insert(l.buf, at, d)
	p.enliven(l)
}

// release gives back a delivery that has not started. p.mu is held.
func (p *Pool) release(d *delivery) {
	p.forget(d)
	p.check("give back", p.o.Queue.Nak(d.Ref, 0))
}

// settle gives the queue its answer, now that the outcome is durable. A job that
// waits without a message is published again when its time has come.
func (p *Pool) settle(d *delivery) {
	switch k := d.outcome.Kind; {
	case k == jobs.KindRetrying && !(d.keyed && p.away(d.Seq)), k == jobs.KindSnoozed && !p.away(d.Seq):
		p.nak(d, max(d.outcome.Due.Sub(jobs.Now()), 0))
	case k == jobs.KindReleased:
		p.nak(d, 0)
	default:
		p.check("acknowledge", p.o.Queue.Ack(d.Delivery))
	}
}

// away says whether the message seq is not needed any more. If in doubt it is:
// looking at it again costs little.
func (p *Pool) away(seq uint64) bool {
	j, err := p.o.Tracker.Find(seq)
	return err == nil && !needs(j, seq)
}

// needs says whether j waits for the message seq to be delivered.
func needs(j *jobs.Job, seq uint64) bool {
	return j != nil && j.Seq == seq && j.Place == jobs.InQueue && !j.Status.Ended()
}
