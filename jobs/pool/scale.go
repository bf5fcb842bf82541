package pool

import (
	"fmt"
	"jobstream/jobs"
	"math"
	"time"
)

// Times and shares of a pool whose size follows the load.
const (
	growEvery   = 100 * time.Millisecond // the least time between two steps up
	shrinkAfter = 10 * time.Second       // of being underused, and the window of measurement
	underused   = 0.5                    // of the workers, on average in that window
)

// load is what decides about the size of a pool.
type load struct {
	size, min, max int
	running        int
	backlog        bool          // one more worker would have something to do
	used           float64       // workers that were busy, on average in the last shrinkAfter
	unchanged      time.Duration // since when the size is what it is
}

// next is the size to have: at once more when all are busy and there is more to
// do, and as many as are used after a while of being underused.
func (l load) next() int {
	if l.min <= 0 {
		return l.max
	}
	size := l.size
	switch {
	case l.backlog && l.running >= l.size:
		if l.unchanged >= growEvery {
			size = 2 * l.size
		}
	case l.unchanged >= shrinkAfter && l.used < underused*float64(l.size):
		size = max(int(math.Ceil(l.used)), l.running)
	}
	return min(max(size, l.min), l.max)
}

// scale is the size of a pool, and its bounds.
type scale struct {
	size, min, max int // min = 0: the size is max
	changed        time.Time
}

func (s *scale) init(lo, hi int) {
	s.min, s.max = min(max(lo, 0), hi), hi
	s.size = load{size: s.min, min: s.min, max: s.max}.next()
}

// bounds takes over what a Resize says about the whole pool, or says why it
// cannot.
func (s *scale) bounds(r *jobs.Resize) error {
	lo, hi := s.min, s.max
	if r.MaxWorkers != nil {
		hi = *r.MaxWorkers
		lo = min(lo, hi)
	}
	if r.MinWorkers != nil {
		if lo = *r.MinWorkers; lo > hi {
			return jobs.Invalid("/min_workers", fmt.Sprintf("must be at most max_workers, which is %d, not %d", hi, lo))
		}
	}
	s.min, s.max = lo, hi
	s.size = load{size: s.size, min: lo, max: hi}.next()
	return nil
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

// meter measures how busy the workers are, by the times at which attempts begin
// and end: no clock is read for it. Its sums may overflow in years of thousands
// of workers, which the differences between them survive.
type meter struct {
	birth   time.Time
	running int64
	began   time.Duration // the sum of the beginnings of what runs
	busy    time.Duration // of what has ended
	size    int64
	room    time.Duration // size × time, up to resized
	resized time.Duration

	samples [windowSamples]sample // a ring: one a second
	next    int
}

// sample is where the sums of a meter stood.
type sample struct{ at, busy, room time.Duration }

// windowSamples are as many as the window has seconds, and one at its beginning.
const windowSamples = int(shrinkAfter/time.Second) + 1

func (m *meter) init(size int, now time.Time) {
	m.birth, m.size = now, int64(size)
}

// enter counts an attempt from when it began.
func (m *meter) enter(began time.Time) {
	m.running++
	m.began += began.Sub(m.birth)
}

// leave counts it no more.
func (m *meter) leave(began, ended time.Time) {
	m.running--
	m.began -= began.Sub(m.birth)
	m.busy += ended.Sub(began)
}

// resize takes note of how many workers there are from now on.
func (m *meter) resize(size int, now time.Time) {
	s := m.read(now)
	m.room, m.resized, m.size = s.room, s.at, int64(size)
}

// read gives the sums as they stand now.
func (m *meter) read(now time.Time) sample {
	at := now.Sub(m.birth)
	return sample{
		at:   at,
		busy: m.busy + time.Duration(m.running)*at - m.began,
		room: m.room + time.Duration(m.size)*(at-m.resized),
	}
}

// sample remembers the sums, once a second or a little more often.
func (m *meter) sample(now time.Time) {
	s := m.read(now)
	newest := &m.samples[(m.next+windowSamples-1)%windowSamples]
	if s.at-newest.at < 900*time.Millisecond { // else a tick that comes early would leave a gap
		return
	}
	m.samples[m.next] = s
	m.next = (m.next + 1) % windowSamples
}

// used is how many workers were busy on average in the window, and which share
// of those that there were that is.
func (m *meter) used(now time.Time) (workers, share float64) {
	s, since := m.read(now), m.samples[m.next] // the oldest; all 0 in the first seconds
	if d := s.at - since.at; d > 0 {
		workers = float64(s.busy-since.busy) / float64(d)
	}
	if room := s.room - since.room; room > 0 {
		share = float64(s.busy-since.busy) / float64(room)
	}
	return max(workers, 0), min(max(share, 0), 1)
}
