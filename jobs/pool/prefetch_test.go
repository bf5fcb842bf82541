package pool

import (
	"testing"
	"time"
)

// TestLanePrefetch: a lane that is emptied quickly is fetched earlier, up to a
// bound; a slow one as far as its workers need it.
func TestLanePrefetch(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	l := new(lane)
	for i, step := range []struct {
		after time.Duration
		least int
		idle  bool // it has nothing, instead of half of what it may
		taken int  // of extraPrefetch, by other lanes
		want  int
	}{
		{after: time.Second, least: 200, want: 200}, // the first time
		{after: 9 * time.Millisecond, least: 200, want: 400},
		{after: time.Millisecond, least: 200, want: 800},
		{after: 50 * time.Millisecond, least: 200, want: 800}, // neither quick nor slow
		{after: 0, least: 200, want: 1600},
		{after: 0, least: 200, want: 2048},
		{after: 0, least: 200, want: 2048},
		{after: 101 * time.Millisecond, least: 200, want: 1024},
		{after: time.Minute, least: 200, want: 512},
		{after: time.Minute, least: 200, idle: true, want: 200},
		{after: 0, least: 200, want: 400},
		{after: time.Minute, least: 16, want: 200}, // the pool was made smaller
		{after: 50 * time.Millisecond, least: 512, want: 512},
		{after: 0, least: 512, taken: 3000, want: 1024},
		{after: 0, least: 512, taken: 4000, want: 608}, // no further, and less for the others' sake
		{after: 0, least: 512, taken: 4096, want: 512},
		{after: 0, least: 1, want: 1024},
		{after: 101 * time.Millisecond, least: 1, idle: true, want: 1},
		{after: 0, least: 1, want: 2},
		{after: 0, least: 1, want: 4},
	} {
		now = now.Add(step.after)
		have := l.most / 2
		if step.idle {
			have = 0
		}
		if got := l.prefetch(step.least, have, extraPrefetch-step.taken, now); got != step.want {
			t.Fatalf("step %d: %d, want %d", i, got, step.want)
		}
	}
}
