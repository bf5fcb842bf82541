package pool

import (
	"slices"
	"time"

	"jobstream/jobs"
)

// Bounds of the pause after an answer that does not say how long the target is busy.
const (
	leastBusy = time.Second
	mostBusy  = 5 * time.Minute
)

// targetGate is shut because the target of its type is busy: an endpoint that has
// answered 429, for example. It lets nothing start until a moment. Then it lets one job
// in at a time, until one of them completes or is handed over. Its type has it only that
// long, so other types do not meet it.
//
// Jobs that were already running when it was shut go on. They may move the moment
// further, but their success does not open the gate.
type targetGate struct {
	until  time.Time
	pause  time.Duration // the last one that was chosen here, 0 = none
	reason string
	probe  *delivery // the one that was let in
}

func (g *targetGate) open() (ok bool, at time.Time) {
	if g.probe != nil {
		return false, time.Time{}
	}
	return !time.Now().Before(g.until), g.until
}

func (g *targetGate) width() int { return 1 }

func (g *targetGate) enter(d *delivery) { g.probe = d }

// admit checks again, as the gate may have been shut during the look-up.
func (g *targetGate) admit(d *delivery, _ *jobs.Job) claim {
	if g.probe != d {
		return closed
	}
	return claimed
}

func (g *targetGate) leave(d *delivery, _ bool) {
	if g.probe == d {
		g.probe = nil
	}
}

// putOff says whether j has met the busy target, and comes back when the gate opens.
func (g *targetGate) putOff(j *jobs.Job) bool {
	return j.Status == jobs.Scheduled && j.Attempt > 0 && j.DueAt <= jobs.Now().Add(time.Until(g.until)+time.Millisecond)
}

func (g *targetGate) why(*jobs.Job, Queueing) *jobs.Waiting {
	w := &jobs.Waiting{Reason: jobs.WaitTargetBusy}
	switch wait := time.Until(g.until); {
	case wait > 0:
		w.Until = jobs.Now().Add(wait)
		w.Detail = g.reason + "; jobs of its type wait until " + w.Until.String()
	case g.probe != nil:
		w.Detail = g.reason + "; jobs of its type run one at a time until one completes"
	default:
		return nil
	}
	return w
}

// busy shuts the gate for a while. after is 0 if the target has not said how long.
func (g *targetGate) busy(d *delivery, after time.Duration, reason string, now time.Time) {
	if after <= 0 {
		if d == g.probe { // the others began before the last pause
			g.pause *= 2
		}
		g.pause = min(max(g.pause, leastBusy), mostBusy)
		after = g.pause
	}
	if at := now.Add(after); at.After(g.until) {
		g.until = at
	}
	g.reason = reason
}

// busy shuts the gate of a type whose target has refused d. It returns for how long;
// after is 0 if the target has not said it.
func (p *Pool) busy(d *delivery, after time.Duration, reason string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, now := d.lane.typ, time.Now()
	if t.target == nil {
		t.target = &targetGate{}
		t.gates = slices.Insert(t.gates, 1, gate(t.target))
	}
	t.target.busy(d, after, reason, now)
	return t.target.until.Sub(now)
}

// served removes the gate of the target if it has let d in, whose work the target has done
// or taken on. The caller dispatches then.
func (t *poolType) served(d *delivery) bool {
	if t.target == nil || t.target.probe != d {
		return false
	}
	t.gates = slices.DeleteFunc(t.gates, func(g gate) bool { return g == gate(t.target) })
	t.target = nil
	return true
}
