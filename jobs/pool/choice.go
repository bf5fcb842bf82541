package pool

import (
	"time"

	"jobstream/jobs"
)

// pick takes the delivery that is to run next and a worker's place for it, nil
// if there is none. It leaves out the lanes that had nothing when it last looked:
// of a hundred most have nothing, and it is called several times per job. p.mu is
// held.
func (p *Pool) pick() *delivery {
	if p.congested() {
		return nil // a commit dispatches again
	}
	for pr := jobs.HighestPriority; pr <= jobs.LowestPriority; pr++ {
		d, coming := p.pickFrom(pr, p.cursor[pr], len(p.rows[pr]))
		if d == nil {
			var more bool
			d, more = p.pickFrom(pr, 0, p.cursor[pr])
			coming = coming || more
		}
		if d != nil || coming {
			return d
		}
	}
	return nil
}

// pickFrom is pick for the lanes of a row from at on and before end. It also
// says whether something of theirs must come. p.mu is held.
func (p *Pool) pickFrom(pr jobs.Priority, at, end int) (d *delivery, coming bool) {
	row, lively := p.rows[pr], p.lively[pr]
	for n := lively.next(at, end); n < end; n = lively.next(n+1, end) {
		l := row[n]
		switch {
		case len(l.buf) == 0 && l.committed <= l.delivered:
			lively.remove(n)
		case len(l.buf) > 0 && !p.ready(l):
			p.passOver(l)
		case !p.open(l):
		case p.ready(l):
			if p.cursor[pr] = n + 1; n+1 == len(row) {
				p.cursor[pr] = 0
			}
			return p.occupy(l), false
		default:
			p.expect(l) // it has committed what was not delivered
			coming = true
		}
	}
	return nil, coming
}

// ready says whether the lane has something for a worker. p.mu is held.
func (p *Pool) ready(l *lane) bool { return len(l.buf) > 0 && l.buf[0].Seq <= p.position }

// open says whether the gates of the lane's type let a job pass now. If time will, and
// the lane has one, the pool wakes for that. p.mu is held.
func (p *Pool) open(l *lane) bool {
	ok, at := l.typ.gates.open()
	if !ok && !at.IsZero() && p.ready(l) {
		p.wake.set(at)
	}
	return ok
}

// backlog says whether there is something for one more worker. p.mu is held.
func (p *Pool) backlog() bool {
	if p.congested() {
		return false
	}
	for _, row := range p.rows {
		for _, l := range row {
			if p.ready(l) && p.open(l) {
				return true
			}
		}
	}
	return false
}

// advance takes note of how far the tracker has committed JOBS, and has pick look at
// the lanes that waited for it. p.mu is held.
func (p *Pool) advance(position uint64) {
	if position <= p.position {
		return
	}
	p.position = position
	for _, l := range p.early {
		l.early = false
		p.enliven(l)
	}
	clear(p.early)
	p.early = p.early[:0]
}

// enliven has pick look at a lane that has something for it now. p.mu is held.
func (p *Pool) enliven(l *lane) { p.lively[l.Priority].include(l.index) }

// passOver has pick pass over a lane until the tracker's position has moved on: what was
// delivered first is not committed. p.mu is held.
func (p *Pool) passOver(l *lane) {
	p.lively[l.Priority].remove(l.index)
	if !l.early {
		l.early = true
		p.early = append(p.early, l)
	}
}

// expect takes note that a committed job of the lane is on its way here, so that a
// lesser lane must wait for it. p.mu is held.
func (p *Pool) expect(l *lane) {
	if !l.expected.IsZero() {
		return
	}
	l.expected = time.Now()
	if !p.waiting { // else one that waits longer is due first
		p.waiting = true
		p.giveUp.Reset(expectFor)
	}
}

// stopExpecting gives up on deliveries that did not come: their messages were
// deleted, or another process has them.
func (p *Pool) stopExpecting() {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := expectFor
	p.waiting = false
	for _, l := range p.lanes {
		if l.expected.IsZero() {
			continue
		}
		if left := expectFor - time.Since(l.expected); left > 0 {
			next = min(next, left)
			p.waiting = true
			continue
		}
		l.delivered = max(l.delivered, l.committed)
		l.expected = time.Time{}
	}
	if p.waiting {
		p.giveUp.Reset(next)
	}
	p.dispatch()
}
