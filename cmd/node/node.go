package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"jobstream/broker"
	"jobstream/jobs"
	"jobstream/jobs/intake"
	"jobstream/jobs/pool"
	"jobstream/jobs/schedule"
	"jobstream/status"
)

// Options are what a node is made of.
type Options struct {
	Dirs       Folders
	Registry   *jobs.Registry
	Tracker    *LateTracker // filled by Start; may be nil
	Host       string       // of the NATS port
	Port       int          // -1 any, 0 none
	MaxConns   int          // there; 0 = no bound of ours
	Sync       time.Duration
	SyncAlways bool
	MaxWorkers int
	MinWorkers int // 0 = always maxWorkers
	QueueSize  int
	Scheduled  int             // bound of jobs whose time is to come
	Schedules  []schedule.Spec // of the configuration
	MaxPayload int
	Lease      time.Duration
	MaxLost    int
	Started    time.Time // when the process began to serve; zero = now
	Again      bool      // this process had a node on the folder before, and has broken it off
	Logger     *slog.Logger
}

// releaseRoom is the number of unfinished jobs from which scheduled ones wait
// though their time has come: they come on top of the jobs that the doors let in.
func (o *Options) releaseRoom() int { return o.QueueSize + o.QueueSize/2 }

// Core is a running jobstream without its REST door: broker, tracker, pool and
// what goes on between them.
type Core struct {
	o       Options
	log     *slog.Logger
	name    string
	started time.Time

	Store     *status.Store
	Broker    *broker.Broker
	Submitter *intake.Submitter
	Recorder  *pool.Recorder
	Pool      *pool.Pool
	Releaser  *intake.Releaser
	Waits     *intake.Waits
	Schedules *schedule.Book
	notifier  *notifier
	Tail      *broker.Tail

	brokerSick atomic.Pointer[error] // what the last health checks of the broker said

	sameBoot  bool   // the last start was in the same run of the operating system
	intact    bool   // after a crash: JOBS has all that is needed
	survivors uint64 // after a crash: the last sequence in JOBS

	parts  sync.WaitGroup
	Failed chan error // the first part that broke
	Mend   chan error // says why another start is needed, once that can help

	stopSchedules func() // and waits until they have stopped
	stopParts     context.CancelFunc
	stopProjector context.CancelFunc
	projected     chan struct{} // closed when the projector has told its last commit
}

// Start brings a node up: it returns when everything that the tracker knows
// to be unfinished is in the queue again and workers take from it.
func Start(ctx context.Context, o Options) (n *Core, err error) {
	n = &Core{
		o: o, log: o.Logger, started: o.Started, Failed: make(chan error, 8), Mend: make(chan error, 1),
		Waits: intake.NewWaits(),
	}
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
	if o.Tracker != nil {
		o.Tracker.Store = n.Store
	}
	if err = n.startWatched(ctx); err == nil {
		return n, nil
	}
	if n.Pool != nil {
		n.Pool.Break()
	}
	if n.stopParts != nil {
		n.stopParts()
		n.stopProjector()
		n.parts.Wait()
	}
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
	case err := <-n.Failed:
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
		QueueSize: n.o.QueueSize, MaxScheduled: n.o.Scheduled, MaxPayload: n.o.MaxPayload, Healthy: n.healthy,
	}, unfinished, scheduled)
	n.Releaser = intake.NewReleaser(intake.ReleaserOptions{
		Agenda: n.Store, Inbox: inbox, Room: n.o.releaseRoom(), Logger: n.log,
	}, unfinished)
	clean, err := n.openBroker(ctx)
	if err != nil {
		return err
	}
	if !clean {
		if err := n.alignStreams(ctx); err != nil {
			return err
		}
	}
	n.Tail = broker.NewTail(n.Broker, n.Store, n.restore)
	n.notifier = newNotifier(n.Store, n.Broker.Notifier, n.log)
	// Of a commit hear, in this order: who submitted, the releaser, the notifier, the log;
	// and once there is a pool (see startPool) the pool, who waits for a job, the tail.
	n.Store.Listen(n.Submitter.Committed)
	n.Store.Listen(n.Releaser.Committed)
	n.Store.Listen(n.notifier.committed)
	n.Store.Listen(n.logFailures)
	n.runParts()
	if err := n.recover(ctx, clean); err != nil {
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
	if err := n.startPool(ctx); err != nil {
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
	var ctx, projecting context.Context
	ctx, n.stopParts = context.WithCancel(context.Background())
	projecting, n.stopProjector = context.WithCancel(context.Background())
	n.projected = make(chan struct{})
	n.Recorder = pool.NewRecorder(n.Broker.EventLog, func(err error) {
		n.log.Warn("events could not be sent; they are sent again", "error", err)
	})
	n.part("submissions", func() error { return n.Submitter.Run(ctx) })
	n.part("events", func() error { return n.Recorder.Run(ctx) })
	n.part("health", func() error { return n.watchHealth(ctx) })
	n.part("notifications", func() error { return n.notifier.run(ctx) })
	n.part("tracker", func() error {
		defer close(n.projected)
		return n.Store.Run(projecting, n.Broker.Reader)
	})
}

// part runs one long-lived part; an error of it ends the node.
func (n *Core) part(name string, run func() error) {
	n.parts.Go(func() {
		if err := run(); err != nil {
			select {
			case n.Failed <- fmt.Errorf("%s: %w", name, err):
			default:
			}
		}
	})
}

// startPool opens the lanes and begins to take jobs from them.
func (n *Core) startPool(ctx context.Context) error {
	lanes := n.lanesNeeded()
	paused, err := n.Store.Paused()
	if err != nil {
		return err
	}
	n.Pool = pool.New(pool.Options{
		Queue: n.Tail, Tracker: n.Store, Recorder: n.Recorder, Registry: n.o.Registry,
		MaxWorkers: n.o.MaxWorkers, MinWorkers: n.o.MinWorkers, Paused: paused, Lease: n.o.Lease, MaxLost: n.o.MaxLost, Node: n.name, Logger: n.log,
		SurvivorsUpTo: n.survivors,
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
	ctx, cancel := context.WithCancel(context.Background())
	stop := n.stopParts
	n.stopParts = func() { cancel(); stop() }
	n.part("workers", func() error { return n.Pool.Run(ctx) })
	n.part("scheduled jobs", func() error { return n.Releaser.Run(ctx) })
	n.part("idempotency keys", func() error { return n.forgetTokens(ctx) })
	// Not before: while unfinished jobs are published again the floor is where
	// JOBS begins no more, and the tail would publish them once more.
	n.part("trimming", func() error { return n.Tail.Run(ctx) })
	n.Pool.Start(n.Store.Positions().Jobs, state.Last)
	return nil
}

// forgetEvery is how often old idempotency keys are dropped.
const forgetEvery = time.Minute

// forgetTokens drops idempotency keys that are older than they are remembered.
func (n *Core) forgetTokens(ctx context.Context) error {
	tick := time.NewTicker(forgetEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		n.forgetOldTokens(ctx)
	}
}

// forgetOldTokens drops all of them; what fails is tried again at the next tick.
func (n *Core) forgetOldTokens(ctx context.Context) {
	for {
		some, err := n.forgetSomeTokens(ctx)
		if err != nil && ctx.Err() == nil {
			n.log.Warn("old idempotency keys could not be dropped; trying again", "error", err)
		}
		if err != nil || some == 0 {
			return
		}
	}
}

// forgetBatch is how many tokens one transaction drops at most.
const forgetBatch = 10_000

func (n *Core) forgetSomeTokens(ctx context.Context) (int, error) {
	c := jobs.ForgetTokens{Stamp: jobs.By("cleanup"), Most: forgetBatch}
	c.Before = c.At.Add(-jobs.TokenTime)
	oldest, err := n.Store.OldestToken()
	if err != nil || oldest == 0 || oldest >= c.Before {
		return 0, err
	}
	e, err := n.Store.Do(ctx, c)
	return e.Removed, err
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

// Health checks of the broker cost some hundred microseconds, so submissions go
// by the last one.
const healthEvery = 250 * time.Millisecond

// watchHealth checks the broker, and that the tracker's file is still there, all
// the time. One bad answer is not believed at
// once: a busy machine makes a check time out.
func (n *Core) watchHealth(ctx context.Context) error {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	bad := 0
	var probed time.Time
	for {
		err := n.Store.Present()
		if err == nil {
			err = n.Broker.Healthy()
		}
		// After a write error JetStream forgets, at its stop, some of what it
		// acknowledged before.
		n.Store.HoldOutbox(err != nil)
		if err == nil {
			if n.brokerSick.Swap(nil) != nil {
				n.log.Info("jobs are taken again")
			}
			bad = 0
		} else if bad++; bad >= 2 {
			if n.brokerSick.Swap(&err) == nil {
				n.log.Error("no jobs can be taken; submissions are refused until they can", "error", err)
			}
			if errors.Is(err, broker.ErrStuck) && time.Since(probed) >= probeEvery {
				n.probe(err)
				probed = time.Now()
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// healthy is nil, or why nothing can be taken.
func (n *Core) healthy() error {
	if err := n.Store.Health(); err != nil {
		return err
	}
	return n.brokerHealth()
}

func (n *Core) brokerHealth() error {
	if p := n.brokerSick.Load(); p != nil {
		return *p
	}
	return nil
}

// Check is the health by part; see httpapi.Health.
func (n *Core) Check(context.Context) map[string]error {
	return map[string]error{"tracker": n.Store.Health(), "broker": n.brokerHealth()}
}

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
func (n *Core) Close() error { return n.end(n.brokerHealth()) }

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
	n.stopParts()
	n.parts.Wait()
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
	pos, err := n.ends(ctx)
	if err != nil {
		return mark, err
	}
	if err := n.Store.WaitTold(ctx, pos); err != nil {
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
func (n *Core) ends(ctx context.Context) (jobs.Positions, error) {
	inJobs, err := n.Broker.Streams.Jobs(ctx)
	if err != nil {
		return jobs.Positions{}, err
	}
	inStatus, err := n.Broker.Streams.Status(ctx)
	if err != nil {
		return jobs.Positions{}, err
	}
	pos := n.Store.Positions()
	if inJobs.Msgs > 0 {
		pos.Jobs = max(pos.Jobs, inJobs.Last)
	}
	if inStatus.Msgs > 0 {
		pos.Status = max(pos.Status, inStatus.Last)
	}
	return pos, nil
}
