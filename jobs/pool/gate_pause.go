package pool

import (
	"time"

	"jobstream/jobs"
)

// pauseGate is closed while its type is paused, see [Pool.SetPaused], or removed, see
// [Pool.SetTypes].
type pauseGate struct {
	openGate
	typ     string
	paused  bool
	removed bool
}

func (g *pauseGate) closed() bool { return g.paused || g.removed }

func (g *pauseGate) open() (ok bool, at time.Time) { return !g.closed(), time.Time{} }

func (g *pauseGate) width() int {
	if g.closed() {
		return 0
	}
	return g.openGate.width()
}

// admit checks again, as the type may have been paused or removed during the look-up.
func (g *pauseGate) admit(*delivery, *jobs.Job) claim {
	if g.closed() {
		return closed
	}
	return claimed
}

func (g *pauseGate) why(*jobs.Job, Queueing) *jobs.Waiting {
	if g.removed {
		return notConfigured(g.typ)
	}
	if !g.paused {
		return nil
	}
	return &jobs.Waiting{Reason: jobs.WaitTypePaused, Detail: "the type " + jobs.Quote(g.typ) + " is paused"}
}
