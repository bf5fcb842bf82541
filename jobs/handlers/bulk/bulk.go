// Package bulk is the server's own job "jobstream-bulk": it cancels, retries or
// deletes all jobs that a filter chooses.
//
// Start at [New]. The payload is the request that [api.ParseBulk] reads.
package bulk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/handlers/internal/history"
)

// Tracker is what the handler needs from the tracker.
type Tracker interface {
	jobs.History
	jobs.Doer
}

// Remove deletes ended jobs and everything that they left behind. It returns how many
// records there were. An error about some jobs does not keep it from the others.
type Remove func(ctx context.Context, ended []*jobs.Job) (deleted int, freed int64, err error)

// Handler runs bulk jobs. It changes only jobs that were submitted before the bulk job,
// so that it comes to an end. It changes no bulk job.
//
// An attempt goes on where an interrupted one stopped: the filter no longer chooses
// changed jobs. A job that was retried since the bulk job was submitted is not retried
// again, even if it has failed by then.
type Handler struct {
	tracker Tracker
	remove  Remove
}

var (
	_ jobs.Handler = (*Handler)(nil)
	_ jobs.Checker = (*Handler)(nil)
)

// New makes the handler that changes jobs by t and deletes them by remove.
func New(t Tracker, remove Remove) *Handler { return &Handler{tracker: t, remove: remove} }

// Result is the result of a bulk job, as JSON. It counts the work of the last attempt
// only.
type Result struct {
	Action  api.BulkAction `json:"action"`
	Matched int            `json:"matched"` // jobs that the filter chose
	Changed int            `json:"changed"`
	Refused int            `json:"refused"` // matched, but cannot be changed, or have been changed by somebody else
	// Refusals has the reasons of the first few.
	Refusals []Refusal `json:"refusals,omitempty"`
	DryRun   bool      `json:"dry_run,omitempty"`
}

// Refusal says why one job was not changed.
type Refusal struct {
	ID    jobs.ID `json:"id"`
	Error string  `json:"error"`
}

const (
	pageSize    = 500 // jobs changed in one transaction
	maxRefusals = 10  // listed in the result
	reportEvery = 1000
)

// Check validates a payload.
func (h *Handler) Check(p *jobs.Payload) error {
	_, err := api.ParseBulk(p.JSON, "/payload")
	return err
}

// FreesSpace says whether a change may free disk space; see [jobs.Freer].
func (h *Handler) FreesSpace(payload json.RawMessage) bool {
	b, err := api.ParseBulk(payload, "/payload")
	return err == nil && b.Action != api.BulkRetry
}

// Handle changes the jobs, page by page.
func (h *Handler) Handle(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
	b, err := api.ParseBulk(t.Job.Payload, "/payload")
	if err != nil {
		return jobs.Result{}, jobs.Permanent(err)
	}
	r := &run{Handler: h, bulk: b, task: t, result: Result{Action: b.Action, DryRun: b.DryRun}}
	if err := r.run(ctx); err != nil {
		return jobs.Result{}, err
	}
	t.Progress(100, r.summary())
	t.Log(jobs.LevelInfo, r.summary())
	return jobs.Result{Value: r.result}, nil
}

// run is one attempt.
type run struct {
	*Handler
	bulk   *api.Bulk
	task   *jobs.Task
	result Result

	page  []*jobs.Job // matched, to be changed together
	seen  int         // out of about total
	total int
	stuck error // the first job that could not be deleted
}

func (r *run) run(ctx context.Context) (err error) {
	f, none := r.bulk.Target()
	if none {
		return nil
	}
	if at := r.task.Job.CreatedAt; f.CreatedBefore == 0 || f.CreatedBefore > at {
		f.CreatedBefore = at
	}
	if r.total, err = r.tracker.Count(f); err != nil {
		return fmt.Errorf("count the jobs: %w", err)
	}
	err = r.tracker.Scan(ctx, f, func(j *jobs.Job) error { return r.visit(ctx, j) })
	if err == nil {
		err = r.change(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	case r.stuck != nil:
		return fmt.Errorf("deleted %d jobs, but not all of %d; the first that resisted: %w", r.result.Changed, r.result.Matched, r.stuck)
	}
	return nil
}

// visit appends a job that the filter chose to the page, and changes the page when it is
// full.
func (r *run) visit(ctx context.Context, j *jobs.Job) error {
	if r.seen++; r.seen%reportEvery == 0 {
		r.task.Progress(history.Percent(int64(r.seen), int64(r.total)), r.summary())
	}
	if r.bulk.Spares(j) || r.bulk.Action == api.BulkRetry && r.retried(j) {
		return nil
	}
	r.result.Matched++
	if r.bulk.DryRun {
		return nil
	}
	if r.page = append(r.page, j); len(r.page) < pageSize {
		return nil
	}
	return r.change(ctx)
}

// retried says whether the job has been retried since the bulk job was submitted, most
// likely by an earlier attempt.
func (r *run) retried(j *jobs.Job) bool {
	for i := len(j.History) - 1; i >= 0; i-- {
		if h := &j.History[i]; h.Kind == jobs.KindRerun {
			return h.At >= r.task.Job.CreatedAt
		}
	}
	return false
}

// change applies the action to the page.
func (r *run) change(ctx context.Context) error {
	page := r.page
	r.page = r.page[:0]
	if len(page) == 0 {
		return nil
	}
	switch r.bulk.Action {
	case api.BulkCancel:
		return r.do(ctx, jobs.Cancel{Stamp: r.by(), Keys: keys(page), Reason: r.bulk.Reason})
	case api.BulkRetry:
		return r.do(ctx, jobs.Retry{Stamp: r.by(), Keys: keys(page)})
	default:
		return r.removePage(ctx, page)
	}
}

// by is the stamp of a command now. Whoever has submitted the bulk job gives it.
func (r *run) by() jobs.Stamp { return jobs.By(r.task.Job.CreatedBy) }

func (r *run) do(ctx context.Context, c jobs.Command) error {
	res, err := r.tracker.Do(ctx, c)
	if err != nil {
		return fmt.Errorf("%s a page of jobs: %w", r.bulk.Action, err)
	}
	r.result.Changed += len(res.Changed)
	r.refuse(res.Refused)
	return nil
}

func keys(page []*jobs.Job) []uint64 {
	list := make([]uint64, len(page))
	for i, j := range page {
		list[i] = j.Key
	}
	return list
}

func (r *run) refuse(refused []jobs.Refusal) {
	r.result.Refused += len(refused)
	for _, f := range refused {
		if len(r.result.Refusals) == maxRefusals {
			return
		}
		r.result.Refusals = append(r.result.Refusals, Refusal{ID: f.ID, Error: f.Err.Error()})
	}
}

// removePage deletes a page. A job that resists, because its file cannot be removed,
// does not stop the others.
func (r *run) removePage(ctx context.Context, page []*jobs.Job) error {
	deleted, _, err := r.remove(ctx, page)
	r.result.Changed += deleted
	switch {
	case ctx.Err() != nil:
		return errors.Join(context.Cause(ctx), err)
	case err != nil && r.stuck == nil:
		r.stuck = err
	}
	return nil
}

// past has the actions in the past tense, for the summary.
var past = map[api.BulkAction]string{api.BulkCancel: "cancelled", api.BulkRetry: "retried", api.BulkDelete: "deleted"}

func (r *run) summary() string {
	if r.bulk.DryRun {
		return fmt.Sprintf("would have %s %d jobs", past[r.bulk.Action], r.result.Matched)
	}
	s := fmt.Sprintf("%s %d jobs", past[r.bulk.Action], r.result.Changed)
	if r.result.Refused > 0 {
		s += fmt.Sprintf(", %d refused", r.result.Refused)
	}
	return s
}
