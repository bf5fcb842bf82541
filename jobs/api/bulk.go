package api

import (
	"encoding/json"
	"slices"

	"jobstream/jobs"
	"jobstream/jobs/strict"
)

// BulkType is the type of the jobs that change others by a filter.
const BulkType = "jobstream-bulk"

// BulkPriority is the priority of bulk jobs from the doors. They often remove a
// backlog, so they must not wait behind it.
const BulkPriority = jobs.HighestPriority

// BulkAction is the action on all jobs that a filter chooses.
type BulkAction string

// The actions, each like that on one job.
const (
	BulkCancel BulkAction = "cancel" // jobs that have not ended
	BulkRetry  BulkAction = "retry"  // failed and cancelled ones
	BulkDelete BulkAction = "delete" // ended ones
)

// statuses are the statuses of the jobs that the action can change.
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
	Filter jobs.Filter // the requested one; see [Bulk.Target]
	Reason string      // of cancellations, "" if unknown
	DryRun bool        // only count
}

// ParseBulk reads a Bulk from the JSON object raw, strictly:
//
//	{"action":"cancel","filter":{"type":"email"},"reason":"…","dry_run":true}
//
// A filter that chooses all jobs needs "all":true beside it, so that a slip does not
// empty the queue. An [*jobs.Error] names every wrong field by its JSON pointer.
// pointer is that of raw itself, "" if raw is the body.
func ParseBulk(raw json.RawMessage, pointer string) (*Bulk, error) {
	if pointer != "" && (len(raw) == 0 || raw[0] != '{') {
		return nil, jobs.Invalid(pointer, `must be an object like {"action":"cancel","filter":{"type":"email"}}, not `+strict.Describe(raw))
	}
	b := &Bulk{}
	if err := jobs.Read(pointer, raw, b.read); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Bulk) read(v strict.Value) {
	all := false
	if filter := v.Get("filter"); !filter.Null() {
		b.Filter = filterOf(filter)
	}
	v.Object(
		strict.Need("action", func(v strict.Value) { b.Action = actionOf(v) }),
		strict.May("filter", func(strict.Value) {}), // it has been read above
		strict.May("all", func(v strict.Value) { all = v.Bool() }),
		strict.May("reason", func(v strict.Value) { b.Reason = strict.As(v, reasonOf) }),
		strict.May("dry_run", func(v strict.Value) { b.DryRun = v.Bool() }),
	)
	if v.Right() {
		b.check(v, all)
	}
}

func actionOf(v strict.Value) BulkAction {
	text, ok := v.Text()
	if ok && BulkAction(text).statuses() == nil {
		v.Fail("must be %s, %s or %s, not %s", BulkCancel, BulkRetry, BulkDelete, jobs.Quote(text))
	}
	return BulkAction(text)
}

// check checks the rules about several fields.
func (b *Bulk) check(v strict.Value, all bool) {
	empty := b.Filter.Empty()
	if empty && !all {
		v.At("filter").Fail(`chooses every job there is; if that is meant, say so with "all":true`)
	}
	if !empty && all {
		v.At("all").Fail("cannot be true together with a filter")
	}
	if b.Reason != "" && b.Action != BulkCancel {
		v.At("reason").Fail("goes with the action %s only", BulkCancel)
	}
}

// Target is the filter, narrowed to the jobs that the action can change. none is true
// if there cannot be any. It also chooses bulk jobs, which have to be skipped: see
// [Bulk.Spares].
func (b *Bulk) Target() (f jobs.Filter, none bool) {
	f = b.Filter
	f.Statuses = b.Action.statuses()
	if len(b.Filter.Statuses) > 0 {
		f.Statuses = slices.DeleteFunc(f.Statuses, func(s jobs.Status) bool { return !slices.Contains(b.Filter.Statuses, s) })
	}
	return f, len(f.Statuses) == 0
}

// Spares says whether a chosen job stays as it is: a bulk job changes neither itself
// nor another one.
func (b *Bulk) Spares(j *jobs.Job) bool { return j.Type == BulkType }
