package pool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"jobstream/jobs"
	"jobstream/jobs/strict"
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

// dismiss ends a delivery for good that nobody needs.
func (p *Pool) dismiss(d *delivery) {
	p.drop(d)
	p.check("acknowledge", p.o.Queue.Ack(d.Delivery))
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

func (p *Pool) giveBack(d *delivery, delay time.Duration) {
	p.drop(d)
	p.nak(d, delay)
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

// causeOf is what an execution hears whose job has ended elsewhere.
func causeOf(ended *jobs.Job) error {
	if ended.Status == jobs.Failed && strings.HasPrefix(ended.Error, jobs.DeadlineReason) {
		return jobs.ErrDeadline
	}
	return jobs.ErrCancelled
}

// void is the outcome of an attempt whose job has ended before it. The tracker
// knows that; one that is made again from the events alone hears it from this.
func (x *execution) void(ended *jobs.Job) *jobs.Event {
	e := x.event(jobs.KindCancelled)
	if ended.Status == jobs.Failed {
		e.Kind = jobs.KindFailed
	}
	e.At = max(jobs.Now(), x.started)
	e.Error = ended.Error
	return &e
}

// outcome is the event that ends the attempt.
func (x *execution) outcome(result jobs.Result, err error) *jobs.Event {
	if ended := x.ended.Load(); ended != nil {
		return x.void(ended)
	}
	e := x.event(jobs.KindCompleted)
	e.At = max(jobs.Now(), x.started)
	e.Artifact = result.Artifact
	if err == nil && result.Value != nil {
		e.Result, err = encodeResult(result.Value)
	}
	if err == nil {
		return &e
	}
	x.failed(&e, err)
	e.Checkpoint = x.task.Left()
	return &e
}

// failed says what an error makes of the attempt.
func (x *execution) failed(e *jobs.Event, err error) {
	cause, permanent := context.Cause(x.ctx), jobs.IsPermanent(err)
	after, reason, snoozed := jobs.SnoozeOf(err)
	switch {
	case errors.Is(cause, jobs.ErrDeadline):
		e.Kind = jobs.KindFailed
		e.Error = jobs.DeadlineReason + " at " + x.deadline().String() + ownWords(err)
	case permanent:
		e.Kind = jobs.KindFailed
		e.Error = jobs.Shorten(err.Error(), jobs.MaxError)
	case snoozed && !errors.Is(cause, jobs.ErrTimeout):
		e.Kind, e.Artifact = jobs.KindSnoozed, nil
		e.Message, e.Due = reason, e.At.Add(after)
	case errors.Is(cause, jobs.ErrShutdown):
		e.Kind, e.Artifact = jobs.KindReleased, nil
		e.Error = jobs.ErrShutdown.Error()
	case errors.Is(cause, jobs.ErrTimeout):
		e.Error = fmt.Sprintf("timed out after %s", x.timeout) + ownWords(err)
		x.again(e)
	default:
		e.Error = jobs.Shorten(err.Error(), jobs.MaxError)
		x.again(e)
	}
}

// ownWords are what a handler says beyond that its context has ended.
func ownWords(err error) string {
	for _, known := range [...]error{jobs.ErrTimeout, jobs.ErrDeadline, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return ""
		}
	}
	return ": " + jobs.Shorten(err.Error(), jobs.MaxError)
}

// again makes a failed attempt one that is made again, if that may be.
func (x *execution) again(e *jobs.Event) {
	e.Kind = jobs.KindFailed
	if x.attempt >= x.job.MaxAttempts {
		return
	}
	due := e.At.Add(x.typ.Backoff.Delay(x.attempt))
	if at := x.deadline(); at != 0 && due >= at {
		e.Error += "; the deadline at " + at.String() + " leaves no time for another attempt"
		return
	}
	e.Kind, e.Due, e.Artifact = jobs.KindRetrying, due, nil
}

func encodeResult(v any) (json.RawMessage, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // it is read by people, and <…> is common in mail
	if err := enc.Encode(v); err != nil {
		return nil, jobs.Permanentf("the handler's result is not JSON: %w", err)
	}
	b := bytes.TrimSpace(buf.Bytes())
	if !utf8.Valid(b) { // what a handler took from elsewhere as json.RawMessage
		b = bytes.ToValidUTF8(b, []byte("\ufffd"))
	}
	if len(b) > jobs.MaxResult {
		return nil, jobs.Permanentf("the handler's result has %d bytes of JSON, at most %d are kept; use an artifact", len(b), jobs.MaxResult)
	}
	if strict.TooDeep(b) {
		return nil, jobs.Permanentf("the handler's result is nested deeper than %d", strict.MaxDepth)
	}
	return b, nil
}

// conclude records an outcome; the delivery is settled when that is committed.
func (p *Pool) conclude(d *delivery, e *jobs.Event) {
	p.mu.Lock()
	now := time.Now()
	d.outcome = e
	p.outcomes.append(&d.inOutcomes, d, now)
	p.vacate(d, now)
	p.unsettled.count++
	p.unsettled.bytes += e.Size()
	p.mu.Unlock()
	p.o.Recorder.Record(e)
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

// progressThrottle passes progress on at most ten times a second, and less often if
// the record is large: each report writes it again. The last report is never lost
// while the attempt runs.
type progressThrottle struct {
	size    int // bytes of lists that a report writes, about
	reports int
	mu      sync.Mutex
	last    time.Time
	percent int
	message string
	timer   *time.Timer
	stopped bool
}

const (
	progressEvery = 100 * time.Millisecond
	progressBytes = 80 << 10 // that the reports of one attempt write in a second
	lineBytes     = 40       // of an entry of a list in a record, besides its text
)

// listBytes is about how many bytes the errors and the history take in the record.
func listBytes(j *jobs.Job) (n int) {
	for i := range j.Errors {
		n += lineBytes + len(j.Errors[i].Error)
	}
	for i := range j.History {
		n += lineBytes + len(j.History[i].Text)
	}
	return n
}

// every is the time from one report to the next. t.mu is held.
func (t *progressThrottle) every() time.Duration {
	return max(progressEvery, time.Duration(t.size)*time.Second/progressBytes)
}

func (x *execution) report(percent int, message string) {
	t := &x.progress
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped || percent == t.percent && message == t.message {
		return
	}
	t.percent, t.message = percent, jobs.Shorten(message, jobs.MaxMessage)
	if t.timer != nil {
		return // the one that waits will take it
	}
	if wait := t.every() - time.Since(t.last); wait > 0 {
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
	if t.reports == 0 {
		t.size = listBytes(x.job)
	}
	if t.reports++; t.reports <= jobs.MaxProgress {
		t.size += lineBytes + len(t.message)
	}
	e := x.event(jobs.KindProgress)
	e.At = jobs.Now()
	e.Progress, e.Message = t.percent, t.message
	x.p.o.Recorder.Record(&e)
}

// stop ends the reports. It returns the message of one that was held back.
func (t *progressThrottle) stop() (deferred string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	if t.timer != nil {
		t.timer.Stop()
		deferred = t.message
	}
	return deferred
}
