package broker

import (
	"slices"
	"sync"
	"time"

	"jobstream/jobs"
)

// heldAcks are acks that have not been sent, since their messages are about to be
// trimmed, and with its message the server forgets the delivery. To publish, parse and
// route an ack, and to look for the lane's next message without one, is a tenth of
// what a job costs.
//
// Only what comes in numbers is held back, for two turns at most (see
// [Broker.SendAcks]), and little where that did not pay: while an unfinished job stands
// before all others nothing is trimmed, and what was held back goes out in bursts. Nobody
// depends on it. Whatever is acknowledged has ended, and if it comes again it is looked
// up and dropped.
type heldAcks struct {
	mu   sync.Mutex
	list []heldAck
	aged int // so many of the list were there at the last turn
	most int // may be in the list; 0 before the first one is
	// Since the last turn:
	since   int // acks
	dropped int // acks that were not needed any more
	trimmed bool
	closed  bool
}

type heldAck struct {
	seq uint64
	ref string
}

const (
	// promptAcks are sent at once, of those between two turns.
	promptAcks = 64
	// firstHeldAcks may be held back at first. A turn that saved more than it had to
	// send lets four times as many be held back, up to mostHeldAcks; one that did not, a
	// sixteenth, down to leastHeldAcks.
	firstHeldAcks = 1 << 14
	mostHeldAcks  = 1 << 17
	leastHeldAcks = 1 << 8
	// holdLease is the shortest lease with which any are.
	holdLease = 10 * time.Second
)

// hold takes an ack that need not be sent yet.
func (h *heldAcks) hold(d *jobs.Delivery) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.since++
	if h.most == 0 {
		h.most = firstHeldAcks
	}
	if h.closed || h.since <= promptAcks || len(h.list) >= h.most {
		return false
	}
	h.list = append(h.list, heldAck{d.Seq, d.Ref})
	return true
}

// trim forgets the acks up to and with a sequence.
func (h *heldAcks) trim(upTo uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trimmed = true
	kept, aged := h.list[:0], 0
	for i, a := range h.list {
		if a.seq <= upTo {
			continue
		}
		kept = append(kept, a)
		if i < h.aged {
			aged++
		}
	}
	h.dropped += len(h.list) - len(kept)
	clear(h.list[len(kept):])
	h.list, h.aged = kept, aged
}

// turn returns those that have to be sent now: all if there was no trim since the last
// turn, else the ones of before that.
func (h *heldAcks) turn() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.aged
	if !h.trimmed {
		n = len(h.list)
	}
	switch {
	case h.dropped > n:
		h.most = min(4*h.most, mostHeldAcks)
	case n > leastHeldAcks/2:
		h.most = max(h.most/16, leastHeldAcks)
	}
	h.since, h.dropped, h.trimmed = 0, 0, false
	return h.take(n)
}

// close has nothing held back from now on, or things again, and returns what has been.
func (h *heldAcks) close(closed bool) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = closed
	return h.take(len(h.list))
}

// take takes the first n out. What is left has seen a turn. h.mu is held.
func (h *heldAcks) take(n int) (refs []string) {
	for _, a := range h.list[:n] {
		refs = append(refs, a.ref)
	}
	h.list = slices.Delete(h.list, 0, n)
	h.aged = len(h.list)
	return refs
}

// Ack ends a delivery for good. Of many in a short time most are not sent at once, and
// not at all if [Broker.Trim] removes their messages; see [Broker.SendAcks].
func (b *Broker) Ack(d jobs.Delivery) error {
	if b.o.Lease >= holdLease && b.acks.hold(&d) {
		return nil
	}
	return b.settle(d.Ref, nil)
}

// SendAcks sends acks that were held back and that trims did not make needless. Whoever
// trims calls it after that, once a second; an ack is held back until the second call at
// most.
func (b *Broker) SendAcks() error { return b.sendAcks(b.acks.turn()) }

func (b *Broker) sendAcks(refs []string) error {
	for _, ref := range refs {
		if err := b.settle(ref, nil); err != nil {
			return err
		}
	}
	return nil
}
