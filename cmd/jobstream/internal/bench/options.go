package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"jobstream/jobs"
)

// Options are the phases and their load. The tags are those of the command line (kong).
type Options struct {
	Jobs        int           `default:"200000" help:"Jobs of every phase but latency; a twentieth of it in the phase with large payloads, and at most 1,000 where each runs a program."`
	Workers     int           `default:"100" help:"Workers of the pool."`
	Submitters  int           `default:"16" help:"Submitters in process."`
	Window      int           `default:"256" help:"Jobs that each submitter has on their way at a time."`
	Connections int           `default:"256" help:"Keep-alive connections over HTTP, each with one request at a time."`
	Payload     int           `default:"200" help:"Bytes of a job's payload."`
	Types       int           `default:"1" help:"Job types to spread the jobs over."`
	Priorities  int           `default:"1" help:"Priorities to spread the jobs over, 1 to 5."`
	Backlog     int           `default:"0" help:"Jobs that wait in the backlog phase; 0 = leave that phase out."`
	History     int           `default:"0" help:"Finished jobs that the tracker knows in the history phase; 0 = leave that phase out."`
	BackupRate  int           `name:"backup-rate" default:"0" help:"MiB a second at which backups are read in the backup phase; 0 = leave that phase out."`
	Rate        int           `default:"200" help:"Jobs a second of the latency phase."`
	LatencyTime time.Duration `default:"5s" help:"Length of the latency phase."`
	MaxTime     time.Duration `default:"1m" help:"When a phase stops and reports what it got through by then."`
	HTTP        bool          `default:"true" negatable:"" help:"Measure REST, too (the default)."`
	Phase       []string      `placeholder:"NAME" help:"Only these phases: latency, raw, submit, drain (with submit), batch, sustained, lanes, large, backlog, history, backup, http, http-token, nats, run-exec, run-http, remote, remote-http, and only if named: cluster (it starts two more processes), cluster-workers."`
	Dir         string        `placeholder:"FOLDER" help:"Where to make the temporary folder, so: which disk to measure (default: the system's)."`
}

// Validate checks the flags; kong calls it.
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
	within("backup-rate", c.BackupRate, 0, 1_000_000)
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
	if slices.Contains(c.Phase, phaseBackup) && c.BackupRate == 0 {
		problems = append(problems, "--phase=backup needs --backup-rate, the MiB a second that are read")
	}
	if problems == nil {
		return nil
	}
	slices.Sort(problems)
	return errors.New(strings.Join(problems, "; "))
}

// wants says whether a phase was selected.
func (c *Options) wants(phase string) bool {
	if (phase == phaseHTTP || phase == phaseHTTPToken || phase == phaseRemoteHTTP) && !c.HTTP || phase == phaseBacklog && c.Backlog == 0 || phase == phaseHistory && c.History == 0 || phase == phaseBackup && c.BackupRate == 0 {
		return false
	}
	return len(c.Phase) == 0 && phase != phaseCluster && phase != phaseWorkers || slices.Contains(c.Phase, phase)
}

// typeNames are the names of the job types.
func (c *Options) typeNames() []string {
	names := []string{"noop"}
	for i := 2; i <= c.Types; i++ {
		names = append(names, fmt.Sprintf("noop%d", i))
	}
	return names
}

// lanes are all pairs of a type and a priority. The jobs are spread over them.
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

// subjects are the subjects of bare messages for the lanes.
func (c *Options) subjects() []string {
	var subjects []string
	for _, l := range c.lanes() {
		subjects = append(subjects, fmt.Sprintf("jobs.%s.%d", l.Type, l.Priority))
	}
	return subjects
}

// registry makes the types. Their jobs do nothing; with a gate they wait until it is
// closed.
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

// noop is a job that succeeds without work.
var noop = jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil })
