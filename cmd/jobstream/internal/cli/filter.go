package cli

import (
	"net/url"
	"strconv"
	"time"

	"jobstream/jobs"
)

// filter chooses jobs: the flags are the parameters of GET /jobs. Those that are lists may
// be repeated.
type filter struct {
	Status         []string `placeholder:"STATUS" sep:"none" help:"Jobs with this status, like failed. Repeat this and others for several."`
	Type           []string `placeholder:"TYPE" sep:"none" help:"Jobs of this type."`
	Tag            []string `placeholder:"TAG" sep:"none" help:"Jobs with this tag."`
	Priority       []string `placeholder:"N" sep:"none" help:"Jobs of this priority, 1 to 5."`
	ID             []string `name:"id" placeholder:"ID" sep:"none" help:"Jobs whose id is or begins with this."`
	Fingerprint    []string `placeholder:"F" sep:"none" help:"Failed jobs of this group, see jobstream failures."`
	Schedule       []string `placeholder:"NAME" sep:"none" help:"Jobs of this schedule."`
	CreatedBy      []string `placeholder:"NAME" sep:"none" help:"Jobs that this token or user has submitted."`
	ConcurrencyKey []string `placeholder:"KEY" sep:"none" help:"Jobs with this concurrency key."`
	UniqueKey      []string `placeholder:"KEY" sep:"none" help:"Jobs with this unique key."`
	Error          string   `placeholder:"TEXT" help:"Jobs with this text in their errors."`
	Payload        string   `placeholder:"TEXT" help:"Jobs with this text in their payload."`
	Q              string   `name:"q" short:"q" placeholder:"TEXT" help:"Search for a text, a seq or the beginning of an id."`
	moments
}

// current is the flag of lists that any node of a cluster answers.
type current struct {
	Consistent bool `help:"In a cluster: have the node ask the leader first, so that nothing is missing that anybody has heard of."`
}

func (c current) set(query url.Values) {
	if c.Consistent {
		query.Set("consistent", "true")
	}
}

// moments choose jobs by times.
type moments struct {
	CreatedAfter  string `placeholder:"WHEN" help:"Created since then: a time like 2026-01-31 or 2026-01-31T08:00:00Z, or how long ago, like 2h."`
	CreatedBefore string `placeholder:"WHEN" help:"Created before then."`
	StartedAfter  string `placeholder:"WHEN" help:"Started since then."`
	StartedBefore string `placeholder:"WHEN" help:"Started before then."`
	EndedAfter    string `placeholder:"WHEN" help:"Ended since then."`
	EndedBefore   string `placeholder:"WHEN" help:"Ended before then."`
}

// query is the filter as parameters.
func (f *filter) query() url.Values {
	q := url.Values{}
	for name, values := range map[string][]string{
		"status": f.Status, "type": f.Type, "tag": f.Tag, "priority": f.Priority, "id": f.ID, "fingerprint": f.Fingerprint,
		"schedule": f.Schedule, "created_by": f.CreatedBy, "concurrency_key": f.ConcurrencyKey, "unique_key": f.UniqueKey,
	} {
		if len(values) > 0 {
			q[name] = values
		}
	}
	for name, value := range map[string]string{
		"error": f.Error, "payload": f.Payload, "q": f.Q,
		"created_after": moment(f.CreatedAfter), "created_before": moment(f.CreatedBefore), "started_after": moment(f.StartedAfter),
		"started_before": moment(f.StartedBefore), "ended_after": moment(f.EndedAfter), "ended_before": moment(f.EndedBefore),
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q
}

// body is the filter as JSON, for bulk changes.
func (f *filter) body() map[string]any {
	all := map[string]any{}
	for name, values := range f.query() {
		switch {
		case name == "priority":
			all[name] = numbers(values)
		case len(values) == 1:
			all[name] = values[0]
		default:
			all[name] = values
		}
	}
	return all
}

// numbers are texts as numbers, where they are any; the server says what is wrong with
// others.
func numbers(texts []string) []any {
	all := make([]any, len(texts))
	for i, t := range texts {
		if n, err := strconv.Atoi(t); err == nil {
			all[i] = n
		} else {
			all[i] = t
		}
	}
	return all
}

// moment is a time as the API takes it. It may be given as how long it lies back.
func moment(text string) string {
	if d, err := jobs.ParseDuration(text); err == nil {
		return time.Now().Add(-d).UTC().Format(time.RFC3339Nano)
	}
	return text
}
