package api

import (
	"context"

	"jobstream/jobs"
	"jobstream/jobs/form"
	"jobstream/jobs/strict"
)

var runNowDoc = form.Doc{
	Summary: "Run a job that waits for its moment now",
	Text:    "Scheduled and retrying jobs start as soon as there is a worker; caps, rates, keys and pauses hold for them. A pending job stays as it is.",
	Answer:  jobForm,
	Codes:   []jobs.ErrorKind{jobs.Conflict},
}

func runNow(ctx context.Context, c Call, q ofJob) (Answer, error) {
	j, err := c.find(ctx, q)
	if err == nil {
		j, err = c.Changer.RunNow(ctx, c.Caller.Name, j)
	}
	return Answer{JSON: job{Job: j}}, err
}

var reviseDoc = form.Doc{
	Summary: "Change a job that waits",
	Text:    "For scheduled, pending and retrying jobs. At least one field is required. A job with another priority goes behind the others that have it; else it keeps its place.",
	Body: form.Object(
		form.May("priority", priorityForm, "1 is first"),
		form.May("run_at", moment, "not before; one that has passed means now"),
		form.May("payload", form.Any(), "checked as in a submission"),
		form.May("tags", tagsForm, "in place of the others"),
	).With("minProperties", 1),
	Example: `{"priority":1}`,
	Answer:  jobForm,
	Codes:   []jobs.ErrorKind{jobs.Conflict, jobs.UnknownType, jobs.PayloadTooLarge},
}

// revision is the input of a change of a job.
type revision struct {
	ofJob
	jobs.Revise
}

func readRevision(r Request) (in revision, err error) {
	body, err := bodyOnly(r)
	if err != nil {
		return in, err
	}
	if in.Revise, err = ParseRevision(body); err != nil {
		return in, err
	}
	in.ofJob, err = readPathID(r)
	return in, err
}

// ParseRevision reads a change of a job that waits, strictly:
//
//	{"priority": 1, "run_at": "2024-01-15T08:00:00Z", "payload": {…}, "tags": ["a"]}
//
// At least one of them must be named. null counts as missing. It does not know the job,
// so its type has not checked the payload.
func ParseRevision(body []byte) (r jobs.Revise, err error) {
	err = jobs.Read("", body, func(v strict.Value) {
		v.Object(
			strict.May("priority", func(v strict.Value) {
				r.Priority = jobs.Priority(v.Int(int(jobs.HighestPriority), int(jobs.LowestPriority)))
			}),
			strict.May("run_at", func(v strict.Value) { r.RunAt = strict.As(v, jobs.ReadMoment) }),
			strict.May("payload", func(v strict.Value) { r.Payload = v.Raw }),
			strict.May("tags", func(v strict.Value) {
				r.Tags = strict.As(v, jobs.ReadTags)
				if r.Tags == nil {
					r.Tags = []string{}
				}
			}),
		)
		if v.Right() && r.Priority == 0 && r.RunAt == 0 && r.Payload == nil && r.Tags == nil {
			v.Fail("must have at least one of priority, run_at, payload and tags")
		}
	})
	return r, err
}

func revise(ctx context.Context, c Call, in revision) (Answer, error) {
	j, err := c.find(ctx, in.ofJob)
	if err == nil && j.Type == jobs.CallbackType {
		err = &jobs.Error{Kind: jobs.Conflict, Detail: "a delivery cannot be changed: it says how its job has ended"}
	}
	if err == nil && in.Payload != nil {
		err = c.mayHave(j, in.Payload)
	}
	if err != nil {
		return Answer{}, err
	}
	j, err = c.Changer.Revise(ctx, c.Caller.Name, j, in.Revise)
	if err != nil {
		return Answer{}, err
	}
	return Answer{JSON: job{j, c.Reader.Waiting(j)}}, nil
}

// mayHave returns an error if a submission of a job's type with this payload would be
// refused.
func (c Call) mayHave(j *jobs.Job, payload []byte) error {
	if err := c.mayUseAll(j.Type, payload); err != nil {
		return err
	}
	s := &jobs.Submission{Type: j.Type, Payload: payload}
	if j.Terms != nil {
		s.Terms = &jobs.Terms{Inputs: j.Terms.Inputs}
	}
	return c.Submitter.Check(s)
}
