package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"jobstream/broker"
	"jobstream/jobs"
)

// trimmer takes out of JOBS what the tracker knows as ended: once a second, and
// at once when it is about to fill the stream.
type trimmer struct {
	n       *node
	kick    chan struct{}
	trimmed atomic.Uint64 // everything up to here is gone
	mu      sync.Mutex    // one trim at a time: bench asks for one, too
	last    time.Time     // of a purge
}

// Times of trimming.
const (
	trimEvery   = time.Second
	trimFew     = 5 * time.Second // what is less than trimMany waits so long
	trimMany    = 1024
	trimAtLeast = 10 * time.Millisecond // between two trims when it is urgent
)

// roomyQueue is the queue size from which a stream that is half full has room
// for whatever may come before the next commit.
const roomyQueue = 10_000

// committed asks for a trim when the stream holds half a queue of what the
// tracker may know as ended.
func (t *trimmer) committed(c *jobs.Commit) {
	inStream := int64(c.Position) - int64(t.trimmed.Load())
	t.n.broker.SetRoom(t.n.o.queueSize >= roomyQueue && inStream < int64(t.n.o.queueSize))
	if dead := inStream - int64(c.Queued); dead > 0 && dead*2 >= int64(t.n.o.queueSize) {
		select {
		case t.kick <- struct{}{}:
		default:
		}
	}
}

func (t *trimmer) run(ctx context.Context) error {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		routine := false
		select {
		case <-t.kick:
		case <-tick.C:
			routine = true
		case <-ctx.Done():
			return nil
		}
		if err := t.trim(ctx); err != nil && ctx.Err() == nil {
			t.n.log.Warn("cannot trim the JOBS stream; trying again", "error", err)
		}
		if routine {
			if err := t.n.broker.SendAcks(); err != nil {
				t.n.log.Warn("jobs that have ended are delivered again when their lease ends, and dropped", "error", err)
			}
		}
		pause := time.NewTimer(trimAtLeast)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil
		}
	}
}

// trim removes everything below the lowest unfinished job. When one job holds
// the floor down while others pass, it goes lane by lane, and the stream's bound
// is lifted by what still has to stay.
func (t *trimmer) trim(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	position := t.n.store.Positions().Jobs // first, as below what is behind it is taken for unknown
	floor, queued := t.n.store.Floor()
	// A purge makes lanes forget what they are about to deliver again (see
	// jobs.Pool), so it is not done for a few messages.
	if dead := floor - 1 - t.trimmed.Load(); dead >= uint64(min(trimMany, max(t.n.o.queueSize/2, 1))) || dead > 0 && time.Since(t.last) >= trimFew {
		t.last = time.Now()
		if err := t.n.broker.Trim(ctx, floor-1); err != nil {
			return err
		}
		t.trimmed.Store(floor - 1)
	}
	state, err := t.n.broker.JobsState(ctx)
	if err != nil {
		return err
	}
	if state.First > floor && queued > 0 {
		return t.restore(ctx, state.First)
	}
	dead := deadMessages(state, position, queued)
	if dead > t.n.o.queueSize/2 && dead > queued {
		if state, err = t.trimLanes(ctx); err != nil {
			return err
		}
		_, queued = t.n.store.Floor()
		dead = deadMessages(state, position, queued)
	}
	// Steps of half a queue, so that the stream isn't configured anew all the time.
	step := max(t.n.o.queueSize/2, 1)
	extra := 0
	if dead > step/2 {
		extra = (dead/step + 1) * step
	}
	return t.n.broker.SetSlack(ctx, extra)
}

// deadMessages is how many messages of JOBS are of jobs that have ended: those up to a
// position of the tracker without the queued jobs there. What is behind it may be a
// flood that the tracker has not read yet, and must not make room for more of it.
func deadMessages(state broker.StreamState, position uint64, queued int) int {
	unread := max(state.Last, position) - position
	return int(state.Msgs) - int(min(unread, state.Msgs)) - queued //nolint:gosec // fewer than 2^63
}

// trimLanes trims every lane up to its own lowest unfinished job.
func (t *trimmer) trimLanes(ctx context.Context) (state broker.StreamState, err error) {
	// What comes after this position is not looked at below.
	position := t.n.store.Positions().Jobs
	floors := make(map[jobs.Lane]uint64)
	err = t.n.store.Unfinished(ctx, func(some []*jobs.Job) error {
		for _, j := range some {
			if low, ok := floors[j.Lane()]; !ok || j.Seq < low {
				floors[j.Lane()] = j.Seq
			}
		}
		return nil
	})
	if err != nil {
		return state, err
	}
	for _, l := range t.n.lanes {
		upTo := position
		if low, ok := floors[l]; ok {
			upTo = min(upTo, low-1)
		}
		if err := t.n.broker.TrimLane(ctx, l, upTo); err != nil {
			return state, err
		}
	}
	return t.n.broker.JobsState(ctx)
}

// restore publishes again what somebody else has taken out of JOBS: nothing
// below the floor is unfinished, and nothing above it is trimmed here.
func (t *trimmer) restore(ctx context.Context, first uint64) error {
	count, err := t.n.republish(ctx, first-1)
	if err != nil {
		return err
	}
	t.n.log.Warn("messages of unfinished jobs were removed from the JOBS stream; they have been published again", "jobs", count)
	return nil
}
