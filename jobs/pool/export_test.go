package pool

import (
	"time"

	"jobstream/jobs"
)

// Asleep is the number of deliveries that were given back and have not come again.
func (p *Pool) Asleep() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(len(p.supply.asleep.bySeq), len(p.supply.asleep.heap))
}

// SetShare sets the guaranteed prefetch of each lane; call it before [Pool.Start].
func (p *Pool) SetShare(n int) { p.supply.share = n }

// Prefetched is how many deliveries the lanes have or wait for.
func (p *Pool) Prefetched() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lanes {
		n += l.asked + len(l.buf)
	}
	return n
}

// quotaGate is a gate that the product does not have. It lets as many jobs start as
// were granted, and none before a moment. The pool knows only its methods.
type quotaGate struct {
	openGate
	left    int
	opensAt time.Time
}

func (g *quotaGate) open() (ok bool, at time.Time) {
	if g.left <= 0 {
		return false, time.Time{}
	}
	return !time.Now().Before(g.opensAt), g.opensAt
}

func (g *quotaGate) width() int { return g.left }

func (g *quotaGate) enter(*delivery) { g.left-- }

func (g *quotaGate) leave(_ *delivery, begun bool) {
	if !begun {
		g.left++
	}
}

func (g *quotaGate) why(*jobs.Job, Queueing) *jobs.Waiting {
	if ok, _ := g.open(); ok {
		return nil
	}
	return &jobs.Waiting{Reason: "quota"}
}

// AddQuota adds a gate to a type that lets nothing start; call it before [Pool.Start].
// grant lets n more jobs start, none before opensAt.
func (p *Pool) AddQuota(typ string) (grant func(n int, opensAt time.Time)) {
	g := &quotaGate{}
	t := p.types[typ]
	t.gates = append(t.gates, g)
	return func(n int, opensAt time.Time) {
		p.mu.Lock()
		defer p.mu.Unlock()
		g.left += n
		g.opensAt = opensAt
		for _, l := range p.lanes {
			p.supply.refill(l)
		}
		p.dispatch()
	}
}

// TypesHeld is the number of types that the pool has in memory, removed ones included.
func (p *Pool) TypesHeld() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(len(p.types), len(p.lanes)/int(jobs.LowestPriority))
}

// Living is the number of leases.
func (p *Pool) Living() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(p.remote.leases.living, len(p.remote.leases.byKey))
}
