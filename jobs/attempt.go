package jobs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Bounds of what an attempt may leave in the record.
const (
	MaxResult  = 256 << 10 // bytes of JSON
	maxError   = 4096      // bytes of an error's text
	maxMessage = 512       // bytes of a progress message
)

// attempt runs one delivery. It returns false if the worker's place was given
// up meanwhile, because the handler ignored the end of its context.
func (p *Pool) attempt(h *held) bool {
	job := p.lookUp(h)
	if job != nil && !p.begin(h, job) {
		p.giveBack(h, elsewhereAgain)
		return true
	}
	if job != nil && job.Seq != job.Key {
		job = p.lookUp(h) // it may have ended under its earlier message since
	}
	if job == nil {
		return true
	}
	if job.Lost == 0 {
		return p.run(h, job)
	}
	if !p.suspects.enter(p, h, job) {
		return true
	}
	if !p.run(h, job) {
		return false // given up, and its turn with it
	}
	p.leaveSuspects(job)
	return true
}

// lookUp returns the job that is to run for a delivery. If there is none, or not
// yet, the delivery has been settled.
func (p *Pool) lookUp(h *held) *Job {
	job, err := p.o.Tracker.Find(h.Seq)
	switch {
	case err != nil:
		p.o.Logger.Error("cannot look up a job; it is tried again", "seq", h.Seq, "error", err)
		p.giveBack(h, time.Second)
		return nil
	case job == nil || job.Seq != h.Seq || job.Status.Ended():
		p.drop(h)
		p.check("acknowledge", p.o.Queue.Ack(h.Ref))
		return nil
	}
	if wait := job.DueAt.Sub(Now()); job.DueAt != 0 && wait > 0 {
		p.giveBack(h, wait)
		return nil
	}
	return job
}

// elsewhereAgain is when a message is looked at again whose job is being run
// under its earlier one.
const elsewhereAgain = time.Second

// begin makes the job this worker's, unless another one has it for another
// message: when somebody purges the queue its jobs are published again, those
// that run, too.
func (p *Pool) begin(h *held, j *Job) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if other := p.begun[j.ID]; other != nil && other != h {
		return false
	}
	h.id = j.ID
	p.begun[j.ID] = h
	return true
}

func (p *Pool) giveBack(h *held, delay time.Duration) {
	p.drop(h)
	p.nak(h, delay)
}

// The states of an execution.
const (
	executing = iota
	finished
	abandoned
)

// execution is one attempt while it runs.
type execution struct {
	p       *Pool
	h       *held
	job     *Job
	typ     *Type
	attempt int
	started Time
	timeout time.Duration
	ctx     context.Context
	cancel  context.CancelCauseFunc
	state   atomic.Int32

	progress progressThrottle
}

func (p *Pool) run(h *held, job *Job) bool {
	x := &execution{
		p: p, h: h, job: job, typ: h.lane.typ.Type, attempt: job.Failures + 1, timeout: job.Timeout,
		// The later start is the newer execution (see Apply), even if the clock was
		// set back meanwhile.
		started: max(Now(), job.StartedAt+1),
	}
	if x.timeout <= 0 {
		x.timeout = x.typ.Timeout
	}
	x.ctx, x.cancel = context.WithCancelCause(context.Background())
	defer x.cancel(nil)
	p.enter(x)
	if job.Lost > 0 || job.Seq <= p.o.SurvivorsUpTo {
		// The job was in the queue when a process died, perhaps of this job before
		// its start could be recorded: this time the record comes first.
		if !p.startDurably(x) {
			if !x.state.CompareAndSwap(executing, finished) {
				return false
			}
			p.giveBack(h, 0)
			return true
		}
	} else {
		p.o.Recorder.Started(x.event(KindStarted))
	}
	timer := time.AfterFunc(x.timeout, x.overdue)
	result, err := x.handle()
	timer.Stop()
	if !x.state.CompareAndSwap(executing, finished) {
		p.o.Logger.Warn("a handler returned after its job was given up; what it did is ignored", "job", job.ID, "type", job.Type)
		return false
	}
	last := x.progress.stop()
	e := x.outcome(result, err)
	if e.Kind == KindCompleted {
		e.Message = last // what the throttle held back stays, as the job's last word
	}
	p.conclude(h, e)
	return true
}

// handle calls the handler and turns a panic into an error.
func (x *execution) handle() (result Result, err error) {
	defer func() {
		if r := recover(); r != nil {
			x.p.o.Logger.Error("a handler panicked; that counts as a failed attempt", "job", x.job.ID, "type", x.job.Type, "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	t := &Task{Job: x.job, Attempt: x.attempt, progress: x.report}
	return x.typ.Handler.Handle(x.ctx, t)
}

// enter makes a running attempt known, so that a stop can end it.
func (p *Pool) enter(x *execution) {
	p.mu.Lock()
	x.h.exec = x
	killed := p.killed
	p.mu.Unlock()
	if killed {
		x.interrupt(ErrShutdown)
	}
}

// overdue ends an attempt whose time is over.
func (x *execution) overdue() { x.interrupt(ErrTimeout) }

// interrupt cancels the handler's context and gives it a second to notice.
func (x *execution) interrupt(cause error) {
	x.cancel(cause)
	time.AfterFunc(abandonAfter, func() { x.abandon(cause) })
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
	x.p.conclude(x.h, x.outcome(Result{}, cause))
	if x.job.Lost > 0 {
		// Its goroutine may still do harm, but waiting for it could hold up the
		// other suspects for ever.
		x.p.leaveSuspects(x.job)
	}
	x.p.mu.Lock()
	next := x.p.leave(x.h.lane.typ)
	x.p.mu.Unlock()
	if next != nil {
		go x.p.work(next)
	}
}

// event is an event of this attempt.
func (x *execution) event(kind Kind) Event {
	j := x.job
	return Event{
		Kind: kind, ID: j.ID, Seq: x.h.Seq, Type: j.Type, Priority: j.Priority, CreatedAt: j.CreatedAt, MaxAttempts: j.MaxAttempts,
		Run: j.Run, Attempt: x.attempt, At: x.started, StartedAt: x.started, Node: x.p.o.Node,
	}
}

// outcome is the event that ends the attempt.
func (x *execution) outcome(result Result, err error) *Event {
	e := x.event(KindCompleted)
	e.At = max(Now(), x.started)
	e.Artifact = result.Artifact
	if err == nil && result.Value != nil {
		e.Result, err = encodeResult(result.Value)
	}
	if err == nil {
		return &e
	}
	cause := context.Cause(x.ctx)
	if errors.Is(cause, ErrShutdown) && !IsPermanent(err) {
		e.Kind = KindReleased
		e.Error = ErrShutdown.Error()
		e.Artifact = nil
		return &e
	}
	e.Error = truncate(err.Error(), maxError)
	if errors.Is(cause, ErrTimeout) && !IsPermanent(err) {
		e.Error = fmt.Sprintf("timed out after %s", x.timeout)
		if !errors.Is(err, ErrTimeout) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			e.Error += ": " + truncate(err.Error(), maxError)
		}
	}
	if IsPermanent(err) || x.attempt >= x.job.MaxAttempts {
		e.Kind = KindFailed
		return &e
	}
	e.Kind = KindRetrying
	e.Artifact = nil
	e.Due = e.At.Add(x.typ.Backoff.Delay(x.attempt))
	return &e
}

func encodeResult(v any) (json.RawMessage, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // it is read by people, and <…> is common in mail
	if err := enc.Encode(v); err != nil {
		return nil, Permanentf("the handler's result is not JSON: %w", err)
	}
	b := bytes.TrimSpace(buf.Bytes())
	if !utf8.Valid(b) { // what a handler took from elsewhere as json.RawMessage
		b = bytes.ToValidUTF8(b, []byte("\ufffd"))
	}
	if len(b) > MaxResult {
		return nil, Permanentf("the handler's result has %d bytes of JSON, at most %d are kept; use an artifact", len(b), MaxResult)
	}
	return b, nil
}

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// conclude records an outcome; the delivery is settled when that is committed.
func (p *Pool) conclude(h *held, e *Event) {
	p.mu.Lock()
	h.outcome, h.sent, h.exec = e, time.Now(), nil
	p.unsettled.count++
	p.unsettled.bytes += e.size()
	p.mu.Unlock()
	p.o.Recorder.Record(*e)
}

// startDurably records the start of an attempt and waits until the tracker has
// committed it.
func (p *Pool) startDurably(x *execution) bool {
	w := &startWait{startedAt: x.started, done: make(chan struct{})}
	p.mu.Lock()
	p.awaited[x.h.Seq] = w
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.awaited, x.h.Seq)
		p.mu.Unlock()
	}()
	p.o.Recorder.Record(x.event(KindStarted))
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

// checkAwaited lets go those whose start is durable now. p.mu is held.
func (p *Pool) checkAwaited() {
	for seq, w := range p.awaited {
		j, err := p.o.Tracker.Find(seq)
		if err == nil && j != nil && j.Status == Processing && j.StartedAt >= w.startedAt {
			close(w.done)
			delete(p.awaited, seq)
		}
	}
}

// progressThrottle passes progress on at most ten times a second. The last
// report is never lost while the attempt runs.
type progressThrottle struct {
	mu      sync.Mutex
	last    time.Time
	percent int
	message string
	timer   *time.Timer
	stopped bool
}

const progressEvery = 100 * time.Millisecond

func (x *execution) report(percent int, message string) {
	t := &x.progress
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped || percent == t.percent && message == t.message {
		return
	}
	t.percent, t.message = percent, truncate(message, maxMessage)
	if t.timer != nil {
		return // the one that waits will take it
	}
	if wait := progressEvery - time.Since(t.last); wait > 0 {
		t.timer = time.AfterFunc(wait, x.sendProgress)
		return
	}
	x.recordProgress()
}

func (x *execution) sendProgress() {
	x.progress.mu.Lock()
	defer x.progress.mu.Unlock()
	x.progress.timer = nil
	if !x.progress.stopped {
		x.recordProgress()
	}
}

// recordProgress records the latest report. x.progress.mu is held.
func (x *execution) recordProgress() {
	t := &x.progress
	t.last = time.Now()
	e := x.event(KindProgress)
	e.At = Now()
	e.Progress, e.Message = t.percent, t.message
	x.p.o.Recorder.Record(e)
}

// stop ends the reports. It returns the message of one that was held back.
func (t *progressThrottle) stop() (held string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	if t.timer != nil {
		t.timer.Stop()
		held = t.message
	}
	return held
}
