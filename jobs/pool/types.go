package pool

import (
	"cmp"
	"maps"
	"slices"

	"jobstream/jobs"
)

// SetTypes exchanges the types of the pool for these, at once. Attempts that run end
// with the definition with which they began; jobs that wait get the new one. A type
// that is not among them is removed: its jobs do not start until it is back. New types
// have lanes for all priorities, and are paused at first if paused says so; the pauses
// of others stay. A stopping pool changes nothing and returns false.
//
// The caller opens the lanes of new types before, and closes those of removed ones
// afterwards. The queue delivers everything again when they are opened anew.
func (p *Pool) SetTypes(types []*jobs.Type, paused map[string]bool) bool {
	lost, ok := p.setTypes(types, paused)
	for _, x := range lost {
		x.revoke(&lostError{"the server runs its type itself now"})
	}
	return ok
}

// setTypes is SetTypes, but for the executions that it has to end.
func (p *Pool) setTypes(types []*jobs.Type, paused map[string]bool) (lost []*execution, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopping {
		return nil, false
	}
	known := make(map[string]bool, len(types))
	for _, t := range types {
		known[t.Name] = true
		switch pt := p.types[t.Name]; {
		case pt == nil:
			p.introduce(newPoolType(t, paused[t.Name]))
		case pt.removed():
			pt.pause.paused = paused[t.Name]
			pt.define(t)
		case pt.Type != t:
			pt.define(t)
		}
	}
	for name, pt := range p.types {
		if !known[name] {
			p.remove(pt)
		}
	}
	p.arrange()
	lost = p.remote.retype()
	for _, l := range p.lanes {
		p.supply.refill(l)
	}
	p.unpark() // one of a removed type may have been let out and stopped others
	p.dispatch()
	return lost, true
}

// Redefine gives types of the pool another definition with other limits. Unlike
// [Pool.SetTypes] it knows that what does their work is the same.
func (p *Pool) Redefine(types []*jobs.Type) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range types {
		pt := p.types[t.Name]
		if pt == nil {
			continue
		}
		target := pt.target
		pt.define(t)
		if target != nil {
			pt.target = target
			pt.gates = slices.Insert(pt.gates, 1, gate(target))
		}
	}
	for _, l := range p.lanes {
		p.supply.refill(l)
	}
	p.dispatch()
}

// introduce gives a type its lanes. p.mu is locked.
func (p *Pool) introduce(pt *poolType) {
	p.types[pt.Name] = pt
	for pr := jobs.HighestPriority; pr <= jobs.LowestPriority; pr++ {
		l := jobs.Lane{Type: pt.Name, Priority: pr}
		p.lanes[l] = &lane{Lane: l, typ: pt}
	}
}

// remove drops the deliveries of a type that have not started. The type and its lanes
// go, unless running attempts still refer to them. p.mu is locked.
func (p *Pool) remove(pt *poolType) {
	pt.pause.removed = true
	for _, d := range append(p.suspects.clearOf(pt), p.remote.clearParked(pt)...) {
		p.forget(d)
	}
	for key, l := range p.lanes {
		if l.typ != pt {
			continue
		}
		for _, d := range l.buf {
			p.forget(d)
		}
		l.buf = nil
		p.supply.end(l)
		if pt.empty() {
			delete(p.lanes, key)
		}
	}
	if pt.empty() {
		delete(p.types, pt.Name)
	}
}

// arrange prepares choice and supply for the present lanes. p.mu is locked, or nobody
// else has the pool yet.
func (p *Pool) arrange() {
	all := slices.SortedFunc(maps.Values(p.lanes), func(a, b *lane) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Priority, b.Priority))
	})
	p.supply.divide(len(all))
	p.choice.arrange(all)
}
