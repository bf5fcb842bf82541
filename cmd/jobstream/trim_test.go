package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobstream/broker"
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

// TestLateAcksAreSent: acks are held back for a trim; where none comes, because too
// little has ended to be worth one, they are sent all the same.
func TestLateAcksAreSent(t *testing.T) {
	const each = 500 // more than are sent at once, and fewer than are trimmed at once
	c := &benchCommand{Types: 1, Priorities: 1, Payload: 40, Jobs: each, Submitters: 1, Window: 100, MaxTime: patience}
	n, err := startNode(t.Context(), nodeOptions{
		dirs: foldersIn(t.TempDir()), registry: c.registry(nil), host: "127.0.0.1", port: -1,
		sync: time.Second, maxWorkers: 10, queueSize: 10_000, maxPayload: 1 << 20,
		lease: 30 * time.Second, maxLost: 5, logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	mustDo(t, err)
	defer func() { mustDo(t, errors.Join(n.stopTaking(0), n.close())) }()
	nc, err := nats.Connect(n.broker.ClientURL())
	mustDo(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	mustDo(t, err)
	state := func() (open int, messages uint64) {
		lane, err := js.Consumer(t.Context(), broker.JobsStream, c.lanes()[0].String())
		mustDo(t, err)
		stream, err := js.Stream(t.Context(), broker.JobsStream)
		mustDo(t, err)
		return lane.CachedInfo().NumAckPending, stream.CachedInfo().State.Msgs
	}
	begun, held := time.Now(), false
	b := benchNode{node: n}
	for round := 1; ; round++ {
		if _, err := b.submit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		mustDo(t, b.awaitAll(t.Context(), round*each, patience))
		// The first trim takes what it finds, and every few seconds another one does.
		for {
			open, messages := state()
			if messages == 0 {
				break
			}
			held = held || open > 0
			if open == 0 && held {
				return
			}
			if time.Since(begun) > patience {
				t.Fatalf("%d of %d deliveries have no ack", open, messages)
			}
		}
	}
}
