package api

import (
	"context"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/form"
	"jobstream/jobs/schedule"
)

func readNamePath(r Request) (string, error) { return r.Param("name"), noQuery(r) }

func readNamePathOnly(r Request) (string, error) { return r.Param("name"), pathOnly(r) }

// scheduleOf is the answer with a schedule.
func scheduleOf(e *schedule.Entry, err error) (Answer, error) { return Answer{JSON: entry{e}}, err }

// entry is a schedule as JSON.
type entry struct{ *schedule.Entry }

func (e entry) AppendJSON(b []byte) []byte { return e.Entry.AppendJSON(b, jobs.Now()) }

// entries are all schedules as JSON.
type entries []*schedule.Entry

func (all entries) AppendJSON(b []byte) []byte {
	return append(b, schedule.ListJSON(all, jobs.Now())...)
}

var scheduleListDoc = form.Doc{
	Summary: "List the schedules",
	Answer:  form.Object(form.Need("schedules", form.List(scheduleForm, 0, 0), "")),
}

func listSchedules(ctx context.Context, c Call, _ nothing) (Answer, error) {
	all, err := c.Schedules.List(ctx)
	return Answer{JSON: entries(all)}, err
}

var scheduleGetDoc = form.Doc{Summary: "Look at a schedule", Answer: scheduleForm}

func getSchedule(ctx context.Context, c Call, name string) (Answer, error) {
	return scheduleOf(c.Schedules.Get(ctx, name))
}

// specForm describes what [schedule.ParseSpec] reads.
var specForm = form.Object(append(runForms(),
	form.May("name", typeForm, "required, unless the path has it"),
	form.May("cron", form.TextUpTo(schedule.MaxCron), "5 or 6 fields; this or every"),
	form.May("every", form.Span(schedule.MaxEvery), "an interval; this or cron"),
	form.May("timezone", form.Text().With("default", "UTC"), "the IANA name of cron's zone"),
	form.Need("type", typeForm, "one of `GET /types`"),
	form.May("paused", form.Bool(), ""),
	form.May("overlap", form.OneOf(schedule.Skip, schedule.Queue).With("default", schedule.Skip), "skip: no job while the last one has not ended"),
	form.May("catch_up", form.OneOf(schedule.One, schedule.None).With("default", schedule.One), "one: a job for the latest of the times that were missed"),
	form.May("callback_url", urlForm, "of all its jobs"),
)...).Named("ScheduleRequest")

const specExample = `{"name":"nightly","cron":"30 2 * * *","timezone":"Europe/Berlin","type":"cleanup"}`

// scheduleForm describes [schedule.Entry].
var scheduleForm = form.Object(
	form.Need("name", form.Text(), ""),
	form.May("cron", form.Text(), ""),
	form.May("every", form.Text(), ""),
	form.Need("timezone", form.Text(), ""),
	form.Need("type", form.Text(), ""),
	form.Need("payload", form.Any(), ""),
	form.Need("priority", priorityForm, ""),
	form.Need("tags", form.List(form.Text(), 0, 0), ""),
	form.May("retry_count", form.Count(), ""),
	form.May("timeout", form.Number(), "seconds"),
	form.May("callback_url", form.Text(), ""),
	form.Need("paused", form.Bool(), ""),
	form.Need("overlap", form.OneOf(schedule.Skip, schedule.Queue), ""),
	form.Need("catch_up", form.OneOf(schedule.One, schedule.None), ""),
	form.Need("next_run_at", form.Moment().OrNull(), ""),
	form.Need("last_run_at", form.Moment().OrNull(), ""),
	form.Need("last_job_id", form.ID().OrNull(), ""),
	form.Need("skipped", form.Count(), "times that passed without a job"),
	form.May("problem", form.Text(), "why it can't fire"),
	form.Need("source", form.OneOf("api", "config"), ""),
	form.May("created_by", form.Text(), "who has put it as it is; its jobs are theirs"),
	form.Need("created_at", form.Moment().OrNull(), ""),
	form.Need("updated_at", form.Moment().OrNull(), ""),
).Named("Schedule")

func readSpec(r Request) (*schedule.Spec, error) {
	body, err := bodyOnly(r)
	if err != nil {
		return nil, err
	}
	return schedule.ParseSpec(body)
}

func readNamedSpec(r Request) (*schedule.Spec, error) {
	body, err := bodyOnly(r)
	if err != nil {
		return nil, err
	}
	return schedule.ParseNamedSpec(r.Param("name"), body)
}

var scheduleCreateDoc = form.Doc{
	Summary: "Make a schedule",
	Body:    specForm,
	Example: specExample,
	Answer:  scheduleForm, Address: true,
	Codes: []jobs.ErrorKind{jobs.Conflict, jobs.UnknownType},
}

func createSchedule(ctx context.Context, c Call, s *schedule.Spec) (Answer, error) {
	jobs.About(ctx, s.Name)
	if err := c.mayMake(s.Type, s.Payload); err != nil {
		return Answer{}, err
	}
	e, err := c.Schedules.Create(ctx, c.Caller.Name, s)
	return Answer{JSON: entry{e}, Address: scheduleAddress(s.Name)}, err
}

var schedulePutDoc = form.Doc{
	Summary: "Make or replace a schedule",
	Text:    "201 if there was none with this name.",
	Body:    specForm,
	Example: specExample,
	Answer:  scheduleForm, Others: map[int]any{201: scheduleForm},
	Codes: []jobs.ErrorKind{jobs.Conflict, jobs.UnknownType},
}

func putSchedule(ctx context.Context, c Call, s *schedule.Spec) (Answer, error) {
	jobs.About(ctx, s.Name)
	if err := c.mayMake(s.Type, s.Payload); err != nil {
		return Answer{}, err
	}
	e, created, err := c.Schedules.Put(ctx, c.Caller.Name, s)
	a := Answer{JSON: entry{e}}
	if created {
		a.Status, a.Address = 201, scheduleAddress(s.Name)
	}
	return a, err
}

func scheduleAddress(name string) string { return "/schedules/" + name }

var scheduleDeleteDoc = form.Doc{
	Summary: "Delete a schedule",
	Codes:   []jobs.ErrorKind{jobs.Conflict},
}

func deleteSchedule(ctx context.Context, c Call, name string) (Answer, error) {
	jobs.About(ctx, name)
	return Answer{}, c.Schedules.Delete(ctx, c.Caller.Name, name)
}

var (
	schedulePauseDoc = form.Doc{
		Summary: "Pause a schedule",
		Answer:  scheduleForm,
		Codes:   []jobs.ErrorKind{jobs.Conflict},
	}
	scheduleResumeDoc = form.Doc{
		Summary: "Resume a schedule",
		Answer:  scheduleForm,
		Codes:   []jobs.ErrorKind{jobs.Conflict},
	}
)

func pauseSchedule(ctx context.Context, c Call, name string) (Answer, error) {
	jobs.About(ctx, name)
	return scheduleOf(c.Schedules.Pause(ctx, c.Caller.Name, name))
}

func resumeSchedule(ctx context.Context, c Call, name string) (Answer, error) {
	jobs.About(ctx, name)
	return scheduleOf(c.Schedules.Resume(ctx, c.Caller.Name, name))
}

// scheduleRun is the input of a run of a schedule.
type scheduleRun struct {
	name  string
	token *jobs.Token
	wait  time.Duration // for its end; 0 = not at all
}

var scheduleRunDoc = form.Doc{
	Summary: "Run a schedule's job now",
	Headers: []form.Param{idempotencyKey, prefer},
	Answer:  jobForm, Others: map[int]any{200: jobForm}, Address: true,
	Codes: makingCodes,
}

func readScheduleRun(r Request) (scheduleRun, error) {
	if err := r.Admits(); err != nil {
		return scheduleRun{}, err
	}
	name, err := readNamePathOnly(r)
	if err != nil {
		return scheduleRun{}, err
	}
	t, err := token(r, []byte("schedule "+name))
	return scheduleRun{name, t, r.Patience()}, err
}

func runSchedule(ctx context.Context, c Call, in scheduleRun) (Answer, error) {
	jobs.About(ctx, in.name)
	s, err := c.Schedules.Get(ctx, in.name)
	if err == nil {
		err = c.mayMake(s.Type, s.Payload)
	}
	if err != nil {
		return Answer{}, err
	}
	j, replayed, err := c.Schedules.Run(ctx, c.Caller.Name, in.name, in.token)
	if err != nil {
		return Answer{}, err
	}
	return c.made(ctx, j, replayed, in.wait), nil
}
