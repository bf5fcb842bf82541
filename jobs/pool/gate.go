package pool

import (
	"jobstream/jobs"
	"math"
	"slices"
	"time"
)

// What keeps a type's jobs from starting though a worker is free: a pause, and a
// rate. And what keeps a single job from it: others with its concurrency key.

func newPoolType(t *jobs.Type, paused bool) *poolType {
	pt := &poolType{Type: t, cap: t.MaxWorkers, paused: paused}
	if !t.Rate.IsZero() {
		pt.tokens = newBucket(t.Rate)
	}
	pt.gated = pt.paused || pt.tokens != nil
	return pt
}

// SetPaused pauses a type, or lets it go on. Nothing of a paused type starts;
// what runs goes on. A type that the pool has no lanes of is passed over. The
// pool keeps that in memory only.
func (p *Pool) SetPaused(typ string, paused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.types[typ]
	if t == nil || t.paused == paused {
		return
	}
	t.paused = paused
	t.gated = t.paused || t.tokens != nil
	for _, l := range p.lanes {
		if l.typ == t {
			l.expected = time.Time{} // the wait for a delivery is over, or begins now
			p.refill(l)
		}
	}
	p.unpark() // one of the type may have been let out, and held up others
	p.dispatch()
}

// open says whether a job of the lane's type may start now. p.mu is held.
func (p *Pool) open(l *lane) bool {
	return !(l.typ.cap > 0 && l.typ.running >= l.typ.cap || l.typ.gated && !p.passes(l))
}

// passes says whether a job of the lane's type may start now, as far as pause
// and rate go. If it has to wait for a token, the pool wakes for that. p.mu is
// held.
func (p *Pool) passes(l *lane) bool {
	if l.typ.paused {
		return false
	}
	if l.typ.tokens == nil {
		return true
	}
	now := time.Now()
	at := l.typ.tokens.next(now)
	if !at.After(now) {
		return true
	}
	if p.ready(l) {
		p.wake.set(at)
	}
	return false
}

// ready says whether the lane has something for a worker. p.mu is held.
func (p *Pool) ready(l *lane) bool { return len(l.buf) > 0 && l.buf[0].Seq <= p.position }

// putBack lets a delivery wait in its lane again that a worker has taken. p.mu is
// held.
func (p *Pool) putBack(h *held) {
	if p.stopping { // nobody would take it out again
		p.release(h)
		return
	}
	p.vacate(h)
	l := h.lane
	at := 0 // others may have been put back just now
	for at < len(l.buf) && l.buf[at].Seq < h.Seq {
		at++
	}
	l.buf = slices.Insert(l.buf, at, h)
	p.enliven(l)
}

// bucket is a token bucket: each start takes a token, and a new one comes after
// each interval until the bucket is full. Its times are of the monotonic clock.
type bucket struct {
	size   int
	every  time.Duration // from token to token
	tokens int
	last   time.Time // when the last token came, if the bucket is not full
}

// newBucket makes a full one.
func newBucket(r jobs.Rate) *bucket {
	every := time.Duration(math.Ceil(float64(r.Per) / r.Count)) // rather a hair less than the rate
	return &bucket{size: r.Capacity(), every: max(every, 1), tokens: r.Capacity()}
}

// next is when there is a token: now, or later.
func (b *bucket) next(now time.Time) time.Time {
	if b.tokens < b.size {
		if n := now.Sub(b.last) / b.every; n >= time.Duration(b.size-b.tokens) {
			b.tokens = b.size
		} else if n > 0 {
			b.tokens += int(n)
			b.last = b.last.Add(n * b.every)
		}
	}
	if b.tokens > 0 {
		return now
	}
	return b.last.Add(b.every)
}

// take takes a token; next has said that there is one.
func (b *bucket) take(now time.Time) {
	if b.tokens == b.size {
		b.last = now
	}
	b.tokens--
}

// put gives a token back that was taken and not used. The next new one is an
// interval away then, and a token is lost that was out for longer than that: so
// the rate holds for every span of time.
func (b *bucket) put(taken, now time.Time) {
	if b.tokens < b.size && now.Sub(taken) < b.every {
		b.tokens++
		b.last = now
	}
}

// keyOfType is a concurrency key: those of other types have nothing to do with
// it.
type keyOfType struct{ typ, key string }

// takeKey counts the job's execution under its key, unless as many as may do run
// already. The tracker lets no more of them into the queue; but a job that was
// cancelled leaves its place there while its handler is still on its way out.
// p.mu is held.
func (p *Pool) takeKey(h *held, j *jobs.Job) bool {
	if h.key != nil {
		return true
	}
	k := keyOfType{j.Type, j.Terms.ConcurrencyKey}
	if p.keys[k] >= perKey(h.lane.typ.Type) {
		return false
	}
	p.keys[k]++
	h.key, h.keyed = &k, true
	return true
}

// perKey is how many jobs of a type run at once with one key.
func perKey(t *jobs.Type) int { return max(t.ConcurrencyPerKey, 1) }

// alarm calls a function at the earliest of the moments that were set since it
// last did. Its owner's lock guards it.
type alarm struct {
	timer *time.Timer
	at    time.Time
}

func (a *alarm) init(f func()) {
	a.timer = time.AfterFunc(time.Hour, f)
	a.timer.Stop()
}

func (a *alarm) set(at time.Time) {
	if a.at.IsZero() || at.Before(a.at) {
		a.at = at
		a.timer.Reset(time.Until(at))
	}
}

func (a *alarm) stop() { a.timer.Stop() }

// awake looks again for something to do: a token has come, or the pool may grow.
func (p *Pool) awake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wake.at = time.Time{}
	p.dispatch()
}
