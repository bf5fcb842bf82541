// Package bench measures the server on this machine. Start at [Run]: it goes through
// the phases, each on a [Node] of its own. The caller hands over how to make one.
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
	"time"

	"jobstream/cmd/jobstream/internal/terminal"
	"jobstream/jobs"
)

// The phases, in their order. Latency comes first, on an idle machine: the others leave
// the system much to write.
const (
	phaseLatency    = "latency"
	phaseRaw        = "raw"
	phaseSubmit     = "submit"
	phaseDrain      = "drain"
	phaseBatch      = "batch"
	phaseSustained  = "sustained"
	phaseLanes      = "lanes"
	phaseLarge      = "large"
	phaseBacklog    = "backlog"
	phaseHistory    = "history"
	phaseBackup     = "backup"
	phaseHTTP       = "http"
	phaseHTTPToken  = "http-token"
	phaseNATS       = "nats"
	phaseRunExec    = "run-exec"
	phaseRunHTTP    = "run-http"
	phaseRemote     = "remote"
	phaseRemoteHTTP = "remote-http"
	phaseCluster    = "cluster"
	phaseWorkers    = "cluster-workers"
)

// Phases are the names of all phases, in their order.
var Phases = []string{
	phaseLatency, phaseRaw, phaseSubmit, phaseDrain, phaseBatch, phaseSustained, phaseLanes, phaseLarge, phaseBacklog, phaseHistory, phaseBackup, phaseHTTP, phaseHTTPToken, phaseNATS,
	phaseRunExec, phaseRunHTTP, phaseRemote, phaseRemoteHTTP, phaseCluster, phaseWorkers,
}

// The load of the phases with many lanes and with large payloads.
const (
	manyTypes    = 20
	largePayload = 16 << 10 // bytes
	largeShare   = 20       // the divisor of the number of jobs
	largeWindow  = 4        // the divisor of the jobs in flight, whose payloads would else be most of the memory
)

// Run measures a server. Its files are in a temporary folder, which is removed at the
// end. Progress goes to tty, if that is a terminal. The end of ctx ends it with an error.
func Run(ctx context.Context, o Options, s Server, log *slog.Logger, tty io.Writer) (*Report, error) {
	dir, err := os.MkdirTemp(o.Dir, "jobstream-bench-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a temporary folder (--dir): %w", err)
	}
	b := &bench{
		c: &o, server: &s, dir: dir, bar: terminal.On(tty), report: newReport(&o, &s, dir),
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

// leastQueue is the smallest queue size of a measurement: the configuration's default.
const leastQueue = 100_000

// bench is one run of all phases.
type bench struct {
	c       *Options // the flags
	server  *Server
	dir     string
	options NodeOptions   // of every node, except for its folders
	bar     *terminal.Bar // of the phase
	report  *Report
}

func (b *bench) run(ctx context.Context) error {
	defer b.bar.End()
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
		{b.c.wants(phaseBackup), phaseBackup, b.backups},
		{b.c.wants(phaseHTTP), phaseHTTP, b.http},
		{b.c.wants(phaseHTTPToken), phaseHTTPToken, b.httpToken},
		{b.c.wants(phaseNATS), phaseNATS, b.nats},
		{b.c.wants(phaseRunExec), phaseRunExec, b.runExec},
		{b.c.wants(phaseRunHTTP), phaseRunHTTP, b.runHTTP},
		{b.c.wants(phaseRemote), phaseRemote, b.remote},
		{b.c.wants(phaseRemoteHTTP), phaseRemoteHTTP, b.remoteHTTP},
		{b.c.wants(phaseCluster), phaseCluster, b.cluster},
		{b.c.wants(phaseWorkers), phaseWorkers, b.clusterWorkers},
	} {
		if !phase.wanted {
			continue
		}
		// Memory of an earlier phase must neither slow this one down nor count as its
		// own.
		debug.FreeOSMemory()
		memory.watch(!slices.Contains([]string{phaseRaw, phaseLanes, phaseBacklog, phaseHistory, phaseBackup, phaseRemote, phaseRemoteHTTP, phaseCluster, phaseWorkers}, phase.name)) // no node, or two
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

// backlog is two phases: submitting while no job ends, and then running the backlog.
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
		b.show(phaseDrain, accepted, n.ended)
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

// batch is submitting in batches of a thousand while no job ends.
func (b *bench) batch(ctx context.Context, dir string) error {
	o := b.options
	o.Registry = b.c.registry(make(chan struct{}))
	return b.withNode(ctx, dir, o, func(n *node) (err error) {
		_, b.report.Batch, err = b.fill(ctx, n, phaseBatch, n.submitBatches)
		return err
	})
}

// fill submits all jobs in one way, and compares the accepted ones with the tracker's.
func (b *bench) fill(ctx context.Context, n *node, phase string, submit func(context.Context, *Options) (int, error)) (accepted int, took *Throughput, err error) {
	b.show(phase, b.c.Jobs, n.accepted.Load)
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

// sustained is everything at the same time: jobs are submitted in process, run and
// notified.
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
		b.report.Sustained = &Sustained{Throughput: *t}
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

// lanes is the sustained phase over many types and all priorities, compared with one
// queue.
func (b *bench) lanes(ctx context.Context, dir string) (err error) {
	one, many := b.spreadOver(1, 1), b.spreadOver(manyTypes, int(jobs.LowestPriority))
	b.report.Lanes, err = b.compare(ctx, dir, phaseLanes, many, one)
	return err
}

// spreadOver is the load of the flags over other queues.
func (b *bench) spreadOver(types, priorities int) load {
	c, o := *b.c, b.options
	c.Types, c.Priorities = types, priorities
	o.Registry = c.registry(nil)
	return load{c: &c, options: o}
}

// large is the sustained phase with large payloads and fewer jobs.
func (b *bench) large(ctx context.Context, dir string) (err error) {
	c := *b.c
	c.Payload, c.Jobs, c.Window = largePayload, (c.Jobs+largeShare-1)/largeShare, (c.Window+largeWindow-1)/largeWindow
	return b.withNode(ctx, dir, b.options, func(n *node) (err error) {
		b.report.Large, err = b.endToEnd(ctx, n, &c, phaseLarge, n.submit)
		return err
	})
}

// nats is end to end with bare messages at the NATS port.
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

// endToEnd measures from the first submission until the last notification is stored.
func (b *bench) endToEnd(ctx context.Context, n *node, c *Options, name string, submit func(context.Context, *Options) (int, error)) (*Throughput, error) {
	b.show(name, c.Jobs, n.ended)
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
