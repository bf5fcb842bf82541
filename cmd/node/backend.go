package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/intake"
	"jobstream/jobs/pool"
)

// backend is the node behind the doors; see [api.Jobs].
type backend struct {
	*api.Operator
	n       *core
	pausing sync.Mutex    // keeps pauses in the same order in tracker and pool
	lists   chan struct{} // has a token for each list that is being read
}

// newBackend makes the backend of the operations for a core that runs; remove deletes
// ended jobs and all that they have left behind.
func newBackend(n *core, remove func(context.Context, []*jobs.Job) (int, int64, error)) *api.Backend {
	b := &backend{n: n, lists: make(chan struct{}, maxLists), Operator: api.NewOperator(api.OperatorOptions{
		Doer: n.Store, History: n.Store, Find: n.Store.Job, Remove: remove, Submit: n.Submitter.SubmitMessage, Waits: n.Waits,
	})}
	return &api.Backend{Jobs: b, Schedules: n.Schedules, Artifacts: jobs.ArtifactDir(n.o.dirs.Artifacts)}
}

// Submit admits a job.
func (b *backend) Submit(ctx context.Context, s *jobs.Submission) (j *jobs.Job, replayed bool, err error) {
	return b.n.Submitter.Submit(ctx, s)
}

// SubmitBatch admits jobs, all or none.
func (b *backend) SubmitBatch(ctx context.Context, subs []*jobs.Submission, token *jobs.Token) (made []*jobs.Job, replayed bool, err error) {
	return b.n.Submitter.SubmitBatch(ctx, subs, token)
}

// Job finds a job by id.
func (b *backend) Job(ctx context.Context, id jobs.ID) (*jobs.Job, error) {
	return b.n.Store.Job(ctx, id)
}

// reachTime is how long the tracker may take to fold a message that JOBS has.
const reachTime = 5 * time.Second

// JobBySeq finds a job by the sequence of its message. A client that has the stream's
// answer to a bare message may ask before the tracker has folded it. Then JobBySeq
// waits for that.
func (b *backend) JobBySeq(ctx context.Context, seq uint64) (*jobs.Job, error) {
	known := b.n.Store.Positions().Jobs // before the look, which is as of then or later
	j, err := b.n.Store.JobBySeq(ctx, seq)
	if j != nil || err != nil || seq <= known {
		return j, err
	}
	state, err := b.n.Broker.Streams.Jobs(ctx)
	if err == nil && seq > state.Last {
		return nil, nil
	}
	if err == nil {
		waiting, cancel := context.WithTimeout(ctx, reachTime)
		defer cancel()
		err = b.n.Store.WaitFor(waiting, jobs.Positions{Jobs: seq})
	}
	if err != nil {
		return nil, &jobs.Error{Kind: jobs.Unavailable, RetryAfter: time.Second, Detail: fmt.Sprintf("whether there is a job %d cannot be told at the moment: %v", seq, err)}
	}
	return b.n.Store.JobBySeq(ctx, seq)
}

// Wait finds a job by id when it has ended, or when ctx ends or the server stops.
func (b *backend) Wait(ctx context.Context, id jobs.ID) (*jobs.Job, error) {
	last := context.WithoutCancel(ctx) // for a look after the end of ctx
	return b.n.Waits.Wait(ctx, id, intake.Ended, func() (*jobs.Job, error) { return b.n.Store.Job(last, id) })
}

// Waiting is the reason why a job does not run.
func (b *backend) Waiting(j *jobs.Job) *jobs.Waiting {
	if j.Status.Ended() || j.Status == jobs.Processing {
		return nil
	}
	position, err := b.n.Store.Position(j)
	if err != nil {
		b.n.log.Error("the place of a job in its lane cannot be read", "job", j.ID, "error", err)
	}
	unfinished, _ := b.n.Store.Totals()
	return b.n.Pool.Waiting(j, pool.Queueing{Position: position, Full: unfinished >= b.n.o.releaseRoom()})
}

// Each list that is being read has a piece of its jobs in memory, so only a few are read
// at a time, over both doors.
const (
	maxLists  = 16
	listsWait = 5 * time.Second // for one of them to end
)

// List reads a page of jobs, see [status.Store.Search].
func (b *backend) List(ctx context.Context, p jobs.Page, yield func(*jobs.Job) bool) (jobs.Listing, error) {
	patience := time.NewTimer(listsWait)
	defer patience.Stop()
	select {
	case b.lists <- struct{}{}:
	case <-ctx.Done():
		return jobs.Listing{}, context.Cause(ctx)
	case <-patience.C:
		return jobs.Listing{}, &jobs.Error{
			Kind: jobs.Unavailable, RetryAfter: time.Second,
			Detail: fmt.Sprintf("%d lists are being read, and none of them ended in %v; try again later", maxLists, listsWait),
		}
	}
	defer func() { <-b.lists }()
	return b.n.Store.Search(ctx, p, yield)
}

// Counts counts jobs by type and status.
func (b *backend) Counts(ctx context.Context, f jobs.Filter) (jobs.Counts, error) {
	return b.n.Store.Counts(ctx, f)
}

// Types lists the job types.
func (b *backend) Types(context.Context) ([]api.TypeInfo, error) {
	workers, figures := b.n.Pool.Workers(), b.n.Store.Figures()
	var all []api.TypeInfo
	for _, name := range b.n.o.registry.Names() {
		w := workers.Types[name]
		all = append(all, api.TypeInfo{
			Type: b.n.o.registry.Lookup(name), MaxWorkers: w.Max, ActiveWorkers: w.Active, Paused: w.Paused,
			Depth: figures[name].Now,
		})
	}
	return all, nil
}

// Type finds a job type.
func (b *backend) Type(ctx context.Context, name string) (*api.TypeInfo, error) {
	all, err := b.Types(ctx)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Name == name {
			return &all[i], nil
		}
	}
	return nil, jobs.NoSuchType(name)
}

// SetPaused makes the jobs of a type wait, or lets them go on. That is stored
// before it takes effect.
func (b *backend) SetPaused(ctx context.Context, actor, name string, paused bool) (*api.TypeInfo, error) {
	if _, err := b.Type(ctx, name); err != nil {
		return nil, err
	}
	b.pausing.Lock()
	defer b.pausing.Unlock()
	if _, err := b.n.Store.Do(ctx, jobs.Pause{Stamp: jobs.By(actor), Type: name, Paused: paused}); err != nil {
		return nil, err
	}
	b.n.Pool.SetPaused(name, paused)
	b.n.log.Info("job type "+map[bool]string{true: "paused", false: "resumed"}[paused], "type", name)
	return b.Type(ctx, name)
}

// Resize changes the number of workers.
func (b *backend) Resize(ctx context.Context, r jobs.Resize) (api.Stats, error) {
	if err := b.n.o.registry.CheckResize(&r); err != nil {
		return api.Stats{}, err
	}
	if err := b.n.Pool.Resize(&r); err != nil {
		return api.Stats{}, err
	}
	w := b.n.Pool.Workers()
	b.n.log.Info("workers resized", "min_workers", w.Min, "max_workers", w.Max)
	return b.Stats(ctx)
}

// Stats puts together what the pool and the tracker know. The jobs of internal
// types count in the sums only.
func (b *backend) Stats(context.Context) (api.Stats, error) {
	w := b.n.Pool.Workers()
	st := api.StatsOf(&w)
	st.QueueSize, st.UptimeSeconds = b.n.o.QueueSize, int64(time.Since(b.n.o.started)/time.Second)
	for name, f := range b.n.Store.Figures() {
		t, known := st.Types[name]
		t.QueuedJobs = f.Now[jobs.Pending]
		t.ScheduledJobs = f.Now[jobs.Scheduled]
		t.RetryingJobs = f.Now[jobs.Retrying]
		t.CompletedJobs = int64(f.Ever[jobs.Completed])
		t.FailedJobs = int64(f.Ever[jobs.Failed])
		t.CancelledJobs = int64(f.Ever[jobs.Cancelled])
		st.QueuedJobs += t.QueuedJobs
		st.ScheduledJobs += t.ScheduledJobs
		st.RetryingJobs += t.RetryingJobs
		st.CompletedJobs += t.CompletedJobs
		st.FailedJobs += t.FailedJobs
		st.CancelledJobs += t.CancelledJobs
		hidden := false
		if typ := b.n.o.registry.Lookup(name); typ != nil {
			hidden = typ.Internal
		}
		if !hidden && (known || t.QueuedJobs+t.ScheduledJobs+t.RetryingJobs > 0) {
			st.Types[name] = t
		}
	}
	return st, nil
}
