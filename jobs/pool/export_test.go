package pool

import (
	"jobstream/jobs"
	"time"
)

// Asleep is how many deliveries that were given back are waited for.
func (p *Pool) Asleep() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(len(p.supply.asleep.bySeq), len(p.supply.asleep.heap))
}

// SetShare sets what each lane may hold in advance at least; before [Pool.Start].
func (p *Pool) SetShare(n int) { p.supply.share = n }

// Prefetched is what the lanes hold or wait for in advance.
func (p *Pool) Prefetched() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lanes {
		n += l.asked + len(l.buf)
	}
	return n
}

// quotaGate is a gate that the product does not have: it lets so many jobs start as
// somebody asked for, and none before a moment. The pool knows only its methods.
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

// AddQuota puts a gate before a type that lets nothing start; before [Pool.Start].
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
