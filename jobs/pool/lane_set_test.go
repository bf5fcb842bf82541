package pool

import (
	"slices"
	"testing"
)

func TestLaneSet(t *testing.T) {
	const size = 200
	s, every := makeLaneSet(size), makeLaneSet(size)
	for n := range size {
		every.include(n)
	}
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
				if got := s.nextIn(every, at, end); got != want {
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

// TestLaneSetsMeet: only what is in both sets counts.
func TestLaneSetsMeet(t *testing.T) {
	const size = 200
	a, b := makeLaneSet(size), makeLaneSet(size)
	var both []int
	for n := range size {
		if n%3 == 0 {
			a.include(n)
		}
		if n%7 == 0 {
			b.include(n)
		}
		if n%21 == 0 {
			both = append(both, n)
		}
	}
	var got []int
	for n := a.nextIn(b, 0, size); n < size; n = a.nextIn(b, n+1, size) {
		got = append(got, n)
	}
	if !slices.Equal(got, both) {
		t.Errorf("got %v, want %v", got, both)
	}
}
