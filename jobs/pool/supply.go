package pool

import (
	"time"

	"jobstream/jobs"
)

// refill asks for more when a lane's store runs low. p.mu is held.
func (p *Pool) refill(l *lane) {
	if !p.started || p.stopping {
		return
	}
	workers := min(p.scale.max, l.typ.gates.width())
	if workers <= 0 {
		return
	}
	least := min(max(2*workers, minPrefetch), maxPrefetch, p.share)
	have := l.asked + len(l.buf)
	if have > max(l.most, least)/2 {
		return
	}
	p.extra -= l.extra
	most := l.prefetch(least, have, extraPrefetch-p.extra, time.Now())
	l.extra = most - least
	p.extra += l.extra
	if most <= have { // the pool was made smaller
		return
	}
	if err := p.o.Queue.Pull(l.Lane, most-have); err != nil {
		p.o.Logger.Warn("cannot ask the queue for jobs", "lane", l.String(), "error", err)
		return
	}
	l.asked += most - have
}

func (p *Pool) renew(now time.Time) {
	var refs []string
	var again []*jobs.Event
	p.mu.Lock()
	p.leases.stale(now, p.o.Lease/3, func(d *delivery) { refs = append(refs, d.Ref) })
	p.outcomes.stale(now, resendAfter, func(d *delivery) { again = append(again, d.outcome) })
	for _, l := range p.lanes {
		p.refill(l) // for those whose request the queue did not take
	}
	p.mu.Unlock()
	for _, ref := range refs {
		p.check("renew a lease", p.o.Queue.Extend(ref))
	}
	for _, e := range again {
		p.o.Recorder.Record(e)
	}
}

// wakeLate gives back once more what should have come again by now, and forgets what
// nobody needs any more.
func (p *Pool) wakeLate(now time.Time) {
	p.mu.Lock()
	late := p.asleep.late(now)
	p.mu.Unlock()
	var needless []*sleeper
	for _, e := range late {
		if p.away(e.seq) {
			needless = append(needless, e)
			continue
		}
		p.check("give back", p.o.Queue.Nak(e.ref, 0))
	}
	if len(needless) == 0 {
		return
	}
	p.mu.Lock()
	for _, e := range needless {
		p.asleep.forget(e.seq)
	}
	p.mu.Unlock()
}

// nak gives a delivery back, to come again after delay.
func (p *Pool) nak(d *delivery, delay time.Duration) {
	p.mu.Lock()
	p.asleep.remember(d, delay)
	p.mu.Unlock()
	p.check("give back", p.o.Queue.Nak(d.Ref, delay))
}

// check logs what the queue could not do. Nothing is lost by it: a lease that
// is not renewed or given back ends by itself.
func (p *Pool) check(what string, err error) {
	if err != nil {
		p.o.Logger.Warn("the queue did not take a request; the lease will run out instead", "request", what, "error", err)
	}
}
