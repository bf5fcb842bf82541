package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"jobstream/broker"
	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/changes"
	"jobstream/jobs/figures"
	"jobstream/jobs/intake"
	"jobstream/jobs/joblog"
	"jobstream/jobs/pool"
	"jobstream/jobs/schedule"
	"jobstream/status"
)

// Parts are the parts of a node behind its doors.
type Parts struct {
	Store     *status.Store
	Broker    *broker.Broker
	Inputs    *intake.Inputs
	Submitter *intake.Submitter
	Releaser  *intake.Releaser
	Waits     *intake.Waits
	Recorder  *pool.Recorder
	Pool      *pool.Pool
	Schedules *schedule.Book
	Tail      *broker.Tail
	Logs      *joblog.Dir // of jobs
}

// coreOptions are the options of a node, and those that it adds for its core.
type coreOptions struct {
	Options
	dirs     Folders
	registry *jobs.Registry
	nats     address   // as the broker takes it: port 0 = none, -1 = any free one
	started  time.Time // when the node was opened
	again    bool      // the node had a core before, and has broken it off
	paused   bool      // that one's workers were paused
	figures  *figures.Collector
	limits   *limits
	member   *member // of a cluster, whose tracker and broker the core uses; nil = it has its own
}

// A message is lost when the server that leads its stream ends. So a member of a cluster
// publishes soon again what is not committed. Elsewhere that has no sense: 0.
const (
	memberResubmit = 500 * time.Millisecond
	memberResend   = time.Second
)

// ofMember is a time of a member; 0 for a node that is alone.
func (o *coreOptions) ofMember(d time.Duration) time.Duration {
	if o.member == nil {
		return 0
	}
	return d
}

// sweep removes what was left half done.
func (o *coreOptions) sweep() error {
	err := sweepBackups(o.dirs)
	if err == nil {
		err = o.Handlers.Artifacts.Sweep()
	}
	if err == nil && o.Handlers.Sweep != nil {
		err = o.Handlers.Sweep()
	}
	return err
}

// core is everything behind the doors: the parts, and their goroutines.
type core struct {
	Parts
	o         coreOptions
	log       *slog.Logger
	name      string // of this node, in events and records
	natsURL   string // known before the doors open; the broker forgets it when it ends
	notifier  *notifier
	callbacks callbacks
	refusals  *api.Refusals
	changes   *changes.Feed // for those who follow them
	health    *health
	loops     *loops

	followed bool // the tracer follows commits

	unlisten      []func() // end the hearing of commits
	stopSchedules func()   // waits until they have stopped
	stopProjector context.CancelFunc
	projected     chan struct{} // closed when the listeners have the projector's last commit
}

// startCore starts a core. When it returns, every unfinished job of the tracker is in
// the queue, and workers run them.
func startCore(ctx context.Context, o coreOptions) (c *core, err error) {
	c = &core{o: o, log: o.Logger, loops: newLoops()}
	var space *room
	if m := o.member; m != nil {
		c.Store, c.Broker, c.Waits, c.Logs, c.changes, space = m.store, m.broker, m.waits, m.logs, m.changes, m.room
	} else if c.Store, err = o.openStore(func(id jobs.ID) bool { return c.Submitter.Checked(id) }); err != nil {
		return nil, err
	} else {
		c.Waits, c.changes, space = intake.NewWaits(), changes.New(c.Store, epochOf(c.Store)), newRoom(o.dirs, o.Bounds.MinFree, c.log)
	}
	c.health = newHealth(c.Store, o.dirs, space, c.log)
	o.Handlers.Tools.Tracker.store.Store(c.Store)
	if err = c.startWatched(ctx); err == nil {
		return c, nil
	}
	c.breakPools()
	c.loops.end()
	if o.member != nil {
		c.Broker.Lanes.Close()
		c.release()
		return nil, err
	}
	if c.Broker != nil {
		c.Broker.Close()
	}
	return nil, errors.Join(err, c.Store.Close())
}

// openStore opens the tracker. checked says which submissions this process has checked.
func (o *coreOptions) openStore(checked func(jobs.ID) bool) (*status.Store, error) {
	if o.again {
		// A folder that was removed must not begin anew silently.
		if _, err := os.Stat(o.dirs.Tracker); err != nil {
			return nil, fmt.Errorf("the tracker's file has been removed (%w); put the data folder back, or restart jobstream to begin with what is there now", err)
		}
	}
	s, err := status.Open(status.Options{
		Path: o.dirs.Tracker, Existing: o.again, Registry: o.registry, Webhooks: webhooksOf(&o.Callbacks), Logger: o.Logger, Version: o.Version,
		OutboxAge: max(10*time.Second, 5*o.Broker.Sync), Checked: checked, Member: o.Broker.Cluster != nil, Format: o.Recovery.format,
	})
	if err != nil {
		return nil, err
	}
	// The tracker's file is locked now, so nobody else works in the folder. A restore that
	// has begun since the first look fails, because the tracker's file is in its way.
	if err := errors.Join(o.dirs.Whole(), o.sweep()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// listen has each commit from now on handed over, until the core ends.
func (c *core) listen(f func(*jobs.Commit)) { c.unlisten = append(c.unlisten, c.Store.Listen(f)) }

// release ends the use of the tracker and the broker, which a member goes on with.
func (c *core) release() {
	for _, end := range c.unlisten {
		end()
	}
}

// startWatched is start, ended early if a part breaks.
func (c *core) startWatched(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	started := make(chan error, 1)
	go func() { started <- c.start(ctx) }()
	select {
	case err := <-started:
		return err
	case err := <-c.loops.broken:
		cancel(err)
		<-started
		return err
	}
}

func (c *core) start(ctx context.Context) (err error) {
	r, clean, err := c.takeUp(ctx)
	if err != nil {
		return err
	}
	c.o.Handlers.Tools.Requester.broker.Store(c.Broker)
	if !clean {
		if err := r.alignStreams(ctx); err != nil {
			return err
		}
	}
	c.Inputs = intake.NewInputs(c.o.Handlers.Artifacts, c.Store, c.health.room.look)
	unfinished, scheduled := c.Store.Totals()
	c.Submitter = intake.NewSubmitter(intake.SubmitterOptions{
		Inbox: c.Broker.Inbox, Ledger: c.Store, Registry: c.o.registry, Inputs: c.Inputs,
		QueueSize: c.o.Bounds.Queue, MaxScheduled: c.o.Bounds.Scheduled, MaxPayload: c.o.maxPayload(), Healthy: c.health.now, Room: c.health.room.now, Resubmit: c.o.ofMember(memberResubmit),
	}, unfinished, scheduled)
	c.o.Handlers.Tools.Queue.submitter.Store(c.Submitter)
	c.Releaser = intake.NewReleaser(intake.ReleaserOptions{
		Agenda: c.Store, Inbox: c.Broker.Inbox, Room: c.o.releaseRoom(), Logger: c.log,
	}, unfinished)
	c.newCallbackReleaser()
	c.Tail = broker.NewTail(c.Broker, c.Store, r.restore)
	c.notifier = newNotifier(c.Store, c.Broker.Notifier, c.o.Tracer, c.log)
	if err := c.beginFigures(); err != nil {
		return err
	}
	// These listeners get each commit in this order. The pool, the waits and the tail
	// follow; see startPool.
	c.listen(c.Submitter.Committed)
	c.listen(c.Releaser.Committed)
	c.listen(c.notifier.committed)
	c.listen(c.logFailures)
	c.listen(c.o.figures.Committed)
	c.followByTracer()
	c.runParts()
	if err := r.recover(ctx, clean); err != nil {
		return err
	}
	if c.o.member == nil { // a member tidies all the time
		if err := c.Inputs.Sweep(); err != nil {
			return err
		}
	}
	batches, err := c.Store.Batches()
	if err != nil {
		return err
	}
	c.Submitter.Resume(batches)
	if err := c.Broker.Listen(ctx); err != nil {
		return err
	}
	if err := c.startPool(ctx, r.survivors); err != nil {
		return err
	}
	return c.startSchedules(ctx)
}

// takeUp gets hold of the broker. clean says that the streams are as a clean stop has left
// them.
func (c *core) takeUp(ctx context.Context) (r *recovery, clean bool, err error) {
	r = &recovery{o: &c.o, store: c.Store, log: c.log}
	if c.o.member != nil {
		c.o.member.tracker.Resume() // after a try that has failed
		// What the streams have acknowledged, a majority has on disk.
		c.name, r.node, r.broker, r.sameBoot = c.o.Name, c.o.Name, c.Broker, true
		secret, err := c.Store.LeaseKey()
		if err == nil {
			err = c.Broker.Lead(ctx, secret)
		}
		return r, false, err
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "jobstream"
	}
	if c.name, err = c.Store.Node(safeName(host)); err != nil {
		return nil, false, err
	}
	r.node = c.name
	clean, err = r.openBroker(ctx)
	c.Broker = r.broker
	return r, clean, err
}

// safeName is host with a dash in place of each character that a subject cannot have.
func safeName(host string) string {
	b := []byte(host)
	for i, c := range b {
		if !jobs.ValidTypeName(string(c)) {
			b[i] = '-'
		}
	}
	return string(b)
}

// runParts starts all parts that run from now on, except the pool.
func (c *core) runParts() {
	c.Recorder = pool.NewRecorder(c.Broker.EventLog, func(err error) {
		c.log.Warn("events could not be sent; they are sent again", "error", err)
	})
	c.loops.run("submissions", c.Submitter.Run)
	c.loops.run("events", c.Recorder.Run)
	c.loops.run("health", func(ctx context.Context) error { return c.health.watch(ctx, c.Broker) })
	c.loops.run("notifications", c.notifier.run)
	var projecting context.Context
	projecting, c.stopProjector = context.WithCancel(c.loops.ctx)
	c.projected = make(chan struct{})
	c.loops.run("tracker", func(context.Context) error {
		defer close(c.projected)
		return c.Store.Run(projecting, c.Broker.Reader)
	})
}

// publishLogs returns what passes an entry of a job's log on to listeners over NATS, and to
// the server's own log.
func publishLogs(to *broker.Broker, log *slog.Logger) func(j *jobs.Job, e *joblog.Entry) {
	return func(j *jobs.Job, e *joblog.Entry) {
		if b, err := json.Marshal(e); err == nil {
			to.PublishLog(j, b)
		}
		if log.Enabled(context.Background(), slog.LevelDebug) {
			log.Debug(e.Text, jobs.LogAttr(j.ID, j.Type, e.Attempt, j.Trace()), "stream", e.Stream, "entry_level", e.Level)
		}
	}
}

// epochOf returns the epoch of a tracker's commits. A follower knows it when it has the
// leader's first commit.
func epochOf(s *status.Store) func() string {
	var mu sync.Mutex
	known := ""
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		if known == "" {
			if key, err := s.LeaseKey(); err == nil {
				known = key.Epoch()
			}
		}
		return known
	}
}

// publishCancel notifies a worker elsewhere that an execution has ended without it.
func (c *core) publishCancel(worker, token, reason string) {
	if b, err := json.Marshal(map[string]string{"lease": token, "reason": reason}); err == nil {
		c.Broker.PublishCancel(worker, b)
	}
}

// maxWorkers is how many workers this node has. A member keeps a number that was changed.
func (c *core) maxWorkers() int {
	if m := c.o.member; m != nil {
		return int(m.worker.max.Load())
	}
	return c.o.Workers.Max
}

// startPool opens the lanes and begins to run jobs. survivors is the last sequence of
// JOBS at a crash.
func (c *core) startPool(ctx context.Context, survivors uint64) error {
	lanes := lanesOf(c.o.registry.Types())
	paused, err := c.Store.Paused()
	if err != nil {
		return err
	}
	key, err := c.Store.LeaseKey()
	if err != nil {
		return err
	}
	adopted, err := c.adopted()
	if err != nil {
		return err
	}
	if c.o.member == nil {
		c.Logs = joblog.New(c.o.dirs.Logs, publishLogs(c.Broker, c.log))
	}
	c.newPools(pool.Options{
		Queue: c.Tail, Tracker: c.o.member.leased(c.Store), Recorder: c.Recorder, Registry: c.o.registry,
		MaxWorkers: c.maxWorkers(), MinWorkers: min(c.o.Workers.Min, c.maxWorkers()), Paused: paused, Lease: c.o.Workers.Lease, Resend: c.o.ofMember(memberResend), MaxLost: c.o.Workers.MaxLost, Node: c.name, Trace: c.o.traceAttempts(), Logger: c.log,
		LeaseKey: key, Running: adopted,
		SurvivorsUpTo: survivors, Artifacts: c.o.Handlers.Artifacts, Inputs: c.Inputs, Logs: c.Logs, Revoked: c.publishCancel,
	}, lanes)
	c.Pool.PauseAll(c.o.paused)
	c.listen(c.Pool.Committed)
	c.listen(c.callbacks.committed)
	if c.o.member == nil { // a member has its own all the time
		c.listen(c.Waits.Committed)
		c.listen(c.changes.Committed)
	}
	c.listen(c.Tail.Committed)
	c.followByTracer() // after a rebuild
	if err := c.Broker.Lanes.Open(ctx, lanes, deliveries{c}); err != nil {
		return fmt.Errorf("open the lanes: %w", err)
	}
	state, err := c.Broker.Streams.Jobs(ctx)
	if err != nil {
		return err
	}
	c.loops.run("workers", c.Pool.Run)
	c.loops.run("callbacks", c.callbacks.pool.Run)
	c.loops.run("callbacks that are due", c.callbacks.releaser.Run)
	c.loops.run("scheduled jobs", c.Releaser.Run)
	c.loops.run("idempotency keys and inputs", c.forget)
	c.refusals = api.NewRefusals(c.Store)
	c.loops.run("refusals", c.refusals.Run)
	// This must come late. While unfinished jobs are published again, JOBS begins above
	// the lowest message needed, and the tail would publish them once more.
	c.loops.run("trimming", c.Tail.Run)
	c.Pool.Start(c.Store.Positions().Jobs, state.Last)
	c.warnOfUnknown()
	c.callbacks.pool.Start(c.Store.Positions().Jobs, state.Last)
	c.o.figures.Start(c)
	return nil
}
