package pool

import (
	"math"
	"time"

	"jobstream/jobs"
)

// A gate keeps jobs of one type from starting although a worker is free. Each type has
// a list of gates, see newPoolType. The pool asks that list whether a job may start,
// and why one does not, so the two answers agree.
//
// A delivery meets each gate of its type twice. Before a worker gets it, its job is
// unknown, and open answers for any job of the type. After the job was looked up, admit
// answers for that job. A delivery that has entered leaves exactly once.
//
// The pool's lock guards all gates. Code that opens a gate has to call [Pool.dispatch],
// unless open has returned the moment of that.
type gate interface {
	// open says whether one more delivery may enter now. If only time opens the gate,
	// at is the moment.
	open() (ok bool, at time.Time)
	// width is how many deliveries may be inside at once. It bounds the prefetch.
	width() int
	// enter counts a delivery that a worker gets.
	enter(d *delivery)
	// admit says whether j may run, whose delivery has entered.
	admit(d *delivery, j *jobs.Job) claim
	// leave ends what enter and admit have counted. begun says whether an attempt began.
	leave(d *delivery, begun bool)
	// why is the reason why j does not start, nil if this gate does not stop it.
	why(j *jobs.Job, q Queueing) *jobs.Waiting
}

// newPoolType makes the gates of a type, in the order of the reasons: a job waits for
// the first gate that stops it.
func newPoolType(t *jobs.Type, paused bool) *poolType {
	pt := &poolType{Type: &jobs.Type{}, pause: &pauseGate{typ: t.Name, paused: paused}, key: newKeyGate(), cap: &capGate{}}
	pt.define(t)
	return pt
}

// define gives the type another definition. Deliveries that are inside stay there, so
// its gates stay, too. Only a busy target is forgotten, as it may be another one now. A
// cap that was changed by [Pool.Resize] stays unless the definition has another one than
// before.
func (pt *poolType) define(t *jobs.Type) {
	was := pt.Type
	pt.Type, pt.pause.removed = t, false
	if t.Remote != was.Remote {
		pt.unwanted = t.Remote // until somebody asks
	}
	pt.key.most = max(t.ConcurrencyPerKey, 1)
	if t.MaxWorkers != was.MaxWorkers {
		pt.cap.most = t.MaxWorkers
	}
	switch {
	case t.Rate.IsZero():
		pt.rate = nil
	case pt.rate == nil:
		pt.rate = newRateGate(t.Rate)
	case t.Rate != was.Rate:
		pt.rate.change(t.Rate, time.Now())
	}
	pt.gates, pt.target = gates{pt.pause, pt.key, pt.cap}, nil
	if pt.rate != nil {
		pt.gates = append(pt.gates, pt.rate)
	}
}

// gates are the gates of a type. All of them have to let a job pass.
type gates []gate

func (all gates) open() (ok bool, at time.Time) {
	for _, g := range all {
		if ok, at := g.open(); !ok {
			return false, at
		}
	}
	return true, time.Time{}
}

func (all gates) width() int {
	least := math.MaxInt
	for _, g := range all {
		least = min(least, g.width())
	}
	return least
}

func (all gates) enter(d *delivery) {
	d.inside = true
	for _, g := range all {
		g.enter(d)
	}
}

func (all gates) admit(d *delivery, j *jobs.Job) claim {
	for _, g := range all {
		if c := g.admit(d, j); c != claimed {
			return c
		}
	}
	return claimed
}

// adopt lets a delivery in whose attempt has begun in another process. It is not a start,
// so it uses up nothing of a rate.
func (all gates) adopt(d *delivery, j *jobs.Job) {
	d.inside = true
	for _, g := range all {
		if _, ok := g.(*rateGate); !ok {
			g.enter(d)
			g.admit(d, j)
		}
	}
}

// leave does nothing for a delivery that is not inside.
func (all gates) leave(d *delivery, begun bool) {
	if !d.inside {
		return
	}
	d.inside = false
	for _, g := range all {
		g.leave(d, begun)
	}
}

func (all gates) why(j *jobs.Job, q Queueing) *jobs.Waiting {
	for _, g := range all {
		if w := g.why(j, q); w != nil {
			return w
		}
	}
	return nil
}

// openGate lets everything pass. Gates embed it, and override its methods.
type openGate struct{}

func (openGate) open() (ok bool, at time.Time)         { return true, time.Time{} }
func (openGate) width() int                            { return math.MaxInt }
func (openGate) enter(*delivery)                       {}
func (openGate) admit(*delivery, *jobs.Job) claim      { return claimed }
func (openGate) leave(*delivery, bool)                 {}
func (openGate) why(*jobs.Job, Queueing) *jobs.Waiting { return nil }
