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
	gone    atomic.Uint64 // sequences that have no message any more, up to the position
	left    atomic.Int64  // dead messages that trimming every lane could not take out
	mu      sync.Mutex    // one trim at a time: bench asks for one, too
	trimmed uint64        // everything up to here is gone
	last    time.Time     // of a purge
	tried   time.Time     // when lanes were trimmed
}

// Times of trimming.
const (
	trimEvery   = time.Second
	trimFew     = 5 * time.Second // what is less than trimMany waits so long
	trimMany    = 1024
	trimAgain   = 30 * time.Second      // what could not be taken out of the lanes
	trimAtLeast = 10 * time.Millisecond // between two trims when it is urgent
)

// committed asks for a trim when the stream holds half a queue of what the
// tracker may know as ended.
func (t *trimmer) committed(c *jobs.Commit) {
	inStream := int64(c.Positions.Jobs) - int64(t.gone.Load())
	if fresh := inStream - int64(c.Load.Queued) - t.left.Load(); fresh > 0 && fresh*2 >= int64(t.n.o.queueSize) {
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
	if dead := floor - 1 - t.trimmed; dead >= uint64(min(trimMany, max(t.n.o.queueSize/2, 1))) || dead > 0 && time.Since(t.last) >= trimFew {
		t.last = time.Now()
		if err := t.n.broker.Trim(ctx, floor-1); err != nil {
			return err
		}
		t.trimmed = floor - 1
	}
	state, err := t.n.broker.JobsState(ctx)
	if err != nil {
		return err
	}
	if state.First > floor && queued > 0 {
		return t.restore(ctx, state.First)
	}
	dead := deadMessages(state, position, queued)
	left := min(int(t.left.Load()), dead)
	// A job that runs long holds all of its lane behind it, so what could not be taken out
	// is left alone for a while, or until there is half as much more.
	if time.Since(t.tried) >= trimAgain {
		left = 0
	}
	if fresh := dead - left; fresh > t.n.o.queueSize/2 && fresh > left/2 && dead > queued {
		every, err := t.trimLanes(ctx, state)
		if err != nil {
			return err
		}
		t.tried = time.Now()
		position = t.n.store.Positions().Jobs
		_, queued = t.n.store.Floor()
		if state, err = t.n.broker.JobsState(ctx); err != nil {
			return err
		}
		dead, left = deadMessages(state, position, queued), 0
		if every {
			left = max(dead, 0)
		}
	}
	t.left.Store(int64(left))
	t.gone.Store(position - uint64(min(messagesUpTo(state, position), int(position)))) //nolint:gosec // neither is negative
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
	return messagesUpTo(state, position) - queued
}

// messagesUpTo is how many messages JOBS has up to a position of the tracker.
func messagesUpTo(state broker.StreamState, position uint64) int {
	unread := max(state.Last, position) - position
	return int(state.Msgs - min(unread, state.Msgs)) //nolint:gosec // fewer than 2^63
}

// The lanes that are trimmed together, from the many to the few.
var trimGroups = []func(jobs.Lane) jobs.Lane{
	func(l jobs.Lane) jobs.Lane { return jobs.Lane{Priority: l.Priority} },
	func(l jobs.Lane) jobs.Lane { return jobs.Lane{Type: l.Type} },
	func(l jobs.Lane) jobs.Lane { return l },
}

// trimLanes takes out what has ended above the lowest unfinished job of all, up to the
// lowest one of a lane. To take out what one lane has, the server walks over the whole
// stream, so whole priorities are tried first, then types, and single lanes last, until
// half of what is dead is gone. every says that it came to the last of them.
func (t *trimmer) trimLanes(ctx context.Context, state broker.StreamState) (every bool, err error) {
	// What comes after this position is not looked at below.
	position := t.n.store.Positions().Jobs
	floors, queued := make(map[jobs.Lane]uint64), 0
	for _, l := range t.n.lanes {
		floors[l] = position + 1
	}
	err = t.n.store.Queued(ctx, func(lane jobs.Lane, seq uint64) {
		if seq > position {
			return
		}
		queued++
		if low, ok := floors[lane]; !ok || seq < low {
			floors[lane] = seq
		}
	})
	if err != nil {
		return false, err
	}
	enough := deadMessages(state, position, queued) / 2
	for _, group := range trimGroups {
		lowest := make(map[jobs.Lane]uint64)
		for l, floor := range floors {
			if low, ok := lowest[group(l)]; !ok || floor < low {
				lowest[group(l)] = floor
			}
		}
		for g, floor := range lowest {
			if floor <= state.First {
				continue // nothing of it is below
			}
			if err := t.n.broker.TrimLane(ctx, g, floor-1); err != nil {
				return false, err
			}
		}
		if state, err = t.n.broker.JobsState(ctx); err != nil || deadMessages(state, position, queued) <= enough {
			return false, err
		}
	}
	return true, nil
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
