package main

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"
)

// What a job may cost under load. These are no measurements but nets for what
// makes it cost a multiple: a copy too many on the way of every job, a commit
// for every job. What it really costs stands in jobstream bench.
const (
	mostAllocations = 250 // per job, over everything: both servers, pool, tracker
	mostSyncs       = 600 // of the tracker, per 1,000 jobs; a commit for every job would be 4,000
)

func TestCostOfAJob(t *testing.T) {
	const count = 10_000
	c := &benchCommand{
		Jobs: count, Workers: 100, Submitters: 16, Window: 64, Payload: 200, Types: 1, Priorities: 1, MaxTime: 2 * time.Minute,
	}
	b := &bench{c: c, progress: newProgress(t.Output()), options: nodeOptions{
		registry: c.registry(nil), sync: time.Second, maxWorkers: c.Workers, queueSize: benchQueue, maxPayload: 1 << 20,
		lease: 30 * time.Second, maxLost: 5, logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
	err := b.withNode(t.Context(), t.TempDir(), b.options, func(n *benchNode) error {
		syncs, err := n.store.Syncs()
		if err != nil {
			return err
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		done, err := b.endToEnd(t.Context(), n, c, phaseSustained, n.submit)
		if err != nil {
			return err
		}
		runtime.ReadMemStats(&after)
		syncsAfter, err := n.store.Syncs()
		if err != nil {
			return err
		}
		if done.Jobs != count {
			return fmt.Errorf("%d of %d jobs were done", done.Jobs, count)
		}
		allocations := (after.Mallocs - before.Mallocs) / count
		per1000 := (syncsAfter - syncs) * 1000 / count
		t.Logf("%d allocations and %d bytes per job, %d fsyncs per 1,000 jobs", allocations, (after.TotalAlloc-before.TotalAlloc)/count, per1000)
		if allocations > mostAllocations {
			t.Errorf("a job takes %d allocations, at most %d are meant", allocations, mostAllocations)
		}
		if per1000 > mostSyncs {
			t.Errorf("1,000 jobs take %d fsyncs of the tracker, at most %d are meant", per1000, mostSyncs)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
