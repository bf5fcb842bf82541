package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/jobs"
)

// node is a node under load.
type node struct {
	*Node
	log      *slog.Logger
	inside   *client      // in process, to read the streams
	accepted atomic.Int64 // submitted in process or over HTTP

	before   int64  // jobs that had ended before the measurement
	notified uint64 // notifications before it
}

// begin sets all counts to zero.
func (n *node) begin(ctx context.Context) error {
	last, err := n.inside.notifications(ctx)
	if err != nil {
		return err
	}
	n.accepted.Store(0)
	n.before, n.notified = n.before+n.ended(), last
	return nil
}

const (
	lookEvery = 2 * time.Millisecond // the interval of looks for the end
	patience  = time.Minute          // the least time for accepted jobs to end
)

// errTooSlow says that not all jobs ended in time.
var errTooSlow = errors.New("not all jobs were done in time")

// withNode runs f on a fresh node and stops it at once afterwards. Unfinished jobs go
// with the folder.
func (b *bench) withNode(ctx context.Context, dir string, o NodeOptions, f func(*node) error) error {
	return b.withNodeOf(ctx, b.server.Start, dir, o, f)
}

// withNodeOf is withNode with another way to start it.
func (b *bench) withNodeOf(ctx context.Context, start func(context.Context, NodeOptions) (*Node, error), dir string, o NodeOptions, f func(*node) error) error {
	o.Dir = dir
	n, err := start(ctx, o)
	if err != nil {
		return err
	}
	inside, err := connect(nats.InProcessServer(n.Broker), o.Logger)
	if err == nil {
		err = f(&node{Node: n, log: o.Logger, inside: inside})
		inside.close()
	}
	b.bar.End()
	return errors.Join(err, n.Stop()) //nolint:contextcheck // ctx may have ended
}

// submit submits c.Jobs jobs, or as many as there is time for. It returns how many are
// durable.
func (n *node) submit(ctx context.Context, c *Options) (accepted int, err error) {
	return n.submitTo(ctx, c, c.lanes())
}

// submitTo is submit over other lanes.
func (n *node) submitTo(ctx context.Context, c *Options, lanes []jobs.Lane) (accepted int, err error) {
	var all []*jobs.Submission
	for _, l := range lanes {
		all = append(all, &jobs.Submission{Type: l.Type, Priority: l.Priority, RetryCount: -1, Payload: makePayload(c.Payload, 0)})
	}
	return n.spread(ctx, c, c.Submitters*c.Window, func() (func(i int) error, error) {
		return func(i int) error {
			_, _, err := n.Submitter.Submit(ctx, all[i%len(all)])
			return err
		}, nil
	})
}

// batchers is the number of goroutines that submit batches.
const batchers = 4

// submitBatches is submit in batches of [jobs.MaxBatch].
func (n *node) submitBatches(ctx context.Context, c *Options) (accepted int, err error) {
	lanes, payload := c.lanes(), makePayload(c.Payload, 0)
	batches := *c
	batches.Jobs = (c.Jobs + jobs.MaxBatch - 1) / jobs.MaxBatch
	return n.spread(ctx, &batches, batchers, func() (func(i int) error, error) {
		return func(i int) error {
			size := min(jobs.MaxBatch, c.Jobs-i*jobs.MaxBatch)
			subs := make([]*jobs.Submission, size)
			for k := range subs {
				l := lanes[k%len(lanes)]
				subs[k] = &jobs.Submission{Type: l.Type, Priority: l.Priority, RetryCount: -1, Payload: payload}
			}
			_, _, err := n.Submitter.SubmitBatch(ctx, subs, nil)
			if err == nil {
				n.accepted.Add(int64(size - 1)) // spread counts one
			}
			return err
		}, nil
	})
}

// spread has a number of goroutines submit c.Jobs jobs, one at a time each. It ends
// when all are submitted, time is up, or one fails. begin makes the submitting function
// of a goroutine; i is the job's number.
func (n *node) spread(ctx context.Context, c *Options, goroutines int, begin func() (func(i int) error, error)) (accepted int, err error) {
	limited, cancel := context.WithTimeout(ctx, c.MaxTime)
	defer cancel()
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var group sync.WaitGroup
	for range min(goroutines, c.Jobs) {
		group.Go(func() {
			submit, err := begin()
			for err == nil && limited.Err() == nil {
				i := next.Add(1) - 1
				if i >= int64(c.Jobs) {
					return
				}
				if err = submit(int(i)); err == nil {
					n.accepted.Add(1)
				}
			}
			if err != nil {
				failed.CompareAndSwap(nil, &err)
				cancel()
			}
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if p := failed.Load(); p != nil {
		return 0, fmt.Errorf("a job was not accepted: %w", *p)
	}
	return int(n.accepted.Load()), nil
}

// awaitAll waits until want jobs are completed, and as many notifications stored. It
// fails with errTooSlow after limit, and if jobs fail.
func (n *node) awaitAll(ctx context.Context, want int, limit time.Duration) error {
	limited, cancel := context.WithTimeoutCause(ctx, limit, errTooSlow)
	defer cancel()
	err := n.until(limited, func() (bool, error) {
		completed, failed := n.ends()
		if failed > 0 {
			return false, fmt.Errorf("%d of %d jobs that ended were not completed", failed, completed+failed)
		}
		return completed >= want, nil
	})
	if err == nil {
		err = n.until(limited, func() (bool, error) {
			last, err := n.inside.notifications(limited)
			if err != nil && limited.Err() != nil {
				err = context.Cause(limited)
			}
			return last >= n.notified+uint64(want), err
		})
	}
	if errors.Is(err, errTooSlow) {
		return fmt.Errorf("%w: %d of %d within %v", err, n.ended(), want, limit)
	}
	if err != nil {
		return err
	}
	if ended := int(n.ended()); ended != want {
		return fmt.Errorf("%d jobs were accepted, but %d have ended", want, ended)
	}
	return nil
}

// until calls done again and again until that is true.
func (n *node) until(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case err := <-n.Failed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ends counts the jobs that have ended here: the completed ones and all others.
func (n *node) ends() (completed, failed int) {
	for _, f := range n.Store.Figures() {
		completed += f.Ever[jobs.Completed]
		failed += f.Ever[jobs.Failed] + f.Ever[jobs.Cancelled]
	}
	return completed - int(n.before), failed
}

// ended is the number of ended jobs.
func (n *node) ended() int64 {
	completed, failed := n.ends()
	return int64(completed + failed)
}

// known is the number of jobs in the tracker.
func (n *node) known() (sum int) {
	for _, f := range n.Store.Figures() {
		for _, count := range f.Now {
			sum += count
		}
	}
	return sum
}

// diskUsage is the size of the folder once the queue is trimmed, so that of ended jobs
// only their records and notifications count. The broker removes trimmed files in the
// background, so it waits until the size shrinks no more.
func (n *node) diskUsage(ctx context.Context, dir string) (int64, error) {
	if err := n.Tail.Sweep(ctx); err != nil {
		return 0, err
	}
	limited, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	usage, err := diskUsage(dir)
	for err == nil {
		tick := time.NewTimer(50 * time.Millisecond)
		select {
		case <-tick.C:
		case <-limited.Done():
			tick.Stop()
			return usage, context.Cause(ctx)
		}
		before := usage
		if usage, err = diskUsage(dir); usage >= before {
			break
		}
	}
	return usage, err
}

// minPayload is the length of the shortest payload of [makePayload].
const minPayload = len(`{"n":0000000000,"data":""}`)

// makePayload makes a payload of size bytes with a number in it.
func makePayload(size, number int) []byte {
	p := make([]byte, 0, size)
	p = append(p, `{"data":"`...)
	for len(p) < size-len(`","n":1000000000}`) {
		p = append(p, 'x')
	}
	p = append(p, `","n":`...)
	p = strconv.AppendInt(p, payloadBase+int64(number), 10)
	return append(p, '}')
}

// payloadBase gives all numbers the same length, as JSON has no leading zeros.
const payloadBase = 1_000_000_000

// payloadNumber is the number that [makePayload] wrote.
func payloadNumber(p []byte) (int, error) {
	const digits = len("1000000000")
	if len(p) < minPayload {
		return 0, fmt.Errorf("%q is not a payload of ours", p)
	}
	n, err := strconv.Atoi(string(p[len(p)-1-digits : len(p)-1]))
	return n - payloadBase, err
}
