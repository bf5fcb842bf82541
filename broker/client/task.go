package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// ErrLost ends an attempt, as the cause of its context, because another worker may have its
// job: the server has not heard of this one for the time of a lease.
var ErrLost = errors.New("the lease of the job is lost")

// task is an attempt under a lease. It is the [jobs.Host] of its handler.
type task struct {
	w      *worker
	lease  *jobs.Lease
	typ    *jobs.Type
	task   jobs.Task // the handler's argument
	ctx    context.Context
	cancel context.CancelCauseFunc
	limit  error       // why its time is over then: ErrTimeout or ErrDeadline
	ends   *time.Timer // the lease, by the clock of this process
	over   *time.Timer // the time of the attempt, likewise
	sent   time.Time   // when the request was sent from which the lease lasts; guarded by worker.mu
	gone   atomic.Bool // the server has ended the execution, so there is nothing to report
	said   reports
	files  scratch
	idle   *time.Timer // gives the job back, while it waits for others to end; guarded by worker.mu
}

// ownLimit is how much later than the server a worker ends an attempt whose time is over. Its
// report would be another one than the server's own.
const ownLimit = time.Second

// begin begins the job of a lease, which lasts from sent on.
func (w *worker) begin(l *jobs.Lease, sent time.Time) {
	t := &task{w: w, lease: l, typ: w.r.Admitted(l.Job.Type), limit: jobs.ErrTimeout}
	if t.typ == nil || t.typ.Handler == nil { // it was asked for, so the registry has changed
		w.giveBack([]jobs.Lease{*l})
		return
	}
	t.said.init()
	t.ctx, t.cancel = context.WithCancelCause(w.life)
	// The server's clock may be another one than that of this machine.
	span := l.Deadline.Sub(jobs.Time(l.Fence))
	t.task.Until = time.Now().Add(span)
	if at := l.Job.Terms; at != nil && at.Deadline != 0 && l.Deadline >= at.Deadline-jobs.Time(10*time.Millisecond) {
		t.limit = jobs.ErrDeadline
	}
	t.task.Begin(l.Job, l.Attempt, t)
	w.mu.Lock()
	w.tasks[l.Token], t.sent = t, sent
	t.ends = time.AfterFunc(t.left(), func() { t.cancel(ErrLost) })
	t.over = time.AfterFunc(span+ownLimit, func() { t.cancel(t.limit) })
	first := t.due().Before(w.due)
	w.arrive(t)
	w.mu.Unlock()
	if first {
		wake(w.sooner)
	}
}

// left is how long the handler may go on without a beat. There is time left in which it
// returns. w.mu is locked.
func (t *task) left() time.Duration {
	return time.Until(t.sent.Add(t.lease.Span - min(t.typ.GraceOrDefault(), t.lease.Span/3)))
}

// due is when the next beat is to be sent. w.mu is locked.
func (t *task) due() time.Time { return t.sent.Add(t.lease.Span / 3) }

// lasts renews the lease. w.mu is locked.
func (t *task) lasts(sent time.Time) {
	if sent.After(t.sent) {
		t.sent = sent
		t.ends.Reset(t.left())
	}
}

// revoke interrupts the handler, because the server has ended the execution.
func (t *task) revoke(cause error) {
	t.gone.Store(true)
	t.cancel(cause)
}

// whyLost is why the server has ended the execution, if it has not said so.
func (t *task) whyLost() error {
	if time.Until(t.task.Until) < time.Second {
		return t.limit
	}
	return ErrLost
}

// Lend makes no lease; see [jobs.Lender]. Whoever does the job has one, and it stays here.
func (t *task) Lend(context.Context) (token string, span time.Duration, err error) {
	return "", 0, errors.New("jobs of this type cannot be handed over")
}

// causeOf is the cause of a cancellation that has a reason.
func causeOf(reason string) error {
	if strings.HasPrefix(reason, jobs.DeadlineReason) {
		return jobs.ErrDeadline
	}
	return jobs.ErrCancelled
}

// verdict is what a handler has returned.
type verdict struct {
	result jobs.Result
	err    error
}

// run calls the handler and reports what has become of the attempt.
func (t *task) run() {
	w := t.w
	begun := time.Now()
	w.o.Figures.begun()
	v := t.handle()
	w.o.Figures.returned()
	w.left(time.Since(begun))
	t.task.End()
	w.o.Figures.over(t.typ.Name, t.report(v))
	t.forget()
}

// forget ends the task, after its report.
func (t *task) forget() {
	t.cancel(nil)
	t.w.mu.Lock()
	t.ends.Stop()
	t.over.Stop()
	delete(t.w.tasks, t.lease.Token)
	t.w.mu.Unlock()
	wake(t.w.free)
}

// handle calls the handler, unless its context has ended before.
func (t *task) handle() verdict {
	if t.ctx.Err() != nil {
		return verdict{err: context.Cause(t.ctx)}
	}
	w, returned := t.w, make(chan verdict, 1)
	go func() {
		var v verdict
		v.result, v.err = jobs.Attempt(t.ctx, t.typ.Handler, &t.task, w.log)
		if err := t.files.remove(); err != nil {
			w.log.Warn("files of a job could not be removed from this machine", t.lease.Job.LogAttr(), "error", err)
		}
		returned <- v
	}()
	return t.await(returned)
}

// await waits for the handler. One that ignores the end of its context is left behind.
func (t *task) await(returned <-chan verdict) verdict {
	select {
	case v := <-returned:
		return v
	case <-t.ctx.Done():
	}
	timer := time.NewTimer(t.typ.GraceOrDefault())
	defer timer.Stop()
	select {
	case v := <-returned:
		return v
	case <-timer.C:
	}
	cause := context.Cause(t.ctx)
	t.w.log.Error("a handler ignores the end of its context; its job is given up and its goroutine leaks until it returns",
		t.lease.Job.LogAttr(), "cause", cause)
	return verdict{err: cause}
}

// lostEnd is the [End.How] of attempts whose end is not the worker's.
const lostEnd = "lost"

// report notifies the server of the end, unless the server has made it. It returns
// [End.How].
func (t *task) report(v verdict) (how string) {
	t.said.close()
	if t.gone.Load() {
		return lostEnd
	}
	verb, body := t.ending(v)
	checkpoint := t.task.Left()
	if verb == "done" {
		checkpoint = nil // nobody needs it any more
	}
	if !t.flush(checkpoint) {
		return lostEnd
	}
	err := t.end(verb, body)
	if e, known := jobs.AsError(err); err != nil && known && e.Kind == jobs.InvalidRequest && verb == "done" {
		verb = "fail"
		_, err = t.w.tell("worker.fail", api.AppendFailure(nil, t.lease.Token, &jobs.Failure{Error: e.Detail, Permanent: true}))
	}
	t.reported(verb, err)
	if err != nil {
		return lostEnd
	}
	return verb
}

// end sends the report of the end.
func (t *task) end(verb string, body []byte) error {
	if verb == "done" && t.w.ends.tell(t.w, body) {
		return nil
	}
	_, err := t.w.tell("worker."+verb, body)
	return err
}

// reported looks at how the server has taken a report.
func (t *task) reported(verb string, err error) {
	e, known := jobs.AsError(err)
	switch {
	case err == nil:
	case known && (e.Kind == jobs.LeaseLost || e.Kind == jobs.NotFound):
		t.w.log.Warn("a job was done in vain: its execution had ended before", t.lease.Job.LogAttr(), "cause", context.Cause(t.ctx), "error", err)
	default:
		t.w.log.Error("the end of a job could not be reported; its lease ends, and it runs again", t.lease.Job.LogAttr(), "end", verb, "error", err)
		t.w.mu.Lock()
		t.w.untold++
		t.w.mu.Unlock()
	}
}

// tell sends a report until it is answered, as long as the worker lives.
func (w *worker) tell(name string, body []byte) ([]byte, error) {
	for n := 1; ; n++ {
		answer, err := w.c.call(w.life, name, nil, body, patience)
		if e, known := jobs.AsError(err); err == nil || !known || e.Kind != jobs.Internal && e.Kind != jobs.TooMany {
			return answer, err
		}
		if w.c.pause(w.life, n, err) != nil {
			return nil, err
		}
	}
}

// ending is the report of the end of an attempt: its verb and its body. It follows the same
// order as the outcomes of a server's own workers.
func (t *task) ending(v verdict) (verb string, body []byte) {
	done := jobs.Done{Token: t.lease.Token}
	err := v.err
	if err == nil && v.result.Value != nil {
		done.Result, err = jobs.EncodeResult(v.result.Value)
	}
	if err == nil {
		return "done", api.AppendDone(nil, &done)
	}
	cause := context.Cause(t.ctx)
	after, reason, snoozed := jobs.SnoozeOf(err)
	wait, why, failed, busy := jobs.BusyOf(err)
	f := &jobs.Failure{Error: jobs.Shorten(err.Error(), jobs.MaxError), RetryAfter: jobs.RetryAfterOf(err), Busy: busy}
	if busy {
		f.RetryAfter = wait
	}
	switch {
	case errors.Is(cause, jobs.ErrDeadline):
		f.Error, f.Permanent = jobs.DeadlineReason+" at "+t.lease.Deadline.String()+ownWords(err), true
	case jobs.IsPermanent(err):
		f.Permanent = true
	case errors.Is(cause, jobs.ErrTimeout):
		f.Error = fmt.Sprintf("timed out after %s", t.lease.Deadline.Sub(jobs.Time(t.lease.Fence)).Round(100*time.Millisecond)) + ownWords(err)
	case busy && !failed:
		return t.giveBack(&jobs.GiveBack{Delay: wait, Reason: why, Busy: true})
	case snoozed:
		return t.giveBack(&jobs.GiveBack{Delay: after, Reason: reason})
	case errors.Is(cause, jobs.ErrShutdown):
		return t.giveBack(&jobs.GiveBack{Reason: "its worker is shutting down"})
	case errors.Is(cause, errBusy):
		return t.giveBack(&jobs.GiveBack{Reason: errBusy.Error()})
	case errors.Is(cause, ErrLost):
		return t.giveBack(&jobs.GiveBack{Reason: "its worker had no connection to the server for the time of a lease"})
	}
	return "fail", api.AppendFailure(nil, t.lease.Token, f)
}

func (t *task) giveBack(g *jobs.GiveBack) (verb string, body []byte) {
	return "release", api.AppendGiveBack(nil, t.lease.Token, g)
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
