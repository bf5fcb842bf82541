package pool

import (
	"context"
	"time"

	"jobstream/jobs"
)

// verdict is what a worker has done with its delivery.
type verdict int

const (
	runs      verdict = iota // its job has an execution
	dismissed                // nobody needs it: it has been acknowledged
	givenBack                // the queue delivers its message again after a while
	returned                 // it waits in its lane
	parked                   // it waits until other suspects have ended
	concluded                // its job ends without an attempt, with the recorded outcome
	givenUp                  // its attempt did not end in time, and its worker was replaced
)

// open makes the execution of a worker's delivery and records its start. There is one
// if the verdict is runs. Then the caller ends it by [execution.close] or
// [execution.end].
func (p *Pool) open(d *delivery) (*execution, verdict) {
	letOut := d.letOut // soon d may be another worker's
	job, v := p.begin(d)
	if v == runs && job.Lost > 0 {
		v = p.suspect(d, job)
	}
	if v != runs {
		if letOut && v != parked {
			p.mu.Lock()
			p.unpark() // others waited for it
			p.mu.Unlock()
		}
		return nil, v
	}
	x := newExecution(p, d, job)
	x.ctx, x.cancel = context.WithCancelCause(context.Background())
	if x.typ.HandsOver {
		x.lease = &lease{node: p.o.Node, span: p.span(x.typ)}
	}
	if v = x.begin(); v != runs {
		x.cancel(nil)
		if v != givenUp {
			p.leaveSuspects(job)
		}
		return nil, v
	}
	return x, runs
}

// begin looks up the job of a delivery and claims it for its worker. There is one if
// the verdict is runs.
func (p *Pool) begin(d *delivery) (*jobs.Job, verdict) {
	job, v := p.lookUp(d)
	if v != runs {
		return nil, v
	}
	c := p.claim(d, job)
	switch c {
	case elsewhere:
		return nil, p.giveBack(d, elsewhereAgain)
	case refused:
		return nil, p.giveBack(d, refusedAgain)
	case closed:
		return nil, returned
	case claimed, doubtful:
	}
	if c == doubtful || job.Seq != job.Key { // it may have ended meanwhile, under its earlier message
		if job, v = p.lookUp(d); v != runs {
			return nil, v
		}
	}
	if job.Terms != nil {
		last := execution{p: p, d: d, job: job, attempt: job.Attempt}
		if e := last.expired(); e != nil {
			p.conclude(d, e)
			return nil, concluded
		}
	}
	return job, runs
}

// lookUp returns the job of a delivery, if it is to run.
func (p *Pool) lookUp(d *delivery) (*jobs.Job, verdict) {
	job, err := p.o.Tracker.Find(d.Seq)
	switch {
	case err != nil:
		p.o.Logger.Error("cannot look up a job; it is tried again", "type", d.typ.Name, "seq", d.Seq, "error", err)
		return nil, p.giveBack(d, time.Second)
	case !needs(job, d.Seq):
		return nil, p.dismiss(d)
	}
	if job.DueAt != 0 {
		if wait := job.DueAt.Sub(jobs.Now()); wait > 0 && !setBack(job, wait) {
			return nil, p.giveBack(d, wait)
		}
	}
	return job, runs
}

// setBack says whether a retry would have to wait longer than it should when its moment
// was fixed. Then the wall clock was set back since.
func setBack(j *jobs.Job, wait time.Duration) bool {
	if j.Status != jobs.Retrying {
		return false
	}
	for i := len(j.History) - 1; i >= 0; i-- {
		if h := &j.History[i]; h.Due == j.DueAt {
			return wait > h.Due.Sub(h.At)+time.Second
		}
	}
	return false
}

const (
	// elsewhereAgain is the delay of a message whose job runs under its earlier one.
	elsewhereAgain = time.Second
	// refusedAgain is the delay of a message whose job a gate has refused.
	refusedAgain = 100 * time.Millisecond
)

// claim claims a job for the worker of a delivery. If a gate of its type has closed
// meanwhile, the delivery waits in its lane.
func (p *Pool) claim(d *delivery, j *jobs.Job) claim {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.claims.claim(d, j)
	if c == closed {
		if p.stopping { // nobody would pick it again
			p.release(d)
		} else {
			p.vacate(d, time.Now())
			p.choice.restore(d)
		}
	}
	return c
}

// expired is the end of a job that may no longer begin; nil if it may.
func (x *execution) expired() *jobs.Event {
	now := jobs.Now()
	if at := x.job.LimitAt(); at == 0 || now < at {
		return nil
	}
	ended := x.job.Clone()
	if ended.Status == jobs.Processing {
		ended.Status = jobs.Pending // its earlier worker is gone
	}
	if !ended.Expire(now) {
		return nil
	}
	e := x.event(jobs.KindCancelled)
	if ended.Status == jobs.Failed {
		e.Kind = jobs.KindFailed
	}
	e.At, e.Error = ended.EndedAt, ended.Error
	return &e
}
