package pool

import (
	"fmt"

	"jobstream/jobs"
)

// Queueing is the tracker's knowledge of a waiting job.
type Queueing struct {
	Position int  // in its lane, from 1; 0 = unknown
	Full     bool // the queue has no room for jobs that are due
}

// Waiting is the first reason why j does not run. It is nil for a job that runs or has
// ended.
func (p *Pool) Waiting(j *jobs.Job, q Queueing) *jobs.Waiting {
	if j.Status.Ended() || j.Status == jobs.Processing {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if j.DueAt > jobs.Now() {
		return p.untilDue(j)
	}
	if d := p.claims.deliveries[j.ID]; d != nil && (d.exec != nil || d.outcome != nil) {
		return &jobs.Waiting{Reason: jobs.WaitStarting, Detail: "a worker has it; its record will say so in a moment"}
	}
	w := p.reason(j, q)
	if j.Place == jobs.InQueue {
		w.Position = q.Position
	}
	return w
}

// WaitReasons counts pending jobs by the reason, of types whose jobs wait at these places.
// full says that the queue has no room for jobs that are due. It looks at no single job,
// so it does not see what stops one of them alone.
func (p *Pool) WaitReasons(waiting map[string]jobs.Places, full bool) map[string]map[string]int {
	all := make(map[string]map[string]int, len(waiting))
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, places := range waiting {
		of := make(map[string]int)
		for place, n := range places {
			if n == 0 {
				continue
			}
			j := &jobs.Job{Type: name, Status: jobs.Pending, Place: jobs.Place(place)}
			if j.Place == jobs.InQueue { // the first may be on its way already
				of[p.reason(j, Queueing{Position: 1, Full: full}).Reason]++
				n--
			}
			if n > 0 {
				of[p.reason(j, Queueing{Position: 2, Full: full}).Reason] += n
			}
		}
		all[name] = of
	}
	return all
}

// untilDue is the reason of a job whose moment is known. p.mu is locked.
func (p *Pool) untilDue(j *jobs.Job) *jobs.Waiting {
	if t := p.types[j.Type]; t != nil && t.target != nil && t.target.putOff(j) {
		return t.target.why(j, Queueing{})
	}
	w := &jobs.Waiting{Reason: jobs.WaitScheduled, Until: j.DueAt, Detail: j.Message}
	if j.Status == jobs.Retrying {
		w.Reason = jobs.WaitBackoff
		w.Detail = fmt.Sprintf("attempt %d of %d failed", j.Failures, j.MaxAttempts)
		if j.Attempt > j.Failures {
			w.Detail = "it has lost its worker " + times(j.Lost)
		}
	}
	return w
}

// reason is the first reason of a job whose moment has come. p.mu is locked.
func (p *Pool) reason(j *jobs.Job, q Queueing) *jobs.Waiting {
	t := p.types[j.Type]
	switch {
	case p.stopping:
		return &jobs.Waiting{Reason: jobs.WaitNoWorker, Detail: "the server is shutting down"}
	case t == nil:
		return notConfigured(j.Type)
	}
	w := t.gates.why(j, q)
	switch {
	case w != nil:
		return w
	case j.Place == jobs.Due && j.Status == jobs.Scheduled && q.Full:
		return &jobs.Waiting{Reason: jobs.WaitQueueFull, Detail: "its time has come, but the queue has no room"}
	case j.Place == jobs.Due:
		return &jobs.Waiting{Reason: jobs.WaitStarting, Detail: "it is being put into the queue"}
	}
	return p.inLane(j, q)
}

// notConfigured is the reason of a job whose type does not exist at present.
func notConfigured(typ string) *jobs.Waiting {
	return &jobs.Waiting{Reason: jobs.WaitNoWorker, Detail: "the type " + jobs.Quote(typ) + " is not configured"}
}

// inLane is the reason of a job that its gates would let pass. p.mu is locked.
func (p *Pool) inLane(j *jobs.Job, q Queueing) *jobs.Waiting {
	if p.choice.paused {
		return &jobs.Waiting{Reason: jobs.WaitWorkersPaused, Detail: "the workers of this server are paused"}
	}
	if p.types[j.Type].Remote {
		return p.inRemoteLane(j, q)
	}
	if !p.crew.free() {
		return &jobs.Waiting{Reason: jobs.WaitAllBusy, Detail: fmt.Sprintf("%d of %d workers are running", p.crew.running, p.crew.scale.size)}
	}
	if j.Lost > 0 && p.suspects.has(j.ID) {
		detail := fmt.Sprintf("it has lost its worker %d times, so other such jobs have to end first", j.Lost)
		return &jobs.Waiting{Reason: jobs.WaitQueue, Detail: detail}
	}
	return p.inFront(q)
}

// inFront is the reason of a job that would get the next worker, but for those before it.
// p.mu is locked.
func (p *Pool) inFront(q Queueing) *jobs.Waiting {
	if p.outcomes.full() {
		return &jobs.Waiting{Reason: jobs.WaitQueue, Detail: fmt.Sprintf("%d outcomes have to be stored first", p.outcomes.count)}
	}
	if q.Position > 1 {
		return &jobs.Waiting{Reason: jobs.WaitQueue, Detail: fmt.Sprintf("%d are before it in its lane", q.Position-1)}
	}
	return &jobs.Waiting{Reason: jobs.WaitStarting}
}

// inRemoteLane is inLane for a job that a worker elsewhere makes. p.mu is locked.
func (p *Pool) inRemoteLane(j *jobs.Job, q Queueing) *jobs.Waiting {
	t := p.types[j.Type]
	if p.remote.isParked(j.ID) {
		detail := "it has lost its worker " + times(j.Lost) + ", so it waits for one that does nothing else"
		return &jobs.Waiting{Reason: jobs.WaitQueue, Detail: detail}
	}
	if t.asks > 0 {
		return p.inFront(q)
	}
	if t.cap.inside > 0 {
		return &jobs.Waiting{Reason: jobs.WaitAllBusy, Detail: fmt.Sprintf("%d jobs of its type are at work, and no other worker asks for one", t.cap.inside)}
	}
	return &jobs.Waiting{Reason: jobs.WaitNoWorker, Detail: "no worker has asked for this type " + p.remote.unasked(t)}
}

// times is how often something has happened.
func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
