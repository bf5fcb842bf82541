package main

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"jobstream/jobs"
)

// BenchmarkSustained measures the whole way of no-op jobs of 200 bytes,
// submitted in process by 16 submitters, run by 100 workers and notified.
func BenchmarkSustained(b *testing.B) {
	b.Run("lanes=1", func(b *testing.B) { benchmarkSustained(b, &benchCommand{Types: 1, Priorities: 1}) })
	b.Run("lanes=100", func(b *testing.B) { benchmarkSustained(b, &benchCommand{Types: 20, Priorities: 5}) })
}

func benchmarkSustained(b *testing.B, c *benchCommand) {
	n, err := startNode(b.Context(), nodeOptions{
		dirs:     foldersIn(b.TempDir()),
		registry: c.registry(nil),
		sync:     time.Second, maxWorkers: 100, queueSize: 10_000_000, maxPayload: 1 << 20,
		lease: 30 * time.Second, maxLost: 5, logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	const submitters, inFlight = 16, 64
	var subs []*jobs.Submission
	for _, l := range c.lanes() {
		subs = append(subs, &jobs.Submission{Type: l.Type, Priority: l.Priority, RetryCount: -1, Payload: makePayload(200, 0)})
	}
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	work := make(chan int, 1024)
	for range submitters * inFlight {
		wg.Go(func() {
			for i := range work {
				if _, _, err := n.submitter.Submit(b.Context(), subs[i%len(subs)]); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range b.N {
		work <- i
	}
	close(work)
	wg.Wait()
	for {
		pos := n.store.Positions() // before the look, else the last commit may come in between
		if done, _ := (&benchNode{node: n}).ends(); done >= b.N {
			break
		}
		pos.Status++
		if err := n.store.WaitFor(b.Context(), pos); err != nil {
			b.Fatal(err)
		}
	}
	if err := n.notifier.caughtUp(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
	if err := n.stopTaking(time.Minute); err != nil {
		b.Fatal(err)
	}
	if err := n.close(); err != nil {
		b.Fatal(err)
	}
}
