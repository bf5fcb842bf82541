package main

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/bench"
)

// Bounds of a job's cost under load. They are no measurements. They catch a multiple of
// the cost, like a copy too many for every job, or a commit for every job. jobstream
// bench measures the real cost.
const (
	mostAllocations = 250 // per job, over everything: both servers, pool, tracker
	mostSyncs       = 600 // of the tracker, per 1,000 jobs; a commit for every job would be 4,000
)

func TestCostOfAJob(t *testing.T) {
	const count = 10_000
	server := measured()
	var before, after runtime.MemStats // while the node is up
	server.Start = func(ctx context.Context, o bench.NodeOptions) (*bench.Node, error) {
		n, err := startMeasured(ctx, o)
		if err != nil {
			return nil, err
		}
		stop := n.Stop
		n.Stop = func() error {
			runtime.ReadMemStats(&after)
			return stop()
		}
		runtime.ReadMemStats(&before)
		return n, nil
	}
	report, err := bench.Run(t.Context(), bench.Options{
		Jobs: count, Workers: 100, Submitters: 16, Window: 64, Payload: 200, Types: 1, Priorities: 1, MaxTime: 2 * time.Minute,
		Phase: []string{"sustained"}, Dir: t.TempDir(),
	}, server, slog.New(slog.NewTextHandler(t.Output(), nil)), io.Discard)
	mustDo(t, err)
	if done := report.Sustained.Jobs; done != count {
		t.Fatalf("%d of %d jobs were done", done, count)
	}
	allocations := (after.Mallocs - before.Mallocs) / count
	t.Logf("%d allocations and %d bytes per job, %.0f fsyncs per 1,000 jobs", allocations, (after.TotalAlloc-before.TotalAlloc)/count, report.FsyncsPer1000Jobs)
	if allocations > mostAllocations {
		t.Errorf("a job takes %d allocations, at most %d are meant", allocations, mostAllocations)
	}
	if report.FsyncsPer1000Jobs > mostSyncs {
		t.Errorf("1,000 jobs take %.0f fsyncs of the tracker, at most %d are meant", report.FsyncsPer1000Jobs, mostSyncs)
	}
}
