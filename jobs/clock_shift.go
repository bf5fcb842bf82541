//go:build clockshift

package jobs

import (
	"sync/atomic"
	"time"
)

// shift is how far the clock of a test is from the machine's, in nanoseconds.
var shift atomic.Int64

// ShiftClock sets the wall clock that jobs see, by so much from the machine's:
// what an administrator or NTP does to a machine, for tests. It is there only in
// builds with the tag clockshift.
func ShiftClock(d time.Duration) { shift.Store(int64(d)) }

// Now is the present moment by the wall clock, and by [ShiftClock].
func Now() Time { return Time(time.Now().UnixNano() + shift.Load()) }
