package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"jobstream/jobs"
	"jobstream/status"
)

// history is the sustained phase on a tracker with finished jobs, compared with an
// empty one.
func (b *bench) history(ctx context.Context, dir string) error {
	past := filepath.Join(dir, "past")
	if err := b.remember(ctx, past); err != nil {
		return fmt.Errorf("cannot make the finished jobs: %w", err)
	}
	b.show(phaseHistory+": syncing", 0, nil)
	// Otherwise the system would write all that to the disk during the measurement.
	if err := b.server.SyncFolder(past); err != nil {
		return err
	}
	aged := load{c: b.c, options: b.options, dir: past, prepare: func(_ context.Context, n *node) error {
		if known := n.ended(); int(known) != b.c.History {
			return fmt.Errorf("the tracker knows %d finished jobs, not %d", known, b.c.History)
		}
		return nil
	}}
	var err error
	b.report.Aged, err = b.compare(ctx, dir, phaseHistory, aged, load{c: b.c, options: b.options})
	return err
}

// remember makes a tracker with so many finished jobs, as if the streams had brought
// them, and as a clean stop leaves it. The streams stay empty: the start makes them
// anew from the tracker.
func (b *bench) remember(ctx context.Context, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	store, err := status.Open(status.Options{
		Path: b.server.TrackerFile(dir), Registry: b.options.Registry, Logger: b.options.Logger,
		OutboxAge: time.Second, Checked: func(jobs.ID) bool { return true },
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	store.Notified(math.MaxUint64) // nobody listens
	past := &pastJobs{c: b.c, over: make(chan struct{})}
	b.show(phaseHistory+": making", b.c.History, past.made.Load)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- store.Run(ctx, past) }()
	select {
	case <-past.over:
	case err := <-done:
		return errors.Join(err, context.Cause(ctx))
	}
	if err := store.WaitFor(ctx, past.end()); err != nil {
		return err
	}
	cancel()
	if err := <-done; err != nil {
		return err
	}
	return store.MarkClean(status.Clean{Jobs: past.end().Jobs, Status: past.end().Status})
}

// pastJobs are streams of jobs that have been submitted and completed.
type pastJobs struct {
	c    *Options
	made atomic.Int64
	over chan struct{} // closed when all have been read
}

func (p *pastJobs) end() jobs.Positions {
	return jobs.Positions{Jobs: uint64(p.c.History), Status: uint64(p.c.History)} //nolint:gosec // not negative
}

// Read hands all jobs to the sink; see [status.Source].
func (p *pastJobs) Read(ctx context.Context, _ jobs.Positions, sink jobs.Sink) error {
	lanes, payload := p.c.lanes(), makePayload(p.c.Payload, 0)
	const packed = 100 // events per message
	events := make([]jobs.Event, 0, packed)
	at := jobs.Now().Add(-time.Duration(p.c.History) * time.Millisecond)
	for seq := uint64(1); seq <= p.end().Jobs && ctx.Err() == nil; seq++ {
		at = at.Add(time.Millisecond)
		l := lanes[seq%uint64(len(lanes))]
		m := &jobs.Message{Seq: seq, At: at, ID: jobs.DerivedID(seq, at), Type: l.Type, Priority: l.Priority, Payload: payload, RetryCount: -1}
		sink.Submitted(m)
		events = append(events, jobs.Event{
			Kind: jobs.KindCompleted, ID: m.ID, Seq: seq, Type: m.Type, Priority: m.Priority, CreatedAt: at, MaxAttempts: 1,
			Run: 1, Attempt: 1, StartedAt: at.Add(time.Microsecond), At: at.Add(2 * time.Microsecond), Node: "bench",
		})
		if len(events) == packed || seq == p.end().Jobs {
			sink.Happened(seq, events)
			events = events[:0]
			p.made.Store(int64(seq)) //nolint:gosec // a number of jobs
		}
	}
	if ctx.Err() == nil {
		close(p.over)
	}
	<-ctx.Done()
	return context.Cause(ctx)
}
