package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/intake"
)

// moments are the stations of one job, as times since its submission.
type moments struct {
	begun    time.Time
	started  atomic.Int64 // nanoseconds, like the others
	accepted int64
	visible  int64
	notified atomic.Int64
}

// latency measures single jobs on a node with little to do.
func (b *bench) latency(ctx context.Context, dir string) error {
	const warmUp = 20 // jobs that do not count: the first ones make connections, files, caches
	count := max(1, int(float64(b.c.Rate)*b.c.LatencyTime.Seconds()))
	all := make([]moments, warmUp+count)
	o := b.options
	o.Port = -1
	o.Registry = b.c.registryOf(jobs.HandlerFunc(func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		now := time.Now()
		i, err := payloadNumber(t.Job.Payload)
		if err != nil || i < 0 || i >= len(all) {
			return jobs.Result{}, jobs.Permanentf("job without a number: %w", err)
		}
		all[i].started.Store(int64(now.Sub(all[i].begun)))
		return jobs.Result{}, nil
	}))
	return b.withNode(ctx, dir, o, func(n *node) error {
		var visible atomic.Int64
		b.show(phaseLatency, len(all), visible.Load)
		ear, err := n.listen(ctx, len(all))
		if err != nil {
			return err
		}
		defer ear.close()
		ids, err := n.paced(ctx, b.c, all, &visible)
		if err != nil {
			return err
		}
		if err := ear.wait(ctx, len(all), patience); err != nil {
			return err
		}
		for i, id := range ids {
			all[i].notified.Store(int64(ear.heard[id.String()].Sub(all[i].begun)))
		}
		b.report.Latency = newLatencies(all[warmUp:])
		return nil
	})
}

// paced submits jobs at the given rate, each in a goroutine of its own, so that a slow
// one delays no other. It follows each until a lookup shows it completed.
func (n *node) paced(ctx context.Context, c *Options, all []moments, visible *atomic.Int64) ([]jobs.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, c.LatencyTime+patience)
	defer cancel()
	ids := make([]jobs.ID, len(all))
	lanes := c.lanes()
	var group sync.WaitGroup
	var failed atomic.Pointer[error]
	tick := time.NewTicker(time.Second / time.Duration(c.Rate))
	defer tick.Stop()
	for i := range all {
		l := lanes[i%len(lanes)]
		sub := &jobs.Submission{Type: l.Type, Priority: l.Priority, RetryCount: -1, Payload: makePayload(c.Payload, i)}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		if ctx.Err() != nil || failed.Load() != nil {
			break
		}
		group.Go(func() {
			id, err := n.follow(ctx, sub, &all[i])
			if err != nil {
				failed.CompareAndSwap(nil, &err)
				return
			}
			ids[i] = id
			visible.Add(1)
		})
	}
	group.Wait()
	if p := failed.Load(); p != nil {
		return nil, *p
	}
	return ids, context.Cause(ctx)
}

// follow submits one job, and looks it up when a commit has ended it.
func (n *node) follow(ctx context.Context, sub *jobs.Submission, m *moments) (jobs.ID, error) {
	m.begun = time.Now()
	j, _, err := n.Submitter.Submit(ctx, sub)
	if err != nil {
		return jobs.ID{}, err
	}
	m.accepted = int64(time.Since(m.begun))
	found, err := n.Waits.Wait(ctx, j.ID, intake.Ended, func() (*jobs.Job, error) { return n.Store.Job(ctx, j.ID) })
	m.visible = int64(time.Since(m.begun))
	switch {
	case err != nil:
		return j.ID, err
	case found == nil:
		return j.ID, fmt.Errorf("job %s was accepted and is not found", j.ID)
	case found.Status != jobs.Completed:
		return j.ID, errors.Join(context.Cause(ctx), fmt.Errorf("job %s is %s: %s", j.ID, found.Status, found.Error))
	}
	return j.ID, nil
}

// ear is a NATS subscriber from outside that records when it got which notification.
type ear struct {
	close func()
	all   chan struct{}

	mu    sync.Mutex
	heard map[string]time.Time // by id
}

// listen subscribes to completions at the NATS port. The ear's all is closed after
// count jobs.
func (n *node) listen(ctx context.Context, count int) (*ear, error) {
	client, err := dial(n.Broker, n.log)
	if err != nil {
		return nil, err
	}
	e := &ear{close: client.close, all: make(chan struct{}), heard: make(map[string]time.Time)}
	err = client.subscribe(ctx, "job.completed.>", func(subject string, _ []byte) {
		now := time.Now()
		id := subject[strings.LastIndexByte(subject, '.')+1:]
		e.mu.Lock()
		defer e.mu.Unlock()
		if _, again := e.heard[id]; again {
			return
		}
		if e.heard[id] = now; len(e.heard) == count {
			close(e.all)
		}
	})
	if err != nil {
		client.close()
		return nil, err
	}
	return e, nil
}

func (e *ear) wait(ctx context.Context, want int, limit time.Duration) error {
	patience := time.NewTimer(limit)
	defer patience.Stop()
	select {
	case <-e.all:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-patience.C:
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return errors.Join(errTooSlow, fmt.Errorf("a subscriber heard of %d of %d completed jobs", len(e.heard), want))
}
