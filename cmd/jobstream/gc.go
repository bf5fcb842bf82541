package main

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The garbage collector may let this many bytes become garbage before it works,
// or as many as are alive, whichever is more; Go's default is only the latter.
// What is alive is small here (some ten megabytes, as queued jobs are on disk),
// and most of what a job allocates is dead a millisecond later, so collecting
// more often is mostly in vain: it took 7 % of the time under load.
const garbage = 192 << 20

// Bounds of the collector's percentage, and how often it is set.
const (
	leastGCPercent = 100
	mostGCPercent  = 400
	tuneEvery      = 5 * time.Second
)

// tuneGC sets the garbage collector's pace for the life of the process, unless
// the environment does.
func tuneGC() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetGCPercent(mostGCPercent)
	go func() {
		alive := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		for {
			time.Sleep(tuneEvery)
			metrics.Read(alive)
			debug.SetGCPercent(gcPercent(alive[0].Value.Uint64()))
		}
	}()
}

// gcPercent is the collector's percentage for so many bytes alive.
func gcPercent(alive uint64) int {
	percent := uint64(garbage) * 100 / max(alive, 1)
	return int(min(max(percent, leastGCPercent), mostGCPercent))
}
