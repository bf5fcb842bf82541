package schedule

import (
	"time"

	"jobstream/jobs"
)

// MaxRuns is how many runs are kept of each schedule.
const MaxRuns = 50

// Run is what became of one moment of a schedule.
type Run struct {
	At  jobs.Time // the moment; of a run by hand, when its job was made
	Job jobs.ID   // that was made for it; zero = it was skipped, as the job before had not ended
}

// Skipped says that the moment passed without a job.
func (r *Run) Skipped() bool { return r.Job == jobs.ID{} }

// MaxPreview is the largest number of moments in a preview.
const MaxPreview = 100

// Preview are the first n moments of a plan after now. An interval counts from now. The
// error is a [*jobs.Error] that points at /cron, /every or /timezone.
func Preview(cron string, every time.Duration, zone string, n int, now jobs.Time) (next []jobs.Time, err error) {
	p, err := NewPlan(&Spec{Cron: cron, Every: every, Timezone: zone}, now)
	if err != nil {
		return nil, err
	}
	for at := p.Next(now); at != 0 && len(next) < n; at = p.Next(at) {
		next = append(next, at)
	}
	return next, nil
}
