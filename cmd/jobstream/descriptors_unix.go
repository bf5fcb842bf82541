//go:build unix

package main

import (
	"math"
	"os"
	"strconv"
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

// keepInherited keeps descriptors that this process got from its parent from the programs
// that it starts. Those that it opens itself are kept from them anyway.
func keepInherited() {
	open, _ := os.ReadDir("/dev/fd") // without it there is nothing to go by
	for _, entry := range open {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}
