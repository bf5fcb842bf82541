package pool

import (
	"fmt"

	"jobstream/jobs"
)

// keyGate bounds how many jobs of its type run at once with the same concurrency key.
//
// The tracker lets no more of them into the queue. But a cancelled job passes its turn
// on while its handler is still returning.
type keyGate struct {
	openGate
	most   int
	inside map[string]int // by key
}

func newKeyGate() *keyGate { return &keyGate{most: 1, inside: make(map[string]int)} }

func (g *keyGate) admit(d *delivery, j *jobs.Job) claim {
	key := j.ConcurrencyKey()
	if key == "" {
		return claimed
	}
	if g.inside[key] >= g.most {
		return refused
	}
	g.inside[key]++
	d.key = key
	return claimed
}

func (g *keyGate) leave(d *delivery, _ bool) {
	if d.key == "" {
		return
	}
	if g.inside[d.key]--; g.inside[d.key] <= 0 {
		delete(g.inside, d.key)
	}
	d.key = ""
}

func (g *keyGate) why(j *jobs.Job, _ Queueing) *jobs.Waiting {
	if j.Place != jobs.Held && !(j.Keyed() && j.Place == jobs.InQueue && g.inside[j.ConcurrencyKey()] >= g.most) {
		return nil
	}
	detail := fmt.Sprintf("%d of %d jobs with the concurrency key %s have their turn", g.most, g.most, jobs.Quote(j.ConcurrencyKey()))
	return &jobs.Waiting{Reason: jobs.WaitKeyLimit, Detail: detail}
}
