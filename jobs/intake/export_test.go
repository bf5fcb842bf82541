package intake

import "jobstream/jobs"

// SetClock gives the inputs another clock.
func (in *Inputs) SetClock(now func() jobs.Time) { in.now = now }
