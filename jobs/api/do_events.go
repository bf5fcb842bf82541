package api

import (
	"context"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/changes"
	"jobstream/jobs/form"
)

// maxEvents is how long one request may follow changes. Its client comes back then.
const maxEvents = 24 * time.Hour

// ofEvents is the input of the operation events.
type ofEvents struct {
	changes.Filter
	digest int    // every so many seconds a digest, in place of the changes; 0 = none
	last   string // the id of the last event that the client has seen; "" = none
}

var eventsDoc = form.Doc{
	Summary: "Follow the changes of jobs",
	Text: "Server-Sent Events. `event: job.STATUS` has the job after a change as its data, `job.deleted` the job as it was. " +
		"With `digest=1s` there is `event: digest` instead, with figures of all types and a sample of the changes. " +
		"`event: skipped` comes first if something is missing before, and `event: closed` last; their data have `reason` and `detail`.",
	Query:   queries(eventNames...),
	Headers: []form.Param{{Name: "Last-Event-ID", Schema: form.Text(), Text: "goes on behind the event with this `id`"}},
	Answer:  form.Content{"text/event-stream"},
}

var eventNames = []string{"type", "status", "job", "digest", "last_event_id"}

// readEventsQuery reads what to follow, and from where on. EventSource sends the id of the
// last event as a header when it comes back by itself, so that counts more than the query.
func readEventsQuery(r Request) (q ofEvents, err error) {
	values, err := r.Query()
	if err != nil {
		return q, err
	}
	p := params{known: eventNames}
	if err := p.query(values); err != nil {
		return q, err
	}
	q.Filter = changes.Filter{Statuses: p.page.Statuses, Types: p.page.Types, Jobs: p.jobs}
	q.digest, q.last = p.digest, p.lastID
	if q.digest > 0 && len(values) > 1 {
		return q, jobs.Invalid("query/digest", "has no other parameters beside it: a digest is of all jobs")
	}
	switch given := r.Header("Last-Event-Id"); {
	case len(given) > 1:
		return q, jobs.Invalid("header/Last-Event-ID", "is given more than once")
	case len(given) == 1 && given[0] != "":
		q.last = given[0]
	}
	return q, nil
}

// followChanges is the answer that goes on with every change.
func followChanges(ctx context.Context, c Call, q ofEvents) (Answer, error) {
	following, done, err := c.door.Wait(ctx, maxEvents)
	if err != nil {
		return Answer{}, err
	}
	return Answer{Changes: &Changes{Following: following, Done: done, call: c, of: q}}, nil
}
