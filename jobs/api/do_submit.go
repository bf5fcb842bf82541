package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/form"
)

// submission is the input of operations that make one job.
type submission struct {
	job  *jobs.Submission
	wait time.Duration // for its end; 0 = not at all
}

// making reads the body of a request that makes jobs, and the token of its idempotency
// key if it has one.
func making(r Request) (body []byte, t *jobs.Token, err error) {
	if err = r.Admits(); err != nil {
		return nil, nil, err
	}
	if body, err = bodyOnly(r); err != nil {
		return nil, nil, err
	}
	t, err = token(r, body)
	return body, t, err
}

var submitDoc = form.Doc{
	Summary: "Submit a job",
	Text:    "The answer comes when the job is on disk.",
	Headers: []form.Param{idempotencyKey, prefer, traceparent},
	Body:    submissionForm,
	Example: `{"type":"email","payload":{"to":"user@example.com","subject":"Hello","body":"Hi"},"priority":2}`,
	Answer:  jobForm, Others: map[int]any{200: jobForm}, Address: true,
	Codes: makingCodes,
}

// makingCodes are those of operations that make jobs.
var makingCodes = []jobs.ErrorKind{jobs.UnknownType, jobs.IdempotencyMismatch, jobs.Duplicate, jobs.QueueFull}

func readSubmission(r Request) (submission, error) {
	body, t, err := making(r)
	if err != nil {
		return submission{}, err
	}
	s, err := ParseSubmission(body)
	if err != nil {
		return submission{}, err
	}
	s.Token = t
	s.SetTrace(TraceOf(r))
	return submission{s, r.Patience()}, nil
}

// TraceOf is where a request is in a trace. Several headers are as good as none.
func TraceOf(r Request) jobs.Trace {
	if h := r.Header("Traceparent"); len(h) == 1 {
		return jobs.ParseTrace(h[0])
	}
	return jobs.Trace{}
}

// maxRun is how long jobstream.run waits for the end of its job.
const maxRun = 5 * time.Minute

var runDoc = form.Doc{
	Summary: "Submit a job and wait for its end",
	Text:    "The answer is the job when it has ended, or its state after 5 minutes. Give the request a timeout to match.",
	Headers: []form.Param{idempotencyKey, traceparent},
	Body:    submissionForm,
	Example: submitDoc.Example,
	Answer:  jobForm,
	Codes:   makingCodes,
}

// readRun reads a submission that is answered when the job has ended. After five
// minutes, or when the server stops, the answer is the job as it is.
func readRun(r Request) (submission, error) {
	s, err := readSubmission(r)
	s.wait = maxRun
	return s, err
}

func submit(ctx context.Context, c Call, s submission) (Answer, error) {
	if err := c.mayMake(s.job.Type, s.job.Payload); err != nil {
		return Answer{}, err
	}
	if err := c.mayTake(ctx, s.job, ""); err != nil {
		return Answer{}, err
	}
	s.job.CreatedBy = c.Caller.Name
	j, err := c.passedBefore(ctx)
	if err != nil {
		return Answer{}, err
	}
	if j != nil {
		return c.made(ctx, j, false, s.wait), nil
	}
	s.job.ID = c.Caller.JobID
	j, replayed, err := c.Submitter.Submit(ctx, s.job)
	if err != nil {
		return Answer{}, err
	}
	return c.made(ctx, j, replayed && s.job.Token != nil, s.wait), nil
}

// passedBefore is the job that this very submission has made, if another node passes it on
// again because the answer was lost; nil = none.
func (c Call) passedBefore(ctx context.Context) (*jobs.Job, error) {
	if c.Caller.JobID == (jobs.ID{}) {
		return nil, nil
	}
	return c.Reader.Job(ctx, c.Caller.JobID)
}

// made is the answer with a job that is durable now. If the caller waits, it comes when
// the job has ended.
func (c Call) made(ctx context.Context, j *jobs.Job, replayed bool, wait time.Duration) Answer {
	a := Answer{JSON: job{Job: j}, Address: JobAddress(j.ID), Replayed: replayed}
	if wait > 0 {
		j = c.outcome(ctx, j, wait)
		a.JSON = job{Job: j}
		if j.Status.Ended() {
			a.Status, a.Waited = 200, wait
		}
	}
	return a
}

// outcome is a job when it has ended, or as it is after the wait. It never fails,
// because the job exists: a client that got an error would submit it again.
func (c Call) outcome(ctx context.Context, j *jobs.Job, wait time.Duration) *jobs.Job {
	known := *j
	known.Payload = nil // it may be large, and the wait long
	if now, err := c.await(ctx, known.ID, wait); err == nil {
		return now
	}
	return &known
}

// submissions are the input of a batch.
type submissions struct {
	jobs  []*jobs.Submission
	token *jobs.Token
}

var batchDoc = form.Doc{
	Summary: "Submit many jobs, all or none",
	Text:    "All of them are on disk with the answer, or none, even if the process dies in the middle.",
	Headers: []form.Param{idempotencyKey, traceparent},
	Body:    form.Object(form.Need("jobs", form.List(submissionForm, 1, jobs.MaxBatch), "")),
	Example: `{"jobs":[{"type":"export","payload":{"format":"csv"}},{"type":"report"}]}`,
	Answer:  jobsForm,
	Codes:   makingCodes,
}

func readBatch(r Request) (submissions, error) {
	body, t, err := making(r)
	if err != nil {
		return submissions{}, batchTooLarge(err)
	}
	all, err := ParseBatch(body)
	if at := TraceOf(r); at != (jobs.Trace{}) {
		for _, s := range all {
			s.SetTrace(at)
		}
	}
	return submissions{all, t}, err
}

// batchTooLarge adds advice to the error for a batch that is too large.
func batchTooLarge(err error) error {
	var e *jobs.Error
	if !errors.As(err, &e) || e.Kind != jobs.PayloadTooLarge {
		return err
	}
	more := *e
	more.Detail += ", which bounds a batch as a whole; send fewer jobs at a time"
	return &more
}

func submitBatch(ctx context.Context, c Call, s submissions) (Answer, error) {
	for i, one := range s.jobs {
		if err := c.mayMake(one.Type, one.Payload); err != nil {
			return Answer{}, err
		}
		if err := c.mayTake(ctx, one, fmt.Sprintf("/jobs/%d", i)); err != nil {
			return Answer{}, err
		}
		one.CreatedBy = c.Caller.Name
	}
	made, replayed, err := c.Submitter.SubmitBatch(ctx, s.jobs, s.token)
	return Answer{JSON: batch(made), Replayed: replayed}, err
}

// change is the input of a change of many jobs.
type change struct {
	*Bulk
	request []byte // that it was read from
	token   *jobs.Token
	wait    time.Duration
}

var bulkDoc = form.Doc{
	Summary: "Change many jobs by a filter",
	Text:    "A job of its own makes the change, before all others. With `dry_run` nothing changes, and the answer is 200 with the number of jobs.",
	Headers: []form.Param{idempotencyKey, prefer},
	Body: form.Object(
		form.Need("action", form.OneOf(BulkCancel, BulkRetry, BulkDelete), ""),
		form.May("filter", filterForm, "which jobs; without one, all must be true"),
		form.May("all", form.Bool(), "all jobs there are"),
		form.May("reason", reasonForm, "of a cancellation"),
		form.May("dry_run", form.Bool(), "only count them"),
	).Named("BulkChange"),
	Example: `{"action":"retry","filter":{"status":"failed","type":"email","error":"timeout"}}`,
	Answer:  jobForm, Address: true,
	Others: map[int]any{200: form.Either(jobForm, form.Object(
		form.Need("action", form.Text(), ""),
		form.Need("matched", form.Count(), "jobs that it would change"),
	))},
	Codes: makingCodes,
}

func readBulk(r Request) (change, error) {
	body, t, err := making(r)
	if err != nil {
		return change{}, err
	}
	b, err := ParseBulk(body, "")
	return change{b, body, t, r.Patience()}, err
}

func changeMany(ctx context.Context, c Call, in change) (Answer, error) {
	if in.DryRun {
		if r := jobs.RequestOf(ctx); r != nil {
			r.SetNoted() // it changes nothing
		}
		n, err := c.Changer.CountBulk(ctx, in.Bulk)
		return Answer{JSON: matched{in.Bulk, n}, Status: 200}, err
	}
	jobs.InDetail(ctx, in.request)
	j, replayed, err := c.Changer.Bulk(ctx, c.Caller.Name, in.request, in.token)
	if err != nil {
		return Answer{}, err
	}
	return c.made(ctx, j, replayed, in.wait), nil
}
