package pool

import (
	"container/heap"
	"time"
)

// sleepers are the deliveries that were given back and have not come again.
//
// A nats-server (up to 2.15.3, consumer.purge) forgets its redeliveries when a part of their
// stream is purged. Then messages come only when their lease runs out. So a late one is
// given back once more, which puts it into the server's queue again. For one that is
// there this changes nothing.
//
// A delivery may never come again because its message is trimmed: its job has ended, is
// gone, or has another message. A commit makes the pool forget it at once. The others
// are forgotten when they are late; see [Pool.wakeLate].
type sleepers struct {
	bySeq map[uint64]*sleeper
	heap  sleeperHeap
}

type sleeper struct {
	seq   uint64
	ref   string
	lane  *lane
	check time.Time     // when it counts as late
	wait  time.Duration // until the check after that
	index int           // in the heap
}

// The lateness at which a delivery is given back again. The wait doubles from check to
// check.
const (
	lateAfter = 250 * time.Millisecond
	latest    = 8 * time.Second // the longest wait
)

func (s *sleepers) init() { s.bySeq = make(map[uint64]*sleeper) }

// remember expects d to come again after delay.
func (s *sleepers) remember(d *delivery, delay time.Duration) {
	s.forget(d.Seq)
	e := &sleeper{seq: d.Seq, ref: d.Ref, lane: d.lane, check: time.Now().Add(delay + lateAfter), wait: lateAfter}
	s.bySeq[d.Seq] = e
	heap.Push(&s.heap, e)
}

// forget forgets one that has come again, or is no longer needed.
func (s *sleepers) forget(seq uint64) {
	if e := s.bySeq[seq]; e != nil {
		delete(s.bySeq, seq)
		heap.Remove(&s.heap, e.index)
	}
}

// late returns the late ones and sets their next check. One whose lane has not asked
// for more is not late.
func (s *sleepers) late(now time.Time) (late []*sleeper) {
	for len(s.heap) > 0 && !s.heap[0].check.After(now) {
		e := s.heap[0]
		if e.lane.asked > 0 {
			late = append(late, e)
		}
		e.wait = min(2*e.wait, latest) // the others wait as well: a hundred thousand may wait for workers
		e.check = now.Add(e.wait)
		heap.Fix(&s.heap, 0)
	}
	return late
}

// sleeperHeap orders by the next check; see container/heap.
type sleeperHeap []*sleeper

// Len is the number of entries.
func (h sleeperHeap) Len() int { return len(h) }

// Less orders by the next check.
func (h sleeperHeap) Less(i, j int) bool { return h[i].check.Before(h[j].check) }

// Swap exchanges two entries.
func (h sleeperHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push appends an entry.
func (h *sleeperHeap) Push(x any) {
	e := x.(*sleeper)
	e.index = len(*h)
	*h = append(*h, e)
}

// Pop removes the last entry.
func (h *sleeperHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}
