package journal

import "time"

const (
	// areaSize is the size of each of the two areas. The second one begins there, so it
	// is part of the format.
	areaSize = 32 << 20
	// firstLimit is the used part of an area at first. An area that is full within
	// haste of the one before is too small for the load. Then the next one may use
	// twice as much.
	firstLimit = 1 << 20
	haste      = time.Second
)

// areas are the two halves of the file, which take turns.
type areas struct {
	size     int64 // of each
	limit    int64 // of the used part of each
	halves   [2]area
	active   int
	switched time.Time
}

// area is one half of the file.
type area struct {
	used, zeroed int64
	last         uint64 // the LSN of the last record in it
}

func newAreas(size int64) areas { return areas{size: size, limit: min(firstLimit, size-blockSize)} }

// now is the area that is written to.
func (a *areas) now() *area { return &a.halves[a.active] }

// other is the area that is not written to.
func (a *areas) other() *area { return &a.halves[1-a.active] }

// base is where the present area begins.
func (a *areas) base() int64 { return int64(a.active) * a.size }

// full says whether a record of this size has no place in the present area. A record
// larger than the limit has one in an empty area.
func (a *areas) full(size int64) bool { return a.now().used+size > max(a.limit, size) }

// turn begins to use the other area from its start.
func (a *areas) turn(at time.Time) {
	if at.Sub(a.switched) < haste {
		a.limit = min(2*a.limit, a.size-blockSize)
	}
	a.switched = at
	a.active = 1 - a.active
	a.now().used, a.now().last = 0, 0
}
