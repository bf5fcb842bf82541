package pool

import (
	"testing"
	"time"

	"jobstream/jobs"
)

// TestSleepersThatWaitTheirTurn: retries may be due in a lane whose workers are busy.
// The checks of them become rarer, since a hundred thousand of them would keep a core
// busy.
func TestSleepersThatWaitTheirTurn(t *testing.T) {
	for _, tt := range []struct {
		name  string
		asked int
		given int // back again, of one
	}{
		{name: "nobody asks", asked: 0, given: 0},
		{name: "it does not come", asked: 1, given: 11},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s sleepers
			s.init()
			s.remember(&delivery{Delivery: jobs.Delivery{Seq: 1}, lane: &lane{asked: tt.asked}}, 0)
			begin := time.Now()
			given, looked := 0, 0
			for now := begin; now.Before(begin.Add(time.Minute)); now = now.Add(lateAfter) {
				check := s.heap[0].check
				given += len(s.late(now))
				if s.heap[0].check != check {
					looked++
				}
			}
			if given != tt.given || looked != 11 {
				t.Errorf("within a minute it was looked at %d times and given back %d times, want 11 and %d", looked, given, tt.given)
			}
		})
	}
}
