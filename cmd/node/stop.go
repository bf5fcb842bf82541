package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"jobstream/broker"
	"jobstream/jobs"
	"jobstream/status"
)

// StopTaking ends the taking of jobs through both doors, and the workers within
// grace. Lookups go on.
func (n *Core) StopTaking(grace time.Duration) error {
	n.stopSchedules()
	n.Submitter.Drain()
	n.Waits.Close()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	n.Broker.Lanes.Close()
	return n.Pool.Stop(ctx)
}

// Abandon ends a node that has broken: handlers are interrupted, what has been read is
// committed, and the next start finds the folder as after a crash.
func (n *Core) Abandon(why error) {
	n.stopSchedules()
	n.Submitter.Drain()
	n.Waits.Close()
	n.Broker.Lanes.Close()
	n.Pool.Break()
	_ = n.end(why) // it is no clean end, and the next start expects none
}

// close ends the rest after [node.StopTaking], in the order in which the parts
// depend on each other, so that the next start finds everything settled.
func (n *Core) Close() error { return n.end(n.health.broker()) }

// end is close; sick is why nothing can be settled, if so.
func (n *Core) end(sick error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := n.Broker.Service.Stop()
	// What is sick may have lost what it acknowledged, and takes nothing more: that
	// is no clean stop, and nothing is worth waiting for.
	var mark status.Clean
	settled := sick
	if settled == nil {
		mark, settled = n.settle(ctx)
	}
	// What bare publishers have sent since then may end with the last commit, so
	// the projector stops before those who tell of it.
	n.stopProjector()
	if settled == nil {
		settled = n.awaitProjected(ctx)
	}
	n.loops.end()
	err = errors.Join(err, settled, n.Broker.Flush())
	n.Broker.Close()
	if err == nil {
		err = SyncTree(n.o.Dirs.Broker) // the mark promises that it is all there
	}
	if err == nil {
		err = n.Store.MarkClean(mark)
	}
	return errors.Join(err, n.Store.Close())
}

// settle waits until the tracker has folded all that is in the streams, and all
// notifications are stored.
func (n *Core) settle(ctx context.Context) (mark status.Clean, err error) {
	if err := n.Broker.Flush(); err != nil {
		return mark, err
	}
	pos, err := ends(ctx, n.Store, n.Broker)
	if err != nil {
		return mark, err
	}
	if err := n.Store.WaitPublished(ctx, pos); err != nil {
		return mark, err
	}
	if err := n.notifier.caughtUp(ctx); err != nil {
		return mark, err
	}
	return status.Clean{Jobs: pos.Jobs, Status: pos.Status}, nil
}

// awaitProjected waits until the last commit has been told, and notified: the
// mark of a clean stop drops the outbox.
func (n *Core) awaitProjected(ctx context.Context) error {
	select {
	case <-n.projected:
		return n.notifier.caughtUp(ctx)
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
