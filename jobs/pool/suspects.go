package pool

import (
	"jobstream/jobs"
	"slices"
	"time"
)

// suspects keeps jobs apart whose workers died while they ran. One of them may
// be what killed the process, and whatever runs beside it loses its worker, too,
// until it counts as a poison itself. So a job that has lost several workers
// runs with no other suspect beside it; those that have lost one run together.
// Jobs that have lost none are not held up.
type suspects struct {
	exclusive bool // one that has lost several is running
	shared    int  // so many that have lost one are
	parked    []parkedSuspect
}

type parkedSuspect struct {
	d     *delivery
	alone bool
}

// runsAlone says whether a job has lost so many workers that it may take no
// other suspect with it.
func (p *Pool) runsAlone(j *jobs.Job) bool { return j.Lost >= max(1, min(2, p.o.MaxLost-1)) }

// enter lets a suspect in, or parks its delivery until it may.
func (s *suspects) enter(p *Pool, d *delivery, j *jobs.Job) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.letOut = false
	alone := p.runsAlone(j)
	if s.admits(alone) {
		s.count(alone, 1)
		return true
	}
	if p.stopping { // nobody would take it out again
		p.release(d)
		return false
	}
	p.vacate(d, time.Now()) // it claims all that again
	s.parked = append(s.parked, parkedSuspect{d, alone})
	return false
}

// admits says whether one more suspect may run now. Those that must run alone
// go first, or a stream of others could keep them out for ever.
func (s *suspects) admits(alone bool) bool {
	if alone {
		return !s.exclusive && s.shared == 0
	}
	for _, w := range s.parked {
		if w.alone {
			return false
		}
	}
	return !s.exclusive
}

func (s *suspects) count(alone bool, n int) {
	if alone {
		s.exclusive = n > 0
	} else {
		s.shared += n
	}
}

// leaveSuspects takes a suspect out, so that others may go on.
func (p *Pool) leaveSuspects(j *jobs.Job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.suspects.count(p.runsAlone(j), -1)
	p.unpark()
}

// passOn lets the next suspects go on if one that was let out has not run.
func (p *Pool) passOn(letOut bool) {
	if !letOut {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unpark()
}

// unpark puts suspects in front of their lanes that may run now. They pass enter
// again when a worker takes them: let out the first that must run alone, or else
// all. Those whose type starts nothing now wait in their lanes and hold up
// nobody. p.mu is held.
func (p *Pool) unpark() {
	s := &p.suspects
	if p.stopping || s.exclusive || len(s.parked) == 0 {
		return // a stop has given them back; one that runs alone does this when it leaves
	}
	var out, stay []parkedSuspect
	first := true
	for _, w := range s.parked {
		switch {
		case !p.open(w.d.lane):
			out = append(out, w)
		case w.alone && first:
			first = false
			out = append(out, w)
		default:
			stay = append(stay, w)
		}
	}
	if first {
		out, stay = s.parked, nil
	}
	s.parked = stay
	for _, w := range slices.Backward(out) { // so that they keep their order
		w.d.letOut = true
		w.d.lane.buf = append([]*delivery{w.d}, w.d.lane.buf...)
		p.enliven(w.d.lane)
	}
	p.dispatch()
}
