package pool

import (
	"fmt"
	"jobstream/jobs"
	"time"
)

// Queueing is what the tracker knows of a waiting job and the pool does not.
type Queueing struct {
	Position int  // in its lane, from 1; 0 = not known
	Full     bool // the queue has no room for jobs whose time has come
}

// Waiting says why j is not running: the one thing that holds it back first. It
// is nil for a job that runs or has ended.
func (p *Pool) Waiting(j *jobs.Job, q Queueing) *jobs.Waiting {
	if j.Status.Ended() || j.Status == jobs.Processing {
		return nil
	}
	now := jobs.Now()
	if j.DueAt > now {
		return untilDue(j)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.begun[j.ID]; h != nil && (h.exec != nil || h.outcome != nil) {
		return &jobs.Waiting{Reason: jobs.WaitStarting, Detail: "a worker has it; its record will say so in a moment"}
	}
	w := p.barred(j)
	switch {
	case w != nil:
	case j.Place == jobs.Due && j.Status == jobs.Scheduled && q.Full:
		w = &jobs.Waiting{Reason: jobs.WaitQueueFull, Detail: "its time has come, but the queue has no room"}
	case j.Place == jobs.Due:
		w = &jobs.Waiting{Reason: jobs.WaitStarting, Detail: "it is being put into the queue"}
	default:
		w = p.inLane(j, q, now)
	}
	if j.Place == jobs.InQueue {
		w.Position = q.Position
	}
	return w
}

// untilDue is about a job whose time is known.
func untilDue(j *jobs.Job) *jobs.Waiting {
	w := &jobs.Waiting{Reason: jobs.WaitScheduled, Until: j.DueAt, Detail: j.Message}
	if j.Status == jobs.Retrying {
		w.Reason = jobs.WaitBackoff
		w.Detail = fmt.Sprintf("attempt %d of %d failed", j.Failures, j.MaxAttempts)
	}
	return w
}

// barred is about what keeps a job back wherever its message is. p.mu is held.
func (p *Pool) barred(j *jobs.Job) *jobs.Waiting {
	t := p.types[j.Type]
	switch {
	case p.stopping:
		return &jobs.Waiting{Reason: jobs.WaitNoWorker, Detail: "the server is shutting down"}
	case t == nil:
		return &jobs.Waiting{Reason: jobs.WaitNoWorker, Detail: "the type " + jobs.Quote(j.Type) + " is not configured"}
	case t.paused:
		return &jobs.Waiting{Reason: jobs.WaitTypePaused, Detail: "the type " + jobs.Quote(j.Type) + " is paused"}
	case j.Place == jobs.Held || j.Keyed() && j.Place == jobs.InQueue && p.keyTaken(j, t):
		n := perKey(t.Type)
		detail := fmt.Sprintf("%d of %d jobs with the concurrency key %s have their turn", n, n, jobs.Quote(j.ConcurrencyKey()))
		return &jobs.Waiting{Reason: jobs.WaitKeyLimit, Detail: detail}
	}
	return nil
}

// keyTaken says whether as many run with the job's key as may, though the tracker
// let it into the queue. p.mu is held.
func (p *Pool) keyTaken(j *jobs.Job, t *poolType) bool {
	return p.keys[keyOfType{j.Type, j.Terms.ConcurrencyKey}] >= perKey(t.Type)
}

// inLane is about a job whose message is in the queue. p.mu is held.
func (p *Pool) inLane(j *jobs.Job, q Queueing, now jobs.Time) *jobs.Waiting {
	t := p.types[j.Type]
	if t.cap > 0 && t.running >= t.cap {
		return &jobs.Waiting{Reason: jobs.WaitTypeLimit, Detail: fmt.Sprintf("%d of %d running", t.running, t.cap)}
	}
	if t.tokens != nil {
		clock := time.Now()
		if wait := t.tokens.next(clock).Sub(clock); wait > 0 {
			before := float64(max(q.Position-1, 0)) * float64(t.tokens.every) // for those before it
			wait += time.Duration(min(before, float64(jobs.MaxDelay)))
			return &jobs.Waiting{Reason: jobs.WaitRateLimit, Until: now.Add(wait), Detail: "at most " + t.Rate.String() + " may start"}
		}
	}
	if p.running >= p.scale.size {
		return &jobs.Waiting{Reason: jobs.WaitAllBusy, Detail: fmt.Sprintf("%d of %d workers are running", p.running, p.scale.size)}
	}
	if j.Lost > 0 && p.parked(j) {
		detail := fmt.Sprintf("it has lost its worker %d times, so other such jobs have to end first", j.Lost)
		return &jobs.Waiting{Reason: jobs.WaitQueue, Detail: detail}
	}
	if p.congested() {
		return &jobs.Waiting{Reason: jobs.WaitQueue, Detail: fmt.Sprintf("%d outcomes have to be stored first", p.unsettled.count)}
	}
	if q.Position > 1 {
		return &jobs.Waiting{Reason: jobs.WaitQueue, Detail: fmt.Sprintf("%d are before it in its lane", q.Position-1)}
	}
	return &jobs.Waiting{Reason: jobs.WaitStarting}
}

// parked says whether the job waits for other suspects. p.mu is held.
func (p *Pool) parked(j *jobs.Job) bool {
	for _, w := range p.suspects.parked {
		if w.h.id == j.ID {
			return true
		}
	}
	return false
}
