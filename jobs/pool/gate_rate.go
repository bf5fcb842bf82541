package pool

import (
	"math"
	"time"

	"jobstream/jobs"
)

// rateGate bounds how many jobs of its type start in a span of time.
type rateGate struct {
	openGate
	rate   jobs.Rate
	tokens *bucket
}

func newRateGate(r jobs.Rate) *rateGate { return &rateGate{rate: r, tokens: newBucket(r)} }

// change sets another rate. The tokens that are there stay, as far as the new bucket
// has room for them.
func (g *rateGate) change(r jobs.Rate, now time.Time) {
	g.tokens.next(now)
	was := g.tokens
	g.rate, g.tokens = r, newBucket(r)
	if was.tokens < was.size {
		g.tokens.tokens, g.tokens.last = min(was.tokens, g.tokens.size), was.last
	}
}

func (g *rateGate) open() (ok bool, at time.Time) {
	now := time.Now()
	at = g.tokens.next(now)
	return !at.After(now), at
}

func (g *rateGate) enter(d *delivery) {
	d.token = time.Now()
	g.tokens.spend(d.token)
}

func (g *rateGate) leave(d *delivery, begun bool) {
	if !begun {
		g.tokens.refund(d.token, time.Now())
	}
	d.token = time.Time{}
}

func (g *rateGate) why(j *jobs.Job, q Queueing) *jobs.Waiting {
	if j.Place != jobs.InQueue {
		return nil
	}
	now := time.Now()
	wait := g.tokens.next(now).Sub(now)
	if wait <= 0 {
		return nil
	}
	before := float64(max(q.Position-1, 0)) * float64(g.tokens.every) // for the jobs before it
	wait += time.Duration(min(before, float64(jobs.MaxDelay)))
	return &jobs.Waiting{Reason: jobs.WaitRateLimit, Until: jobs.Now().Add(wait), Detail: "at most " + g.rate.String() + " may start"}
}

// bucket is a token bucket: each start uses a token, and a new one comes after each
// interval until the bucket is full. Its times are of the monotonic clock.
type bucket struct {
	size   int
	every  time.Duration // from token to token
	tokens int
	last   time.Time // when the last token came, if the bucket is not full
}

// newBucket makes a full bucket.
func newBucket(r jobs.Rate) *bucket {
	every := time.Duration(math.Ceil(float64(r.Per) / r.Count)) // rounded towards a lower rate
	return &bucket{size: r.Capacity(), every: max(every, 1), tokens: r.Capacity()}
}

// next is the moment of the next token: now, or later.
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

// spend uses a token, which next has promised.
func (b *bucket) spend(now time.Time) {
	if b.tokens == b.size {
		b.last = now
	}
	b.tokens--
}

// refund returns an unused token. The next new one is then an interval away. A token
// that was out for longer than that is lost, so the rate holds for every span of time.
func (b *bucket) refund(spent, now time.Time) {
	if b.tokens < b.size && now.Sub(spent) < b.every {
		b.tokens++
		b.last = now
	}
}
