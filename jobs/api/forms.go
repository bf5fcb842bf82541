package api

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/figures"
	"jobstream/jobs/form"
	"jobstream/jobs/schedule"
)

// The forms that several operations share, for their descriptions. The description of an
// operation stands beside its function, as NAMEDoc.

// fieldsOf describes the fields of a table that JSON shows.
func fieldsOf[T any](table []jobs.Field[T]) []form.Field {
	var zero T
	var all []form.Field
	for i := range table {
		f := &table[i]
		switch f.JSON {
		case jobs.Hidden:
		case jobs.Always:
			all = append(all, form.Need(f.Name, valueForm(f.Of(&zero), true), f.Doc))
		default:
			all = append(all, form.May(f.Name, valueForm(f.Of(&zero), false), f.Doc))
		}
	}
	return all
}

// valueForm describes a value that [jobs.AppendValueJSON] writes. One that is always
// there is null while it is not set, if its type has no zero value in JSON.
func valueForm(v any, always bool) any {
	var s form.Schema
	switch v.(type) {
	case *string:
		return form.Text()
	case *int, *int64, *uint64:
		return form.Count()
	case *bool:
		return form.Bool()
	case *uint8:
		return priorityForm
	case *time.Duration:
		return form.Number()
	case *json.RawMessage:
		return form.Any()
	case *[]string:
		return form.List(form.Text(), 0, 0)
	case *jobs.Trace:
		return form.Text()
	case *jobs.Status:
		return statusForm
	case *jobs.Kind:
		return form.Text()
	case *[]jobs.Artifact:
		return form.List(valueForm(new(*jobs.Artifact), false), 0, 0)
	case *[]jobs.AttemptError:
		return form.List(form.Object(fieldsOf(jobs.ErrorFields)...).Named("AttemptError"), 0, 0)
	case *[]jobs.Input:
		return form.Map(form.Object(fieldsOf(jobs.InputFields)...).Named("Input"))
	case *jobs.ID:
		s = form.ID()
	case *jobs.Time:
		s = form.Moment()
	case **jobs.Artifact:
		s = form.Object(fieldsOf(jobs.ArtifactFields)...).Named("Artifact")
	default:
		panic(fmt.Sprintf("no form describes attributes of type %T", v))
	}
	if _, id := v.(*jobs.ID); always && !id {
		return s.OrNull()
	}
	return s
}

var (
	fingerprintForm = form.Pattern("^[0-9a-f]{16}$")

	priorityForm = form.Whole(int(jobs.HighestPriority), int(jobs.LowestPriority))
	statusForm   = form.OneOf(jobs.StatusNames()...).Named("Status")
	typeForm     = form.TextUpTo(jobs.MaxTypeName)
	keyForm      = form.TextUpTo(jobs.MaxKey)
	urlForm      = form.TextUpTo(jobs.MaxURL).With("format", "uri")
	tagsForm     = form.List(form.TextUpTo(jobs.MaxTagLength), 0, jobs.MaxTags)
	reasonForm   = form.Text().With("maxLength", MaxReason)

	artifactForm = valueForm(new(*jobs.Artifact), false)
	inputsForm   = valueForm(new([]jobs.Input), false)
)

// filterForm describes what filterOf reads.
var filterForm = form.Object(filterFields()...).Named("Filter")

func filterFields() []form.Field {
	var all []form.Field
	for _, p := range queries(filterNames...) {
		if p.Repeats {
			p.Schema = form.OneOrMore(p.Schema, MaxFilterValues)
		}
		all = append(all, form.May(p.Name, p.Schema, p.Text))
	}
	return all
}

// jobForm describes the job resource.
var jobForm = form.Object(append(append(fieldsOf(jobs.JobFields), fieldsOf(jobs.TermsFields)...),
	form.May("fingerprint", fingerprintForm, "of a failed job: its type and normalised error, see `GET /failures`"),
	form.May("waiting", waitingForm, "why it does not run; from `GET /jobs/{id}`, and in lists with `include=waiting`"),
)...).Named("Job").With("examples", []any{json.RawMessage(`{"id":"0193a5b1-7c3e-7d2f-8a4b-5c6d7e8f9012","seq":42,"type":"export","priority":3,"status":"processing","progress":45,` +
	`"message":"row 4500 of 10000","attempt":1,"max_attempts":2,"payload":{"format":"csv"},"result":null,"error":"","errors":[],"tags":["monthly"],"node":"vm",` +
	`"created_at":"2026-01-15T08:00:00Z","updated_at":"2026-01-15T08:00:02.5Z","run_at":null,"started_at":"2026-01-15T08:00:00.01Z","ended_at":null,"created_by":"ci"}`)})

var waitingForm = form.Object(
	form.Need("reason", form.OneOf(jobs.WaitScheduled, jobs.WaitBackoff, jobs.WaitQueueFull, jobs.WaitNoWorker, jobs.WaitTypePaused, jobs.WaitWorkersPaused,
		jobs.WaitTypeLimit, jobs.WaitKeyLimit, jobs.WaitRateLimit, jobs.WaitTargetBusy, jobs.WaitAllBusy, jobs.WaitQueue, jobs.WaitStarting), ""),
	form.May("until", form.Moment(), "the earliest end of that"),
	form.May("detail", form.Text(), "for people"),
	form.May("position", form.Count(), "its place in the queue of its type and priority, from 1"),
).Named("Waiting")

// jobsForm is an answer with jobs.
var jobsForm = form.Object(form.Need("jobs", form.List(jobForm, 0, 0), "")).Named("Jobs")

// runForms are the fields of [jobs.RunFields].
func runForms() []form.Field {
	return []form.Field{
		form.May("payload", form.Any(), "what its type needs to know; the type checks it at once"),
		form.May("priority", priorityForm.With("default", jobs.DefaultPriority), "1 is first"),
		form.May("tags", tagsForm, "for searches; without commas, control characters and spaces at their ends"),
		form.May("retry_count", form.Whole(0, jobs.MaxRetryCount), "how often it is tried again after a failure; the type's without it"),
		form.May("timeout", form.Span(jobs.MaxTimeout), "of each attempt; the type's without it"),
	}
}

// submissionForm describes what [ParseSubmission] reads.
var submissionForm = form.Object(submissionFields()...).Named("Submission")

func submissionFields() []form.Field {
	all := append([]form.Field{form.Need("type", typeForm, "one of `GET /types`")}, runForms()...)
	for i := range jobs.TermsFields {
		f := &jobs.TermsFields[i]
		if f.Span != "" {
			all = append(all, form.May(f.Span, form.Span(jobs.MaxDelay), f.Doc))
		}
		switch {
		case f.Server:
		case f.Name == "deadline": // takes both under one name
			all = append(all, form.May(f.Name, form.Either(form.Span(jobs.MaxDelay), moment), f.Doc))
		case f.Name == "callback_url":
			all = append(all, form.May(f.Name, urlForm, f.Doc))
		default:
			all = append(all, form.May(f.Name, givenForm(f), f.Doc))
		}
	}
	return append(all, form.May("inputs", form.Map(form.Either(form.ID(), form.Object(
		form.Need("job", form.ID(), "a completed job"),
		form.May("artifact", form.Text(), "the name of a file that it has left; its first one without"),
	))).With("maxProperties", jobs.MaxInputs), "the files that its type needs, by the names that it declares: uploads, or files of other jobs"))
}

// givenForm describes an attribute as a submission has it.
func givenForm(f *jobs.Field[jobs.Terms]) any {
	switch v := f.Of(&jobs.Terms{}).(type) {
	case *string:
		return keyForm
	case *jobs.Time:
		return moment
	default:
		return valueForm(v, false)
	}
}

// The headers of requests.
var (
	idempotencyKey = form.Param{Name: "Idempotency-Key", Schema: keyForm, Text: "the same key and request within 24 hours make nothing twice: the answer is that of the first one, with `Idempotent-Replay: true`"}
	prefer         = form.Param{Name: "Prefer", Schema: form.Text(), Text: "`wait=10` waits up to 10 seconds for the end of the job: 200 with the ended job, or 202 as usual", Example: "wait=10"}
	traceparent    = form.Param{Name: jobs.TraceHeader, Schema: form.Text(), Text: "where the request is in a trace, by W3C Trace Context; its jobs are there, too, and so is what they cause", Example: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
	disposition    = form.Param{Name: "Content-Disposition", Schema: form.Text(), Text: "has the name of the file", Example: `attachment; filename="a.csv"`}
)

// Forms are those of Go types whose JSON says something else than their fields.
func Forms() map[reflect.Type]form.Schema {
	return map[reflect.Type]form.Schema{
		reflect.TypeFor[jobs.ID]():       form.ID(),
		reflect.TypeFor[jobs.Time]():     form.Moment(),
		reflect.TypeFor[jobs.Status]():   statusForm,
		reflect.TypeFor[jobs.Priority](): priorityForm,
		reflect.TypeFor[jobs.Job]():      jobForm,
	}
}

// PathParams are the parameters of paths, by the segment before and their names.
var PathParams = map[string]form.Param{
	"jobs/{id}":        {Schema: form.Pattern(`^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[1-9][0-9]*)$`), Text: "the job's id, or its `seq`"},
	"artifacts/{name}": {Schema: form.Text(), Text: "the file's name"},
	"inputs/{name}":    {Schema: form.Text(), Text: "the name of an input, which the type declares"},
	"types/{type}":     {Schema: typeForm, Text: "the type's name"},
	"nodes/{name}":     {Schema: typeForm, Text: "the node's name"},
	"schedules/{name}": {Schema: typeForm, Text: "the schedule's name"},
	"ui/{view}":        {Schema: form.Text(), Text: "the view, like `jobs`"},
	"leases/{lease}":   {Schema: form.Text(), Text: "the lease, as `POST /leases` has returned it"},
}

// queryParams are the parameters of queries by their names. One name means the same
// everywhere.
var queryParams = map[string]form.Param{
	"status":          {Schema: statusForm, Repeats: true, Text: "jobs in this state"},
	"type":            {Schema: form.TextUpTo(jobs.MaxTypeName), Repeats: true, Text: "jobs of this type; `(unknown)` for those whose type was unknown on arrival"},
	"tag":             {Schema: form.Text(), Repeats: true, Text: "jobs with this tag"},
	"priority":        {Schema: priorityForm, Repeats: true, Text: "jobs of this priority"},
	"actor":           {Schema: form.Text(), Repeats: true, Text: "of this token, subject or anonymous"},
	"action":          {Schema: form.Text(), Repeats: true, Text: "of this operation, like cancel"},
	"after":           {Schema: moment, Text: "then or later"},
	"before":          {Schema: moment, Text: "earlier"},
	"created_by":      {Schema: form.Text(), Repeats: true, Text: "jobs that this token, subject or anonymous has submitted"},
	"created_after":   {Schema: moment, Text: "created then or later"},
	"created_before":  {Schema: moment, Text: "created earlier"},
	"started_after":   {Schema: moment, Text: "started then or later"},
	"started_before":  {Schema: moment, Text: "started earlier"},
	"ended_after":     {Schema: moment, Text: "ended then or later"},
	"ended_before":    {Schema: moment, Text: "ended earlier"},
	"error":           {Schema: form.TextUpTo(MaxFilterText), Text: "text contained in one of the job's errors, in any case"},
	"payload":         {Schema: form.TextUpTo(MaxFilterText), Text: "text contained in the JSON of the payload, in any case"},
	"limit":           {Schema: form.Whole(1, jobs.MaxLimit).With("default", jobs.DefaultLimit), Text: "how many at most"},
	"cursor":          {Schema: form.Text(), Text: "`next_cursor` of the page before, with the same filters"},
	"order":           {Schema: form.OneOf("desc", "asc").With("default", "desc"), Text: "desc: the newest first"},
	"fingerprint":     {Schema: fingerprintForm, Repeats: true, Text: "failed jobs of this group of `GET /failures`"},
	"schedule":        {Schema: form.Text(), Repeats: true, Text: "jobs that this schedule has made"},
	"concurrency_key": {Schema: keyForm, Repeats: true, Text: "jobs with this key"},
	"unique_key":      {Schema: keyForm, Repeats: true, Text: "jobs with this key, ended ones too"},
	"id":              {Schema: form.Pattern("^[0-9a-fA-F-]{4,36}$"), Repeats: true, Text: "this job, or those whose ids begin so; at most 10,000 of them"},
	"q":               {Schema: form.TextUpTo(MaxFilterText), Text: "a search box: the `seq` of a job, or the first 8 or more characters of its id, finds that job alone; else text contained in the type, a tag, an error or the payload, in any case"},
	"order_by":        {Schema: form.OneOf(append(jobs.OrderNames(), "last", "count")...), Text: "jobs: created (the default), ended, run_at (scheduled and retrying jobs), or started (processing ones); failures: last (the default) or count"},
	"cron":            {Schema: form.TextUpTo(MaxFilterText), Text: "a cron expression, as schedules have it", Example: "0 7 * * MON-FRI"},
	"every":           {Schema: form.Span(schedule.MaxEvery), Text: "an interval instead"},
	"timezone":        {Schema: form.Text(), Text: "the IANA name of the zone of `cron`; UTC without"},
	"n":               {Schema: form.Whole(1, schedule.MaxPreview).With("default", defaultPreview), Text: "how many moments"},
	"prefix":          {Schema: form.TextUpTo(MaxFilterText), Text: "those that begin so"},
	"include":         {Schema: form.OneOf("waiting"), Text: "with the reasons why jobs wait, as `GET /jobs/{id}` has them"},
	consistentName:    {Schema: form.Bool(), Text: "in a cluster: the node waits until it knows all that anybody has heard; without, it may lag"},
	"url":             {Schema: urlForm, Text: "to this URL"},
	"wait":            {Schema: form.Span(MaxWait), Text: "waits until the job has ended, at most that long"},
	"attempt":         {Schema: form.Whole(1, maxInt32), Text: "of this attempt only"},
	"tail":            {Schema: form.Whole(1, maxInt32), Text: "only so many, the last ones"},
	"follow":          {Schema: form.Bool(), Text: "goes on until the job ends"},
	"sha256":          {Schema: form.Pattern("^[0-9a-fA-F]{64}$"), Text: "of the file, in hex; one of another content is refused"},
	"job":             {Schema: form.ID(), Repeats: true, Text: "of this job"},
	"digest":          {Schema: form.Span(maxDigest * time.Second), Text: "a digest every so many whole seconds, in place of the changes", Example: "1s"},
	"last_event_id":   {Schema: form.Text(), Text: "goes on behind the event with this `id`, as the header Last-Event-ID does, which counts more"},
	"range":           {Schema: form.OneOf(figures.Ranges()...).With("default", figures.Ranges()[0]), Text: "5m by the second, 1h by ten seconds, or 24h by the minute"},
}

// moment is a time or a date, as [jobs.ParseMoment] reads it.
var moment = form.Text().With("examples", []any{"2026-01-15T08:00:00Z", "2026-01-15"})

const maxInt32 = 1<<31 - 1

// queries are the parameters with these names. One that is not described is a mistake in
// the program.
func queries(names ...string) []form.Param {
	all := make([]form.Param, len(names))
	for i, name := range names {
		p, known := queryParams[name]
		if !known {
			panic("queryParams does not describe " + name)
		}
		all[i], all[i].Name = p, name
	}
	return all
}
