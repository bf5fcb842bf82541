package api

import (
	"context"
	"errors"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/form"
	"jobstream/jobs/schedule"
)

var previewNames = []string{"cron", "every", "timezone", "n"}

var schedulePreviewDoc = form.Doc{
	Summary: "List the next moments of a schedule that is not made yet",
	Text:    "Give `cron` or `every`. An interval counts from now. A plan that never fires is refused.",
	Query:   queries(previewNames...),
	Answer:  form.Object(form.Need("next", form.List(form.Moment(), 0, schedule.MaxPreview), "")),
}

// preview asks for the next moments of a schedule.
type preview struct {
	cron, zone string
	every      time.Duration
	n          int
}

// defaultPreview is how many moments a preview has.
const defaultPreview = 5

func readPreview(r Request) (preview, error) {
	query, err := r.Query()
	if err != nil {
		return preview{}, err
	}
	p := params{known: previewNames, preview: preview{zone: "UTC", n: defaultPreview}}
	if err := p.query(query); err != nil {
		return preview{}, err
	}
	switch q := p.preview; {
	case q.cron == "" && q.every == 0:
		return preview{}, jobs.Invalid("query/cron", "is required, or every instead")
	case q.cron != "" && q.every != 0:
		return preview{}, jobs.Invalid("query/every", "goes instead of cron, not with it; give one of the two")
	default:
		return q, nil
	}
}

func previewSchedule(_ context.Context, _ Call, q preview) (Answer, error) {
	next, err := schedule.Preview(q.cron, q.every, q.zone, q.n, jobs.Now())
	var e *jobs.Error
	if errors.As(err, &e) {
		moved := *e
		moved.Fields = append([]jobs.FieldError(nil), e.Fields...)
		for i, f := range moved.Fields {
			moved.Fields[i].Pointer = "query" + f.Pointer
		}
		err = &moved
	}
	a := &moments{Next: make([]string, 0, len(next))}
	for _, at := range next {
		a.Next = append(a.Next, at.String())
	}
	return Answer{JSON: a}, err
}

// moments is the answer with a preview.
type moments struct {
	Next []string `json:"next"`
}

// AppendJSON appends the answer.
func (m *moments) AppendJSON(b []byte) []byte { return appendMarshalled(b, m) }

var scheduleRunsDoc = form.Doc{
	Summary: "List what became of the latest moments of a schedule",
	Text:    "The latest first, 50 at most.",
	Answer: form.Object(form.Need("runs", form.List(form.Object(
		form.Need("at", form.Moment(), "the moment that it fired for; of a run by hand, when its job was made"),
		form.Need("job", form.ID().OrNull(), "that it made, which may have been deleted since; null if it was skipped"),
		form.Need("skipped", form.Bool(), "the job before had not ended"),
	).Named("ScheduleRun"), 0, schedule.MaxRuns), "")),
}

// runs is the answer with the runs of a schedule.
type runs struct {
	Runs []shownScheduleRun `json:"runs"`
}

type shownScheduleRun struct {
	At      string   `json:"at"`
	Job     *jobs.ID `json:"job"`
	Skipped bool     `json:"skipped"`
}

// AppendJSON appends the answer.
func (r *runs) AppendJSON(b []byte) []byte { return appendMarshalled(b, r) }

func scheduleRuns(ctx context.Context, c Call, name string) (Answer, error) {
	all, err := c.Schedules.Runs(ctx, name)
	a := &runs{Runs: make([]shownScheduleRun, 0, len(all))}
	for i := range all {
		r := shownScheduleRun{At: all[i].At.String(), Skipped: all[i].Skipped()}
		if !r.Skipped {
			r.Job = &all[i].Job
		}
		a.Runs = append(a.Runs, r)
	}
	return Answer{JSON: a}, err
}
