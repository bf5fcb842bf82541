package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"jobstream/jobs"
	"jobstream/jobs/access"
	"jobstream/jobs/changes"
	"jobstream/jobs/figures"
	"jobstream/jobs/intake"
	"jobstream/jobs/joblog"
	"jobstream/jobs/schedule"
)

// Backend is what the operations work on, a part for each subject.
type Backend struct {
	Submitter Submitter
	Reader    Reader
	Changer   Changer
	Types     Types
	Workers   Workers
	Reloader  Reloader
	Leases    jobs.Leases
	Schedules Schedules
	Artifacts jobs.Artifacts
	Inputs    Inputs
	Logs      Logs
	Audit     AuditLog  // nil = nobody keeps one
	Refusals  *Refusals // nil = they are not counted
	Changes   *changes.Feed
	Backups   Backups
	Metrics   http.Handler
	Inspector Inspector
	Nodes     Nodes
	Figures   *figures.Collector
	Info      Info
}

// Submitter admits jobs.
type Submitter interface {
	// Submit checks and admits s, waits until it is durable and returns the committed
	// job, which is shared. Replayed means that s's token has made that job before.
	// Submit may keep s and its payload. Mistakes in s, and reasons of the server not
	// to admit it, are *jobs.Errors.
	Submit(ctx context.Context, s *jobs.Submission) (j *jobs.Job, replayed bool, err error)
	// SubmitBatch does so for all of subs or none. They have one token, which may be
	// nil.
	SubmitBatch(ctx context.Context, subs []*jobs.Submission, token *jobs.Token) (made []*jobs.Job, replayed bool, err error)
	// Check returns an error if Submit would refuse s for what is in it.
	Check(s *jobs.Submission) error
	// Targets are the types of which a submission makes jobs: its own, and those of the
	// jobs that it makes.
	Targets(typ string, payload json.RawMessage) []string
	// Needs is the scope that a submission of a type needs, besides submit; "" = none.
	Needs(typ string) access.Scope
}

// Logs are those of jobs.
type Logs interface {
	// Read returns the entries of a job that are wanted, oldest first.
	Read(ctx context.Context, id jobs.ID, q joblog.Query) ([]joblog.Entry, error)
	// Follow calls f for these, and for those that come; see [joblog.Dir.Follow].
	Follow(ctx context.Context, id jobs.ID, q joblog.Query, ended <-chan struct{}, f func(*joblog.Entry) error) error
}

// Inputs are the files that clients upload for jobs.
type Inputs interface {
	// Upload stores a file; see [intake.Inputs.Upload].
	Upload(ctx context.Context, content io.Reader, u intake.Upload) (*intake.Uploaded, error)
	// Open opens the file of a job's input.
	Open(in *jobs.Input) (jobs.ArtifactFile, error)
}

// Reader looks jobs up. The jobs it returns are shared and never changed.
type Reader interface {
	// Job finds a job by its id; nil without an error if there is none.
	Job(ctx context.Context, id jobs.ID) (*jobs.Job, error)
	// JobBySeq finds a job by its sequence in JOBS; nil without an error if there
	// is none.
	JobBySeq(ctx context.Context, seq uint64) (*jobs.Job, error)
	// Wait returns the job with this id once it has ended. If ctx ends or the server
	// stops before that, it returns the job as it is then; nil if there is none.
	Wait(ctx context.Context, id jobs.ID) (*jobs.Job, error)
	// Waiting is the reason why a job does not run; nil if it runs or has ended.
	Waiting(j *jobs.Job) *jobs.Waiting
	// List calls yield with each job of a page, until that returns false. A malformed
	// cursor is a *jobs.Error of kind invalid_request with the pointer "query/cursor".
	List(ctx context.Context, p jobs.Page, yield func(*jobs.Job) bool) (jobs.Listing, error)
	// Counts counts the jobs that f chooses.
	Counts(ctx context.Context, f jobs.Filter) (jobs.Counts, error)
	// Failures lists failed jobs in groups. A malformed cursor is an error as in List.
	Failures(ctx context.Context, p jobs.FailurePage) (jobs.FailureList, error)
	// Tags lists tags of jobs that begin with a text, from behind a tag on. last is the one
	// to go on behind, "" = there are no more.
	Tags(ctx context.Context, prefix, after string, limit int) (tags []string, last string, err error)
	// Disabled lists the URLs that get no callbacks any more.
	Disabled(ctx context.Context) ([]jobs.DisabledURL, error)
}

// Changer changes jobs by hand; see [Operator]. An actor is the name of the caller.
type Changer interface {
	// Cancel ends a job that has not ended.
	Cancel(ctx context.Context, actor string, j *jobs.Job, reason string) (*jobs.Job, error)
	// Retry lets a failed or cancelled job run again.
	Retry(ctx context.Context, actor string, j *jobs.Job) (*jobs.Job, error)
	// RunNow lets a job that waits for a moment start as soon as it may.
	RunNow(ctx context.Context, actor string, j *jobs.Job) (*jobs.Job, error)
	// Revise changes a job that waits.
	Revise(ctx context.Context, actor string, j *jobs.Job, r jobs.Revise) (*jobs.Job, error)
	// Delete removes an ended job and all that it has left behind.
	Delete(ctx context.Context, j *jobs.Job) error
	// Bulk submits the job that does a change of many jobs.
	Bulk(ctx context.Context, actor string, request json.RawMessage, token *jobs.Token) (j *jobs.Job, replayed bool, err error)
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
	// PauseAll lets it start no more jobs, or go on, and returns the stats after that.
	PauseAll(ctx context.Context, paused bool) (Stats, error)
}

// Reloader has what the server takes up of its configuration while it runs.
type Reloader interface {
	// Reload takes up what has changed in it, all or nothing. Mistakes in the
	// configuration are a *jobs.Error that names each.
	Reload(ctx context.Context) (*Reloaded, error)
	// LogLevel is the level of the server's log; "" = it is unknown.
	LogLevel() jobs.Level
	// SetLogLevel changes that, without the configuration.
	SetLogLevel(to jobs.Level) error
}

// Backups are copies of everything that the server keeps.
type Backups interface {
	// Backup begins one. It has everything that was acknowledged before the call.
	Backup(ctx context.Context) (*Stream, error)
}

// Inspector looks for what is wrong with the server.
type Inspector interface {
	Inspect(ctx context.Context) ([]jobs.Finding, error)
}

// Schedules make jobs at set times. Mistakes of users are *jobs.Errors. An actor is the
// name of the caller.
type Schedules interface {
	// List gives all in the order of their names.
	List(ctx context.Context) ([]*schedule.Entry, error)
	// Get finds one; not_found if there is none.
	Get(ctx context.Context, name string) (*schedule.Entry, error)
	// Runs lists what became of the latest moments of one, the latest first.
	Runs(ctx context.Context, name string) ([]schedule.Run, error)
	// Create adds one; a name that is in use is a conflict.
	Create(ctx context.Context, actor string, s *schedule.Spec) (*schedule.Entry, error)
	// Put adds one or replaces the one with its name; created means that it was added.
	Put(ctx context.Context, actor string, s *schedule.Spec) (e *schedule.Entry, created bool, err error)
	// Delete removes one.
	Delete(ctx context.Context, actor, name string) error
	// Pause stops one until Resume.
	Pause(ctx context.Context, actor, name string) (*schedule.Entry, error)
	// Resume lets one go on.
	Resume(ctx context.Context, actor, name string) (*schedule.Entry, error)
	// Run makes a schedule's job at once and returns it when it is durable. Replayed
	// means that the token, nil for none, has made that job before.
	Run(ctx context.Context, actor, name string, token *jobs.Token) (j *jobs.Job, replayed bool, err error)
}
