package joblog

import (
	"cmp"
	"slices"
	"time"
)

// Parts are what several folders keep of one job's log, each oldest first.
type Parts [][]Entry

// Merge returns the entries of all parts, by attempt and moment. They are numbered anew;
// where entries of a part are missing, the numbers have the same gap.
func (p Parts) Merge() []Entry {
	type numbered struct {
		Entry
		step int       // from the entry of its part before
		from time.Time // not before that one, even if the clock was set back
	}
	var all []numbered
	for _, part := range p {
		last := 0
		var latest time.Time
		for _, e := range part {
			if e.At.After(latest) {
				latest = e.At
			}
			all = append(all, numbered{e, e.N - last, latest})
			last = e.N
		}
	}
	slices.SortStableFunc(all, func(a, b numbered) int {
		return cmp.Or(cmp.Compare(a.Attempt, b.Attempt), a.from.Compare(b.from))
	})
	out, n := make([]Entry, len(all)), 0
	for i := range all {
		n += all[i].step
		out[i] = all[i].Entry
		out[i].N = n
	}
	return out
}

// Pick returns those entries that are wanted.
func (q Query) Pick(all []Entry) []Entry {
	if q.Attempt > 0 {
		all = slices.DeleteFunc(all, func(e Entry) bool { return e.Attempt != q.Attempt })
	}
	if q.Tail > 0 && len(all) > q.Tail {
		all = all[len(all)-q.Tail:]
	}
	return all
}
