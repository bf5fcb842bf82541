package pool

import (
	"time"

	"jobstream/jobs"
)

// claims knows which jobs are a worker's here, under which delivery, and which of their
// attempts run.
//
// The pool's lock guards it.
type claims struct {
	deliveries map[jobs.ID]*delivery
	pinned     map[jobs.ID]bool // see Pool.Pin
	surprises  uint64           // jobs that ended or were changed, and were no worker's here
	limits     alarm            // rings when an attempt's time is over
	killed     bool             // every attempt is interrupted
}

// claim is the result of a worker's claim to a job.
type claim int

const (
	claimed   claim = iota
	doubtful        // claimed, but it may have ended while it was looked up
	elsewhere       // it runs under another message, or is being changed
	refused         // a gate refuses this job for now
	closed          // a gate of its type has closed meanwhile
)

// claim makes j the job of d's worker. Another worker may have it for another message:
// if somebody purges JOBS, running jobs are published again as well.
func (c *claims) claim(d *delivery, j *jobs.Job) claim {
	if other := c.deliveries[j.ID]; other != nil && other != d || c.pinned[j.ID] {
		return elsewhere
	}
	if answer := d.lane.typ.gates.admit(d, j); answer != claimed {
		return answer
	}
	d.keyed = j.Keyed()
	d.id = j.ID
	c.deliveries[j.ID] = d
	if d.asOf != c.surprises {
		return doubtful
	}
	return claimed
}

// forget ends a delivery's claim.
func (c *claims) forget(d *delivery) {
	if c.deliveries[d.id] == d {
		delete(c.deliveries, d.id)
	}
}

// ended returns the attempt at a job that has ended elsewhere, if one runs here. Its
// outcome no longer counts.
func (c *claims) ended(j *jobs.Job) *execution {
	d := c.deliveries[j.ID]
	switch {
	case d == nil:
		c.surprises++ // a worker may have looked it up just before
	case d.outcome != nil: // it ended here
	case d.exec == nil:
		d.ended = j
	case d.exec.job.Run == j.Run:
		d.exec.ended.Store(j)
		return d.exec
	}
	return nil
}

// running lists the attempts that run here.
func (c *claims) running() (all []*execution) {
	for _, d := range c.deliveries {
		if d.exec != nil && !d.exec.away.Load() {
			all = append(all, d.exec)
		}
	}
	return all
}

// late returns each attempt whose time is over, once.
func (c *claims) late(now time.Time) (late []*execution) {
	c.limits.at = time.Time{}
	for _, d := range c.deliveries {
		x := d.exec
		switch {
		case x == nil || x.until.IsZero():
		case !x.until.After(now):
			x.until = time.Time{}
			late = append(late, x)
		default:
			c.limits.set(x.until)
		}
	}
	return late
}

// Pin keeps a job from starting until release is called, so that a change and a start of
// the same job do not cross. A worker looks a job up before it starts it, and the tracker
// knows of the start only later. Whoever has looked the job up before the release looks
// again. Pin returns false if an attempt at the job runs or begins.
func (p *Pool) Pin(id jobs.ID) (release func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// Until the outcome of an attempt is committed, the tracker may still have the job as
	// one that waits. A suspect that is parked does wait.
	d := p.claims.deliveries[id]
	if p.claims.pinned[id] || d != nil && (d.inside || d.exec != nil || d.outcome != nil) {
		return nil, false
	}
	p.claims.pinned[id] = true
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.claims.pinned, id)
		p.claims.surprises++
	}, true
}
