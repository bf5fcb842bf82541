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

// Tail owns what jobs leave behind in JOBS, and the acks of that:
//
//  1. The tracker knows which messages are needed: those of jobs that have not ended and
//     wait nowhere else. Every other one up to its position is dead.
//  2. A sweep, once a second and at once when half a queue has died, purges what lies
//     below the lowest message needed. Not for a few, since a purge makes lanes forget
//     what they were about to deliver again (see jobs.Pool).
//  3. A job that runs long holds that floor down. With half a queue dead all the same,
//     each lane is purged below its own lowest message needed.
//  4. What is dead even then, behind that job in its own lane, is left alone until there
//     is half as much more, and takes nobody's place: the stream's bound is lifted by it.
//  5. What the tracker has not read yet is not dead: a flood of it must not make room for
//     more of itself.
//  6. Acks of the messages next to the last purge wait for the next sweep. The server
//     forgets a delivery with its message, so only those that were not purged are sent.
//  7. Nothing depends on an ack: who gets such a message again looks it up and drops it.
//  8. If JOBS begins above the lowest message needed, somebody else has removed some, and
//     they are published again.
//
// It is the Queue of a pool: all but the acks goes straight to the broker's lanes.
type Tail struct {
	*Lanes
	streams *Streams
	needs   Needs
	removed func(ctx context.Context, upTo uint64) error
	kick    chan struct{}
	died    atomic.Int64 // messages that had ever died at the last sweep

	sweeping sync.Mutex // one sweep at a time; it guards what follows
	last     time.Time  // when what lies below the floor was purged
	left     int        // dead messages that purging each lane has left

	mu     sync.Mutex // guards what follows
	purged uint64     // up to here everything is gone
	unsent []unsentAck
}

// Needs is what a tracker knows of the messages in JOBS.
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

// NewTail returns the tail of JOBS. removed is called when somebody else has removed
// messages that are needed: none up to a sequence is there any more.
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

// diedUpTo is how many messages have ever died up to a position with so many that are
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

// Sweep removes what is dead, and then sends the acks that this has not made needless.
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
	position := t.needs.Positions().Jobs // before the others: what is behind it does not count
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
	// To the next half of a queue, so that the stream is not configured anew all the time.
	return t.streams.SetSlack(ctx, (dead+t.half()/2)/t.half()*t.half())
}

// deadIn is how many messages of JOBS are dead: those up to a position of the tracker but
// for the ones that are needed.
func deadIn(state StreamState, position uint64, queued int) int {
	unread := max(state.Last, position) - position
	return max(int(state.Msgs-min(unread, state.Msgs))-queued, 0) //nolint:gosec // fewer than 2^63
}

// purgeBelow removes everything below the floor, unless that is not much.
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

// purgeLanes removes what is dead in each lane below the lowest message that it needs.
// For each one the server walks over the whole stream, so lanes without dead messages,
// or with none above the first message of all, are passed over. So is what comes after
// the position.
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
