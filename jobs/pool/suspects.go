package pool

import (
	"slices"
	"time"

	"jobstream/jobs"
)

// suspects keeps jobs apart whose workers died. One of them may have killed the
// process, and every job that runs beside it also loses its worker, until it counts as
// a poison itself. So a job that has lost several workers runs with no other suspect
// beside it. Those that have lost one run together. Jobs that have lost none are not
// affected.
//
// The pool's lock guards it. It owns the deliveries of the waiting suspects.
type suspects struct {
	maxLost   int
	exclusive bool // one that has lost several is running
	shared    int  // how many run that have lost one
	parked    []parkedSuspect
}

type parkedSuspect struct {
	d     *delivery
	alone bool
}

// alone says whether a job has lost so many workers that no other suspect may run
// beside it.
func (s *suspects) alone(j *jobs.Job) bool { return j.Lost >= max(1, min(2, s.maxLost-1)) }

// enter counts a suspect if it may run now.
func (s *suspects) enter(j *jobs.Job) bool {
	alone := s.alone(j)
	if !s.admits(alone) {
		return false
	}
	s.count(alone, 1)
	return true
}

func (s *suspects) leave(j *jobs.Job) { s.count(s.alone(j), -1) }

// admits says whether one more suspect may run now. Those that must run alone go first,
// or a stream of others could keep them out for ever.
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

// park keeps the delivery of a waiting suspect.
func (s *suspects) park(d *delivery, j *jobs.Job) {
	s.parked = append(s.parked, parkedSuspect{d, s.alone(j)})
}

// has says whether the job waits for other suspects.
func (s *suspects) has(id jobs.ID) bool {
	for _, w := range s.parked {
		if w.d.id == id {
			return true
		}
	}
	return false
}

// letOut removes the suspects that may try again: the first that must run alone, or
// else all. Those whose gates are closed stop nobody, so they wait in their lanes.
func (s *suspects) letOut(open func(*lane) bool) (out []*delivery) {
	if s.exclusive || len(s.parked) == 0 {
		return nil // one that runs alone lets others out when it leaves
	}
	var stay []parkedSuspect
	first := true
	for _, w := range s.parked {
		switch {
		case !open(w.d.lane):
			out = append(out, w.d)
		case w.alone && first:
			first = false
			out = append(out, w.d)
		default:
			stay = append(stay, w)
		}
	}
	if first {
		return s.clear()
	}
	s.parked = stay
	return out
}

// clear removes all that wait.
func (s *suspects) clear() (all []*delivery) {
	for _, w := range s.parked {
		all = append(all, w.d)
	}
	s.parked = nil
	return all
}

// clearOf removes those of one type that wait.
func (s *suspects) clearOf(t *poolType) (all []*delivery) {
	s.parked = slices.DeleteFunc(s.parked, func(w parkedSuspect) bool {
		if w.d.lane.typ != t {
			return false
		}
		all = append(all, w.d)
		return true
	})
	return all
}

// suspect lets a suspect run, or parks its delivery.
func (p *Pool) suspect(d *delivery, j *jobs.Job) verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.letOut = false
	if p.suspects.enter(j) {
		return runs
	}
	if p.stopping { // nobody would let it out again
		p.release(d)
		return givenBack
	}
	p.vacate(d, time.Now()) // a worker claims its job again
	p.suspects.park(d, j)
	return parked
}

// leaveSuspects removes a job from the running suspects, so that others go on.
func (p *Pool) leaveSuspects(j *jobs.Job) {
	if j.Lost == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.suspects.leave(j)
	p.unpark()
}

// unpark moves suspects that may try again to the front of their lanes. p.mu is locked.
func (p *Pool) unpark() {
	if p.stopping {
		return // they have been given back
	}
	out := p.suspects.letOut(p.choice.open)
	for _, d := range slices.Backward(out) { // so that they keep their order
		d.letOut = true
		p.choice.prepend(d)
	}
	if len(out) > 0 {
		p.dispatch()
	}
}
