package main

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"jobstream/jobs"
)

// BenchmarkSustained measures the whole way of no-op jobs of 200 bytes,
// submitted in process by 16 submitters, run by 100 workers and notified.
func BenchmarkSustained(b *testing.B) {
	noop := jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil })
	n, err := startNode(b.Context(), nodeOptions{
		dirs:     foldersIn(b.TempDir()),
		registry: jobs.NewRegistry(&jobs.Type{Name: "noop", Timeout: time.Minute, Handler: noop}),
		sync:     time.Second, maxWorkers: 100, queueSize: 10_000_000, maxPayload: 1 << 20,
		lease: 30 * time.Second, maxLost: 5, logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	const submitters, inFlight = 16, 64
	sub := &jobs.Submission{Type: "noop", Priority: 3, RetryCount: -1, Payload: payload200()}
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	work := make(chan struct{}, 1024)
	for range submitters * inFlight {
		wg.Go(func() {
			for range work {
				if _, _, err := n.submitter.Submit(b.Context(), sub); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	for n.store.Figures()["noop"].Ever[jobs.Completed] < b.N {
		pos := n.store.Positions()
		pos.Status++
		if err := n.store.WaitFor(b.Context(), pos); err != nil {
			b.Fatal(err)
		}
	}
	if err := n.awaitNotified(b.Context()); err != nil {
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

func payload200() []byte {
	p := []byte(`{"data":"`)
	for len(p) < 198 {
		p = append(p, 'x')
	}
	return append(p, '"', '}')
}
