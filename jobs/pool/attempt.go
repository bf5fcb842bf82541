package pool

import (
	"time"

	"jobstream/jobs"
)

// attempt runs one delivery. It returns false if the worker's place was given
// up meanwhile, because the handler ignored the end of its context.
func (p *Pool) attempt(d *delivery) bool {
	letOut := d.letOut // d may be another worker's in a moment
	job := p.lookUp(d)
	if job != nil {
		job = p.begin(d, job)
	}
	if job != nil && job.Terms != nil {
		if e := p.tooLate(d, job); e != nil {
			p.conclude(d, e)
			job = nil
		}
	}
	if job == nil {
		p.passOn(letOut)
		return true
	}
	if job.Lost == 0 {
		return p.run(d, job)
	}
	if !p.suspects.enter(p, d, job) {
		return true
	}
	if !p.run(d, job) {
		return false // given up, and its turn with it
	}
	p.leaveSuspects(job)
	return true
}

// lookUp returns the job that is to run for a delivery. If there is none, or not
// yet, the delivery has been settled.
func (p *Pool) lookUp(d *delivery) *jobs.Job {
	job, err := p.o.Tracker.Find(d.Seq)
	switch {
	case err != nil:
		p.o.Logger.Error("cannot look up a job; it is tried again", "seq", d.Seq, "error", err)
		p.giveBack(d, time.Second)
		return nil
	case !needs(job, d.Seq):
		p.dismiss(d)
		return nil
	}
	if job.DueAt != 0 {
		if wait := job.DueAt.Sub(jobs.Now()); wait > 0 && !setBack(d.lane.typ, job, wait) {
			p.giveBack(d, wait)
			return nil
		}
	}
	return job
}

// setBack says whether a retry would have to wait longer than its type ever lets
// one wait: the wall clock was set back since its time was fixed.
func setBack(t *poolType, j *jobs.Job, wait time.Duration) bool {
	return j.Status == jobs.Retrying && wait > t.Backoff.Longest(j.Failures)+time.Second
}

const (
	// elsewhereAgain is when a message is looked at again whose job is being run
	// under its earlier one.
	elsewhereAgain = time.Second
	// refusedAgain is when one is whose job was refused by a gate.
	refusedAgain = 100 * time.Millisecond
)

// begin makes the job this worker's, if it can be that, and returns it as it is
// then. Otherwise it returns nil, and the delivery has been settled or waits on.
func (p *Pool) begin(d *delivery, j *jobs.Job) *jobs.Job {
	switch p.claim(d, j) {
	case claimed:
		if j.Seq == j.Key {
			return j
		}
		return p.lookUp(d) // it may have ended under its earlier message since
	case doubtful:
		return p.lookUp(d)
	case elsewhere:
		p.giveBack(d, elsewhereAgain)
	case refused:
		p.giveBack(d, refusedAgain)
	case closed: // it waits in its lane again
	}
	return nil
}

// claim is what came of the wish to run a job.
type claim int

const (
	claimed   claim = iota
	doubtful        // claimed, but it may have ended while it was looked up
	elsewhere       // it runs under another message
	refused         // a gate refuses this job at the moment
	closed          // a gate of its type has closed meanwhile
)

// claim claims the job for the worker of d. Another worker may have it for
// another message: when somebody purges the queue its jobs are published again,
// those that run, too.
func (p *Pool) claim(d *delivery, j *jobs.Job) claim {
	p.mu.Lock()
	defer p.mu.Unlock()
	if other := p.begun[j.ID]; other != nil && other != d {
		return elsewhere
	}
	switch c := d.lane.typ.gates.admit(d, j); c {
	case claimed:
	case closed:
		p.putBack(d)
		return c
	default:
		return c
	}
	d.keyed = j.Keyed()
	d.id = j.ID
	p.begun[j.ID] = d
	if d.asOf != p.surprises {
		return doubtful
	}
	return claimed
}

// tooLate is the end of a job that may not begin any more, nil if it may.
func (p *Pool) tooLate(d *delivery, j *jobs.Job) *jobs.Event {
	now := jobs.Now()
	if at := j.LimitAt(); at == 0 || now < at {
		return nil
	}
	ended := j.Clone()
	if ended.Status == jobs.Processing {
		ended.Status = jobs.Pending // whoever ran it is gone
	}
	if !ended.Expire(now) {
		return nil
	}
	x := execution{p: p, d: d, job: j, attempt: j.Attempt}
	e := x.event(jobs.KindCancelled)
	if ended.Status == jobs.Failed {
		e.Kind = jobs.KindFailed
	}
	e.At, e.Error = ended.EndedAt, ended.Error
	return &e
}
