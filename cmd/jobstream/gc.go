package main

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// What is alive is small here (some ten megabytes: queued jobs are on disk), and most of
// what a job allocates is dead a millisecond later. Go's default, to collect whenever as
// much is garbage as is alive, is mostly in vain under load: it took 7 % of the time. So
// the collector may let as much become garbage as is allocated in a second, within these bounds.
const (
	leastGarbage = 32 << 20
	mostGarbage  = 256 << 20
)

// Bounds of the collector's percentage.
const (
	leastGCPercent = 50
	mostGCPercent  = 400
)

// usualMemory is what the process may have, garbage included, before the collector
// works harder: it must be enough for the garbage of a busy server. Where more is
// alive than that, the limit follows it.
const usualMemory = 256 << 20

// tuneGC sets the garbage collector's pace for the life of the process, unless
// the environment does. It looks every second, and returns memory to the system when
// half as much garbage is enough.
func tuneGC() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	p := gcPace{percent: mostGCPercent, limit: usualMemory}
	debug.SetGCPercent(p.percent)
	debug.SetMemoryLimit(p.limit)
	go func() {
		for range time.Tick(time.Second) {
			p.look()
		}
	}()
}

// gcPace is how the collector is set, and why.
type gcPace struct {
	percent   int
	limit     int64
	allocated uint64 // bytes in the life of the process, when it was looked last
	garbage   uint64 // bytes that may be garbage now
	returned  uint64 // garbage when memory was returned to the system last, or more since
}

func (p *gcPace) look() {
	figures := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(figures)
	alive, allocated := figures[0].Value.Uint64(), figures[1].Value.Uint64()
	p.garbage = garbageFor(allocated-p.allocated, p.garbage)
	p.allocated = allocated
	if want := gcPercent(alive, p.garbage); want != p.percent { // setting it stops the world
		p.percent = want
		debug.SetGCPercent(want)
	}
	if want := memoryLimit(alive); want != p.limit {
		p.limit = want
		debug.SetMemoryLimit(want)
	}
	if p.returned = max(p.returned, p.garbage); p.garbage <= p.returned/2 {
		p.returned = p.garbage
		debug.FreeOSMemory()
	}
}

// garbageFor is how many bytes may be garbage where so many were allocated in the last
// second and before were allowed until now. It falls by a quarter at most, and has steps
// of 16 MiB.
func garbageFor(allocated, before uint64) uint64 {
	const step = 16 << 20
	want := max(allocated, before-before/4) / step * step
	return min(max(want, leastGarbage), mostGarbage)
}

// gcPercent is the collector's percentage for so many bytes alive and garbage.
func gcPercent(alive, garbage uint64) int {
	return int(min(max(garbage*100/max(alive, 1), leastGCPercent), mostGCPercent))
}

// memoryLimit is the collector's limit for so many bytes alive, in steps of 32 MiB.
func memoryLimit(alive uint64) int64 {
	const step = 32 << 20
	return int64(max(usualMemory, (alive+alive/2+step-1)/step*step))
}
