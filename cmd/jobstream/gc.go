package main

import (
	"os"
	"runtime/debug"
)

// gcPercent lets the heap grow to four times what is alive before it is
// collected, where Go's default is twice: what is alive is small (some ten
// megabytes, as queued jobs are on disk), and most of what a job allocates is
// dead a millisecond later.
const gcPercent = 300

// tuneGC sets the garbage collector's pace, unless the environment does.
func tuneGC() {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
