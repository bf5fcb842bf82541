package jobs

import (
	"sync"
	"sync/atomic"
	"time"
)

// clock is the wall clock of jobs. Only tests set it.
var clock struct {
	ahead atomic.Int64 // of the machine's clock, in nanoseconds

	mu      sync.Mutex
	waiting map[chan struct{}]struct{} // of those who wait for a moment
}

// Now is the present moment by the wall clock.
func Now() Time { return ByClock(Time(time.Now().UnixNano())) }

// ByClock is a moment of the machine's clock by the clock of [Now].
func ByClock(t Time) Time { return t + Time(clock.ahead.Load()) }

// ShiftClock sets the clock of [Now], by its difference from the machine's, as an
// administrator or NTP might. It is for tests, and for the whole process: use
// [jobstream/cmd/node/nodetest.Clock].
func ShiftClock(d time.Duration) {
	clock.ahead.Store(int64(d))
	clock.mu.Lock()
	defer clock.mu.Unlock()
	for set := range clock.waiting {
		select {
		case set <- struct{}{}:
		default: // it has not looked yet
		}
	}
}

// WatchClock returns a channel that has a value after a [ShiftClock]: whoever waits for a
// moment looks again then. It is the caller's own, until stop is called.
func WatchClock() (set <-chan struct{}, stop func()) {
	own := make(chan struct{}, 1)
	clock.mu.Lock()
	defer clock.mu.Unlock()
	if clock.waiting == nil {
		clock.waiting = make(map[chan struct{}]struct{})
	}
	clock.waiting[own] = struct{}{}
	return own, func() {
		clock.mu.Lock()
		defer clock.mu.Unlock()
		delete(clock.waiting, own)
	}
}
