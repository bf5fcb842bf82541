package node

import (
	"context"
	"sync/atomic"

	"jobstream/jobs"
	"jobstream/jobs/handlers"
	"jobstream/status"
)

// Tracker is the tracker of a node for its handlers; see [Tools].
type Tracker struct{ store atomic.Pointer[status.Store] }

var _ handlers.Tracker = (*Tracker)(nil)

// Count is the number of jobs that f chooses; see [jobs.History].
func (t *Tracker) Count(f jobs.Filter) (int, error) { return t.store.Load().Count(f) }

// Scan calls yield for every job that f chooses; see [jobs.History].
func (t *Tracker) Scan(ctx context.Context, f jobs.Filter, yield func(*jobs.Job) error) error {
	return t.store.Load().Scan(ctx, f, yield)
}

// Do does a command; see [jobs.Doer].
func (t *Tracker) Do(ctx context.Context, c jobs.Command) (jobs.Effect, error) {
	return t.store.Load().Do(ctx, c)
}

// Ended lists ended jobs; see [jobs.Cleaner].
func (t *Tracker) Ended(ctx context.Context, before jobs.Time, statuses []jobs.Status, after uint64, limit int) (found []*jobs.Job, next uint64, err error) {
	return t.store.Load().Ended(ctx, before, statuses, after, limit)
}

// IsDisabled says whether a URL gets no callbacks any more; see [webhook.Tracker].
func (t *Tracker) IsDisabled(url string) (bool, error) { return t.store.Load().IsDisabled(url) }
