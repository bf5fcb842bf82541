package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"jobstream/jobs"
)

// Cluster has the results of three nodes on this machine, of which the one in this process
// leads. Each comparison is with a node that is alone. The processor time is that of the
// leader only.
type Cluster struct {
	One  Comparison `json:"one_queue"`
	Many Comparison `json:"many_queues"` // of 20 types and 5 priorities
	// Accepted is the time from a submission until it is durable, of one job after another.
	Accepted      Spreading `json:"accepted_ms"`
	AcceptedAlone Spreading `json:"accepted_alone_ms"`
	AcceptedRatio float64   `json:"accepted_ratio"` // of the medians
}

// idleJobs are the jobs of a measurement of times at idle, in turns of a few.
const (
	idleJobs = 400
	idleTurn = 20
)

// cluster is the sustained phase and single submissions on three nodes, compared with one.
func (b *bench) cluster(ctx context.Context, dir string) error {
	r := &Cluster{}
	b.report.Cluster = r
	for _, part := range []struct {
		name string
		load load
		into *Comparison
		last bool
	}{
		{"many", b.spreadOver(manyTypes, int(jobs.LowestPriority)), &r.Many, false},
		{"one", b.spreadOver(1, 1), &r.One, true},
	} {
		at, c := filepath.Join(dir, part.name), part.load.c
		err := b.withNode(ctx, filepath.Join(at, "alone"), part.load.options, func(alone *node) error {
			return b.withNodeOf(ctx, b.server.StartCluster, filepath.Join(at, "cluster"), part.load.options, func(leader *node) error {
				found, err := takeTurns(ctx, phaseCluster+" "+part.name, b.turnsOf(leader, c), b.turnsOf(alone, c))
				if err != nil {
					return err
				}
				if *part.into = *found; part.last {
					err = r.idle(ctx, leader, alone, c)
				}
				return err
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// idle measures single submissions on both, in turns.
func (r *Cluster) idle(ctx context.Context, leader, alone *node, c *Options) error {
	sub := &jobs.Submission{Type: c.typeNames()[0], Priority: jobs.DefaultPriority, RetryCount: -1, Payload: makePayload(c.Payload, 0)}
	var took, tookAlone []int64
	for i := range 2 * idleJobs {
		n, into := leader, &took
		if i/idleTurn%2 == 1 {
			n, into = alone, &tookAlone
		}
		begun := time.Now()
		j, _, err := n.Submitter.Submit(ctx, sub)
		if err != nil {
			return err
		}
		*into = append(*into, int64(time.Since(begun)))
		if err := n.until(ctx, func() (bool, error) { // so that it is in nobody's way
			found, err := n.Store.Job(ctx, j.ID)
			return err == nil && found != nil && found.Status.Ended(), err
		}); err != nil {
			return err
		}
	}
	r.Accepted, r.AcceptedAlone = newSpreading(took), newSpreading(tookAlone)
	r.AcceptedRatio = r.Accepted.P50 / r.AcceptedAlone.P50
	return nil
}

// The load of the phase with workers on all nodes.
const (
	slowTime    = 20 * time.Millisecond // of a job, in which it only waits
	slowWorkers = 20                    // of each node
	slowShare   = 10                    // the divisor of the number of jobs
)

// slow is a job that waits.
var slow = jobs.HandlerFunc(func(ctx context.Context, _ *jobs.Task) (jobs.Result, error) {
	timer := time.NewTimer(slowTime)
	defer timer.Stop()
	select {
	case <-timer.C:
		return jobs.Result{}, nil
	case <-ctx.Done():
		return jobs.Result{}, context.Cause(ctx)
	}
})

// clusterWorkers is jobs that wait, done by three nodes in this process, compared with one.
func (b *bench) clusterWorkers(ctx context.Context, dir string) error {
	l := load{c: new(*b.c), options: b.options}
	l.c.Jobs = max(b.c.Jobs/slowShare, 1)
	l.options.Workers, l.options.Registry = slowWorkers, l.c.registryOf(slow)
	three := l.options
	three.Registry, three.Other = l.c.registryOf(slow), func() *jobs.Registry { return l.c.registryOf(slow) }
	return b.withNodeOf(ctx, b.server.Start, filepath.Join(dir, "alone"), l.options, func(alone *node) error {
		return b.withNodeOf(ctx, b.server.StartCluster, filepath.Join(dir, "cluster"), three, func(leader *node) (err error) {
			b.report.ClusterWorkers, err = takeTurns(ctx, phaseWorkers, b.turnsOf(leader, l.c), b.turnsOf(alone, l.c))
			return err
		})
	})
}

// addTo adds the results to the table, if there are any.
func (r *Cluster) addTo(t *table) {
	if r == nil {
		return
	}
	t.comparison("a cluster of three, sustained", &r.One, "one node")
	t.comparison(fmt.Sprintf("the same over %d × %d queues", manyTypes, jobs.LowestPriority), &r.Many, "one node")
	t.spreading("submit → accepted, in the cluster", r.Accepted)
	t.spreading("  in turns with it: one node", r.AcceptedAlone)
	t.figure("  ratio of the medians", r.AcceptedRatio, 2, "ratio")
}
