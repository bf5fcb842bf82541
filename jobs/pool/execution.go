package pool

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"jobstream/jobs"
)

// execution is one attempt while it runs, from [Pool.open] to end. A worker's goroutine
// runs it, and calls handle in between. Or a worker elsewhere has it under a lease, and
// then it has no goroutine.
//
// Its worker and the alarms read the fields of newExecution. The pool's lock guards
// until.
type execution struct {
	p       *Pool
	d       *delivery
	job     *jobs.Job
	typ     *jobs.Type
	attempt int
	begun   time.Time
	started jobs.Time // begun, in the record's form
	timeout time.Duration
	until   time.Time       // the end of that, while the handler runs
	limit   error           // the reason for that end: ErrTimeout or ErrDeadline
	away    atomic.Bool     // its worker is elsewhere
	lease   *lease          // nil: its worker cannot be elsewhere
	ctx     context.Context // of the handler, if it runs here
	cancel  context.CancelCauseFunc
	task    jobs.Task                // the handler's argument
	over    atomic.Int32             // it has ended or was given up: 0, endedHere or endedThere
	ended   atomic.Pointer[jobs.Job] // the job, if it has ended elsewhere

	filed    atomic.Bool // it has begun a file
	progress progressThrottle
	log      jobLog
}

func newExecution(p *Pool, d *delivery, job *jobs.Job) *execution {
	return &execution{
		p: p, d: d, job: job, typ: d.typ, attempt: job.Failures + 1, begun: time.Now(),
		// The later start is the newer execution (see Apply), even if the clock was set
		// back meanwhile.
		started: max(jobs.Now(), job.StartedAt+1),
	}
}

// begin registers the attempt and records its start. The attempt's time counts from
// now.
func (x *execution) begin() verdict {
	if !x.enter() {
		return x.p.dismiss(x.d)
	}
	if !x.suspect() {
		x.p.o.Recorder.Started(x.d.Seq, x.started, x)
	} else if !x.recordStart() {
		// The job was in the queue when a process died, and may have killed it before
		// its start was recorded. So it does not run without that record.
		switch {
		case !x.over.CompareAndSwap(0, endedHere):
			return givenUp
		case x.ended.Load() != nil:
			return x.p.dismiss(x.d)
		}
		return x.p.giveBack(x.d, 0)
	}
	x.bound()
	x.watch()
	return runs
}

// recordStart records the start and waits for its commit, at most for a while and until
// the attempt is interrupted. It says whether the commit has come.
func (x *execution) recordStart() bool {
	w := x.p.awaited.begin(x)
	defer x.p.awaited.forget(w)
	x.p.o.Recorder.Record(x.StartEvent())
	t := time.NewTimer(resendAfter)
	defer t.Stop()
	select {
	case <-w.done:
		return x.ended.Load() == nil
	case <-t.C:
	case <-x.ctx.Done():
	}
	return false
}

// logAttr names the attempt in the log.
func (x *execution) logAttr() slog.Attr {
	return jobs.LogAttr(x.job.ID, x.job.Type, x.attempt, x.AttemptTrace())
}

// suspect says whether a process may have died while it ran the job.
func (x *execution) suspect() bool { return x.job.Lost > 0 || x.job.Seq <= x.p.o.SurvivorsUpTo }

// close ends an execution with the handler's result. It returns false if the execution
// was given up before.
func (x *execution) close(result jobs.Result, err error) bool {
	defer x.cancel(nil)
	if errors.Is(err, jobs.ErrHandedOver) && x.handOver() || x.end(result, err) || x.over.Load() == endedThere {
		return true
	}
	x.p.o.Logger.Warn("a handler returned after its job was given up; what it did is ignored", x.logAttr())
	return false
}

// How an execution has ended: here, or by its worker elsewhere.
const (
	endedHere = iota + 1
	endedThere
)

// end ends an execution, once, and records its outcome. It returns false if it has
// ended before.
func (x *execution) end(result jobs.Result, err error) bool { return x.endAs(endedHere, result, err) }

func (x *execution) endAs(how int32, result jobs.Result, err error) bool {
	if !x.over.CompareAndSwap(0, how) {
		return false
	}
	last := x.progress.stop()
	x.log.close()
	files := x.task.End()
	e := x.outcome(result, err)
	if e.Kind == jobs.KindCompleted {
		e.Message = last // the throttle deferred it: it stays as the job's last message
		e.SetFiles(files)
	} else {
		files = nil
	}
	x.tidy(files)
	away := x.away.Load()
	x.p.conclude(x.d, e)
	if !away {
		x.p.leaveSuspects(x.job)
	}
	return true
}

// handle calls the handler.
func (x *execution) handle() (jobs.Result, error) {
	x.task.Begin(x.job, x.attempt, x)
	return jobs.Attempt(x.ctx, x.typ.Handler, &x.task, x.p.o.Logger)
}

// enter registers a running attempt, so that a stop or a cancellation can end it. It
// returns false if the job has ended before.
func (x *execution) enter() bool {
	p := x.p
	p.mu.Lock()
	if x.d.ended != nil {
		p.mu.Unlock()
		return false
	}
	x.d.exec = x
	away := x.away.Load()
	killed := p.claims.killed && !away
	if !away {
		p.crew.meter.enter(x.begun)
	}
	p.mu.Unlock()
	if killed {
		x.interrupt(jobs.ErrShutdown)
	}
	return true
}

// bound sets how long the attempt may take from now on.
func (x *execution) bound() {
	x.timeout, x.limit = x.job.Timeout, jobs.ErrTimeout
	if x.timeout <= 0 {
		x.timeout = x.typ.Timeout
	}
	if at := x.deadline(); at != 0 {
		if left := at.Sub(jobs.Now()); left < x.timeout {
			x.timeout, x.limit = left, jobs.ErrDeadline
		}
	}
}

// deadline is the job's deadline; 0 if it has none.
func (x *execution) deadline() jobs.Time {
	if x.job.Terms == nil {
		return 0
	}
	return x.job.Terms.Deadline
}

// watch interrupts the attempt when its time is over. One alarm serves all attempts,
// since nearly every timer would be set in vain.
func (x *execution) watch() {
	until := time.Now().Add(x.timeout)
	x.task.Until = until
	x.p.mu.Lock()
	x.until = until
	x.p.claims.limits.set(until)
	x.p.mu.Unlock()
}

// overdue interrupts the attempts whose time is over.
func (p *Pool) overdue() {
	p.mu.Lock()
	late := p.claims.late(time.Now())
	p.mu.Unlock()
	for _, x := range late {
		x.interrupt(x.limit)
	}
}

// interrupt cancels the handler's context and gives it the type's grace to return. A
// worker elsewhere has none: its lease ends at once.
func (x *execution) interrupt(cause error) {
	if x.away.Load() {
		x.revoke(cause)
		return
	}
	x.cancel(cause)
	time.AfterFunc(x.typ.GraceOrDefault(), func() { x.abandon(cause) })
}

// abandon gives up an attempt whose handler does not return. Its worker is replaced,
// and the handler's result is ignored. Its goroutine may still do harm, but a wait for
// it could stop other suspects for ever.
func (x *execution) abandon(cause error) {
	switch away := x.away.Load(); {
	case away && errors.Is(cause, jobs.ErrShutdown): // a stop leaves it alone
		return
	case !x.end(jobs.Result{}, cause) || away:
		return
	}
	x.p.o.Logger.Error("a handler ignores the end of its context; its job is given up and its goroutine leaks until it returns",
		x.logAttr(), "cause", context.Cause(x.ctx))
	x.p.replace()
}

// AttemptTrace is where the attempt is in a trace.
func (x *execution) AttemptTrace() jobs.Trace {
	if x.p.o.Trace == nil {
		return x.job.Trace()
	}
	return x.p.o.Trace(x.job, x.started)
}

// StartEvent is the event of the attempt's start; see [Recorder.Started].
func (x *execution) StartEvent() *jobs.Event {
	e := x.event(jobs.KindStarted)
	return &e
}

// event makes an event of this attempt.
func (x *execution) event(kind jobs.Kind) jobs.Event {
	j := x.job
	return jobs.Event{
		Kind: kind, ID: j.ID, Seq: x.d.Seq, Type: j.Type, Priority: j.Priority, CreatedAt: j.CreatedAt, MaxAttempts: j.MaxAttempts,
		Run: j.Run, Attempt: x.attempt, At: x.started, StartedAt: x.started, Node: x.node(),
	}
}

// node is where it runs.
func (x *execution) node() string {
	if x.lease != nil {
		return x.lease.node
	}
	return x.p.o.Node
}

// cause is why its context has ended; err is its error.
func (x *execution) cause(err error) error {
	if x.away.Load() {
		return err
	}
	return context.Cause(x.ctx)
}
