package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"jobstream/broker"
	"jobstream/jobs"
	"jobstream/jobs/intake"
	"jobstream/jobs/pool"
	"jobstream/jobs/schedule"
	"jobstream/status"
)

// Parts are what a node consists of behind its doors.
type Parts struct {
	Store     *status.Store
	Broker    *broker.Broker
	Submitter *intake.Submitter
	Releaser  *intake.Releaser
	Waits     *intake.Waits
	Recorder  *pool.Recorder
	Pool      *pool.Pool
	Schedules *schedule.Book
	Tail      *broker.Tail
}

// Core is a running jobstream without its REST door: the parts, and the goroutines that
// keep them going.
type Core struct {
	Parts
	o        Options
	log      *slog.Logger
	name     string // of this node, in events and records
	started  time.Time
	notifier *notifier
	health   *health
	loops    *loops
	Failed   <-chan error // holds why the first part broke
	Mend     chan error   // holds why another start is needed, once that can help

	stopSchedules func() // and waits until they have stopped
	stopProjector context.CancelFunc
	projected     chan struct{} // closed when the listeners know of the projector's last commit
}

// Start brings a node up: it returns when everything that the tracker knows
// to be unfinished is in the queue again and workers take from it.
func Start(ctx context.Context, o Options) (n *Core, err error) {
	n = &Core{o: o, log: o.Logger, started: o.Started, loops: newLoops(), Parts: Parts{Waits: intake.NewWaits()}}
	if n.started.IsZero() {
		n.started = time.Now()
	}
	if o.Again {
		// What has been taken away must not begin anew in silence.
		if _, err := os.Stat(o.Dirs.Tracker); err != nil {
			return nil, fmt.Errorf("the tracker's file has been removed (%w); put the data folder back, or restart jobstream to begin with what is there now", err)
		}
	} else if err := os.MkdirAll(o.Dirs.Root, 0o750); err != nil {
		return nil, fmt.Errorf("cannot make the data folder: %w", err)
	}
	if err := jobs.ArtifactDir(o.Dirs.Artifacts).Sweep(); err != nil {
		return nil, err
	}
	n.Store, err = status.Open(status.Options{
		Path: o.Dirs.Tracker, Existing: o.Again, Registry: o.Registry, Logger: o.Logger,
		OutboxAge: max(10*time.Second, 5*o.Sync),
		Checked:   func(id jobs.ID) bool { return n.Submitter.Checked(id) },
	})
	if err != nil {
		return nil, err
	}
	n.health = newHealth(n.Store, o.Dirs, n.log)
	n.Failed, n.Mend = n.loops.broken, n.health.stuck
	if o.Tracker != nil {
		o.Tracker.Store = n.Store
	}
	if err = n.startWatched(ctx); err == nil {
		return n, nil
	}
	if n.Pool != nil {
		n.Pool.Break()
	}
	n.loops.end()
	if n.Broker != nil {
		n.Broker.Close()
	}
	return nil, errors.Join(err, n.Store.Close())
}

// startWatched is start, ended early if a part breaks meanwhile.
func (n *Core) startWatched(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	started := make(chan error, 1)
	go func() { started <- n.start(ctx) }()
	select {
	case err := <-started:
		return err
	case err := <-n.loops.broken:
		cancel(err)
		<-started
		return err
	}
}

func (n *Core) start(ctx context.Context) (err error) {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "jobstream"
	}
	if n.name, err = n.Store.Node(safeName(host)); err != nil {
		return err
	}
	unfinished, scheduled := n.Store.Totals()
	inbox := inboxFunc(func(m *jobs.Message, refused func(error)) error { return n.Broker.Inbox.Submit(m, refused) })
	n.Submitter = intake.NewSubmitter(intake.SubmitterOptions{
		Inbox: inbox, Ledger: n.Store, Registry: n.o.Registry,
		QueueSize: n.o.QueueSize, MaxScheduled: n.o.Scheduled, MaxPayload: n.o.MaxPayload, Healthy: n.health.now,
	}, unfinished, scheduled)
	n.Releaser = intake.NewReleaser(intake.ReleaserOptions{
		Agenda: n.Store, Inbox: inbox, Room: n.o.releaseRoom(), Logger: n.log,
	}, unfinished)
	r := &recovery{o: &n.o, node: n.name, store: n.Store, log: n.log}
	clean, err := r.openBroker(ctx)
	n.Broker = r.broker
	if err != nil {
		return err
	}
	if !clean {
		if err := r.alignStreams(ctx); err != nil {
			return err
		}
	}
	n.Tail = broker.NewTail(n.Broker, n.Store, r.restore)
	n.notifier = newNotifier(n.Store, n.Broker.Notifier, n.log)
	// Of a commit hear, in this order: who submitted, the releaser, the notifier, the log;
	// and once there is a pool (see startPool) the pool, who waits for a job, the tail.
	n.Store.Listen(n.Submitter.Committed)
	n.Store.Listen(n.Releaser.Committed)
	n.Store.Listen(n.notifier.committed)
	n.Store.Listen(n.logFailures)
	n.runParts()
	if err := r.recover(ctx, clean); err != nil {
		return err
	}
	batches, err := n.Store.Batches()
	if err != nil {
		return err
	}
	n.Submitter.Resume(batches)
	if err := n.Broker.Listen(ctx); err != nil {
		return err
	}
	if err := n.startPool(ctx, r.survivors); err != nil {
		return err
	}
	return n.startSchedules(ctx)
}

// safeName makes a name that can stand in a subject.
func safeName(host string) string {
	b := []byte(host)
	for i, c := range b {
		if !jobs.ValidTypeName(string(c)) {
			b[i] = '-'
		}
	}
	return string(b)
}

// inboxFunc is a function as a jobs.Inbox.
type inboxFunc func(*jobs.Message, func(error)) error

// Submit calls f.
func (f inboxFunc) Submit(m *jobs.Message, refused func(error)) error { return f(m, refused) }

// runParts starts everything that runs from now on, but the pool.
func (n *Core) runParts() {
	n.Recorder = pool.NewRecorder(n.Broker.EventLog, func(err error) {
		n.log.Warn("events could not be sent; they are sent again", "error", err)
	})
	n.loops.run("submissions", n.Submitter.Run)
	n.loops.run("events", n.Recorder.Run)
	n.loops.run("health", func(ctx context.Context) error { return n.health.watch(ctx, n.Broker) })
	n.loops.run("notifications", n.notifier.run)
	var projecting context.Context
	projecting, n.stopProjector = context.WithCancel(n.loops.ctx)
	n.projected = make(chan struct{})
	n.loops.run("tracker", func(context.Context) error {
		defer close(n.projected)
		return n.Store.Run(projecting, n.Broker.Reader)
	})
}

// startPool opens the lanes and begins to run jobs from them. Survivors are the sequences
// in JOBS up to which a crash may have been near.
func (n *Core) startPool(ctx context.Context, survivors uint64) error {
	lanes := n.lanesNeeded()
	paused, err := n.Store.Paused()
	if err != nil {
		return err
	}
	n.Pool = pool.New(pool.Options{
		Queue: n.Tail, Tracker: n.Store, Recorder: n.Recorder, Registry: n.o.Registry,
		MaxWorkers: n.o.MaxWorkers, MinWorkers: n.o.MinWorkers, Paused: paused, Lease: n.o.Lease, MaxLost: n.o.MaxLost, Node: n.name, Logger: n.log,
		SurvivorsUpTo: survivors,
	}, lanes)
	n.Store.Listen(n.Pool.Committed)
	n.Store.Listen(n.Waits.Committed)
	n.Store.Listen(n.Tail.Committed)
	if err := n.Broker.Lanes.Open(ctx, lanes, n.Pool); err != nil {
		return fmt.Errorf("open the lanes: %w", err)
	}
	state, err := n.Broker.Streams.Jobs(ctx)
	if err != nil {
		return err
	}
	n.loops.run("workers", n.Pool.Run)
	n.loops.run("scheduled jobs", n.Releaser.Run)
	n.loops.run("idempotency keys", n.forgetTokens)
	// Not before: while unfinished jobs are published again the floor is where
	// JOBS begins no more, and the tail would publish them once more.
	n.loops.run("trimming", n.Tail.Run)
	n.Pool.Start(n.Store.Positions().Jobs, state.Last)
	return nil
}

// lanesNeeded are those of all known types, and of the types of unfinished jobs that
// are not known any more: their jobs wait until the type is back.
func (n *Core) lanesNeeded() []jobs.Lane {
	names := make(map[string]bool)
	for _, t := range n.o.Registry.Types() {
		names[t.Name] = true
	}
	for name, f := range n.Store.Figures() {
		waiting := 0
		for s := jobs.Scheduled; !s.Ended(); s++ {
			waiting += f.Now[s]
		}
		if waiting > 0 && !names[name] && jobs.ValidTypeName(name) {
			n.log.Warn("there are unfinished jobs of a type that is not configured; they wait until it is again", "type", name, "jobs", waiting)
			names[name] = true
		}
	}
	var lanes []jobs.Lane
	for name := range names {
		for p := jobs.HighestPriority; p <= jobs.LowestPriority; p++ {
			lanes = append(lanes, jobs.Lane{Type: name, Priority: p})
		}
	}
	return lanes
}
