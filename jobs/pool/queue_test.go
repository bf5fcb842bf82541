package pool_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

// memQueue is a queue in memory. It gives what it holds to pull requests, lane by lane in
// order, under a lease. Like the broker it knows a delivery by its message: whatever
// delivery is answered, that answers for the message.
type memQueue struct {
	mu       sync.Mutex
	stopped  bool
	lease    time.Duration
	copies   int                      // deliveries made
	messages map[uint64]*jobs.Message // in the queue
	ready    map[jobs.Lane][]uint64
	pulled   map[jobs.Lane]int
	out      map[uint64]*time.Timer // ends of what is delivered or given back, by its sequence
	calls    []string               // "ack 1", "nak 2 1s", "extend 3"
	deaf     bool                   // pull requests are refused
	deliver  chan jobs.Delivery
}

func newMemQueue(lease time.Duration) *memQueue {
	return &memQueue{
		lease: lease, messages: make(map[uint64]*jobs.Message), ready: make(map[jobs.Lane][]uint64), pulled: make(map[jobs.Lane]int),
		out: make(map[uint64]*time.Timer), deliver: make(chan jobs.Delivery, 10_000),
	}
}

// run delivers to a receiver until ctx ends.
func (q *memQueue) run(ctx context.Context, to jobs.Receiver) {
	for {
		select {
		case d := <-q.deliver:
			to.Deliver(d)
		case <-ctx.Done():
			return
		}
	}
}

func (q *memQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	for _, timer := range q.out {
		timer.Stop()
	}
}

// reset makes the lanes anew: they deliver everything again.
func (q *memQueue) reset() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, timer := range q.out {
		timer.Stop()
	}
	for len(q.deliver) > 0 {
		<-q.deliver
	}
	clear(q.out)
	clear(q.pulled)
	clear(q.ready)
	for _, seq := range slices.Sorted(maps.Keys(q.messages)) {
		m := q.messages[seq]
		l := jobs.Lane{Type: m.Type, Priority: m.Priority}
		q.ready[l] = append(q.ready[l], seq)
	}
}

// add puts a message into its lane. q.mu is locked.
func (q *memQueue) add(m *jobs.Message) {
	q.messages[m.Seq] = m
	l := jobs.Lane{Type: m.Type, Priority: m.Priority}
	q.ready[l] = append(q.ready[l], m.Seq)
	q.serve(l)
}

func (q *memQueue) Pull(l jobs.Lane, n int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.deaf {
		return errors.New("no connection")
	}
	q.pulled[l] += n
	q.serve(l)
	return nil
}

// serve answers the pull requests of a lane. q.mu is locked.
func (q *memQueue) serve(l jobs.Lane) {
	for q.pulled[l] > 0 && len(q.ready[l]) > 0 {
		seq := q.ready[l][0]
		q.ready[l] = q.ready[l][1:]
		q.pulled[l]--
		q.copies++
		q.out[seq] = time.AfterFunc(q.lease, func() { q.again(seq, "expired") })
		q.deliver <- jobs.Delivery{Lane: l, Seq: seq, Ref: fmt.Sprintf("%d#%d", seq, q.copies)}
	}
}

// again puts a delivery back into its lane.
func (q *memQueue) again(seq uint64, why string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	timer := q.out[seq]
	if timer == nil || q.stopped {
		return
	}
	timer.Stop()
	delete(q.out, seq)
	if why != "" {
		q.calls = append(q.calls, fmt.Sprintf("%s %d", why, seq))
	}
	m := q.messages[seq]
	l := jobs.Lane{Type: m.Type, Priority: m.Priority}
	at, _ := slices.BinarySearch(q.ready[l], seq) // the broker, too, has those that come again in order, before new ones
	q.ready[l] = slices.Insert(q.ready[l], at, seq)
	q.serve(l)
}

// remove removes a message from the queue: it never comes again. q.mu is locked.
func (q *memQueue) remove(seq uint64) {
	m := q.messages[seq]
	if m == nil {
		return
	}
	delete(q.messages, seq)
	if timer := q.out[seq]; timer != nil {
		timer.Stop()
		delete(q.out, seq)
		return
	}
	l := jobs.Lane{Type: m.Type, Priority: m.Priority}
	q.ready[l] = slices.DeleteFunc(q.ready[l], func(s uint64) bool { return s == seq })
}

func (q *memQueue) Ack(d jobs.Delivery) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.messages[d.Seq] == nil {
		q.calls = append(q.calls, "ack of nothing")
		return nil
	}
	q.remove(d.Seq)
	q.calls = append(q.calls, fmt.Sprintf("ack %d", d.Seq))
	return nil
}

func (q *memQueue) Nak(ref string, delay time.Duration) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	seq := refSeq(ref)
	timer := q.out[seq]
	if timer == nil {
		q.calls = append(q.calls, "nak of nothing")
		return nil
	}
	timer.Stop()
	q.calls = append(q.calls, fmt.Sprintf("nak %d %s", seq, delay.Round(10*time.Millisecond)))
	q.out[seq] = time.AfterFunc(delay, func() { q.again(seq, "") })
	return nil
}

func (q *memQueue) Extend(ref string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	seq := refSeq(ref)
	if timer := q.out[seq]; timer != nil {
		timer.Reset(q.lease)
		q.calls = append(q.calls, fmt.Sprintf("extend %d", seq))
	}
	return nil
}

// refSeq is the message of a delivery.
func refSeq(ref string) uint64 {
	text, _, _ := strings.Cut(ref, "#")
	seq, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return seq
}

// said lists the queue's calls since the last time, of these kinds ("" = all but
// extend).
func (q *memQueue) said(kinds ...string) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(kinds) == 0 {
		kinds = []string{"ack", "nak", "expired"}
	}
	var found []string
	for _, c := range q.calls {
		if word, _, _ := strings.Cut(c, " "); slices.Contains(kinds, word) {
			found = append(found, c)
		}
	}
	q.calls = nil
	return strings.Join(found, ", ")
}

// saidSorted is said, for calls of several workers.
func (q *memQueue) saidSorted() string {
	calls := strings.Split(q.said(), ", ")
	slices.Sort(calls)
	return strings.Join(calls, ", ")
}

// TestMemQueue: the queue of the pool's tests behaves like the broker's.
func TestMemQueue(t *testing.T) {
	jobstest.TestQueue(t, synctest.Test, func(t *testing.T, _ []jobs.Lane, r jobs.Receiver) jobstest.Rig {
		const lease = time.Second
		q := newMemQueue(lease)
		ctx, stop := context.WithCancel(t.Context())
		go q.run(ctx, r)
		t.Cleanup(func() {
			q.close()
			stop()
		})
		seq := uint64(0)
		return jobstest.Rig{Queue: q, Lease: lease, Sweep: func() {}, Put: func(l jobs.Lane) uint64 {
			q.mu.Lock()
			defer q.mu.Unlock()
			seq++
			q.add(&jobs.Message{Seq: seq, Type: l.Type, Priority: l.Priority})
			return seq
		}}
	})
}
