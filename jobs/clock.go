//go:build !clockshift

package jobs

import "time"

// Now is the present moment by the wall clock.
func Now() Time { return Time(time.Now().UnixNano()) }
