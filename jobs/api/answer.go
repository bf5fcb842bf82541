package api

import (
	"context"
	"io"
	"net/http"
	"slices"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/joblog"
)

// Answer is the result of an operation. It has a JSON, a List, a File, a Log, Changes, a
// Stream, a Handler, or none of them.
type Answer struct {
	JSON JSON
	List *List
	File *File
	Log  *Log
	// Changes are the events of GET /events.
	Changes *Changes
	Stream  *Stream
	// Handler answers with what has a protocol of its own.
	Handler http.Handler

	// Status is its HTTP status; 0 = that of the operation.
	Status int
	// Address is the path of the job or schedule that was made; "" = none was.
	Address string
	// Replayed means that the same request has made its jobs before.
	Replayed bool
	// Waited is the wait that the caller asked for, if the job has ended within it.
	Waited time.Duration
}

// JSON is an answer that is JSON.
type JSON interface{ AppendJSON(b []byte) []byte }

// Fitting is a [JSON] that can omit fields, for a door with a bound on answers.
type Fitting interface {
	JSON
	// AppendFitting appends the JSON without the fields that would make it larger than
	// most bytes; omitted has their names.
	AppendFitting(b []byte, most int) (out []byte, omitted string)
}

// List is a page of jobs, which a door writes while it reads it. As a whole it may be
// too large for memory.
type List struct {
	Page jobs.Page
	from Reader
}

// Read calls yield with each job, until that returns false. It is called once.
func (l *List) Read(ctx context.Context, yield func(*jobs.Job) bool) (jobs.Listing, error) {
	return l.from.List(ctx, l.Page, yield)
}

// Waiting is the reason why a job of the list waits, if the caller wants it.
func (l *List) Waiting(j *jobs.Job) *jobs.Waiting {
	if !l.Page.Waiting {
		return nil
	}
	return l.from.Waiting(j)
}

// File is the artifact of a job. The door closes Content.
type File struct {
	ID       jobs.ID
	Artifact *jobs.Artifact
	Content  jobs.ArtifactFile
	Modified time.Time
}

// Log is the log of a job, which a door writes while it reads it. It may go on as long
// as the job does.
type Log struct {
	NDJSON bool // as lines of JSON, not of text
	read   func(ctx context.Context, yield func(*joblog.Entry) error) error
}

// Read calls yield with each entry, until that returns an error. It is called once.
func (l *Log) Read(ctx context.Context, yield func(*joblog.Entry) error) error {
	return l.read(ctx, yield)
}

// Changes are changes of jobs, which a door sends as they come. They go on until the
// client or the server ends them.
type Changes struct {
	// Following ends when nobody may follow any more. Done must be called in the end.
	Following context.Context
	Done      func()

	call Call
	of   ofEvents
}

// Followed are events, see [changes.Follower].
type Followed interface {
	Next(ctx context.Context, beat <-chan time.Time) ([][]byte, error)
	Mark() []byte
	Close()
}

// Follow begins to follow them. It is called once.
func (c *Changes) Follow() Followed {
	if n := c.of.digest; n > 0 {
		return c.call.Changes.Digests(&c.call.Figures.Board, n)
	}
	return c.call.Changes.Follow(c.of.Filter, c.of.last)
}

// Stream is a file that is made while a door sends it. If that fails the door breaks the
// answer off, so that nobody takes the beginning for the whole.
type Stream struct {
	Name        string
	ContentType string
	Write       func(ctx context.Context, w io.Writer) error // is called at most once
	Close       func()                                       // is called once, with or without Write
}

// JobAddress is the path of a job.
func JobAddress(id jobs.ID) string { return "/jobs/" + id.String() }

// job is the answer with one job.
type job struct {
	*jobs.Job
	waiting *jobs.Waiting // why it does not run; nil = not shown
}

func (j job) AppendJSON(b []byte) []byte { return j.AppendWaiting(b, j.waiting) }

func (j job) AppendFitting(b []byte, most int) (out []byte, omitted string) {
	b = slices.Grow(b, 640+min(len(j.Payload)+len(j.Result), most))
	return j.Job.AppendFitting(b, j.waiting, most)
}

// batch is the answer with the jobs of a batch.
type batch []*jobs.Job

func (all batch) AppendJSON(b []byte) []byte { return AppendJobsJSON(b, all) }

// AppendFitting may omit the payloads, which the client has.
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
