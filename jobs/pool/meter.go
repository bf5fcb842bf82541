package pool

import "time"

// meter measures how busy the workers are. It uses the beginnings and ends of attempts
// and reads no clock of its own. Its sums may overflow after years with thousands of
// workers; their differences stay right.
type meter struct {
	birth   time.Time
	running int64
	began   time.Duration // the sum of the beginnings of running attempts
	busy    time.Duration // of ended attempts
	size    int64
	room    time.Duration // size × time, up to resized
	resized time.Duration

	samples [windowSamples]sample // a ring: one a second
	next    int
}

// sample is the sums of a meter at a moment.
type sample struct{ at, busy, room time.Duration }

// windowSamples covers the seconds of the window, and its beginning.
const windowSamples = int(shrinkAfter/time.Second) + 1

func (m *meter) init(size int, now time.Time) {
	m.birth, m.size = now, int64(size)
}

// enter counts an attempt from its beginning.
func (m *meter) enter(began time.Time) {
	m.running++
	m.began += began.Sub(m.birth)
}

// leave counts its end.
func (m *meter) leave(began, ended time.Time) {
	m.running--
	m.began -= began.Sub(m.birth)
	m.busy += ended.Sub(began)
}

// resize sets the number of workers from now on.
func (m *meter) resize(size int, now time.Time) {
	s := m.read(now)
	m.room, m.resized, m.size = s.room, s.at, int64(size)
}

// read returns the present sums.
func (m *meter) read(now time.Time) sample {
	at := now.Sub(m.birth)
	return sample{
		at:   at,
		busy: m.busy + time.Duration(m.running)*at - m.began,
		room: m.room + time.Duration(m.size)*(at-m.resized),
	}
}

// sample stores the sums, about once a second.
func (m *meter) sample(now time.Time) {
	s := m.read(now)
	newest := &m.samples[(m.next+windowSamples-1)%windowSamples]
	if s.at-newest.at < 900*time.Millisecond { // an early tick would leave a gap otherwise
		return
	}
	m.samples[m.next] = s
	m.next = (m.next + 1) % windowSamples
}

// used is the mean number of busy workers in the window, and their share of all
// workers.
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
