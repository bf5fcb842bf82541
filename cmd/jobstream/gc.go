package main

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Little memory is alive here, some ten megabytes, because queued jobs are on disk.
// Most allocations of a job are dead a millisecond later. Go's default collects
// whenever as much is garbage as is alive. Under load that was mostly in vain and took
// 7 % of the time. So the garbage may grow to the allocations of a second, within these
// bounds.
const (
	leastGarbage = 32 << 20
	mostGarbage  = 256 << 20
)

// Bounds of the collector's percentage.
const (
	leastGCPercent = 50
	mostGCPercent  = 400
)

// usualMemory is the memory of the process, garbage included, above which the collector
// works harder. It is enough for the garbage of a busy server. If more is alive, the
// limit follows that.
const usualMemory = 256 << 20

// tuneGC sets the garbage collector's pace for the life of the process, unless the
// environment does. It adapts the pace every second. When half as much garbage is
// enough, it returns memory to the system.
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

// gcPace is the setting of the collector, and its reasons.
type gcPace struct {
	percent   int
	limit     int64
	allocated uint64 // bytes in the life of the process, at the last look
	garbage   uint64 // allowed garbage, in bytes
	returned  uint64 // allowed garbage at the last return of memory, or more since
}

func (p *gcPace) look() {
	figures := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(figures)
	alive, allocated := figures[0].Value.Uint64(), figures[1].Value.Uint64()
	p.garbage = garbageFor(allocated-p.allocated, p.garbage)
	p.allocated = allocated
	if want := gcPercent(alive, p.garbage); want != p.percent { // a change stops the world
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

// garbageFor is the allowed garbage in bytes. allocated is that of the last second,
// before the garbage allowed until now. It falls by a quarter at most, in steps of 16
// MiB.
func garbageFor(allocated, before uint64) uint64 {
	const step = 16 << 20
	want := max(allocated, before-before/4) / step * step
	return min(max(want, leastGarbage), mostGarbage)
}

// gcPercent is the collector's percentage for these bytes.
func gcPercent(alive, garbage uint64) int {
	return int(min(max(garbage*100/max(alive, 1), leastGCPercent), mostGCPercent))
}

// memoryLimit is the collector's limit, in steps of 32 MiB.
func memoryLimit(alive uint64) int64 {
	const step = 32 << 20
	return int64(max(usualMemory, (alive+alive/2+step-1)/step*step))
}
