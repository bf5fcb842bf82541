package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// The garbage collector may let this many bytes become garbage before it works,
// or as many as are alive, whichever is more; Go's default is only the latter.
// What is alive is small here (some ten megabytes, as queued jobs are on disk),
// and most of what a job allocates is dead a millisecond later, so collecting
// more often is mostly in vain: it took 7 % of the time under load.
const garbage = 256 << 20

// Bounds of the collector's percentage.
const (
	leastGCPercent = 100
	mostGCPercent  = 400
)

// usualMemory is what the process may have, garbage included, before the collector
// works harder: it must be enough for the garbage of a busy server. Where more is
// alive than that, the limit follows it.
const usualMemory = 320 << 20

// tuneGC sets the garbage collector's pace for the life of the process, unless
// the environment does.
func tuneGC() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	percent, limit := mostGCPercent, int64(usualMemory)
	debug.SetGCPercent(percent)
	debug.SetMemoryLimit(limit)
	alive := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	afterEachGC(func() {
		metrics.Read(alive)
		if want := gcPercent(alive[0].Value.Uint64()); want != percent { // setting it stops the world
			percent = want
			debug.SetGCPercent(percent)
		}
		if want := memoryLimit(alive[0].Value.Uint64()); want != limit {
			limit = want
			debug.SetMemoryLimit(limit)
		}
	})
}

// gcPercent is the collector's percentage for so many bytes alive.
func gcPercent(alive uint64) int {
	percent := uint64(garbage) * 100 / max(alive, 1)
	return int(min(max(percent, leastGCPercent), mostGCPercent))
}

// memoryLimit is the collector's limit for so many bytes alive, in steps of 32 MiB.
func memoryLimit(alive uint64) int64 {
	const step = 32 << 20
	return int64(max(usualMemory, (alive+alive/2+step-1)/step*step))
}

// afterEachGC calls f after every garbage collection, one call at a time.
func afterEachGC(f func()) {
	type mark struct{ _ [64]byte } // large enough to be an object of its own
	runtime.AddCleanup(new(mark), func(struct{}) {
		f()
		afterEachGC(f)
	}, struct{}{})
}
