package pool

import (
	"slices"
	"testing"
)

func TestLaneSet(t *testing.T) {
	const size = 200
	s := makeLaneSet(size)
	all := []int{0, 1, 62, 63, 64, 127, 128, 199}
	for _, n := range all {
		s.include(n)
	}
	check := func() {
		t.Helper()
		for at := range size + 1 {
			for end := at; end <= size; end++ {
				want := end
				if i := slices.IndexFunc(all, func(n int) bool { return n >= at && n < end }); i >= 0 {
					want = all[i]
				}
				if got := s.next(at, end); got != want {
					t.Fatalf("from %d to %d of %v: %d, want %d", at, end, all, got, want)
				}
			}
		}
	}
	check()
	for len(all) > 0 {
		n := all[len(all)/2]
		s.remove(n)
		all = slices.DeleteFunc(all, func(m int) bool { return m == n })
		check()
	}
}
