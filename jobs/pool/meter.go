package pool

import "time"

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
