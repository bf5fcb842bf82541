package node

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/jobs"
)

// typesOf makes types that one handler runs.
func typesOf(h jobs.Handler, names ...string) (types []*jobs.Type) {
	for _, name := range names {
		types = append(types, &jobs.Type{Name: name, Timeout: time.Hour, Handler: h})
	}
	return types
}

// gated waits until a gate is closed.
func gated(gate <-chan struct{}) jobs.HandlerFunc {
	return func(ctx context.Context, _ *jobs.Task) (jobs.Result, error) {
		select {
		case <-gate:
			return jobs.Result{}, nil
		case <-ctx.Done():
			return jobs.Result{}, context.Cause(ctx)
		}
	}
}

// TestFloodIsBounded sends bare messages faster than the tracker reads them. They fill
// JOBS to twice the queue's size, however often it is trimmed meanwhile. Messages that
// the tracker has not read must not count as dead, which would make room for more.
func TestFloodIsBounded(t *testing.T) {
	t.Parallel()
	const queue, flood = 2000, 60_000
	gate := make(chan struct{})
	defer close(gate)
	_, n := open(t, Options{NATS: ":0", Bounds: Bounds{Queue: queue}}, typesOf(gated(gate), "noop")...)

	ctx, cancel := context.WithCancel(t.Context())
	var trims sync.WaitGroup
	trims.Go(func() {
		for ctx.Err() == nil {
			if err := n.Tail.Sweep(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	nc, err := nats.Connect(n.Broker.ClientURL())
	mustDo(t, err)
	defer nc.Close()
	for range flood {
		mustDo(t, nc.Publish("jobs.noop.3", []byte(`{}`)))
	}
	// The stream handles messages in their order, and later than the server. A refusal
	// as its answer to the last one means that it has handled all.
	_, err = nc.Request("jobs.noop.3", []byte(`{}`), patience)
	mustDo(t, err)
	state, err := n.Broker.Streams.Jobs(t.Context())
	mustDo(t, err)
	mustDo(t, n.Store.WaitFor(t.Context(), jobs.Positions{Jobs: state.Last}))
	cancel()
	trims.Wait()

	state, err = n.Broker.Streams.Jobs(t.Context())
	mustDo(t, err)
	if _, queued := n.Store.Floor(); queued != 2*queue || state.Msgs != 2*queue {
		t.Errorf("%d jobs are in the queue and %d messages in JOBS, want %d of both", queued, state.Msgs, 2*queue)
	}
}

// TestLongJobInFront: while one job runs, thousands of others come and go in its lane and
// in another one. JOBS stays bounded, and takes no place from them.
func TestLongJobInFront(t *testing.T) {
	t.Parallel()
	const queue, each, rounds = 200, 150, 20
	gate := make(chan struct{})
	_, n := open(t, Options{Bounds: Bounds{Queue: queue}}, typesOf(jobs.HandlerFunc(func(ctx context.Context, task *jobs.Task) (jobs.Result, error) {
		if string(task.Job.Payload) == `"long"` {
			return gated(gate)(ctx, task)
		}
		return jobs.Result{}, nil
	}), "noop")...)
	ends := newEndsSeen()
	n.Store.Listen(ends.committed)
	lanes := []jobs.Lane{{Type: "noop", Priority: 1}, {Type: "noop", Priority: 2}}
	submit := func(l jobs.Lane, payload string) {
		t.Helper()
		_, _, err := n.Submitter.Submit(t.Context(), &jobs.Submission{Type: l.Type, Priority: l.Priority, RetryCount: -1, Payload: []byte(payload)})
		mustDo(t, err)
	}
	submit(lanes[0], `"long"`)
	messages := func() int {
		t.Helper()
		mustDo(t, n.Tail.Sweep(t.Context()))
		state, err := n.Broker.Streams.Jobs(t.Context())
		mustDo(t, err)
		return int(state.Msgs)
	}
	for round := 1; round <= rounds; round++ {
		for i := range each {
			submit(lanes[i%len(lanes)], `{}`)
		}
		ends.await(t, round*each)
		// Messages behind the job in its own lane stay.
		if has, stays := messages(), 1+round*each/len(lanes); has > stays+max(queue, stays)/2 {
			t.Errorf("round %d: JOBS has %d messages, %d of them must stay", round, has, stays)
		}
	}
	close(gate)
	ends.await(t, rounds*each+1)
	if has := messages(); has > queue/2 {
		t.Errorf("%d messages are there when all have ended", has)
	}
}
