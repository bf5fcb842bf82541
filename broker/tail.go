package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobstream/jobs"
)

// Tail owns the messages that ended jobs leave in JOBS, and the acks of these:
//
//  1. The tracker knows which messages are needed: those of jobs that have not ended and
//     wait nowhere else. Every other message up to the tracker's position is dead.
//  2. A sweep comes once a second, and at once when half a queue has died. It purges
//     everything below the lowest message needed. A few dead messages wait longer, since a
//     purge makes lanes forget redeliveries (see pool.Pool).
//  3. A long job keeps that floor down. If half a queue is dead above the floor, each lane
//     is purged below its own lowest message needed.
//  4. Dead messages behind a long job in its own lane stay even then, until there are half
//     as many more. They cost nobody a place: the stream's bound is lifted by their number.
//  5. A message that the tracker has not read is not dead. Otherwise a flood of messages
//     would make room for more of itself.
//  6. Acks of messages near the last purge are deferred to the next sweep. The server
//     forgets a delivery with its message, so the sweep sends only the acks of those that
//     were not purged.
//  7. Nothing depends on an ack: a message that is delivered again is looked up and dropped.
//  8. If JOBS begins above the lowest message needed, somebody else has removed messages.
//     They are published again.
//
// A Tail is the Queue of a pool: all calls but Ack go straight to the lanes.
type Tail struct {
	*Lanes
	streams *Streams
	needs   Needs
	removed func(ctx context.Context, upTo uint64) error
	kick    chan struct{}
	died    atomic.Int64 // messages that had ever died at the last sweep

	sweeping sync.Mutex // one sweep at a time; guards last and left
	last     time.Time  // when the messages below the floor were purged
	left     int        // dead messages that were left when each lane was purged

	mu     sync.Mutex // guards purged and unsent
	purged uint64     // up to here everything is gone
	unsent []unsentAck
}

// Needs is a tracker's knowledge of the messages in JOBS.
type Needs interface {
	// Positions are those up to which the tracker has read.
	Positions() jobs.Positions
	// Floor is the lowest sequence that is needed, or the next one of all if none is;
	// queued is the number of messages needed.
	Floor() (floor uint64, queued int)
	// Queued calls f with the lane and the sequence of every message needed.
	Queued(ctx context.Context, f func(lane jobs.Lane, seq uint64)) error
}

type unsentAck struct {
	seq uint64
	ref string
}

const (
	sweepEvery   = time.Second
	sweepApart   = 10 * time.Millisecond // when it is urgent
	purgeMany    = 1024                  // fewer messages wait
	purgeFew     = 5 * time.Second       // as long as this
	unsentWithin = 1 << 16               // messages after the last purge
)

// NewTail returns the tail of JOBS. removed is called when somebody else has removed needed
// messages: JOBS has none up to the sequence upTo any more.
func NewTail(b *Broker, needs Needs, removed func(ctx context.Context, upTo uint64) error) *Tail {
	return &Tail{Lanes: b.Lanes, streams: b.Streams, needs: needs, removed: removed, kick: make(chan struct{}, 1)}
}

// Ack ends a delivery of a message that is dead, at the latest with the next sweep.
func (t *Tail) Ack(d jobs.Delivery) error {
	if t.wait(d) {
		return nil
	}
	return t.Lanes.Ack(d)
}

func (t *Tail) wait(d jobs.Delivery) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d.Seq > t.purged+unsentWithin {
		return false
	}
	if d.Seq > t.purged {
		t.unsent = append(t.unsent, unsentAck{d.Seq, d.Ref})
	}
	return true
}

// Committed asks for a sweep if half a queue has died since the last one.
func (t *Tail) Committed(c *jobs.Commit) {
	if diedUpTo(c.Positions.Jobs, c.Load.Queued)-t.died.Load() >= int64(t.half()) {
		select {
		case t.kick <- struct{}{}:
		default:
		}
	}
}

// diedUpTo is the number of messages up to a position that have ever died, if so many are
// needed.
func diedUpTo(position uint64, queued int) int64 { return int64(position) - int64(queued) } //nolint:gosec // no stream has 2^63 messages

func (t *Tail) half() int { return max(t.server.o.QueueSize/2, 1) }

// Run sweeps until ctx ends.
func (t *Tail) Run(ctx context.Context) error {
	tick := time.NewTicker(min(sweepEvery, t.server.o.Lease/4))
	defer tick.Stop()
	for {
		select {
		case <-t.kick:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := t.Sweep(ctx); err != nil && ctx.Err() == nil {
			t.server.log.Warn("cannot trim the JOBS stream; trying again", "error", err)
		}
		pause := time.NewTimer(sweepApart)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil
		}
	}
}

// Sweep removes dead messages, and then sends the acks that are still needed.
func (t *Tail) Sweep(ctx context.Context) error {
	t.sweeping.Lock()
	defer t.sweeping.Unlock()
	return errors.Join(t.trim(ctx), t.sendAcks())
}

func (t *Tail) sendAcks() error {
	t.mu.Lock()
	unsent, purged := t.unsent, t.purged
	t.unsent = make([]unsentAck, 0, len(unsent))
	t.mu.Unlock()
	for _, a := range unsent {
		if a.seq <= purged {
			continue
		}
		if err := t.answer(a.ref, nil); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tail) trim(ctx context.Context) error {
	position := t.needs.Positions().Jobs // read first: later messages do not count
	floor, queued := t.needs.Floor()
	t.died.Store(diedUpTo(position, queued))
	if err := t.purgeBelow(ctx, floor); err != nil {
		return err
	}
	state, err := t.streams.Jobs(ctx)
	if err != nil {
		return err
	}
	if state.First > floor && queued > 0 {
		return t.removed(ctx, state.First-1)
	}
	dead := deadIn(state, position, queued)
	if dead-min(t.left, dead) > max(t.server.o.QueueSize, t.left)/2 {
		if err := t.purgeLanes(ctx, state.First, position); err != nil {
			return err
		}
		if state, err = t.streams.Jobs(ctx); err != nil {
			return err
		}
		dead = deadIn(state, position, queued)
		t.left = dead
	}
	t.left = min(t.left, dead)
	// Rounded to half a queue, so that the stream is not configured anew all the time.
	return t.streams.SetSlack(ctx, (dead+t.half()/2)/t.half()*t.half())
}

// deadIn is the number of dead messages in JOBS: those up to the tracker's position that
// are not needed.
func deadIn(state StreamState, position uint64, queued int) int {
	unread := max(state.Last, position) - position
	return max(int(state.Msgs-min(unread, state.Msgs))-queued, 0) //nolint:gosec // fewer than 2^63
}

// purgeBelow removes everything below the floor. A few messages stay for some seconds.
func (t *Tail) purgeBelow(ctx context.Context, floor uint64) error {
	t.mu.Lock()
	below := floor - 1 - min(t.purged, floor-1)
	t.mu.Unlock()
	many := below >= uint64(min(purgeMany, t.half())) //nolint:gosec // not negative
	if below == 0 || !many && time.Since(t.last) < purgeFew {
		return nil
	}
	if err := t.streams.PurgeJobs(ctx, floor-1); err != nil {
		return err
	}
	t.last = time.Now()
	t.mu.Lock()
	t.purged = floor - 1
	t.mu.Unlock()
	return nil
}

// purgeLanes removes the dead messages of each lane below the lowest message that the lane
// needs, up to the position. The server walks over the whole stream for each lane. So
// lanes without dead messages, or with none above the stream's first one, are passed over.
func (t *Tail) purgeLanes(ctx context.Context, first, position uint64) error {
	s, err := t.streams.find(ctx, JobsStream)
	if err != nil {
		return err
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(jobsSubjects))
	if err != nil {
		return fmt.Errorf("cannot look into stream %s: %w", JobsStream, err)
	}
	type lane struct{ lowest, queued uint64 }
	lanes := make(map[string]lane)
	err = t.needs.Queued(ctx, func(l jobs.Lane, seq uint64) {
		if seq > position {
			return
		}
		known := lanes[laneSubject(l)]
		if known.queued++; known.queued == 1 || seq < known.lowest {
			known.lowest = seq
		}
		lanes[laneSubject(l)] = known
	})
	if err != nil {
		return err
	}
	for subject, messages := range info.State.Subjects {
		floor := position + 1
		if l, ok := lanes[subject]; ok {
			if messages <= l.queued {
				continue
			}
			floor = l.lowest
		}
		if floor <= first {
			continue
		}
		if err := s.Purge(ctx, jetstream.WithPurgeSubject(subject), jetstream.WithPurgeSequence(floor)); err != nil {
			return fmt.Errorf("cannot trim %s in stream %s: %w", subject, JobsStream, err)
		}
	}
	return nil
}
