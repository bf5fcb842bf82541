package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/jobs"
)

// TestFloodIsBounded: bare messages faster than the tracker reads them fill JOBS to
// twice the queue's size, however often it is trimmed meanwhile. What the tracker has
// not read yet must not pass for what has ended, which would make room for more.
func TestFloodIsBounded(t *testing.T) {
	const queue, flood = 2000, 60_000
	gate := make(chan struct{})
	defer close(gate)
	c := &benchCommand{Types: 1, Priorities: 1}
	n, err := startNode(t.Context(), nodeOptions{
		dirs: foldersIn(t.TempDir()), registry: c.registry(gate), host: "127.0.0.1", port: -1,
		sync: time.Second, maxWorkers: 10, queueSize: queue, maxPayload: 1 << 20,
		lease: 30 * time.Second, maxLost: 5, logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	mustDo(t, err)
	defer func() { mustDo(t, errors.Join(n.stopTaking(0), n.close())) }()

	ctx, cancel := context.WithCancel(t.Context())
	var trims sync.WaitGroup
	trims.Go(func() {
		for ctx.Err() == nil {
			if err := n.trimmer.trim(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	nc, err := nats.Connect(n.broker.ClientURL())
	mustDo(t, err)
	defer nc.Close()
	for range flood {
		mustDo(t, nc.Publish(c.subjects()[0], []byte(`{}`)))
	}
	mustDo(t, nc.FlushTimeout(patience))
	state, err := n.broker.JobsState(t.Context())
	mustDo(t, err)
	mustDo(t, n.store.WaitFor(t.Context(), jobs.Positions{Jobs: state.Last}))
	cancel()
	trims.Wait()

	state, err = n.broker.JobsState(t.Context())
	mustDo(t, err)
	if _, queued := n.store.Floor(); queued != 2*queue || state.Msgs != 2*queue {
		t.Errorf("%d jobs are in the queue and %d messages in JOBS, want %d of both", queued, state.Msgs, 2*queue)
	}
}
