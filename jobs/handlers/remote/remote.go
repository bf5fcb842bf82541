// Package remote has the settings of types whose work is done by workers elsewhere, under
// leases. There is no handler here: the pool leases their jobs, see [jobs.Leases].
package remote

import (
	"time"

	"jobstream/jobs"
	"jobstream/jobs/setting"
)

// Options are what a type of the kind remote can be set to.
type Options struct {
	Lease time.Duration // how long a silent worker keeps its job; 0 = as long as the server's own
}

// NewOptions are the defaults.
func NewOptions() *Options { return &Options{} }

// Settings binds the keys of a type.
func (o *Options) Settings() []setting.Setting {
	return []setting.Setting{setting.Duration("lease", &o.Lease, 0, jobs.MaxLease)}
}

// Check checks that a worker has time to beat.
func (o *Options) Check(_ string, fail func(path, text string)) {
	if o.Lease != 0 && o.Lease < jobs.MinLease {
		fail("lease", "must be 5s at least, or 0 for worker.lease, so that a worker can beat in time")
	}
}

// Grace is never needed, since no handler runs.
func (o *Options) Grace() time.Duration { return 0 }

// LeaseTime is [jobs.Type.Lease].
func (o *Options) LeaseTime() time.Duration { return o.Lease }
