package pool

import (
	"fmt"
	"time"

	"jobstream/jobs"
)

// capGate bounds how many jobs of its type run at once.
type capGate struct {
	openGate
	most   int // 0 = as many as there are workers
	inside int
}

func (g *capGate) full() bool { return g.most > 0 && g.inside >= g.most }

func (g *capGate) open() (ok bool, at time.Time) { return !g.full(), time.Time{} }

func (g *capGate) width() int {
	if g.most > 0 {
		return g.most
	}
	return g.openGate.width()
}

func (g *capGate) enter(*delivery) { g.inside++ }

func (g *capGate) leave(*delivery, bool) { g.inside-- }

func (g *capGate) why(j *jobs.Job, _ Queueing) *jobs.Waiting {
	if j.Place != jobs.InQueue || !g.full() {
		return nil
	}
	return &jobs.Waiting{Reason: jobs.WaitTypeLimit, Detail: fmt.Sprintf("%d of %d running", g.inside, g.most)}
}
