//go:build clockshift

package jobs

import (
	"sync/atomic"
	"time"
)

// shift is the difference of a test's clock from the machine's, in nanoseconds.
var shift atomic.Int64

// ShiftClock sets the wall clock of jobs, by its difference from the machine's, as an
// administrator or NTP might. It exists only in builds with the tag clockshift, for
// tests.
func ShiftClock(d time.Duration) { shift.Store(int64(d)) }

// Now is the present moment by the wall clock, shifted by [ShiftClock].
func Now() Time { return Time(time.Now().UnixNano() + shift.Load()) }
