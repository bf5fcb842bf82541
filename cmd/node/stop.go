package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"jobstream/broker"
	"jobstream/jobs"
	"jobstream/jobs/fsync"
	"jobstream/status"
)

// stopTaking ends the taking of jobs through both doors, and the workers, which have until
// the end of ctx. Lookups go on.
func (c *core) stopTaking(ctx context.Context) error {
	c.stopSchedules()
	c.Submitter.Drain()
	c.Waits.Close()
	c.Broker.Lanes.Close()
	return c.Pool.Stop(ctx)
}

// abandon ends a core that has broken: handlers are interrupted, what has been read is
// committed, and the next start finds the folder as after a crash.
func (c *core) abandon(why error) {
	c.stopSchedules()
	c.Submitter.Drain()
	c.Waits.Close()
	c.Broker.Lanes.Close()
	c.Pool.Break()
	_ = c.end(why) // it is no clean end, and the next start expects none
}

// close ends the rest after stopTaking, in the order in which the parts
// depend on each other, so that the next start finds everything settled.
func (c *core) close() error { return c.end(c.health.broker()) }

// end is close; sick is why nothing can be settled, if so.
func (c *core) end(sick error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := c.Broker.Service.Stop()
	// What is sick may have lost what it acknowledged, and takes nothing more: that
	// is no clean stop, and nothing is worth waiting for.
	var mark status.Clean
	settled := sick
	if settled == nil {
		mark, settled = c.settle(ctx)
	}
	// What bare publishers have sent since then may end with the last commit, so
	// the projector stops before those who tell of it.
	c.stopProjector()
	if settled == nil {
		settled = c.awaitProjected(ctx)
	}
	c.loops.end()
	err = errors.Join(err, settled, c.Broker.Flush())
	c.Broker.Close()
	if err == nil {
		err = fsync.Tree(c.o.dirs.Broker) // the mark promises that it is all there
	}
	if err == nil {
		err = c.Store.MarkClean(mark)
	}
	return errors.Join(err, c.Store.Close())
}

// settle waits until the tracker has folded all that is in the streams, and all
// notifications are stored.
func (c *core) settle(ctx context.Context) (mark status.Clean, err error) {
	if err := c.Broker.Flush(); err != nil {
		return mark, err
	}
	pos, err := ends(ctx, c.Store, c.Broker)
	if err != nil {
		return mark, err
	}
	if err := c.Store.WaitPublished(ctx, pos); err != nil {
		return mark, err
	}
	if err := c.notifier.caughtUp(ctx); err != nil {
		return mark, err
	}
	return status.Clean{Jobs: pos.Jobs, Status: pos.Status}, nil
}

// awaitProjected waits until the last commit has been told, and notified: the
// mark of a clean stop drops the outbox.
func (c *core) awaitProjected(ctx context.Context) error {
	select {
	case <-c.projected:
		return c.notifier.caughtUp(ctx)
	case <-ctx.Done():
		return fmt.Errorf("the tracker does not stop: %w", ctx.Err())
	}
}

// ends are the sequences that the tracker must reach to have folded both
// streams.
func ends(ctx context.Context, s *status.Store, b *broker.Broker) (jobs.Positions, error) {
	inJobs, err := b.Streams.Jobs(ctx)
	if err != nil {
		return jobs.Positions{}, err
	}
	inStatus, err := b.Streams.Status(ctx)
	if err != nil {
		return jobs.Positions{}, err
	}
	pos := s.Positions()
	if inJobs.Msgs > 0 {
		pos.Jobs = max(pos.Jobs, inJobs.Last)
	}
	if inStatus.Msgs > 0 {
		pos.Status = max(pos.Status, inStatus.Last)
	}
	return pos, nil
}
