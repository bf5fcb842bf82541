package status

import (
	"time"

	"jobstream/jobs"
)

// goneJobs are jobs that were deleted shortly after their end. A copy of their message
// may still be on its way, and would make a new job. Nearly all jobs are deleted later
// and are not kept, because no copy is on its way for so long.
type goneJobs struct {
	at map[jobs.ID]jobs.Time // when they were deleted
}

const (
	goneFor = time.Minute // how long a copy of a message can be on its way
	maxGone = 1 << 16     // so many are kept
)

func (g *goneJobs) has(id jobs.ID) bool {
	_, ok := g.at[id]
	return ok
}

// remember keeps deleted jobs and drops old ones.
func (g *goneJobs) remember(removed []*jobs.Job, now jobs.Time) {
	if len(removed) == 0 {
		return
	}
	for id, at := range g.at {
		if age := now.Sub(at); age < 0 || age > goneFor {
			delete(g.at, id)
		}
	}
	for _, j := range removed {
		if now.Sub(j.EndedAt) > goneFor || len(g.at) >= maxGone {
			continue
		}
		if g.at == nil {
			g.at = make(map[jobs.ID]jobs.Time)
		}
		g.at[j.ID] = now
	}
}
