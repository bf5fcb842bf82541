package jobs

import (
	"sync/atomic"
	"time"
)

// clock is the wall clock of jobs. Only tests set it.
var clock struct {
	ahead atomic.Int64 // of the machine's clock, in nanoseconds
	set   atomic.Pointer[chan struct{}]
}

func init() { renewClock() }

// renewClock makes the channel that the next ShiftClock closes, and returns the present
// one.
func renewClock() *chan struct{} {
	next := make(chan struct{})
	return clock.set.Swap(&next)
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
	close(*renewClock())
}

// ClockSet is closed by the next [ShiftClock]. Whoever waits for a moment looks again
// then.
func ClockSet() <-chan struct{} { return *clock.set.Load() }
