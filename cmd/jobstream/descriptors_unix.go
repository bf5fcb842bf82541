//go:build unix

package main

import (
	"math"
	"syscall"
)

// fileLimit is how many files the process may have open. Go has already raised the soft
// limit to the hard one.
func fileLimit() (files uint64, known bool) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, false
	}
	return min(uint64(r.Cur), math.MaxInt32), true //nolint:unconvert // it is signed on some systems
}
