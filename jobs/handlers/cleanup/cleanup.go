// Package cleanup is the built-in job "cleanup". It deletes the records, artifacts and
// outbox mails of ended jobs.
//
// Start at [New]. [Handler] describes the payload. [Handler.Run] does the same for the
// server's own retention, [Handler.Remove] for single jobs.
package cleanup

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers/internal/history"
	"jobstream/jobs/handlers/internal/payload"
	"jobstream/jobs/strict"
)

// Handler runs cleanups. A payload has these fields:
//
//   - older_than, required: how long ago a job must have ended to go, like "30d"
//     (see [jobs.ParseDuration]); "0s" takes all that ended before now;
//   - status: completed, failed or cancelled, or a list of them; all three by
//     default;
//   - dry_run: true only counts.
//
// Only ended jobs are touched, so a cleanup never deletes itself.
type Handler struct {
	cleaner jobs.Cleaner
	files   jobs.Artifacts
	others  []Leftover
	now     func() jobs.Time
}

// Leftover is a kind of file that a job may leave besides its artifacts.
type Leftover struct {
	Name   string                                   // for errors, like "its log"
	Remove func(id jobs.ID) (size int64, err error) // of one job; in bytes
}

var (
	_ jobs.Handler = (*Handler)(nil)
	_ jobs.Checker = (*Handler)(nil)
)

// New makes a handler that deletes the records in c, their artifacts in files, and the
// others.
func New(c jobs.Cleaner, files jobs.Artifacts, others ...Leftover) *Handler {
	return &Handler{cleaner: c, files: files, others: others, now: jobs.Now}
}

// Result is the result of a cleanup, as JSON.
//
// FreedBytes covers records and files. It counts the work of the last attempt only. A
// dry run counts artifacts exactly and leaves mail and logs out. It counts records by the length
// of their JSON, which is a little more than they take.
type Result struct {
	DeletedCount int      `json:"deleted_count"`
	FreedBytes   int64    `json:"freed_bytes"`
	Criteria     Criteria `json:"criteria"`
}

// Criteria are the conditions of a cleanup.
type Criteria struct {
	OlderThan string   `json:"older_than"` // as the request has it
	Before    string   `json:"before"`     // the moment that OlderThan means, RFC 3339
	Status    []string `json:"status"`
	DryRun    bool     `json:"dry_run"`
}

// batch is how many jobs are deleted in one commit.
const batch = 500

// request is a payload after reading.
type request struct {
	olderThan string
	older     time.Duration
	statuses  []jobs.Status
	dryRun    bool
}

func parse(raw json.RawMessage) (*request, error) {
	req := &request{}
	given := false
	err := payload.Read(raw, []strict.Field{
		strict.May("dry_run", func(v strict.Value) { req.dryRun = v.Bool() }),
		strict.May("older_than", func(v strict.Value) {
			given = true
			req.readAge(v)
		}),
		strict.May("status", func(v strict.Value) { req.statuses = payload.Statuses(v, jobs.Status.Ended) }),
	}, func(whole strict.Value) {
		if !given {
			whole.At("older_than").Fail(`is required: how long ago a job must have ended to be deleted, like "30d"; "0s" for all that have ended`)
		}
	})
	if err != nil {
		return nil, err
	}
	return req, nil
}

// readAge takes a string, or a whole number of seconds.
func (req *request) readAge(v strict.Value) {
	text, ok := string(v.Raw), true
	if v.IsText() || v.IsList() || v.IsObject() {
		text, ok = v.Text()
	}
	if !ok {
		return
	}
	var err error
	if req.older, err = jobs.ParseDuration(text); err != nil {
		v.Fail("%s", err)
	}
	req.olderThan = text
}

// FreesSpace says that every cleanup may; see [jobs.Freer].
func (h *Handler) FreesSpace(json.RawMessage) bool { return true }

// Check validates a payload.
func (h *Handler) Check(p *jobs.Payload) error {
	_, err := parse(p.JSON)
	return err
}

// Handle deletes jobs, or counts them in a dry run.
func (h *Handler) Handle(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
	req, err := parse(t.Job.Payload)
	if err != nil {
		return jobs.Result{}, jobs.Permanent(err)
	}
	s := h.sweep(req.older, req.statuses)
	s.dryRun, s.task = req.dryRun, t
	if err := s.run(ctx); err != nil {
		return jobs.Result{}, err
	}
	t.Progress(100, s.summary())
	t.Log(jobs.LevelInfo, s.summary())
	return jobs.Result{Value: Result{
		DeletedCount: s.deleted,
		FreedBytes:   s.freed,
		Criteria: Criteria{
			OlderThan: req.olderThan, Before: s.before.String(),
			Status: names(s.statuses), DryRun: req.dryRun,
		},
	}}, nil
}

// Run deletes the jobs that ended longer than older ago with one of the statuses; none
// stands for all. It returns the number of records and of freed bytes, also with an
// error: then up to that point.
func (h *Handler) Run(ctx context.Context, older time.Duration, statuses []jobs.Status) (deleted int, freed int64, err error) {
	s := h.sweep(older, statuses)
	err = s.run(ctx)
	return s.deleted, s.freed, err
}

// Remove deletes these ended jobs and everything that they left behind. It returns the
// number of records that still existed, and the bytes that it freed. A job whose files
// resist is kept and does not stop the others; the error reports it.
func (h *Handler) Remove(ctx context.Context, ended []*jobs.Job) (deleted int, freed int64, err error) {
	s := &sweep{Handler: h}
	if err = s.remove(ctx, ended); err == nil {
		err = s.leftover()
	}
	return s.deleted, s.freed, err
}

// sweep is one pass over the ended jobs.
type sweep struct {
	*Handler
	before   jobs.Time
	statuses []jobs.Status
	dryRun   bool
	task     *jobs.Task // gets the progress; may be nil

	deleted int
	freed   int64
	oldest  jobs.Time // when the first job was submitted
	stuck   int       // jobs whose files could not be removed
	why     error     // the first of their errors
}

func (h *Handler) sweep(older time.Duration, statuses []jobs.Status) *sweep {
	return &sweep{Handler: h, before: h.now().Add(-older), statuses: statuses}
}

// run goes through the ended jobs in batches. It removes files before records, since
// nobody could find them without the record. Another run makes up for an interrupted
// one.
func (s *sweep) run(ctx context.Context) error {
	if s.before <= 0 { // nothing is that old, and 0 would mean "any time"
		return nil
	}
	for after := uint64(0); ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		found, next, err := s.cleaner.Ended(ctx, s.before, s.statuses, after, batch)
		if err != nil {
			return fmt.Errorf("list ended jobs: %w", err)
		}
		if s.dryRun {
			err = s.count(found)
		} else {
			err = s.remove(ctx, found)
		}
		if err != nil {
			return err
		}
		s.report(found)
		if next == 0 {
			return s.leftover()
		}
		after = next
	}
}

func (s *sweep) count(found []*jobs.Job) error {
	var b []byte
	for _, j := range found {
		b = j.AppendJSON(b[:0])
		size, err := s.files.Size(j.ID)
		if err != nil {
			return fmt.Errorf("measure the artifacts of job %s: %w", j.ID, err)
		}
		s.freed += int64(len(b)) + size
		s.deleted++
	}
	return nil
}

// remove deletes one batch. A job whose files resist keeps its record and does
// not stop the others.
func (s *sweep) remove(ctx context.Context, found []*jobs.Job) error {
	keys := make([]uint64, 0, len(found))
	for _, j := range found {
		if err := s.removeFiles(j.ID); err != nil {
			s.stuck++
			if s.why == nil {
				s.why = fmt.Errorf("job %s: %w", j.ID, err)
			}
			continue
		}
		keys = append(keys, j.Key)
	}
	if len(keys) == 0 {
		return nil
	}
	r, err := s.cleaner.Do(ctx, jobs.Delete{Stamp: jobs.By("cleanup"), Keys: keys})
	s.deleted += r.Removed
	s.freed += r.Freed
	if err != nil {
		return fmt.Errorf("delete the records of ended jobs: %w", err)
	}
	return nil
}

func (s *sweep) removeFiles(id jobs.ID) error {
	size, err := s.files.Remove(id)
	s.freed += size
	if err != nil {
		return fmt.Errorf("remove its artifacts: %w", err)
	}
	for _, o := range s.others {
		size, err := o.Remove(id)
		s.freed += size
		if err != nil {
			return fmt.Errorf("remove %s: %w", o.Name, err)
		}
	}
	return nil
}

func (s *sweep) leftover() error {
	if s.stuck == 0 {
		return nil
	}
	return fmt.Errorf("deleted %d jobs, but the files of %d could not be removed, so these were kept; the first: %w", s.deleted, s.stuck, s.why)
}

// report estimates the progress by time. Jobs come oldest first, so it relates the last
// submission to the first one and the bound.
func (s *sweep) report(found []*jobs.Job) {
	if s.task == nil || len(found) == 0 {
		return
	}
	if s.oldest == 0 {
		s.oldest = found[0].CreatedAt
	}
	last := found[len(found)-1].CreatedAt
	s.task.Progress(history.Percent(int64(last.Sub(s.oldest)), int64(s.before.Sub(s.oldest))), s.summary())
}

func (s *sweep) summary() string {
	if s.dryRun {
		return fmt.Sprintf("would delete %d jobs", s.deleted)
	}
	return fmt.Sprintf("deleted %d jobs", s.deleted)
}

// names lists the names of the statuses; none stands for all ended ones.
func names(statuses []jobs.Status) []string {
	if len(statuses) == 0 {
		statuses = []jobs.Status{jobs.Completed, jobs.Failed, jobs.Cancelled}
	}
	list := make([]string, len(statuses))
	for i, s := range statuses {
		list[i] = s.String()
	}
	return list
}
