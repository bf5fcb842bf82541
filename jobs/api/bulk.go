package api

import (
	"encoding/json"
	"fmt"
	"slices"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// BulkType is the type of the jobs that change others by a filter.
const BulkType = "jobstream-bulk"

// BulkPriority is that of a bulk job which the doors submit: it is asked for to
// get rid of a backlog, so it must not wait behind it.
const BulkPriority = jobs.HighestPriority

// BulkAction is what happens to all jobs that a filter chooses.
type BulkAction string

// The actions, each as for one job.
const (
	BulkCancel BulkAction = "cancel" // jobs that have not ended
	BulkRetry  BulkAction = "retry"  // failed and cancelled ones
	BulkDelete BulkAction = "delete" // ended ones
)

// statuses are those of the jobs that the action changes.
func (a BulkAction) statuses() []jobs.Status {
	switch a {
	case BulkCancel:
		return []jobs.Status{jobs.Scheduled, jobs.Pending, jobs.Processing, jobs.Retrying}
	case BulkRetry:
		return []jobs.Status{jobs.Failed, jobs.Cancelled}
	case BulkDelete:
		return []jobs.Status{jobs.Completed, jobs.Failed, jobs.Cancelled}
	}
	return nil
}

// Bulk is a change of many jobs.
type Bulk struct {
	Action BulkAction
	Filter jobs.Filter // as it was asked for; see [Bulk.Target]
	Reason string      // of cancellations, "" if that is not said
	DryRun bool        // only count
}

// ParseBulk reads a Bulk from the JSON object raw, strictly:
//
//	{"action":"cancel","filter":{"type":"email"},"reason":"…","dry_run":true}
//
// The filter is that of [ParseFilter]. One that chooses every job there is needs
// "all":true beside it, so that a slip does not empty the queue. An [*jobs.Error]
// names every bad field by its JSON pointer, below pointer (that of raw itself,
// "" if raw is the body).
func ParseBulk(raw json.RawMessage, pointer string) (*Bulk, error) {
	if pointer != "" && (len(raw) == 0 || raw[0] != '{') {
		return nil, jobs.Invalid(pointer, `must be an object like {"action":"cancel","filter":{"type":"email"}}, not `+strict.Describe(raw))
	}
	p := bulkParser{pointer: pointer}
	err := jobs.EachKnown(raw, bulkFields, []string{"action"}, p.field)
	if e, ok := jobs.AsError(err); ok && e.Kind == jobs.MalformedJSON {
		return nil, err
	}
	p.bad.within(pointer, err)
	if len(p.bad) == 0 {
		p.check()
	}
	if len(p.bad) > 0 {
		return nil, jobs.InvalidFields(p.bad...)
	}
	return &p.b, nil
}

var bulkFields = []string{"action", "filter", "all", "reason", "dry_run"}

type bulkParser struct {
	b       Bulk
	all     bool
	pointer string
	bad     fieldErrors
}

func (p *bulkParser) field(name string, raw json.RawMessage) (err error) {
	switch name {
	case "action":
		var text string
		if text, err = strict.Text(raw); err == nil {
			p.b.Action = BulkAction(text)
			if p.b.Action.statuses() == nil {
				err = fmt.Errorf("must be %s, %s or %s, not %s", BulkCancel, BulkRetry, BulkDelete, jobs.Quote(text))
			}
		}
	case "filter":
		at := p.pointer + "/filter"
		var wrong error
		p.b.Filter, wrong = ParseFilter(raw, at)
		p.bad.within("", wrong) // names its own pointers
	case "all":
		p.all, err = strict.Bool(raw)
	case "reason":
		p.b.Reason, err = reasonValue(raw)
	case "dry_run":
		p.b.DryRun, err = strict.Bool(raw)
	}
	return err
}

// check looks at what must go together.
func (p *bulkParser) check() {
	empty := p.b.Filter.Empty()
	if empty && !p.all {
		p.bad.add(p.pointer+"/filter", fmt.Errorf(`chooses every job there is; if that is meant, say so with "all":true`))
	}
	if !empty && p.all {
		p.bad.add(p.pointer+"/all", fmt.Errorf("cannot be true together with a filter"))
	}
	if p.b.Reason != "" && p.b.Action != BulkCancel {
		p.bad.add(p.pointer+"/reason", fmt.Errorf("goes with the action %s only", BulkCancel))
	}
}

// Target is the filter narrowed to the jobs that the action can change; none is
// true if there cannot be any. It chooses bulk jobs as well, which are to be
// passed over: see [Bulk.Spares].
func (b *Bulk) Target() (f jobs.Filter, none bool) {
	f = b.Filter
	f.Statuses = b.Action.statuses()
	if len(b.Filter.Statuses) > 0 {
		f.Statuses = slices.DeleteFunc(f.Statuses, func(s jobs.Status) bool { return !slices.Contains(b.Filter.Statuses, s) })
	}
	return f, len(f.Statuses) == 0
}

// Spares says whether a job that the filter chooses is left alone all the same:
// a bulk job acts neither upon itself nor upon another.
func (b *Bulk) Spares(j *jobs.Job) bool { return j.Type == BulkType }
