package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/form"
)

// leaseCodes are those of reports about a lease.
var leaseCodes = []jobs.ErrorKind{jobs.LeaseLost}

var workerNameForm = form.Pattern(`^[A-Za-z0-9_@#-]+$`).With("maxLength", jobs.MaxWorkerName)

var workerNextDoc = form.Doc{
	Summary: "Ask for jobs to do",
	Text:    "The answer comes as soon as there is a job, and is empty after `wait`. Give your client five seconds more.",
	Body: form.Object(
		form.Need("types", form.OneOrMore(typeForm, jobs.MaxAskTypes), "the types that the worker can do"),
		form.May("max", form.Whole(1, jobs.MaxAsk).With("default", 1), "how many jobs at most"),
		form.May("wait", form.Span(jobs.MaxAskWait), "how long to wait for the first one; 30 seconds"),
		form.May("worker", workerNameForm, "the worker's name"),
	).Named("AskRequest"),
	Example: `{"types":["thumb"],"worker":"w-17","max":1,"wait":"30s"}`,
	Answer: form.Object(form.Need("leases", form.List(form.Object(
		form.Need("lease", form.Text(), "stands in the reports about this job"),
		form.Need("lease_seconds", form.Number(), "how long it holds without a beat"),
		form.Need("fence", form.Count(), "grows with each lease; whatever stores the outcome can refuse smaller ones"),
		form.Need("deadline", form.Moment(), "when the job's timeout is over"),
		form.Need("job", jobForm, ""),
		form.May("inputs", inputsForm, ""),
		form.May("checkpoint", form.Any(), "the last one of an earlier attempt"),
		form.May(jobs.TraceHeader, form.Text(), "where the execution is in a trace, for your own spans and requests"),
	).Named("Lease"), 0, jobs.MaxAsk), "")),
	Codes: []jobs.ErrorKind{jobs.UnknownType, jobs.TooMany},
}

func readAsk(r Request) (*jobs.Ask, error) {
	if err := r.Admits(); err != nil {
		return nil, err
	}
	body, err := bodyOnly(r)
	if err != nil {
		return nil, err
	}
	return ParseAsk(body)
}

// doorTime is how much longer the door waits than an ask. So an ask is over before its
// request is.
const doorTime = 5 * time.Second

func next(ctx context.Context, c Call, a *jobs.Ask) (Answer, error) {
	for _, typ := range a.Types {
		if !c.Caller.MayUse(typ) {
			return Answer{}, c.Caller.onlyTypes("do", typ)
		}
	}
	if a.Wait > 0 {
		waiting, done, err := c.door.Wait(ctx, a.Wait+doorTime)
		if err != nil {
			return Answer{}, err
		}
		defer done()
		ctx = waiting
	}
	a.Gone, a.Member = c.door.Gone, c.Caller.Member
	all, err := c.Leases.Next(ctx, a)
	return Answer{JSON: leased(all)}, err
}

var workerBeatDoc = form.Doc{
	Summary: "Keep leases",
	Text:    "One beat for all leases of a worker.",
	Body: form.Object(
		form.Need("leases", form.Either(form.Text(), form.List(form.Text(), 0, jobs.MaxLeases)), ""),
		form.May("worker", workerNameForm, "the worker's name"),
	).Named("BeatRequest"),
	Example: `{"worker":"w-17","leases":["k3J…"]}`,
	Answer:  beatResource{},
}

func readBeat(r Request) (Beat, error) {
	body, err := bodyOnly(r)
	if err != nil {
		return Beat{}, err
	}
	return ParseBeat(body)
}

func beat(ctx context.Context, c Call, b Beat) (Answer, error) {
	now, err := c.Leases.Beat(ctx, b.Worker, b.Leases)
	return Answer{JSON: (*beats)(&now)}, err
}

var workerProgressDoc = form.Doc{
	Summary: "Report the progress of a job",
	Text:    "It counts as a beat.",
	Body: form.Object(
		form.May("percent", form.Whole(0, 100), ""),
		form.May("message", form.Text(), "a longer one is shortened"),
		form.May("log", form.List(form.Either(form.Text(), form.Object(
			form.Need("text", form.Text(), ""),
			form.May("level", form.OneOf(logLevels...), "info without one"),
			form.May("stream", form.OneOf("stdout", "stderr"), "the stream of a program that has the line"),
		)), 0, maxLog), "lines for the job's log"),
		form.May("checkpoint", form.Any(), "the next attempt gets it"),
	).Named("ProgressRequest"),
	Optional: true,
	Example:  `{"percent":45,"message":"row 4500 of 10000","log":[{"level":"info","text":"half done"}]}`,
	Answer:   beatResource{},
	Codes:    leaseCodes,
}

func progress(ctx context.Context, c Call, r report[jobs.Progress]) (Answer, error) {
	now, err := c.Leases.Progress(ctx, r.lease, &r.of)
	return Answer{JSON: (*beats)(&now)}, err
}

var workerDoneDoc = form.Doc{
	Summary:  "Report the end of a job",
	Text:     "The answer comes when that is on disk. The same report again gets the same answer, with `repeated`.",
	Body:     form.Object(form.May("result", form.Any(), "any JSON")),
	Optional: true,
	Example:  `{"result":{"width":120}}`,
	Answer:   endingResource{},
	Codes:    leaseCodes,
}

func done(ctx context.Context, c Call, r report[json.RawMessage]) (Answer, error) {
	return endOf(c.Leases.Done(ctx, []jobs.Done{{Token: r.lease, Result: r.of}})[0])
}

var workerFailDoc = form.Doc{
	Summary: "Report that an attempt has failed",
	Body: form.Object(
		form.Need("error", form.Text(), "a longer one is shortened"),
		form.May("permanent", form.Bool(), "no other attempt makes sense"),
		form.May("retry_after", form.Span(jobs.MaxDelay), "not before; counts if it is longer than the type's backoff"),
		form.May("busy", form.Bool(), "what does the work takes nothing more for `retry_after`: no job of the type starts before"),
	).Named("FailureRequest"),
	Example: `{"error":"the picture is broken","permanent":true}`,
	Answer:  endingResource{},
	Codes:   leaseCodes,
}

func fail(ctx context.Context, c Call, r report[jobs.Failure]) (Answer, error) {
	return endOf(c.Leases.Fail(ctx, r.lease, &r.of))
}

var workerReleaseDoc = form.Doc{
	Summary: "Give a job back",
	Text:    "No attempt is used up.",
	Body: form.Object(
		form.May("delay", form.Span(jobs.MaxDelay), "not again before"),
		form.May("reason", form.Text(), ""),
		form.May("busy", form.Bool(), "what does the work takes nothing more for `delay`: no job of the type starts before"),
	),
	Optional: true,
	Example:  `{"delay":"1m","reason":"the printer is out of paper"}`,
	Answer:   endingResource{},
	Codes:    leaseCodes,
}

func release(ctx context.Context, c Call, r report[jobs.GiveBack]) (Answer, error) {
	return endOf(c.Leases.Release(ctx, r.lease, &r.of))
}

func endOf(e jobs.Ending) (Answer, error) { return Answer{JSON: (*ending)(&e)}, e.Err }

var workerDoneManyDoc = form.Doc{
	Summary: "Report the ends of many jobs",
	Body: form.Object(form.Need("done", form.List(form.Object(
		form.Need("lease", form.Text(), ""),
		form.May("result", form.Any(), "any JSON"),
	), 1, jobs.MaxAsk), "")),
	Example: `{"done":[{"lease":"k3J…","result":{"width":120}}]}`,
	Answer:  form.Object(form.Need("done", form.List(endingResource{}, 0, 0), "each has a status, or a problem")),
}

func readManyDone(r Request) ([]jobs.Done, error) {
	body, err := bodyOnly(r)
	if err != nil {
		return nil, err
	}
	return ParseDone(body)
}

func doneMany(ctx context.Context, c Call, all []jobs.Done) (Answer, error) {
	return Answer{JSON: &endings{all, c.Leases.Done(ctx, all)}}, nil
}

var workerListDoc = form.Doc{
	Summary: "List who works",
	Text:    "Workers elsewhere, and the pools of servers.",
	Answer:  form.Object(form.Need("workers", form.List(workerResource{}, 0, 0), "")),
}

func listWorkers(_ context.Context, c Call, _ nothing) (Answer, error) {
	return Answer{JSON: workers(c.Leases.AtWork())}, nil
}

// leaseFile is a file under a lease.
type leaseFile struct{ lease, name string }

func readLeaseFile(r Request) (leaseFile, error) {
	return leaseFile{r.Param("lease"), r.Param("name")}, noQuery(r)
}

var workerInputDoc = form.Doc{
	Summary: "Get an input of a leased job",
	Answer:  fileContent, Others: partOfFile,
	Codes: leaseCodes,
}

// getInput is the answer with the file of an input.
func getInput(ctx context.Context, c Call, q leaseFile) (Answer, error) {
	j, err := c.Leases.Job(ctx, q.lease)
	if err != nil {
		return Answer{}, err
	}
	for _, in := range j.Inputs() {
		if in.Name == q.name {
			return c.input(j, &in)
		}
	}
	return Answer{}, &jobs.Error{Kind: jobs.NotFound, Detail: fmt.Sprintf("job %s has no input %s", j.ID, jobs.Quote(q.name))}
}

// input is the answer with an input of a job, which a door sends.
func (c Call) input(j *jobs.Job, in *jobs.Input) (Answer, error) {
	content, err := c.Inputs.Open(in)
	if err != nil {
		return Answer{}, err
	}
	info, err := content.Stat()
	if err == nil && info.Size() != in.File.Size {
		err = fmt.Errorf("the input %s of job %s has %d bytes, its record says %d", jobs.Quote(in.Name), j.ID, info.Size(), in.File.Size)
	}
	if err != nil {
		return Answer{}, errors.Join(err, content.Close())
	}
	return Answer{File: &File{in.ID, &in.File, content, info.ModTime()}}, nil
}

// attachment is a file that a worker leaves for its job. Its content is still to come.
type attachment struct {
	leaseFile
	contentType string
	content     io.Reader
}

var workerArtifactDoc = form.Doc{
	Summary: "Leave a file for a leased job",
	Text:    "It is the job's when that is done.",
	Body:    form.Content{"*/*"},
	Answer:  artifactForm,
	Codes:   append([]jobs.ErrorKind{jobs.PayloadTooLarge, jobs.StorageFull, jobs.Conflict}, leaseCodes...),
}

func readAttachment(r Request) (a attachment, err error) {
	if a.leaseFile, err = readLeaseFile(r); err != nil {
		return a, err
	}
	u, err := ParseUpload(nil, r.Header("Content-Type"), nil)
	if err != nil {
		return a, err
	}
	a.contentType = u.ContentType
	a.content, err = r.Upload()
	return a, err
}

func attach(ctx context.Context, c Call, a attachment) (Answer, error) {
	made, err := c.Leases.Attach(ctx, a.lease, a.name, a.contentType, a.content)
	if err != nil {
		return Answer{}, err
	}
	return Answer{JSON: attached{made}}, nil
}

// attached is the answer with a file, without its content.
type attached struct{ *jobs.Artifact }

func (a attached) AppendJSON(b []byte) []byte {
	return jobs.AppendFieldsJSON(b, jobs.ArtifactFields, a.Artifact)
}
