package pool_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/pool"
)

// benchQueue gives a pool as many deliveries as it asks for, and commits what it
// records at once.
type benchQueue struct {
	pool    *pool.Pool
	seq     uint64
	commits chan []jobs.Event
	pulls   chan int
	lane    jobs.Lane
	acks    atomic.Int64
	payload json.RawMessage
}

func (q *benchQueue) Pull(l jobs.Lane, n int) error {
	if l == q.lane {
		q.pulls <- n
	}
	return nil
}
func (q *benchQueue) Ack(jobs.Delivery) error         { q.acks.Add(1); return nil }
func (q *benchQueue) Nak(string, time.Duration) error { return nil }
func (q *benchQueue) Extend(string) error             { return nil }

func (q *benchQueue) Append(events []jobs.Event) error {
	q.commits <- append([]jobs.Event(nil), events...)
	return nil
}

func (q *benchQueue) Find(seq uint64) (*jobs.Job, error) {
	return &jobs.Job{
		ID: jobs.DerivedID(seq, 1), Key: seq, Seq: seq, Type: "a", Priority: 3, Status: jobs.Pending, Run: 1,
		MaxAttempts: 1, Payload: q.payload,
	}, nil
}

// BenchmarkPool is a plain job's way through the pool, from its delivery to its
// acknowledgement.
func BenchmarkPool(b *testing.B) {
	nothing := jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil })
	ty := &jobs.Type{Name: "a", Timeout: time.Minute, Handler: nothing}
	q := &benchQueue{lane: jobs.Lane{Type: "a", Priority: 3}, commits: make(chan []jobs.Event, 1<<16), pulls: make(chan int, 1<<16)}
	rec := pool.NewRecorder(q, nil)
	var lanes []jobs.Lane
	for p := jobs.HighestPriority; p <= jobs.LowestPriority; p++ {
		lanes = append(lanes, jobs.Lane{Type: "a", Priority: p})
	}
	q.pool = pool.New(pool.Options{
		Queue: q, Tracker: q, Recorder: rec, Registry: jobs.NewRegistry(ty), MaxWorkers: 16, Lease: time.Minute, MaxLost: 5,
		Logger: slog.New(slog.DiscardHandler),
	}, lanes)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 3)
	go func() { _ = rec.Run(ctx); done <- struct{}{} }()
	go func() { // the deliveries
		for left := b.N; ; {
			select {
			case n := <-q.pulls:
				for range min(n, left) {
					q.seq++
					left--
					q.pool.Deliver(jobs.Delivery{Lane: q.lane, Seq: q.seq, Ref: "ref"})
				}
			case <-ctx.Done():
				done <- struct{}{}
				return
			}
		}
	}()
	all := make(chan struct{})
	go func() { // the commits
		settled := 0
		for {
			select {
			case events := <-q.commits:
				c := &jobs.Commit{Positions: jobs.Positions{Jobs: 1 << 60}}
				for i := range events {
					if e := &events[i]; e.Kind.EndsAttempt() {
						c.Outcomes = append(c.Outcomes, *e)
						c.Changes = append(c.Changes, jobs.Change{After: &jobs.Job{ID: e.ID, Key: e.Seq, Seq: e.Seq, Run: 1, Status: jobs.Completed}})
					}
				}
				q.pool.Committed(c)
				if settled += len(c.Outcomes); settled == b.N {
					close(all)
				}
			case <-ctx.Done():
				done <- struct{}{}
				return
			}
		}
	}()
	b.ReportAllocs()
	b.ResetTimer()
	q.pool.Start(1<<60, 0)
	<-all
	b.StopTimer()
	if err := q.pool.Stop(ctx); err != nil {
		b.Error(err)
	}
	if n := q.acks.Load(); n != int64(b.N) {
		b.Errorf("%d of %d were acknowledged", n, b.N)
	}
	cancel()
	for range 3 {
		<-done
	}
}
