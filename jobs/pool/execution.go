package pool

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"jobstream/jobs"
)

// The states of an execution.
const (
	executing = iota
	finished
	abandoned
)

// execution is one attempt while it runs.
type execution struct {
	p       *Pool
	d       *delivery
	job     *jobs.Job
	typ     *jobs.Type
	attempt int
	begun   time.Time
	started jobs.Time // begun, as the record has it
	timeout time.Duration
	until   time.Time // when that is over, while the handler runs
	limit   error     // what the end of the time is called: ErrTimeout or ErrDeadline
	ctx     context.Context
	cancel  context.CancelCauseFunc
	task    jobs.Task // what the handler gets
	state   atomic.Int32
	ended   atomic.Pointer[jobs.Job] // the job, if it ended elsewhere meanwhile

	progress progressThrottle
}

func (p *Pool) run(d *delivery, job *jobs.Job) bool {
	x := &execution{
		p: p, d: d, job: job, typ: d.lane.typ.Type, attempt: job.Failures + 1, begun: time.Now(),
		// The later start is the newer execution (see Apply), even if the clock was
		// set back meanwhile.
		started: max(jobs.Now(), job.StartedAt+1),
	}
	x.ctx, x.cancel = context.WithCancelCause(context.Background())
	defer x.cancel(nil)
	if !p.enter(x) {
		p.dismiss(d)
		return true
	}
	if job.Lost > 0 || job.Seq <= p.o.SurvivorsUpTo {
		// The job was in the queue when a process died, perhaps of this job before
		// its start could be recorded: this time the record comes first.
		if !p.startDurably(x) {
			if !x.state.CompareAndSwap(executing, finished) {
				return false
			}
			if x.ended.Load() != nil {
				p.dismiss(d)
			} else {
				p.giveBack(d, 0)
			}
			return true
		}
	} else {
		p.o.Recorder.Started(d.Seq, x.started, x)
	}
	x.bound()
	p.limit(x)
	result, err := x.handle()
	if !x.state.CompareAndSwap(executing, finished) {
		p.o.Logger.Warn("a handler returned after its job was given up; what it did is ignored", "job", job.ID, "type", job.Type)
		return false
	}
	last := x.progress.stop()
	e := x.outcome(result, err)
	if e.Kind == jobs.KindCompleted {
		e.Message = last // what the throttle held back stays, as the job's last word
	}
	p.conclude(d, e)
	return true
}

// handle calls the handler and turns a panic into an error.
func (x *execution) handle() (result jobs.Result, err error) {
	defer func() {
		if r := recover(); r != nil {
			x.p.o.Logger.Error("a handler panicked; that counts as a failed attempt", "job", x.job.ID, "type", x.job.Type, "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	x.task.Begin(x.job, x.attempt, x.report)
	return x.typ.Handler.Handle(x.ctx, &x.task)
}

// enter makes a running attempt known, so that a stop or a cancel can end it. It
// returns false if the job has ended before.
func (p *Pool) enter(x *execution) bool {
	p.mu.Lock()
	if x.d.ended != nil {
		p.mu.Unlock()
		return false
	}
	x.d.exec = x
	p.meter.enter(x.begun)
	killed := p.killed
	p.mu.Unlock()
	if killed {
		x.interrupt(jobs.ErrShutdown)
	}
	return true
}

// bound decides how long the attempt may take from now on.
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

// deadline is the job's, 0 if it has none.
func (x *execution) deadline() jobs.Time {
	if x.job.Terms == nil {
		return 0
	}
	return x.job.Terms.Deadline
}

// limit has an attempt interrupted when its time is over. One alarm does that
// for all: a timer each is set in vain for nearly every job.
func (p *Pool) limit(x *execution) {
	until := time.Now().Add(x.timeout)
	p.mu.Lock()
	x.until = until
	p.limits.set(until)
	p.mu.Unlock()
}

// overdue interrupts the attempts whose time is over.
func (p *Pool) overdue() {
	now := time.Now()
	var late []*execution
	var next time.Time
	p.mu.Lock()
	for _, d := range p.begun {
		x := d.exec
		switch {
		case x == nil || x.until.IsZero():
		case !x.until.After(now):
			x.until = time.Time{}
			late = append(late, x)
		case next.IsZero() || x.until.Before(next):
			next = x.until
		}
	}
	p.limits.at = time.Time{}
	if !next.IsZero() {
		p.limits.set(next)
	}
	p.mu.Unlock()
	for _, x := range late {
		x.interrupt(x.limit)
	}
}

// interrupt cancels the handler's context and gives it the type's grace to return.
func (x *execution) interrupt(cause error) {
	x.cancel(cause)
	time.AfterFunc(x.typ.GraceOrDefault(), func() { x.abandon(cause) })
}

// abandon ends an attempt whose handler does not return: its worker's place is
// free again, and what the handler still does is ignored.
func (x *execution) abandon(cause error) {
	if !x.state.CompareAndSwap(executing, abandoned) {
		return
	}
	x.progress.stop()
	x.p.o.Logger.Error("a handler ignores the end of its context; its job is given up and its goroutine leaks until it returns",
		"job", x.job.ID, "type", x.job.Type, "cause", context.Cause(x.ctx))
	x.p.conclude(x.d, x.outcome(jobs.Result{}, cause))
	if x.job.Lost > 0 {
		// Its goroutine may still do harm, but waiting for it could hold up the
		// other suspects for ever.
		x.p.leaveSuspects(x.job)
	}
	x.p.mu.Lock()
	next := x.p.leave()
	x.p.mu.Unlock()
	if next != nil {
		go x.p.work(next)
	}
}

// StartEvent is the event of the attempt's start; see [Recorder.Started].
func (x *execution) StartEvent() *jobs.Event {
	e := x.event(jobs.KindStarted)
	return &e
}

// event is an event of this attempt.
func (x *execution) event(kind jobs.Kind) jobs.Event {
	j := x.job
	return jobs.Event{
		Kind: kind, ID: j.ID, Seq: x.d.Seq, Type: j.Type, Priority: j.Priority, CreatedAt: j.CreatedAt, MaxAttempts: j.MaxAttempts,
		Run: j.Run, Attempt: x.attempt, At: x.started, StartedAt: x.started, Node: x.p.o.Node,
	}
}

type startWait struct {
	startedAt jobs.Time
	done      chan struct{}
}

// startDurably records the start of an attempt and waits until the tracker has
// committed it.
func (p *Pool) startDurably(x *execution) bool {
	w := &startWait{startedAt: x.started, done: make(chan struct{})}
	p.mu.Lock()
	p.awaited[x.d.Seq] = w
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.awaited, x.d.Seq)
		p.mu.Unlock()
	}()
	p.o.Recorder.Record(x.StartEvent())
	t := time.NewTimer(resendAfter)
	defer t.Stop()
	select {
	case <-w.done:
		return true
	case <-t.C:
	case <-x.ctx.Done():
	}
	return false
}

// checkAwaited lets go those whose start is durable now. It may have to read the
// tracker's file, so p.mu is not held.
func (p *Pool) checkAwaited(awaited map[uint64]*startWait) {
	for seq, w := range awaited {
		j, err := p.o.Tracker.Find(seq)
		if err != nil || j == nil || j.Status != jobs.Processing || j.StartedAt < w.startedAt {
			continue
		}
		p.mu.Lock()
		if p.awaited[seq] == w { // or it was let go, or has given up
			close(w.done)
			delete(p.awaited, seq)
		}
		p.mu.Unlock()
	}
}
