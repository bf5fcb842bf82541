package pool

import (
	"math"
	"slices"
	"testing"
	"time"

	"jobstream/jobs"

	"pgregory.net/rapid"
)

func TestNextSize(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	for name, c := range map[string]struct {
		load load
		want int
	}{
		"off":                        {load{size: 10, max: 10, unchanged: time.Hour}, 10},
		"off, with a new bound":      {load{size: 10, max: 4}, 4},
		"nothing to do":              {load{size: 2, min: 2, max: 10, unchanged: time.Hour}, 2},
		"all busy and more to do":    {load{size: 2, min: 2, max: 10, running: 2, backlog: true, unchanged: 100 * ms}, 4},
		"too early to grow":          {load{size: 2, min: 2, max: 10, running: 2, backlog: true, unchanged: 99 * ms}, 2},
		"up to the bound":            {load{size: 8, min: 2, max: 10, running: 8, backlog: true, unchanged: s}, 10},
		"at the bound":               {load{size: 10, min: 2, max: 10, running: 10, backlog: true, unchanged: s}, 10},
		"from one":                   {load{size: 1, min: 1, max: 10, running: 1, backlog: true, unchanged: s}, 2},
		"all busy, nothing more":     {load{size: 4, min: 2, max: 10, running: 4, used: 4, unchanged: time.Hour}, 4},
		"a worker is free":           {load{size: 4, min: 2, max: 10, running: 3, backlog: true, used: 3, unchanged: time.Hour}, 4},
		"more run than there are":    {load{size: 4, min: 2, max: 10, running: 7, backlog: true, used: 7, unchanged: s}, 8},
		"underused":                  {load{size: 10, min: 2, max: 10, running: 3, used: 3.2, unchanged: 10 * s}, 4},
		"underused, not long enough": {load{size: 10, min: 2, max: 10, running: 3, used: 3.2, unchanged: 9 * s}, 10},
		"used enough":                {load{size: 10, min: 2, max: 10, running: 5, used: 5, unchanged: time.Hour}, 10},
		"idle":                       {load{size: 10, min: 2, max: 10, unchanged: 10 * s}, 2},
		"more run than on average":   {load{size: 10, min: 2, max: 10, running: 6, used: 1.5, unchanged: 10 * s}, 6},
		"a new lower bound":          {load{size: 3, min: 5, max: 10}, 5},
		"a new upper bound":          {load{size: 8, min: 2, max: 5, running: 8, backlog: true}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.load.next(); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

// TestMeter compares the meter with the sums over all that has run.
func TestMeter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type span struct{ from, to time.Time }
		var m meter
		birth := time.Now()
		now := birth
		size := rapid.IntRange(1, 10).Draw(t, "size")
		m.init(size, now)
		type room struct {
			span
			size int
		}
		rooms := []room{{span{birth, time.Time{}}, size}}
		var ended []span
		var running []time.Time
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 1500).Draw(t, "ms")) * time.Millisecond)
			m.sample(now)
			switch k := rapid.IntRange(0, 5).Draw(t, "what"); {
			case k == 0:
				size = rapid.IntRange(1, 10).Draw(t, "size")
				m.resize(size, now)
				rooms[len(rooms)-1].to = now
				rooms = append(rooms, room{span{now, time.Time{}}, size})
			case k <= 2 && len(running) > 0:
				i := rapid.IntRange(0, len(running)-1).Draw(t, "which")
				m.leave(running[i], now)
				ended = append(ended, span{running[i], now})
				running = append(running[:i], running[i+1:]...)
			case k > 2:
				m.enter(now)
				running = append(running, now)
			}
		}
		since := birth.Add(m.samples[m.next].at)
		if now.Sub(since) < shrinkAfter*9/10 && since != birth {
			t.Errorf("the window is %s", now.Sub(since))
		}
		within := func(s span) time.Duration {
			if s.to.IsZero() {
				s.to = now
			}
			if s.from.Before(since) {
				s.from = since
			}
			return max(s.to.Sub(s.from), 0)
		}
		var busy, all time.Duration
		for _, s := range ended {
			busy += within(s)
		}
		for _, from := range running {
			busy += within(span{from: from})
		}
		for _, r := range rooms {
			all += time.Duration(r.size) * within(r.span)
		}
		workers, share := m.used(now)
		var wantWorkers, wantShare float64
		if d := now.Sub(since); d > 0 {
			wantWorkers = float64(busy) / float64(d)
			wantShare = min(float64(busy)/float64(all), 1)
		}
		if math.Abs(workers-wantWorkers) > 1e-9 || math.Abs(share-wantShare) > 1e-9 {
			t.Errorf("%v workers, %v; want %v, %v", workers, share, wantWorkers, wantShare)
		}
	})
}

// TestMeterOverflow: the sums overflow after some thousand years of workers.
func TestMeterOverflow(t *testing.T) {
	now := time.Now()
	m := meter{running: 10_000, began: 0, birth: now.Add(-100 * 365 * 24 * time.Hour), size: 20_000}
	for range 30 {
		now = now.Add(time.Second)
		m.sample(now)
	}
	if workers, share := m.used(now); workers != 10_000 || share != 0.5 {
		t.Errorf("%v workers, %v", workers, share)
	}
}

// TestBucket: no span of time has more starts than the bucket holds and the rate
// allows, whatever is refunded. A promised token is there.
func TestBucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := jobs.Rate{
			Count: rapid.Float64Range(0.5, 50).Draw(t, "count"), Per: time.Duration(rapid.IntRange(1, 20).Draw(t, "per")) * 100 * time.Millisecond,
			Burst: rapid.IntRange(1, 5).Draw(t, "burst"),
		}
		b := newBucket(r)
		if rate := float64(r.Per) / float64(b.every); rate > r.Count || rate < r.Count*0.999 {
			t.Fatalf("the rate is %v instead of %v", rate, r.Count)
		}
		now := time.Now()
		var out, starts []time.Time // tokens that were taken, and those of them that were used
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			switch at := b.next(now); rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				now = now.Add(time.Duration(rapid.IntRange(0, 1000).Draw(t, "ms")) * time.Millisecond)
			case 1:
				if at.After(now) && !b.next(at.Add(-1)).After(at.Add(-1)) {
					t.Fatal("there is a token before it was said to be")
				}
				if now = at; b.next(now).After(now) {
					t.Fatal("there is no token when it was said to be")
				}
			case 2:
				if !at.After(now) {
					b.spend(now)
					out = append(out, now)
				}
			case 3:
				if n := len(out); n > 0 {
					i := rapid.IntRange(0, n-1).Draw(t, "which")
					if rapid.Bool().Draw(t, "used") {
						starts = append(starts, out[i])
					} else {
						b.refund(out[i], now)
					}
					out = slices.Delete(out, i, i+1)
				}
			}
		}
		starts = append(starts, out...)
		slices.SortFunc(starts, time.Time.Compare)
		for i := range starts {
			for k := i; k < len(starts); k++ {
				span := starts[k].Sub(starts[i])
				if n, most := k-i+1, r.Burst+int(span/b.every); n > most {
					t.Fatalf("%d starts in %s, at most %d", n, span, most)
				}
			}
		}
	})
}
