package api

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/intake"
)

// Operator changes jobs by hand, for both doors. An actor is the caller's name in
// commands, see [jobs.Stamp].
type Operator struct{ o OperatorOptions }

// OperatorOptions are the parts of an Operator.
type OperatorOptions struct {
	Doer    jobs.Doer
	History jobs.History
	// Find returns the present state of a job, nil if there is none.
	Find func(ctx context.Context, id jobs.ID) (*jobs.Job, error)
	// Pin keeps a job from starting, see [jobstream/jobs/pool.Pool.Pin].
	Pin func(j *jobs.Job) (release func(), ok bool)
	// Waits is a listener of commits.
	Waits *intake.Waits
	// Remove deletes ended jobs and everything that they left. It returns their number.
	Remove func(ctx context.Context, ended []*jobs.Job) (deleted int, freed int64, err error)
	// Submit is [intake.Submitter.SubmitMessage].
	Submit func(ctx context.Context, m *jobs.Message) (j *jobs.Job, replayed bool, err error)
	Room   intake.Room // for what runs again
}

// NewOperator makes an Operator.
func NewOperator(o OperatorOptions) *Operator { return &Operator{o} }

// Cancel ends a job that has not ended, and returns its new state. A waiting job never
// starts; a running job's handler is interrupted. The error is of kind [jobs.Conflict]
// if the job has ended, or [jobs.NotFound] if it is gone.
func (o *Operator) Cancel(ctx context.Context, actor string, j *jobs.Job, reason string) (*jobs.Job, error) {
	if !j.Status.Ended() {
		now, err := o.do(ctx, jobs.Cancel{Stamp: jobs.By(actor), Keys: []uint64{j.Key}, Reason: reason})
		if err != nil || now != nil {
			return now, err
		}
	}
	return nil, o.conflict(ctx, j, "it cannot be cancelled any more")
}

// requeueWait is how long Retry waits until the job is in the queue again.
const requeueWait = 2 * time.Second

// Retry starts a new run of a failed or cancelled job, with fresh attempts. It returns
// the job when it is in the queue, or its state after two seconds. The error is of one
// of these kinds: [jobs.Conflict] if the job has not ended that way, [jobs.Duplicate]
// if another job has its unique key, [jobs.UnknownType] if its type is no longer
// configured, [jobs.NotFound] if it is gone.
func (o *Operator) Retry(ctx context.Context, actor string, j *jobs.Job) (*jobs.Job, error) {
	if j.Status == jobs.Failed || j.Status == jobs.Cancelled {
		if err := o.o.Room.Check(); err != nil {
			return nil, err
		}
		now, err := o.do(ctx, jobs.Retry{Stamp: jobs.By(actor), Keys: []uint64{j.Key}})
		if err != nil {
			return nil, err
		}
		if now != nil {
			return o.requeued(ctx, now), nil
		}
	}
	return nil, o.conflict(ctx, j, "only a failed or cancelled job can be retried")
}

// RunNow lets a scheduled or retrying job start without waiting for its moment, and
// returns it when it is in the queue, or its state after two seconds. A pending job
// waits for no moment, and is returned as it is. The error is of kind [jobs.Conflict] if
// the job has another status, or [jobs.NotFound] if it is gone.
func (o *Operator) RunNow(ctx context.Context, actor string, j *jobs.Job) (*jobs.Job, error) {
	if j.Status == jobs.Pending {
		return j, nil
	}
	now, err := o.change(ctx, j, jobs.RunNow{Stamp: jobs.By(actor), Keys: []uint64{j.Key}})
	if err == nil && now == nil {
		if now, err = o.o.Find(ctx, j.ID); err == nil && (now == nil || now.Status != jobs.Pending) {
			err = o.conflict(ctx, j, "only a scheduled, pending or retrying job can be run now")
		}
		return now, err
	}
	if err != nil {
		return nil, err
	}
	return o.requeued(ctx, now), nil
}

// Revise changes a job that waits; see [jobs.Revise]. Its Stamp and Key are set here. The
// error is of kind [jobs.InvalidRequest] if the changes do not go together with the job,
// [jobs.Conflict] if it does not wait, or [jobs.NotFound] if it is gone.
func (o *Operator) Revise(ctx context.Context, actor string, j *jobs.Job, r jobs.Revise) (*jobs.Job, error) {
	r.Stamp, r.Key = jobs.By(actor), j.Key
	now, err := o.change(ctx, j, r)
	if err != nil || now != nil {
		return now, err
	}
	if now, err = o.o.Find(ctx, j.ID); err == nil && (now == nil || !now.Status.Waits()) {
		err = o.conflict(ctx, j, "only a scheduled, pending or retrying job can be changed")
	}
	return now, err
}

// change does a command about a job that waits, while nobody can start it. It returns nil
// without an error if the command has changed nothing.
func (o *Operator) change(ctx context.Context, j *jobs.Job, c jobs.Command) (*jobs.Job, error) {
	release, ok := o.o.Pin(j)
	if !ok {
		return nil, &jobs.Error{Kind: jobs.Conflict, Detail: fmt.Sprintf("job %s is running; only a job that waits can be changed", j.ID)}
	}
	defer release()
	// A command that is under way must not outlive the pin.
	return o.do(context.WithoutCancel(ctx), c)
}

// do does a command about one job, and returns the job if that has changed. It returns nil
// without an error if nothing has.
func (o *Operator) do(ctx context.Context, c jobs.Command) (*jobs.Job, error) {
	r, err := o.o.Doer.Do(ctx, c)
	switch {
	case err != nil:
		return nil, err
	case len(r.Refused) > 0:
		return nil, r.Refused[0].Err
	case len(r.Changed) > 0:
		return r.Changed[0], nil
	}
	return nil, nil
}

// requeued waits until the job's message is in the queue, and returns the job. It gets
// there whether or not anybody waits.
func (o *Operator) requeued(ctx context.Context, j *jobs.Job) *jobs.Job {
	waiting, cancel := context.WithTimeout(ctx, requeueWait)
	defer cancel()
	last := context.WithoutCancel(ctx) // for a look after the end of ctx
	queued := func(j *jobs.Job) bool { return j.Place != jobs.Due }
	now, err := o.o.Waits.Wait(waiting, j.ID, queued, func() (*jobs.Job, error) { return o.o.Find(last, j.ID) })
	if err != nil || now == nil {
		return j
	}
	return now
}

// Delete removes an ended job, its artifact and its mail. The error is of kind
// [jobs.Conflict] if the job has not ended, or [jobs.NotFound] if it is gone.
func (o *Operator) Delete(ctx context.Context, j *jobs.Job) error {
	if j.Status.Ended() {
		deleted, _, err := o.o.Remove(ctx, []*jobs.Job{j})
		if err != nil || deleted > 0 {
			return err
		}
	}
	return o.conflict(ctx, j, "only a job that has ended can be deleted; cancel it first")
}

// conflict is the error for a job whose status does not allow the request.
func (o *Operator) conflict(ctx context.Context, j *jobs.Job, why string) error {
	now, err := o.o.Find(ctx, j.ID)
	switch {
	case err != nil:
		return err
	case now == nil:
		return jobs.NoSuchJob(j.ID.String())
	}
	return &jobs.Error{Kind: jobs.Conflict, Detail: fmt.Sprintf("job %s is %s; %s", j.ID, now.Status, why)}
}

// Bulk submits the job that makes the change; request is its text. The job passes all
// bounds, as it may make room.
func (o *Operator) Bulk(ctx context.Context, actor string, request json.RawMessage, token *jobs.Token) (j *jobs.Job, replayed bool, err error) {
	return o.o.Submit(ctx, &jobs.Message{
		ID: jobs.NewID(), Type: BulkType, Priority: BulkPriority, Payload: request, RetryCount: -1, Token: token,
		CreatedBy: actor,
	})
}

// CountBulk is the number of jobs that b would change now.
func (o *Operator) CountBulk(ctx context.Context, b *Bulk) (matched int, err error) {
	f, none := b.Target()
	if none {
		return 0, nil
	}
	if !f.Scans() && f.CreatedAfter == 0 && f.CreatedBefore == 0 {
		return o.countIndexed(f)
	}
	err = o.o.History.Scan(ctx, f, func(j *jobs.Job) error {
		if !b.Spares(j) {
			matched++
		}
		return nil
	})
	return matched, err
}

// countIndexed counts without reading records, for a filter whose count [jobs.History]
// knows exactly.
func (o *Operator) countIndexed(f jobs.Filter) (int, error) {
	n, err := o.o.History.Count(f)
	if err != nil || len(f.Types) > 0 && !slices.Contains(f.Types, BulkType) {
		return n, err
	}
	f.Types = []string{BulkType}
	spared, err := o.o.History.Count(f)
	return max(n-spared, 0), err
}

// matched is the answer to a bulk change that only counts.
type matched struct {
	bulk *Bulk
	n    int
}

func (m matched) AppendJSON(b []byte) []byte {
	b = append(b, `{"action":`...)
	b = jobs.AppendString(b, string(m.bulk.Action))
	b = append(b, `,"matched":`...)
	b = strconv.AppendInt(b, int64(m.n), 10)
	return append(b, '}')
}
