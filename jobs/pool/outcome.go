package pool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"jobstream/jobs"
)

// outcome is the event that ends the attempt.
func (x *execution) outcome(result jobs.Result, err error) *jobs.Event {
	if ended := x.ended.Load(); ended != nil {
		return x.void(ended)
	}
	e := x.event(jobs.KindCompleted)
	e.At = max(jobs.Now(), x.started)
	if b, ok := result.Value.(encoded); ok {
		e.Result = json.RawMessage(b)
	} else if err == nil && result.Value != nil {
		e.Result, err = jobs.EncodeResult(result.Value)
	}
	if err == nil {
		return &e
	}
	x.failed(&e, err)
	e.Checkpoint = x.task.Left()
	return &e
}

// failed sets the outcome of an attempt with an error.
func (x *execution) failed(e *jobs.Event, err error) {
	cause, permanent := x.cause(err), jobs.IsPermanent(err)
	after, reason, snoozed := jobs.SnoozeOf(err)
	if wait, why, failed, busy := jobs.BusyOf(err); busy {
		after, reason, snoozed = x.p.busy(x.d, wait, why), why, !failed
	}
	var released *releasedError
	var lost *lostError
	switch {
	case errors.Is(cause, jobs.ErrDeadline):
		e.Kind = jobs.KindFailed
		e.Error = jobs.DeadlineReason + " at " + x.deadline().String() + ownWords(err)
	case permanent:
		e.Kind, e.Permanent = jobs.KindFailed, true
		e.Error = jobs.Shorten(err.Error(), jobs.MaxError)
	case snoozed && !errors.Is(cause, jobs.ErrTimeout):
		e.Kind = jobs.KindSnoozed
		e.Message, e.Due = reason, e.At.Add(after)
	case errors.Is(cause, jobs.ErrShutdown):
		e.Kind = jobs.KindReleased
		e.Error = jobs.ErrShutdown.Error()
	case errors.As(err, &released):
		e.Kind, e.Error = jobs.KindReleased, jobs.Shorten(released.reason, jobs.MaxError)
	case errors.As(err, &lost):
		x.lost(e, lost.why)
	case errors.Is(cause, jobs.ErrTimeout):
		e.Error = fmt.Sprintf("timed out after %s", x.timeout) + ownWords(err)
		x.again(e, 0)
	default:
		e.Error = jobs.Shorten(err.Error(), jobs.MaxError)
		x.again(e, jobs.RetryAfterOf(err))
	}
}

// ownWords is the handler's error, unless it only repeats the end of the context.
func ownWords(err error) string {
	for _, known := range [...]error{jobs.ErrTimeout, jobs.ErrDeadline, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return ""
		}
	}
	return ": " + jobs.Shorten(err.Error(), jobs.MaxError)
}

// again makes a failed attempt a retry, if there may be one. It comes no sooner than after
// least.
func (x *execution) again(e *jobs.Event, least time.Duration) {
	e.Kind = jobs.KindFailed
	if x.attempt >= x.job.MaxAttempts {
		return
	}
	due := e.At.Add(max(x.typ.Backoff.Delay(x.attempt), least))
	if at := x.deadline(); at != 0 && due >= at {
		e.Error += "; the deadline at " + at.String() + " leaves no time for another attempt"
		return
	}
	e.Kind, e.Due = jobs.KindRetrying, due
}

// lost makes an attempt one whose worker is lost. The same attempt is made later, unless
// the job has lost too many workers.
func (x *execution) lost(e *jobs.Event, why string) {
	e.Lost = x.job.Lost + 1
	if e.Lost >= x.p.o.MaxLost {
		e.Kind, e.Error = jobs.KindFailed, jobs.TooOftenLost(e.Lost)
		return
	}
	e.Kind, e.Due = jobs.KindLost, e.At.Add(x.typ.Backoff.Delay(e.Lost))
	e.Error = fmt.Sprintf("%s (%d of %d)", why, e.Lost, x.p.o.MaxLost)
}

// void is the outcome of an attempt whose job has ended before it. The tracker knows
// that, but a tracker that is rebuilt from events alone needs it.
func (x *execution) void(ended *jobs.Job) *jobs.Event {
	e := x.event(jobs.KindCancelled)
	if ended.Status == jobs.Failed {
		e.Kind = jobs.KindFailed
	}
	e.At = max(jobs.Now(), x.started)
	e.Error = ended.Error
	return &e
}

// causeOf is the cause of an interruption because the job has ended elsewhere.
func causeOf(ended *jobs.Job) error {
	if ended.Status == jobs.Failed && strings.HasPrefix(ended.Error, jobs.DeadlineReason) {
		return jobs.ErrDeadline
	}
	return jobs.ErrCancelled
}

// Bounds of the outcomes that wait for their commit.
const (
	// resendAfter is how long the commit of an event may take before somebody gives up
	// waiting for it, and the default for Options.Resend.
	resendAfter = 5 * time.Second

	defaultUnsettled = 16 << 10
	unsettledBytes   = 64 << 20
)

// outcomes are recorded and not yet committed. Their number is bounded, so that a
// tracker that cannot commit does not fill the memory.
//
// The pool's lock guards it.
type outcomes struct {
	line  line // of their deliveries, by the moment of recording
	count int
	bytes int

	most   int
	resend time.Duration // until one is recorded again
	stuck  bool          // that has happened, and none has been committed since
}

func (o *outcomes) init(most int, resend time.Duration) {
	if o.resend = resend; resend <= 0 {
		o.resend = resendAfter
	}
	if o.most = most; most <= 0 {
		o.most = defaultUnsettled
	}
}

// full says that no more jobs may start: too many have ended without a commit, or nothing is
// committed at present. If this process dies, each of them runs again.
func (o *outcomes) full() bool { return o.stuck || o.count >= o.most || o.bytes >= unsettledBytes }

func (o *outcomes) append(d *delivery, e *jobs.Event, now time.Time) {
	d.outcome = e
	o.line.append(&d.inOutcomes, d, now)
	o.count++
	o.bytes += e.Size()
}

func (o *outcomes) remove(d *delivery) {
	if d.outcome != nil {
		o.line.remove(&d.inOutcomes)
		o.count--
		o.bytes -= d.outcome.Size()
		o.stuck = false
	}
}

// stale returns the outcomes that have to be recorded again.
func (o *outcomes) stale(now time.Time) (again []*jobs.Event) {
	o.line.stale(now, o.resend, func(d *delivery) { again = append(again, d.outcome) })
	o.stuck = o.stuck || len(again) > 0
	return again
}

// conclude records an outcome. The delivery is settled when that is committed.
func (p *Pool) conclude(d *delivery, e *jobs.Event) {
	p.mu.Lock()
	now := time.Now()
	p.outcomes.append(d, e, now)
	free := e.Kind == jobs.KindCompleted && d.lane.typ.served(d)
	if d.exec != nil && d.exec.lease != nil {
		p.remote.ended(d.exec)
		free = true // no worker's goroutine looks for the next job
	}
	p.vacate(d, now)
	if free {
		p.dispatch()
	}
	p.mu.Unlock()
	p.o.Recorder.Record(e)
}
