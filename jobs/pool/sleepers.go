package pool

import (
	"container/heap"
	"time"
)

// sleepers are the deliveries that were given back and have not come again.
//
// A nats-server (2.15.2, consumer.purge) forgets which messages it was about to
// deliver again when a part of their stream is purged: they come only when their
// lease runs out. So whatever is late is given back once more, which puts it
// into the server's queue again; for one that is there this changes nothing.
//
// A delivery whose job has ended, has another message by now or is gone may never
// come, as its message is trimmed. What commits tell of is forgotten at once, the rest
// when it is late; see [Pool.wakeLate].
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

// How long after its time a delivery counts as late; the wait doubles from check
// to check.
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

// forget forgets one: it has come again, or need not come any more.
func (s *sleepers) forget(seq uint64) {
	if e := s.bySeq[seq]; e != nil {
		delete(s.bySeq, seq)
		heap.Remove(&s.heap, e.index)
	}
}

// late returns those that are late and sets their next check. One that waits
// because nobody has asked for more of its lane is in order.
func (s *sleepers) late(now time.Time) (late []*sleeper) {
	for len(s.heap) > 0 && !s.heap[0].check.After(now) {
		e := s.heap[0]
		if e.lane.asked > 0 {
			late = append(late, e)
		}
		e.wait = min(2*e.wait, latest) // for the others, too: a hundred thousand may wait their turn
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
