package main

import (
	"context"
	"time"

	"jobstream/jobs"
)

// backend is the node as both doors see it.
type backend struct{ n *node }

// Submit takes a job; see jobs.Submitter.
func (b backend) Submit(ctx context.Context, s *jobs.Submission) (*jobs.Job, error) {
	return b.n.submitter.Submit(ctx, s)
}

// Job finds a job by id.
func (b backend) Job(ctx context.Context, id jobs.ID) (*jobs.Job, error) {
	return b.n.store.Job(ctx, id)
}

// JobBySeq finds a job by the sequence of its message.
func (b backend) JobBySeq(ctx context.Context, seq uint64) (*jobs.Job, error) {
	return b.n.store.JobBySeq(ctx, seq)
}

// List finds a page of jobs.
func (b backend) List(ctx context.Context, p jobs.Page) ([]*jobs.Job, string, error) {
	return b.n.store.List(ctx, p)
}

// Resize changes the number of workers.
func (b backend) Resize(ctx context.Context, r jobs.Resize) (jobs.Stats, error) {
	if err := b.n.o.registry.CheckResize(&r); err != nil {
		return jobs.Stats{}, err
	}
	b.n.pool.Resize(&r)
	w := b.n.pool.Workers()
	b.n.log.Info("workers resized", "max_workers", w.Max)
	return b.Stats(ctx)
}

// Stats puts together what the pool and the tracker know.
func (b backend) Stats(context.Context) (jobs.Stats, error) {
	w := b.n.pool.Workers()
	st := jobs.Stats{
		ActiveWorkers: w.Active, MaxWorkers: w.Max, QueueSize: b.n.o.queueSize,
		UptimeSeconds: int64(time.Since(b.n.started) / time.Second),
		Types:         make(map[string]jobs.TypeStats),
	}
	for name, t := range w.Types {
		st.Types[name] = jobs.TypeStats{ActiveWorkers: t.Active, MaxWorkers: t.Max}
	}
	for name, f := range b.n.store.Figures() {
		t, known := st.Types[name]
		t.QueuedJobs = f.Now[jobs.Pending]
		t.RetryingJobs = f.Now[jobs.Retrying]
		t.CompletedJobs = int64(f.Ever[jobs.Completed])
		t.FailedJobs = int64(f.Ever[jobs.Failed])
		t.CancelledJobs = int64(f.Ever[jobs.Cancelled])
		st.QueuedJobs += t.QueuedJobs
		st.ScheduledJobs += f.Now[jobs.Scheduled]
		st.RetryingJobs += t.RetryingJobs
		st.CompletedJobs += t.CompletedJobs
		st.FailedJobs += t.FailedJobs
		st.CancelledJobs += t.CancelledJobs
		if known || t.QueuedJobs+t.RetryingJobs > 0 {
			st.Types[name] = t
		}
	}
	return st, nil
}
