package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"jobstream/broker"
	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/figures"
	"jobstream/jobs/intake"
	"jobstream/jobs/pool"
	"jobstream/status"
)

// newBackend makes the backend of the operations for a running core. remove deletes
// ended jobs and everything that they left.
func newBackend(c *core, remove func(context.Context, []*jobs.Job) (int, int64, error)) *api.Backend {
	return &api.Backend{
		Submitter: c.Submitter,
		Reader:    &reader{c.Store, c.Broker, c.Waits, c.waiting, make(chan struct{}, maxLists)},
		Changer: api.NewOperator(api.OperatorOptions{
			Doer: c.Store, History: c.Store, Find: c.Store.Job, Remove: remove, Submit: c.Submitter.SubmitMessage, Waits: c.Waits,
			Room: c.health.room.now,
			Pin:  func(j *jobs.Job) (func(), bool) { return c.poolOf(j.Type).Pin(j.ID) },
		}),
		Types:     &types{c: c},
		Workers:   workers{c},
		Leases:    c.Pool.Leases(),
		Schedules: c.Schedules,
		Artifacts: c.o.Handlers.Artifacts,
		Inputs:    c.Inputs,
		Logs:      c.Logs,
		Info:      infoOn(&c.o.Options, c.o.registry, c.name),
		Audit:     c.Store,
		Refusals:  c.refusals,
		Changes:   c.changes,
		Backups:   backups{c},
		Inspector: inspector{&c.o, c.Store, c, make(chan struct{}, 1)},
		Nodes:     alone{c},
	}
}

// infoOn is what a server says about itself.
func infoOn(o *Options, r *jobs.Registry, name string) api.Info {
	i := api.Info{Version: o.Version, Node: name}
	for name, on := range map[string]bool{
		"auth": o.Keyring != nil, "callbacks": r.Lookup(jobs.CallbackType) != nil, "reload": o.Handlers.Reread != nil,
	} {
		if on {
			i.Features = append(i.Features, name)
		}
	}
	slices.Sort(i.Features)
	return i
}

// reader looks jobs up in the tracker; see [api.Reader].
type reader struct {
	store   *status.Store
	broker  *broker.Broker
	waits   *intake.Waits
	waiting func(j *jobs.Job) *jobs.Waiting // why a job waits that has not begun
	lists   chan struct{}                   // has a token for each list that is being read
}

// Job finds a job by id.
func (r *reader) Job(ctx context.Context, id jobs.ID) (*jobs.Job, error) {
	return r.store.Job(ctx, id)
}

// reachTime is how long the tracker may take to fold a message that JOBS has.
const reachTime = 5 * time.Second

// JobBySeq finds a job by the sequence of its message. A client that has the stream's
// answer to a bare message may ask before the tracker has folded it. Then JobBySeq
// waits for that.
func (r *reader) JobBySeq(ctx context.Context, seq uint64) (*jobs.Job, error) {
	known := r.store.Positions().Jobs // before the look, so that this is never too high
	j, err := r.store.JobBySeq(ctx, seq)
	if j != nil || err != nil || seq <= known {
		return j, err
	}
	state, err := r.broker.Streams.Jobs(ctx)
	if err == nil && seq > state.Last {
		return nil, nil
	}
	if err == nil {
		waiting, cancel := context.WithTimeout(ctx, reachTime)
		defer cancel()
		err = r.store.WaitFor(waiting, jobs.Positions{Jobs: seq})
	}
	if err != nil {
		return nil, &jobs.Error{Kind: jobs.Unavailable, RetryAfter: time.Second, Detail: fmt.Sprintf("whether there is a job %d cannot be told at the moment: %v", seq, err)}
	}
	return r.store.JobBySeq(ctx, seq)
}

// Wait finds a job by id when it has ended, or when ctx ends or the server stops.
func (r *reader) Wait(ctx context.Context, id jobs.ID) (*jobs.Job, error) {
	last := context.WithoutCancel(ctx) // for a look after the end of ctx
	return r.waits.Wait(ctx, id, intake.Ended, func() (*jobs.Job, error) { return r.store.Job(last, id) })
}

// Waiting is the reason why a job does not run.
func (r *reader) Waiting(j *jobs.Job) *jobs.Waiting {
	if j.Status.Ended() || j.Status == jobs.Processing {
		return nil
	}
	return r.waiting(j)
}

// waiting is the reason why a job does not run, as the pool knows it.
func (c *core) waiting(j *jobs.Job) *jobs.Waiting {
	position, err := c.Store.Position(j)
	if err != nil {
		c.log.Error("the place of a job in its lane cannot be read", j.LogAttr(), "error", err)
	}
	unfinished, _ := c.Store.Totals()
	return c.poolOf(j.Type).Waiting(j, pool.Queueing{Position: position, Full: unfinished >= c.o.releaseRoom()})
}

// Each list under way has a part of its jobs in memory. So only a few are read at a
// time, over both doors.
const (
	maxLists  = 16
	listsWait = 5 * time.Second // for one of them to end
)

// List reads a page of jobs, see [status.Store.Search].
func (r *reader) List(ctx context.Context, p jobs.Page, yield func(*jobs.Job) bool) (jobs.Listing, error) {
	patience := time.NewTimer(listsWait)
	defer patience.Stop()
	select {
	case r.lists <- struct{}{}:
	case <-ctx.Done():
		return jobs.Listing{}, context.Cause(ctx)
	case <-patience.C:
		return jobs.Listing{}, &jobs.Error{
			Kind: jobs.Unavailable, RetryAfter: time.Second,
			Detail: fmt.Sprintf("%d lists are being read, and none of them ended in %v; try again later", maxLists, listsWait),
		}
	}
	defer func() { <-r.lists }()
	return r.store.Search(ctx, p, yield)
}

// Counts counts jobs by type and status.
func (r *reader) Counts(ctx context.Context, f jobs.Filter) (jobs.Counts, error) {
	return r.store.Counts(ctx, f)
}

// Failures lists failed jobs in groups.
func (r *reader) Failures(ctx context.Context, p jobs.FailurePage) (jobs.FailureList, error) {
	return r.store.Failures(ctx, p)
}

// Tags lists tags of jobs.
func (r *reader) Tags(ctx context.Context, prefix, after string, limit int) ([]string, string, error) {
	return r.store.Tags(ctx, prefix, after, limit)
}

// Disabled lists the URLs that get no callbacks any more.
func (r *reader) Disabled(context.Context) ([]jobs.DisabledURL, error) { return r.store.Disabled() }

// types are the job types, with their state in the pool; see [api.Types].
type types struct {
	c       *core
	pausing sync.Mutex // keeps pauses in the same order in tracker and pool
}

// Types lists the job types.
func (t *types) Types(context.Context) ([]api.TypeInfo, error) {
	pauses, err := t.c.Store.Pauses()
	if err != nil {
		return nil, err
	}
	workers, counts := t.c.Pool.Workers(), t.c.Store.Figures()
	waiting := t.c.o.figures.Waiting()
	backlogs := t.c.backlogs(waiting)
	var all []api.TypeInfo
	for _, typ := range t.c.o.registry.Types() {
		if typ.Internal {
			continue
		}
		w := workers.Types[typ.Name]
		info := api.TypeInfo{
			Type: typ, Configured: t.c.o.limits.configured(typ), MaxWorkers: w.Max, ActiveWorkers: w.Active, Paused: w.Paused, Depth: counts[typ.Name].Now,
			Backlog: backlogs[typ.Name], Priorities: waiting[typ.Name].Priorities,
		}
		if w.Paused {
			info.PausedBy, info.PausedAt = pauses[typ.Name].Actor, pauses[typ.Name].At
		}
		all = append(all, info)
	}
	return all, nil
}

// Type finds a job type.
func (t *types) Type(ctx context.Context, name string) (*api.TypeInfo, error) {
	all, err := t.Types(ctx)
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

// SetPaused pauses or resumes a type. That is stored before it takes effect.
func (t *types) SetPaused(ctx context.Context, actor, name string, paused bool) (*api.TypeInfo, error) {
	if _, err := t.Type(ctx, name); err != nil {
		return nil, err
	}
	t.pausing.Lock()
	defer t.pausing.Unlock()
	if _, err := t.c.Store.Do(ctx, jobs.Pause{Stamp: jobs.By(actor), Type: name, Paused: paused}); err != nil {
		return nil, err
	}
	t.c.Pool.SetPaused(name, paused)
	t.c.log.Info("job type "+state(paused), "type", name)
	return t.Type(ctx, name)
}

// state is what a pause or its end has made of something, for the log.
func state(paused bool) string {
	if paused {
		return "paused"
	}
	return "resumed"
}

// workers are the pool; see [api.Workers].
type workers struct{ c *core }

// Resize changes the number of workers.
func (ws workers) Resize(ctx context.Context, wish jobs.Resize) (api.Stats, error) {
	if err := ws.c.o.registry.CheckResize(&wish); err != nil {
		return api.Stats{}, err
	}
	m, most := ws.c.o.member, wish.MaxWorkers
	var others []string
	var err error
	switch {
	case m != nil:
		others, err = m.others(&wish)
	case wish.Node != "" && wish.Node != ws.c.name:
		err = noNode(wish.Node, ws.c.name)
	}
	if err != nil {
		return api.Stats{}, err
	}
	if err := ws.limit(&wish); err != nil {
		return api.Stats{}, err
	}
	if m != nil && wish.MaxWorkers != nil {
		m.worker.resize(*wish.MaxWorkers)
	}
	if most != nil {
		if err := m.tellAll(ctx, others, *most); err != nil {
			return api.Stats{}, err
		}
	}
	w := ws.c.Pool.Workers()
	ws.c.log.Info("workers resized", "min_workers", w.Min, "max_workers", w.Max)
	return ws.Stats(ctx)
}

// limit changes the bounds of the pool and the limits of types, all or none.
func (ws workers) limit(wish *jobs.Resize) error {
	for name, l := range wish.Limits { // before anything changes
		if t := ws.c.o.registry.Lookup(name); t != nil {
			if _, err := t.WithLimits(l); err != nil {
				return err
			}
		}
	}
	if err := ws.c.Pool.Resize(wish); err != nil || len(wish.Limits) == 0 {
		return err
	}
	return ws.c.o.limits.set(ws.c, wish.Limits)
}

// PauseAll pauses or resumes the whole pool.
func (ws workers) PauseAll(ctx context.Context, paused bool) (api.Stats, error) {
	ws.c.Pool.PauseAll(paused)
	ws.c.log.Info("workers "+state(paused), "running", ws.c.Pool.Workers().Active)
	return ws.Stats(ctx)
}

// Stats combines the figures of the pool and the tracker. Jobs of internal types count
// only in the sums.
func (ws workers) Stats(ctx context.Context) (api.Stats, error) {
	w := ws.c.Pool.Workers()
	if m := ws.c.o.member; m != nil {
		w = w.With(m.elsewhere())
	}
	st := api.StatsOf(&w)
	st.QueueSize, st.UptimeSeconds = ws.c.o.Bounds.Queue, int64(time.Since(ws.c.o.started)/time.Second)
	backlogs := ws.c.backlogs(ws.c.o.figures.Waiting())
	st.Backlog, st.Node = backlogs[figures.Total], ws.c.nodeStats(ctx)
	for name, f := range ws.c.Store.Figures() {
		if name == jobs.CallbackType {
			continue // they are no work that somebody has asked for
		}
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
		if typ := ws.c.o.registry.Lookup(name); typ != nil {
			hidden = typ.Internal
		}
		if !hidden && (known || t.QueuedJobs+t.ScheduledJobs+t.RetryingJobs > 0) {
			st.Types[name] = t
		}
	}
	for name, t := range st.Types {
		t.Backlog = backlogs[name]
		st.Types[name] = t
	}
	return st, nil
}
