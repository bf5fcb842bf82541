package jobs

import (
	"testing"
	"time"
)

// TestLaneAhead: a lane that is emptied quickly is fetched further ahead, up to a
// bound; a slow one as far as its workers need it.
func TestLaneAhead(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	l := new(lane)
	for i, step := range []struct {
		after time.Duration
		least int
		asked int // on its way to all lanes
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
		{after: time.Minute, least: 200, want: 256},
		{after: time.Minute, least: 200, want: 200},
		{after: time.Minute, least: 16, want: 100}, // the pool was made smaller
		{after: 50 * time.Millisecond, least: 512, want: 512},
		{after: 0, least: 512, asked: 3000, want: 1024},
		{after: 0, least: 512, asked: 3500, want: 596}, // no further, and less for the others' sake
		{after: 0, least: 512, asked: 20_000, want: 512},
	} {
		now = now.Add(step.after)
		if got := l.ahead(step.least, step.asked, now); got != step.want {
			t.Fatalf("step %d: %d, want %d", i, got, step.want)
		}
	}
}
