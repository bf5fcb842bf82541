package pool

import "time"

// mostResting is how many goroutines without work are kept: a new one would have to
// grow its stack again.
const mostResting = 128

// dispatch gives free workers something to do. p.mu is held.
func (p *Pool) dispatch() {
	for !p.stopping && (p.running < p.scale.size || p.grow()) {
		d := p.pick()
		if d == nil {
			return
		}
		if p.resting > 0 {
			p.resting--
			p.next <- d // one of them is there, or about to be
		} else {
			go p.work(d)
		}
	}
}

// occupy takes the lane's first delivery and a worker's place for it. p.mu is
// held.
func (p *Pool) occupy(l *lane) *delivery {
	d := l.pop()
	p.running++
	d.asOf = p.surprises
	l.typ.gates.enter(d)
	p.refill(l)
	return d
}

// work is a worker: it runs deliveries until there is none for it, and none comes
// that it is to rest for.
func (p *Pool) work(d *delivery) {
	for d != nil {
		if !p.attempt(d) {
			return // its place was given up while the handler hung
		}
		p.mu.Lock()
		d = p.leave()
		rest := d == nil && !p.stopping && p.resting < mostResting
		if rest {
			p.resting++
		}
		p.mu.Unlock()
		if rest {
			d = <-p.next
		}
	}
}

// leave frees a worker's place and takes the next delivery for it, if there is
// one. p.mu is held.
func (p *Pool) leave() *delivery {
	p.running--
	if p.stopping {
		p.idle.Broadcast()
		return nil
	}
	if p.running >= p.scale.size {
		return nil
	}
	return p.pick()
}

// grow makes the pool larger if there is more to do than its workers can, and
// says whether one more may run now. If it is too early for that, the pool wakes
// when it is not. p.mu is held.
func (p *Pool) grow() bool {
	s := &p.scale
	if s.size >= s.max || !p.backlog() {
		return false
	}
	now := time.Now()
	l := load{size: s.size, min: s.min, max: s.max, running: p.running, backlog: true, unchanged: now.Sub(s.changed)}
	p.resize(l.next(), now)
	if s.size < s.max {
		p.wake.set(s.changed.Add(growEvery))
	}
	return p.running < s.size // more may run than there are workers, after a Resize
}

// awake looks again for something to do: a token has come, or the pool may grow.
func (p *Pool) awake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wake.at = time.Time{}
	p.dispatch()
}

// rescale takes a measurement, and makes a pool smaller that is underused.
func (p *Pool) rescale(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.meter.sample(now)
	s := &p.scale
	used, _ := p.meter.used(now)
	l := load{size: s.size, min: s.min, max: s.max, running: p.running, used: used, unchanged: now.Sub(s.changed)}
	p.resize(l.next(), now)
}

// resize gives the pool another size. p.mu is held.
func (p *Pool) resize(size int, now time.Time) {
	if size != p.scale.size {
		p.scale.size, p.scale.changed = size, now
		p.meter.resize(size, now)
	}
}
