package pool

import (
	"time"

	"jobstream/jobs"
)

// pauseGate is closed while its type is paused, see [Pool.SetPaused].
type pauseGate struct {
	openGate
	typ    string
	paused bool
}

func (g *pauseGate) open() (ok bool, at time.Time) { return !g.paused, time.Time{} }

func (g *pauseGate) width() int {
	if g.paused {
		return 0
	}
	return g.openGate.width()
}

// admit checks again, as the type may have been paused during the look-up.
func (g *pauseGate) admit(*delivery, *jobs.Job) claim {
	if g.paused {
		return closed
	}
	return claimed
}

func (g *pauseGate) why(*jobs.Job, Queueing) *jobs.Waiting {
	if !g.paused {
		return nil
	}
	return &jobs.Waiting{Reason: jobs.WaitTypePaused, Detail: "the type " + jobs.Quote(g.typ) + " is paused"}
}
