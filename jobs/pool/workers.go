package pool

import "time"

// mostResting is how many idle goroutines are kept, since a new one would have to grow
// its stack again.
const mostResting = 128

// crew is the pool's workers: their number and its bounds, how busy they are, and the
// idle goroutines. A worker is a slot for one execution.
//
// The pool's lock guards it.
type crew struct {
	scale   scale
	meter   meter
	running int            // workers that have a delivery
	resting int            // idle goroutines, which wait for next
	next    chan *delivery // closed by the stop
}

func (c *crew) init(lo, hi int) {
	c.next = make(chan *delivery, mostResting)
	c.scale.init(lo, hi)
	c.meter.init(c.scale.size, time.Now())
}

// free says whether one more execution may run.
func (c *crew) free() bool { return c.running < c.scale.size }

// grow makes the crew larger if all are busy. The caller knows that there is more to
// do.
func (c *crew) grow(now time.Time) {
	s := &c.scale
	l := load{size: s.size, min: s.min, max: s.max, running: c.running, backlog: true, unchanged: now.Sub(s.changed)}
	c.resize(l.next(), now)
}

// rescale measures the use of the crew, and makes it smaller if that is low.
func (c *crew) rescale(now time.Time) {
	c.meter.sample(now)
	s := &c.scale
	used, _ := c.meter.used(now)
	l := load{size: s.size, min: s.min, max: s.max, running: c.running, used: used, unchanged: now.Sub(s.changed)}
	c.resize(l.next(), now)
}

func (c *crew) resize(size int, now time.Time) {
	if size != c.scale.size {
		c.scale.size, c.scale.changed = size, now
		c.meter.resize(size, now)
	}
}

// rest says whether an idle goroutine is kept, and counts it.
func (c *crew) rest() bool {
	if c.resting >= mostResting {
		return false
	}
	c.resting++
	return true
}

// rouse hands a delivery to an idle goroutine, if there is one.
func (c *crew) rouse(d *delivery) bool {
	if c.resting == 0 {
		return false
	}
	c.resting--
	c.next <- d // there is room: an idle goroutine waits for it, or is about to
	return true
}

// dispatch gives free workers deliveries. p.mu is locked.
func (p *Pool) dispatch() {
	p.remote.serve()
	for !p.stopping && (p.crew.free() || p.grow()) {
		d := p.pick()
		if d == nil {
			return
		}
		if !p.crew.rouse(d) {
			go p.work(d)
		}
	}
}

// grow makes the crew larger if there is more to do than it can, and says whether one
// more may run now. If growing is too early, it sets the alarm. p.mu is locked.
func (p *Pool) grow() bool {
	s := &p.crew.scale
	if s.size >= s.max || p.outcomes.full() || !p.choice.backlog() {
		return false
	}
	p.crew.grow(time.Now())
	if s.size < s.max {
		p.choice.wake.set(s.changed.Add(growEvery))
	}
	return p.crew.free() // false after a Resize: more may run than there are workers
}

// pick gives the next delivery one of the pool's workers; nil if there is none. p.mu is
// locked.
func (p *Pool) pick() *delivery {
	d := p.next(&p.choice.local)
	if d != nil {
		p.crew.running++
	}
	return d
}

// next takes the next delivery out of the lanes of a view; nil if there is none. p.mu is
// locked.
func (p *Pool) next(v *view) *delivery {
	if p.outcomes.full() {
		return nil // a commit dispatches again
	}
	l := p.choice.next(v)
	if l == nil {
		return nil
	}
	d := l.pop()
	d.typ, d.asOf = l.typ.Type, p.claims.surprises
	l.typ.gates.enter(d)
	p.supply.refill(l)
	return d
}

// work is a worker: it runs deliveries until there is none for it, and none comes while
// it rests.
func (p *Pool) work(d *delivery) {
	for d != nil {
		x, v := p.open(d)
		if v == givenUp || v == runs && !x.close(x.handle()) {
			return // another worker has its slot
		}
		p.mu.Lock()
		d = p.leave()
		rest := d == nil && !p.stopping && p.crew.rest()
		p.mu.Unlock()
		if rest {
			d = <-p.crew.next
		}
	}
}

// leave frees a worker's slot and returns the next delivery for it, if there is one.
// p.mu is locked.
func (p *Pool) leave() *delivery {
	p.crew.running--
	if p.stopping {
		p.idle.Broadcast()
		return nil
	}
	if !p.crew.free() {
		return nil
	}
	return p.pick()
}

// replace frees the slot of a worker that does not come back.
func (p *Pool) replace() {
	p.mu.Lock()
	next := p.leave()
	p.mu.Unlock()
	if next != nil {
		go p.work(next)
	}
}

// awake dispatches again, as a gate has opened or the pool may grow.
func (p *Pool) awake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.choice.wake.at = time.Time{}
	p.dispatch()
}

// stopExpecting gives free workers lesser jobs, as better ones did not come.
func (p *Pool) stopExpecting() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.choice.giveUp(time.Now())
	p.dispatch()
}
