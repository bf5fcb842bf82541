package bench

import (
	"context"
	"fmt"
	"os/exec"
	"sync"
	"sync/atomic"

	"jobstream/jobs"
)

// The program that jobs of the run-exec phase run, and how many of them at most: each
// takes as long as a hundred other jobs.
const (
	program      = "true"
	mostPrograms = 1000
)

// runExec is jobs that each run a program, compared with the same program without a job.
func (b *bench) runExec(ctx context.Context, dir string) error {
	b.report.RunExec = &Programs{}
	path, err := exec.LookPath(program)
	var h jobs.Handler
	if err == nil {
		h, err = b.server.Program(dir, path)
	}
	if err != nil {
		b.report.RunExec.LeftOut = err.Error()
		return nil //nolint:nilerr // this machine does not run programs
	}
	c, o := *b.c, b.options
	c.Jobs = min(c.Jobs, mostPrograms)
	o.Registry = c.registryOf(h)
	return b.withNode(ctx, dir, o, func(n *node) error {
		found, err := takeTurns(ctx, phaseRunExec, b.turnsOf(n, &c), b.bare(path, &c))
		if err != nil {
			return err
		}
		b.report.RunExec.Comparison = *found
		if beside := found.Beside.CPU; beside > 0 {
			b.report.RunExec.CPURatio = found.CPU / beside
		}
		return nil
	})
}

// bare are the turns of the program alone, at most as many at a time as there are workers.
func (b *bench) bare(path string, c *Options) turns {
	return turns{c: c, turn: func(ctx context.Context, name string, c *Options) (*Throughput, error) {
		limited, cancel := context.WithTimeout(ctx, c.MaxTime)
		defer cancel()
		var begun, ran atomic.Int64
		var failed atomic.Pointer[error]
		b.show(name, c.Jobs, ran.Load)
		watch := startWatch()
		var group sync.WaitGroup
		for range c.Workers {
			group.Go(func() {
				for limited.Err() == nil && begun.Add(1) <= int64(c.Jobs) {
					if err := exec.Command(path).Run(); err != nil { //nolint:noctx // it would be more than bare
						failed.CompareAndSwap(nil, &err)
						cancel()
						return
					}
					ran.Add(1)
				}
			})
		}
		group.Wait()
		if p := failed.Load(); p != nil {
			return nil, fmt.Errorf("cannot run %s: %w", path, *p)
		}
		return watch.throughput(int(ran.Load()), c.Jobs), context.Cause(ctx)
	}}
}
