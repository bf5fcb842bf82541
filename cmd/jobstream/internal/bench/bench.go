// Package bench measures what the server can do on this machine. Where to start: [Run]
// goes through the phases, each on a [Node] of its own that it is handed the way to make.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"jobstream/broker"
	"jobstream/jobs"
)

// Options are what to measure, and with which load. The tags are those of the command
// line (kong).
type Options struct {
	Jobs        int           `default:"200000" help:"Jobs of every phase but latency; a twentieth of it in the phase with large payloads."`
	Workers     int           `default:"100" help:"Workers of the pool."`
	Submitters  int           `default:"16" help:"Submitters in process."`
	Window      int           `default:"256" help:"Jobs that each submitter has on their way at a time."`
	Connections int           `default:"256" help:"Keep-alive connections over HTTP, each with one request at a time."`
	Payload     int           `default:"200" help:"Bytes of a job's payload."`
	Types       int           `default:"1" help:"Job types to spread the jobs over."`
	Priorities  int           `default:"1" help:"Priorities to spread the jobs over, 1 to 5."`
	Backlog     int           `default:"0" help:"Jobs that wait in the backlog phase; 0 = leave that phase out."`
	History     int           `default:"0" help:"Finished jobs that the tracker knows in the history phase; 0 = leave that phase out."`
	Rate        int           `default:"200" help:"Jobs a second of the latency phase."`
	LatencyTime time.Duration `default:"5s" help:"Length of the latency phase."`
	MaxTime     time.Duration `default:"1m" help:"When a phase stops and reports what it got through by then."`
	HTTP        bool          `default:"true" negatable:"" help:"Measure REST, too (the default)."`
	Phase       []string      `placeholder:"NAME" help:"Only these phases: latency, raw, submit, drain (with submit), batch, sustained, lanes, large, backlog, history, http, nats."`
	Dir         string        `placeholder:"FOLDER" help:"Where to make the temporary folder, so: which disk to measure (default: the system's)."`
}

// The phases, in their order. Latency comes first, as it is that of an idle machine:
// the others leave much for the system to write.
const (
	phaseLatency   = "latency"
	phaseRaw       = "raw"
	phaseSubmit    = "submit"
	phaseDrain     = "drain"
	phaseBatch     = "batch"
	phaseSustained = "sustained"
	phaseLanes     = "lanes"
	phaseLarge     = "large"
	phaseBacklog   = "backlog"
	phaseHistory   = "history"
	phaseHTTP      = "http"
	phaseNATS      = "nats"
)

// Phases are the names of all phases, in their order.
var Phases = []string{
	phaseLatency, phaseRaw, phaseSubmit, phaseDrain, phaseBatch, phaseSustained, phaseLanes, phaseLarge, phaseBacklog, phaseHistory, phaseHTTP, phaseNATS,
}

// What the phases with many lanes and with large payloads are measured with.
const (
	manyTypes    = 20
	largePayload = 16 << 10 // bytes
	largeShare   = 20       // one of so many jobs
	largeWindow  = 4        // one of so many in flight, so that they are not most of the memory
)

// Validate says what is wrong with the flags; kong calls it.
func (c *Options) Validate() error {
	var problems []string
	within := func(flag string, n, low, high int) {
		if n < low || n > high {
			problems = append(problems, fmt.Sprintf("--%s is %d; it must be %d to %d", flag, n, low, high))
		}
	}
	within("jobs", c.Jobs, 1, 1_000_000_000)
	within("workers", c.Workers, 1, jobs.MaxPoolSize)
	within("submitters", c.Submitters, 1, 10_000)
	within("window", c.Window, 1, 10_000)
	within("connections", c.Connections, 1, 10_000)
	within("payload", c.Payload, minPayload, 1<<20)
	within("types", c.Types, 1, 1000)
	within("priorities", c.Priorities, 1, int(jobs.LowestPriority))
	within("backlog", c.Backlog, 0, 1_000_000_000)
	within("history", c.History, 0, 1_000_000_000)
	within("rate", c.Rate, 1, 10_000)
	for flag, d := range map[string]time.Duration{"latency-time": c.LatencyTime, "max-time": c.MaxTime} {
		if d < 10*time.Millisecond || d > 24*time.Hour {
			problems = append(problems, fmt.Sprintf("--%s is %v; it must be 10ms to 24h", flag, d))
		}
	}
	for _, name := range c.Phase {
		if !slices.Contains(Phases, name) {
			problems = append(problems, fmt.Sprintf("--phase names %q; there are %s", name, strings.Join(Phases, ", ")))
		}
	}
	if slices.Contains(c.Phase, phaseHTTP) && !c.HTTP {
		problems = append(problems, "--phase=http and --no-http contradict each other")
	}
	if slices.Contains(c.Phase, phaseBacklog) && c.Backlog == 0 {
		problems = append(problems, "--phase=backlog needs --backlog, the number of jobs that wait")
	}
	if slices.Contains(c.Phase, phaseHistory) && c.History == 0 {
		problems = append(problems, "--phase=history needs --history, the number of finished jobs")
	}
	if problems == nil {
		return nil
	}
	slices.Sort(problems)
	return errors.New(strings.Join(problems, "; "))
}

// wants says whether a phase was asked for.
func (c *Options) wants(phase string) bool {
	if phase == phaseHTTP && !c.HTTP || phase == phaseBacklog && c.Backlog == 0 || phase == phaseHistory && c.History == 0 {
		return false
	}
	return len(c.Phase) == 0 || slices.Contains(c.Phase, phase)
}

// Run measures a server. All that it makes is in a temporary folder, which is gone when
// it returns. What it says meanwhile goes to terminal, if that is one. The end of ctx ends
// it, with an error.
func Run(ctx context.Context, o Options, s Server, log *slog.Logger, terminal io.Writer) (*Report, error) {
	dir, err := os.MkdirTemp(o.Dir, "jobstream-bench-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a temporary folder (--dir): %w", err)
	}
	b := &bench{
		c: &o, server: &s, dir: dir, progress: newProgress(terminal), report: newReport(&o, &s, dir),
		options: NodeOptions{
			Registry: o.registry(nil), Host: "127.0.0.1", Sync: time.Second, Workers: o.Workers,
			QueueSize: max(leastQueue, o.Jobs), MaxPayload: 1 << 20, Lease: 30 * time.Second, MaxLost: 5, Logger: log,
		},
	}
	err = errors.Join(b.run(ctx), os.RemoveAll(dir))
	if ctx.Err() != nil {
		return nil, fmt.Errorf("stopped before the end; %s is removed", dir)
	}
	if err != nil {
		return nil, err
	}
	return b.report, nil
}

// leastQueue is the smallest queue size to measure with: that of the
// configuration's default.
const leastQueue = 100_000

// bench is one run of all phases.
type bench struct {
	c        *Options
	server   *Server
	dir      string
	options  NodeOptions // of every node, but for its folders
	progress *progress
	report   *Report
}

func (b *bench) run(ctx context.Context) error {
	defer b.progress.end()
	memory := watchMemory()
	defer memory.stop()
	for _, phase := range []struct {
		wanted bool
		name   string
		run    func(context.Context, string) error
	}{
		{b.c.wants(phaseLatency), phaseLatency, b.latency},
		{b.c.wants(phaseRaw), phaseRaw, b.raw},
		{b.c.wants(phaseSubmit) || b.c.wants(phaseDrain), phaseSubmit, b.backlog},
		{b.c.wants(phaseBatch), phaseBatch, b.batch},
		{b.c.wants(phaseSustained), phaseSustained, b.sustained},
		{b.c.wants(phaseLanes), phaseLanes, b.lanes},
		{b.c.wants(phaseLarge), phaseLarge, b.large},
		{b.c.wants(phaseBacklog), phaseBacklog, b.behindBacklog},
		{b.c.wants(phaseHistory), phaseHistory, b.history},
		{b.c.wants(phaseHTTP), phaseHTTP, b.http},
		{b.c.wants(phaseNATS), phaseNATS, b.nats},
	} {
		if !phase.wanted {
			continue
		}
		// What an earlier phase has left in memory is neither to slow this one down
		// nor to count as its own.
		debug.FreeOSMemory()
		memory.watch(!slices.Contains([]string{phaseRaw, phaseLanes, phaseBacklog, phaseHistory}, phase.name)) // no node, or two
		if err := b.phase(ctx, phase.name, phase.run); err != nil {
			return fmt.Errorf("%s: %w", phase.name, err)
		}
	}
	b.report.RSSBytes = memory.stop()
	return nil
}

// phase runs one phase in a folder of its own.
func (b *bench) phase(ctx context.Context, name string, run func(context.Context, string) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("cannot make a folder: %w", err)
	}
	return errors.Join(run(ctx, dir), os.RemoveAll(dir))
}

// raw is the yardstick: what JetStream can do by itself, with the settings that
// the node runs it with.
func (b *bench) raw(ctx context.Context, dir string) error {
	b.progress.begin(phaseRaw, b.c.Jobs, nil)
	done, took, err := rawThroughput(ctx, broker.Options{
		Dir: dir, SyncInterval: b.options.Sync, MaxPayload: b.options.MaxPayload, QueueSize: b.options.QueueSize,
		Lease: b.options.Lease, Logger: b.options.Logger,
	}, b.c.Jobs, b.c.Payload, b.c.MaxTime)
	if err != nil {
		return err
	}
	b.report.Raw = newThroughput(done, b.c.Jobs, took)
	return nil
}

// backlog is two phases: submitting while no job gets done, and the working off
// of what has piled up so.
func (b *bench) backlog(ctx context.Context, dir string) error {
	gate := make(chan struct{})
	o := b.options
	o.Registry = b.c.registry(gate)
	return b.withNode(ctx, dir, o, func(n *node) error {
		accepted, submitted, err := b.fill(ctx, n, phaseSubmit, n.submit)
		b.report.Submit = submitted
		if err != nil || !b.c.wants(phaseDrain) {
			return err
		}
		b.progress.begin(phaseDrain, accepted, n.ended)
		watch := startWatch()
		close(gate)
		err = n.awaitAll(ctx, accepted, b.c.MaxTime)
		if errors.Is(err, errTooSlow) {
			b.report.Drain = watch.throughput(int(n.ended()), b.c.Jobs)
			return nil
		}
		if err != nil {
			return fmt.Errorf("drain: %w", err)
		}
		b.report.Drain = watch.throughput(accepted, b.c.Jobs)
		return nil
	})
}

// batch is submitting in batches of a thousand while no job gets done.
func (b *bench) batch(ctx context.Context, dir string) error {
	o := b.options
	o.Registry = b.c.registry(make(chan struct{}))
	return b.withNode(ctx, dir, o, func(n *node) (err error) {
		_, b.report.Batch, err = b.fill(ctx, n, phaseBatch, n.submitBatches)
		return err
	})
}

// fill submits all jobs in one way, and holds what was accepted against what the
// tracker knows.
func (b *bench) fill(ctx context.Context, n *node, phase string, submit func(context.Context, *Options) (int, error)) (accepted int, took *throughput, err error) {
	b.progress.begin(phase, b.c.Jobs, n.accepted.Load)
	watch := startWatch()
	if accepted, err = submit(ctx, b.c); err != nil {
		return 0, nil, err
	}
	took = watch.throughput(accepted, b.c.Jobs)
	if known := n.known(); known != accepted {
		err = fmt.Errorf("%d jobs were accepted, but the tracker knows %d", accepted, known)
	}
	return accepted, took, err
}

// sustained is everything at the same time: submitted in process, run, notified.
func (b *bench) sustained(ctx context.Context, dir string) error {
	return b.withNode(ctx, dir, b.options, func(n *node) error {
		syncs, err := n.Store.Syncs()
		if err != nil {
			return err
		}
		disk, err := diskUsage(dir)
		if err != nil {
			return err
		}
		t, err := b.endToEnd(ctx, n, b.c, phaseSustained, n.submit)
		if err != nil {
			return err
		}
		b.report.Sustained = &sustained{throughput: *t}
		if t.Jobs == 0 {
			return nil
		}
		after, err := n.Store.Syncs()
		if err != nil {
			return err
		}
		b.report.FsyncsPer1000Jobs = float64(after-syncs) * 1000 / float64(t.Jobs)
		grown, err := n.diskUsage(ctx, dir)
		b.report.BytesPerJob = float64(grown-disk) / float64(t.Jobs)
		return err
	})
}

// lanes is the same over many types and all priorities, compared with one queue.
func (b *bench) lanes(ctx context.Context, dir string) (err error) {
	one, many := b.spreadOver(1, 1), b.spreadOver(manyTypes, int(jobs.LowestPriority))
	b.report.Lanes, err = b.compare(ctx, dir, phaseLanes, many, one)
	return err
}

// spreadOver is the load of the flags, over other queues.
func (b *bench) spreadOver(types, priorities int) load {
	c, o := *b.c, b.options
	c.Types, c.Priorities = types, priorities
	o.Registry = c.registry(nil)
	return load{c: &c, options: o}
}

// large is the same with large payloads, and fewer jobs.
func (b *bench) large(ctx context.Context, dir string) (err error) {
	c := *b.c
	c.Payload, c.Jobs, c.Window = largePayload, (c.Jobs+largeShare-1)/largeShare, (c.Window+largeWindow-1)/largeWindow
	return b.withNode(ctx, dir, b.options, func(n *node) (err error) {
		b.report.Large, err = b.endToEnd(ctx, n, &c, phaseLarge, n.submit)
		return err
	})
}

// nats is end to end with bare messages that come in by the NATS port.
func (b *bench) nats(ctx context.Context, dir string) error {
	o := b.options
	o.Port = -1
	return b.withNode(ctx, dir, o, func(n *node) error {
		client, err := dial(n.Broker, n.log)
		if err != nil {
			return err
		}
		defer client.close()
		subjects := b.c.subjects()
		b.report.NATS, err = b.endToEnd(ctx, n, b.c, phaseNATS, func(ctx context.Context, _ *Options) (int, error) {
			limited, cancel := context.WithTimeout(ctx, b.c.MaxTime)
			defer cancel()
			return client.publish(limited, b.c.Jobs, func(i int) string { return subjects[i%len(subjects)] }, makePayload(b.c.Payload, 0))
		})
		return err
	})
}

// endToEnd measures from the first submission until the last notification is
// stored.
func (b *bench) endToEnd(ctx context.Context, n *node, c *Options, name string, submit func(context.Context, *Options) (int, error)) (*throughput, error) {
	b.progress.begin(name, c.Jobs, n.ended)
	watch := startWatch()
	accepted, err := submit(ctx, c)
	if err != nil {
		return nil, err
	}
	if accepted == 0 {
		return watch.throughput(0, c.Jobs), context.Cause(ctx)
	}
	if err := n.awaitAll(ctx, accepted, max(c.MaxTime, patience)); err != nil {
		return nil, err
	}
	return watch.throughput(accepted, c.Jobs), nil
}

// typeNames are those of the job types.
func (c *Options) typeNames() []string {
	names := []string{"noop"}
	for i := 2; i <= c.Types; i++ {
		names = append(names, fmt.Sprintf("noop%d", i))
	}
	return names
}

// lanes are all pairs of a type and a priority to spread the jobs over.
func (c *Options) lanes() []jobs.Lane {
	low, high := jobs.DefaultPriority, jobs.DefaultPriority
	if c.Priorities > 1 {
		low, high = jobs.HighestPriority, jobs.Priority(c.Priorities)
	}
	var lanes []jobs.Lane
	for _, name := range c.typeNames() {
		for p := low; p <= high; p++ {
			lanes = append(lanes, jobs.Lane{Type: name, Priority: p})
		}
	}
	return lanes
}

// subjects are where bare messages for the lanes go.
func (c *Options) subjects() []string {
	var subjects []string
	for _, l := range c.lanes() {
		subjects = append(subjects, fmt.Sprintf("jobs.%s.%d", l.Type, l.Priority))
	}
	return subjects
}

// registry makes the types. Their jobs do nothing; with a gate, they wait until
// it is closed.
func (c *Options) registry(gate <-chan struct{}) *jobs.Registry {
	if gate == nil {
		return c.registryOf(noop)
	}
	return c.registryOf(gated(gate))
}

func (c *Options) registryOf(h jobs.Handler) *jobs.Registry {
	return jobs.NewRegistry(c.types(h)...)
}

func (c *Options) types(h jobs.Handler) (types []*jobs.Type) {
	for _, name := range c.typeNames() {
		types = append(types, &jobs.Type{Name: name, Timeout: 48 * time.Hour, Handler: h})
	}
	return types
}

// gated waits until a gate is closed.
func gated(gate <-chan struct{}) jobs.HandlerFunc {
	return func(ctx context.Context, _ *jobs.Task) (jobs.Result, error) {
		select {
		case <-gate:
			return jobs.Result{}, nil
		case <-ctx.Done():
			return jobs.Result{}, context.Cause(ctx)
		}
	}
}

// noop does nothing, well.
var noop = jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil })
