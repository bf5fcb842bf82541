package status

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"jobstream/jobs"
)

// A sink that nobody empties takes a bounded number of messages, events and
// bytes, and then blocks the streams.
func TestInboxIsBounded(t *testing.T) {
	t.Parallel()
	big := []byte(`"` + strings.Repeat("x", 1<<20-2) + `"`)
	for name, c := range map[string]struct {
		put  func(s *Store, seq uint64)
		want int64
	}{
		"messages": {func(s *Store, seq uint64) { s.Submitted(message(seq)) }, maxBatch},
		"events": {func(s *Store, seq uint64) {
			s.Happened(seq, []jobs.Event{event(jobs.KindStarted, message(seq), 1), event(jobs.KindCompleted, message(seq), 1)})
		}, maxBatch / 2},
		"payloads": {func(s *Store, seq uint64) { m := message(seq); m.Payload = big; s.Submitted(m) }, maxBatchBytes >> 20},
		"results": {func(s *Store, seq uint64) {
			e := event(jobs.KindCompleted, message(seq), 1)
			e.Result = big
			s.Happened(seq, []jobs.Event{e})
		}, maxBatchBytes >> 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := openTemp(t, Options{})
				var taken atomic.Int64
				var given atomic.Bool
				s := tr.Store
				go func() {
					for seq := uint64(1); !given.Load(); seq++ {
						c.put(s, seq)
						taken.Add(1)
					}
				}()
				synctest.Wait() // until it is blocked for good
				if got := taken.Load(); got != c.want {
					t.Errorf("took %d, want %d", got, c.want)
				}
				given.Store(true)
				s.inbox.close() // lets go of it
				synctest.Wait()
			})
		})
	}
}

// A receiver that does not come back holds up projector and streams, and
// nothing is lost when it does.
func TestBackPressure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// Batches in the queue, in work, waiting to be published, and being published.
		const most = (1 + 1 + 8 + 1) * maxBatch
		const n = most + 5000
		tr := openTemp(t, Options{})
		gate := make(chan struct{})
		var taken, published atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		tr.Listen(func(c *jobs.Commit) {
			<-gate
			published.Add(int64(len(slices.Collect(c.Submitted()))))
		})
		go func() {
			done <- tr.Run(ctx, feedingSource(func(ctx context.Context, _ jobs.Positions, sink jobs.Sink) error {
				for seq := uint64(1); seq <= n; seq++ {
					m := message(seq)
					m.Payload = nil
					sink.Submitted(m)
					taken.Add(1)
				}
				<-ctx.Done()
				return ctx.Err()
			}))
		}()
		synctest.Wait()
		if got := taken.Load(); got > most || got == 0 {
			t.Errorf("took %d messages while nothing was published; at most %d", got, most)
		}
		if published.Load() != 0 {
			t.Error("something was published")
		}
		close(gate)
		tr.wait(n, 0)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if published.Load() != n {
			t.Errorf("published %d of %d", published.Load(), n)
		}
	})
}

// Many callers at once, while the projector works: for the race detector, and
// every answer is one of a moment.
func TestReadersWhileWriting(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	const n = 600
	stop := make(chan struct{})
	errs := make(chan error, 4)
	reader := func(read func() error) {
		for {
			select {
			case <-stop:
				errs <- nil
				return
			default:
			}
			if err := read(); err != nil {
				errs <- err
				return
			}
		}
	}
	go reader(func() error {
		floor, unfinished := tr.Floor()
		if unfinished > n || floor > n+1 {
			return fmt.Errorf("floor %d, unfinished %d", floor, unfinished)
		}
		tr.Figures()
		return nil
	})
	go reader(func() error {
		seq := tr.Positions().Jobs
		if seq == 0 {
			return nil
		}
		j, err := tr.Find(seq)
		if err == nil && (j == nil || j.Seq != seq) {
			err = fmt.Errorf("position is %d, but Find gives %v", seq, j)
		}
		return err
	})
	go reader(func() error {
		found, _, err := tr.List(context.Background(), jobs.Page{Limit: 10, Filter: jobs.Filter{Statuses: []jobs.Status{jobs.Completed}}})
		for _, j := range found {
			if j.Status != jobs.Completed {
				err = fmt.Errorf("%+v among completed ones", j)
			}
		}
		return err
	})
	go reader(func() error {
		_, _, err := tr.Delete(context.Background(), []uint64{3})
		return err
	})
	for seq := uint64(1); seq <= n; seq++ {
		m := message(seq)
		tr.Submitted(m)
		if seq%4 == 0 {
			tr.Happened(seq, []jobs.Event{event(jobs.KindCompleted, m, 1)})
		}
	}
	tr.wait(n, n)
	close(stop)
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	tr.verify()
}
