package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"jobstream/jobs"
)

// BenchmarkLeases is the way of jobs from the queue to a worker elsewhere and to their end,
// both on disk, without the doors. "here" is the same for the server's own workers.
func BenchmarkLeases(b *testing.B) {
	for _, most := range []int{0, 1, 16} {
		name := fmt.Sprint(most, " a request")
		if most == 0 {
			name = "here"
		}
		b.Run(name, func(b *testing.B) { benchLeases(b, most) })
	}
}

// used is the processor's time of this process.
func used() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchLeases(b *testing.B, most int) {
	var here sync.WaitGroup
	ty := &jobs.Type{Name: "render", Timeout: time.Hour, Remote: most > 0}
	if most == 0 {
		here.Add(b.N)
		ty.Handler = jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) {
			here.Done()
			return jobs.Result{}, nil
		})
	}
	n, err := Open(b.Context(), Options{Dir: b.TempDir(), Bounds: Bounds{Queue: b.N + 1000}, Workers: Workers{Max: 64}}, jobs.NewRegistry(ty))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = n.Shutdown(context.Background()) }()
	n.Parts().Pool.PauseAll(true)
	for left := b.N; left > 0; {
		subs := make([]*jobs.Submission, min(left, jobs.MaxBatch))
		for i := range subs {
			subs[i] = &jobs.Submission{Type: "render", Priority: 3, RetryCount: -1, Payload: []byte(`{"n":1}`)}
		}
		if _, _, err := n.Parts().Submitter.SubmitBatch(b.Context(), subs, nil); err != nil {
			b.Fatal(err)
		}
		left -= len(subs)
	}
	before := used()
	defer func() { b.ReportMetric(float64((used()-before).Microseconds())/float64(b.N), "cpu-µs/op") }()
	b.ReportAllocs()
	b.ResetTimer()
	n.Parts().Pool.PauseAll(false)
	if most == 0 {
		here.Wait()
		return
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	var all sync.WaitGroup
	leases := n.Parts().Pool.Leases()
	for i := range 256 {
		all.Go(func() {
			for left.Load() > 0 {
				got, err := leases.Next(b.Context(), &jobs.Ask{Types: []string{"render"}, Max: most, Wait: 100 * time.Millisecond, Worker: fmt.Sprint("w-", i)})
				if err != nil {
					b.Error(err)
					return
				}
				done := make([]jobs.Done, len(got))
				for i := range got {
					done[i].Token = got[i].Token
				}
				for _, e := range leases.Done(b.Context(), done) {
					if e.Err != nil {
						b.Error(e.Err)
					}
				}
				left.Add(-int64(len(got)))
			}
		})
	}
	all.Wait()
}
