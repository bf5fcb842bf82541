package api

import (
	"context"
	"slices"
	"time"

	"jobstream/jobs"
)

// Answer is what an operation has come to. It has a JSON, a List, a File, or nothing.
type Answer struct {
	JSON JSON
	List *List
	File *File

	// Status is that over REST; 0 = that of the operation.
	Status int
	// Address is the path of what was made; "" = nothing was.
	Address string
	// Replayed says that the same request has made its jobs before.
	Replayed bool
	// Waited is the caller's [Request.Patience], if the job has ended within it.
	Waited time.Duration
}

// JSON appends an answer's JSON.
type JSON interface{ AppendJSON(b []byte) []byte }

// Fitting is a [JSON] that can leave something out, for a door whose answers are
// bounded.
type Fitting interface {
	JSON
	// AppendFitting appends it without the fields that would make it larger than most
	// bytes; omitted names them.
	AppendFitting(b []byte, most int) (out []byte, omitted string)
}

// List is an answer that is written while it is read: a page of jobs. It may be
// larger than one wants to have in memory.
type List struct {
	Page jobs.Page
	from Reader
}

// Read hands each job to yield, until that returns false. It is called once.
func (l *List) Read(ctx context.Context, yield func(*jobs.Job) bool) (jobs.Listing, error) {
	return l.from.List(ctx, l.Page, yield)
}

// File is an answer with the artifact of a job. Who has it closes Content.
type File struct {
	ID       jobs.ID
	Artifact *jobs.Artifact
	Content  jobs.ArtifactFile
	Modified time.Time
}

// JobAddress is the path of a job.
func JobAddress(id jobs.ID) string { return "/jobs/" + id.String() }

// job is one job as an answer.
type job struct {
	*jobs.Job
	waiting *jobs.Waiting // what it waits for; nil = it does not, or it is not asked for
}

func (j job) AppendJSON(b []byte) []byte { return j.AppendWaiting(b, j.waiting) }

func (j job) AppendFitting(b []byte, most int) (out []byte, omitted string) {
	b = slices.Grow(b, 640+min(len(j.Payload)+len(j.Result), most))
	return j.Job.AppendFitting(b, j.waiting, most)
}

// batch is the jobs of a batch as an answer.
type batch []*jobs.Job

func (all batch) AppendJSON(b []byte) []byte { return AppendJobsJSON(b, all) }

// AppendFitting leaves the payloads out, if need be: the client has sent them.
func (all batch) AppendFitting(b []byte, most int) (out []byte, omitted string) {
	if out = all.AppendJSON(b); len(out)-len(b) <= most {
		return out, ""
	}
	short := make(batch, len(all))
	for i, j := range all {
		short[i] = j.Clone()
		short[i].Payload = nil
	}
	return short.AppendJSON(b), "payload"
}
