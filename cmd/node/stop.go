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

// drain closes both doors to new jobs and ends the workers, which have until the end of
// ctx. Lookups go on.
func (c *core) drain(ctx context.Context) error {
	if c.o.member != nil {
		// Submissions go on while jobs end: the next leader has those that come meanwhile.
		c.Broker.Lanes.Close()
		defer c.Submitter.Drain()
		defer c.stopSchedules()
		return c.stopPools(ctx)
	}
	c.stopSchedules()
	c.Submitter.Drain()
	c.endFollowing()
	c.Broker.Lanes.Close()
	return c.stopPools(ctx)
}

// endFollowing ends all who wait for jobs or follow their changes. Those of a member go on
// when another node leads.
func (c *core) endFollowing() {
	if c.o.member == nil {
		c.Waits.Close()
		c.changes.Close()
	}
}

// abandon breaks off a broken core. Handlers are interrupted, and messages that were
// read are committed. The next start finds the folder as after a crash.
func (c *core) abandon(why error) {
	c.stopSchedules()
	c.Submitter.Drain()
	c.endFollowing()
	c.Broker.Lanes.Close()
	c.breakPools()
	_ = c.end(why) // this is no clean end, and the next start expects none
}

// close ends the rest after drain, in the order of the parts' dependencies. The next
// start finds everything folded and notified.
func (c *core) close() error { return c.end(c.health.broker()) }

// end is close. sick is the reason if the broker can do nothing more.
func (c *core) end(sick error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var err error
	if c.o.member == nil {
		err = c.Broker.Service.Stop()
	}
	// A sick broker may have lost messages that it acknowledged, and accepts no more.
	// So this is no clean stop, and nothing is worth waiting for.
	var mark status.Clean
	finished := sick
	// The next leader of a cluster folds and notifies what is left, and needs no mark. To
	// wait for that would make its clients wait.
	waits := sick == nil && c.o.member == nil
	if waits {
		mark, finished = c.finish(ctx)
	}
	// Jobs of bare publishers may still end with the last commit, so the projector
	// stops before its listeners.
	c.stopProjector()
	if waits && finished == nil {
		finished = c.awaitProjected(ctx)
	}
	c.loops.end()
	err = errors.Join(err, finished, c.Broker.Flush())
	if c.o.member != nil {
		c.release()
		return err
	}
	c.Broker.Close()
	if err == nil {
		err = fsync.Tree(c.o.dirs.Broker) // the mark promises that everything is there
	}
	if err == nil {
		err = c.Store.MarkClean(mark)
	}
	return errors.Join(err, c.Store.Close())
}

// finish waits until the tracker has folded the streams to their ends, and all
// notifications are stored.
func (c *core) finish(ctx context.Context) (mark status.Clean, err error) {
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

// awaitProjected waits until the listeners have the last commit and its ends are
// notified, because the mark of a clean stop drops the outbox.
func (c *core) awaitProjected(ctx context.Context) error {
	select {
	case <-c.projected:
		return c.notifier.caughtUp(ctx)
	case <-ctx.Done():
		return fmt.Errorf("the tracker does not stop: %w", ctx.Err())
	}
}

// ends are the positions at which the tracker has folded both streams.
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
