package figures

import (
	"maps"
	"math"
	"slices"

	"jobstream/jobs"
)

// Waiting is what waits of a type at a moment.
type Waiting struct {
	Places     jobs.Places                    // pending jobs, by where they wait
	Priorities [jobs.LowestPriority + 1]Depth // pending jobs, by priority
	// Oldest is since when the job waits that is due for longest; 0 = none is due.
	// Retrying jobs whose moment has passed are among them.
	Oldest jobs.Time
}

// Depth is the number of pending jobs of a priority, and since when the first waits.
type Depth struct {
	Jobs   int
	Oldest jobs.Time // 0 = there are none
}

// Pending is the number of pending jobs.
func (w *Waiting) Pending() (n int) {
	for _, k := range w.Places {
		n += k
	}
	return n
}

// SecondsSince is how long ago a moment was, in seconds; 0 if it is not set, or to come.
func SecondsSince(since, now jobs.Time) float64 {
	if since == 0 || since > now {
		return 0
	}
	return seconds(now.Sub(since))
}

// line is the waiting jobs of a type. It changes by commits only, and has no entry per
// job.
type line struct {
	places   jobs.Places
	pending  [jobs.LowestPriority + 1]ages
	retrying ages // by when they are due
}

// change takes over the change of a job; either may be nil.
func (l *line) change(was, is *jobs.Job) {
	if was != nil && is != nil && was.Status == is.Status && is.Status == jobs.Processing {
		return
	}
	l.count(was, -1)
	l.count(is, 1)
}

func (l *line) count(j *jobs.Job, n int) {
	switch {
	case j == nil:
	case j.Status == jobs.Pending:
		l.places[j.Place] += n
		l.pending[j.Priority].count(j.WaitsSince(), n)
	case j.Status == jobs.Retrying:
		l.retrying.count(j.WaitsSince(), n)
	}
}

// look is what waits now.
func (l *line) look(now jobs.Time) (w Waiting) {
	w.Places = l.places
	earliest := func(at jobs.Time) {
		if at != 0 && (w.Oldest == 0 || at < w.Oldest) {
			w.Oldest = at
		}
	}
	for p := range l.pending {
		a := &l.pending[p]
		w.Priorities[p] = Depth{a.jobs, a.oldest()}
		earliest(w.Priorities[p].Oldest)
	}
	if at := l.retrying.oldest(); at <= now {
		earliest(at)
	}
	return w
}

// ages counts jobs by the moment since which they wait. Those of the last moments are in
// fine slots. When these become too many, their older half moves to slots that get wider
// as the jobs are further apart. So there are at most 2 × mostSlots of them, and the
// oldest moment is off by a five-hundredth of the span at most. When the old jobs have
// gone, it is exact to a millisecond again.
type ages struct {
	jobs       int
	from       jobs.Time // younger jobs are in young, others in old
	young, old slots
}

const (
	mostSlots = 1024
	fineShift = 20 // about a millisecond
)

func (a *ages) count(at jobs.Time, n int) {
	a.jobs += n
	if at < a.from {
		a.old.count(at, n)
		for len(a.old.jobs) > mostSlots {
			a.old.widen()
		}
		return
	}
	a.young.count(at, n)
	if len(a.young.jobs) > mostSlots {
		a.age()
	}
}

// age moves the older half of the young jobs to the old ones.
func (a *ages) age() {
	all := slices.Sorted(maps.Keys(a.young.jobs))
	middle := all[len(all)/2]
	a.from = jobs.Time(middle << fineShift)
	for _, slot := range all[:len(all)/2] {
		a.old.count(jobs.Time(slot<<fineShift), a.young.jobs[slot])
		delete(a.young.jobs, slot)
	}
	a.young.known = false
	for len(a.old.jobs) > mostSlots {
		a.old.widen()
	}
}

// oldest is since when the first job waits; 0 if there is none.
func (a *ages) oldest() jobs.Time {
	if at := a.old.oldest(); at != 0 {
		return at
	}
	return a.young.oldest()
}

// slots are numbers of jobs by spans of time. They begin as fine ones, and do so again
// when there are none.
type slots struct {
	shift uint // a slot is 2^shift nanoseconds wide
	jobs  map[int64]int
	first int64 // the first slot, if known
	known bool
}

func (s *slots) count(at jobs.Time, n int) {
	if s.jobs == nil {
		s.jobs, s.shift = make(map[int64]int), fineShift
	}
	slot := int64(at) >> s.shift
	if left := s.jobs[slot] + n; left != 0 {
		s.jobs[slot] = left
		s.first = min(s.first, slot)
		return
	}
	delete(s.jobs, slot)
	s.known = s.known && slot != s.first
	if len(s.jobs) == 0 {
		s.shift = fineShift
	}
}

// widen makes them twice as wide.
func (s *slots) widen() {
	wide := make(map[int64]int, len(s.jobs))
	for slot, n := range s.jobs {
		wide[slot>>1] += n
	}
	s.jobs, s.known = wide, false
	s.shift++
}

func (s *slots) oldest() jobs.Time {
	if len(s.jobs) == 0 {
		return 0
	}
	if !s.known {
		s.first, s.known = math.MaxInt64, true
		for slot := range s.jobs {
			s.first = min(s.first, slot)
		}
	}
	return max(jobs.Time(s.first<<s.shift), 1)
}
