package api

import (
	"context"
	"encoding/json"

	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

// Backend is what the operations work on.
type Backend struct {
	Jobs      Jobs
	Schedules Schedules      // nil only where nobody asks for them
	Artifacts jobs.Artifacts // nil only where no job leaves a file
}

// Jobs is all about jobs, their types and the workers.
type Jobs interface {
	Submitter
	Reader
	Changer
	Types
	Workers
}

// Submitter admits jobs.
type Submitter interface {
	// Submit checks and admits s, waits until it is durable and returns the
	// committed job, which is shared; replayed says that it is the one which s's
	// token made before. It may keep s and its payload. What is wrong with s, or
	// keeps the server from admitting it, comes back as a *jobs.Error.
	Submit(ctx context.Context, s *jobs.Submission) (j *jobs.Job, replayed bool, err error)
	// SubmitBatch does that for all of subs or none, by the token of them all, which
	// may be nil.
	SubmitBatch(ctx context.Context, subs []*jobs.Submission, token *jobs.Token) (made []*jobs.Job, replayed bool, err error)
}

// Reader looks jobs up. The jobs it returns are shared and never changed.
type Reader interface {
	// Job finds a job by its id; nil without an error if there is none.
	Job(ctx context.Context, id jobs.ID) (*jobs.Job, error)
	// JobBySeq finds a job by its sequence in JOBS; nil without an error if there
	// is none.
	JobBySeq(ctx context.Context, seq uint64) (*jobs.Job, error)
	// Wait returns the job with this id once it has ended; when ctx ends or the
	// server stops before that, as it is then. It is nil if there is none.
	Wait(ctx context.Context, id jobs.ID) (*jobs.Job, error)
	// Waiting says why a job is not running; nil if it is, or has ended.
	Waiting(j *jobs.Job) *jobs.Waiting
	// List finds a page of jobs and hands each to yield, until that returns false. A
	// cursor that makes no sense is a *jobs.Error of kind invalid_request with the
	// pointer "query/cursor".
	List(ctx context.Context, p jobs.Page, yield func(*jobs.Job) bool) (jobs.Listing, error)
	// Counts counts the jobs that f chooses.
	Counts(ctx context.Context, f jobs.Filter) (jobs.Counts, error)
}

// Changer changes jobs by hand; see [Operator]. An actor is who asks for that.
type Changer interface {
	// Cancel ends a job that has not ended.
	Cancel(ctx context.Context, actor string, j *jobs.Job, reason string) (*jobs.Job, error)
	// Retry lets a failed or cancelled job run again.
	Retry(ctx context.Context, actor string, j *jobs.Job) (*jobs.Job, error)
	// Delete removes an ended job and what it has left behind.
	Delete(ctx context.Context, j *jobs.Job) error
	// Bulk submits the job that does a change of many jobs.
	Bulk(ctx context.Context, request json.RawMessage, token *jobs.Token) (j *jobs.Job, replayed bool, err error)
	// CountBulk is the number of jobs that b would change.
	CountBulk(ctx context.Context, b *Bulk) (int, error)
}

// Types are the job types. A type that does not exist, or is internal, is a
// *jobs.Error of kind not_found.
type Types interface {
	// Types lists all that are not internal.
	Types(ctx context.Context) ([]TypeInfo, error)
	// Type finds one by its name.
	Type(ctx context.Context, name string) (*TypeInfo, error)
	// SetPaused pauses one for good, or lets it go on.
	SetPaused(ctx context.Context, actor, name string, paused bool) (*TypeInfo, error)
}

// Workers is the pool as its operator sees it.
type Workers interface {
	// Stats returns its figures.
	Stats(ctx context.Context) (Stats, error)
	// Resize changes its bounds and returns the stats after that. A type that does
	// not exist is a *jobs.Error.
	Resize(ctx context.Context, r jobs.Resize) (Stats, error)
}

// Schedules are what makes jobs at set times. What a user did wrong comes back as
// a *jobs.Error. An actor is who asks for a change.
type Schedules interface {
	// List gives all in the order of their names.
	List(ctx context.Context) ([]*schedule.Entry, error)
	// Get finds one; not_found if there is none.
	Get(ctx context.Context, name string) (*schedule.Entry, error)
	// Create adds one; a name that is in use is a conflict.
	Create(ctx context.Context, actor string, s *schedule.Spec) (*schedule.Entry, error)
	// Put adds one or replaces the one with its name, and says which it was.
	Put(ctx context.Context, actor string, s *schedule.Spec) (e *schedule.Entry, created bool, err error)
	// Delete removes one.
	Delete(ctx context.Context, actor, name string) error
	// Pause stops one until Resume.
	Pause(ctx context.Context, actor, name string) (*schedule.Entry, error)
	// Resume lets one go on.
	Resume(ctx context.Context, actor, name string) (*schedule.Entry, error)
	// Run makes one's job at once and returns it when it is durable; replayed says
	// that it is the one which the token, nil for none, made before.
	Run(ctx context.Context, name string, token *jobs.Token) (j *jobs.Job, replayed bool, err error)
}
