package pool

import "math/bits"

// laneSet is a set of positions in a row of lanes, a bit for each.
type laneSet []uint64

func makeLaneSet(size int) laneSet { return make(laneSet, (size+63)/64) }

func (s laneSet) include(n int) { s[n/64] |= 1 << (n % 64) }

func (s laneSet) remove(n int) { s[n/64] &^= 1 << (n % 64) }

// nextIn returns the first position that is in both sets, from at on and before end;
// otherwise end.
func (s laneSet) nextIn(other laneSet, at, end int) int {
	for at < end {
		if w := (s[at/64] & other[at/64]) >> (at % 64); w != 0 {
			return min(at+bits.TrailingZeros64(w), end)
		}
		at += 64 - at%64
	}
	return end
}
