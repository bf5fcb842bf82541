package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
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
	// The stream takes messages in their order, and later than the server: its answer
	// to the last one, a refusal, says that it is through with all of them.
	_, err = nc.Request(c.subjects()[0], []byte(`{}`), patience)
	mustDo(t, err)
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
	js := jetStream(t, n)
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

// jetStream is a client of the node's NATS port.
func jetStream(t *testing.T, n *node) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(n.broker.ClientURL())
	mustDo(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	mustDo(t, err)
	return js
}

// TestTrimLanes: jobs of three types and three priorities end, but for some of each that
// hold on. What has ended goes by priority, by type or by lane, and what has not stays.
func TestTrimLanes(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0)) //nolint:gosec // no secret
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	defer open()
	const each, queue = 300, 500
	c := &benchCommand{Types: 3, Priorities: 3}
	o := nodeOptions{
		dirs: foldersIn(t.TempDir()), host: "127.0.0.1", port: -1,
		registry: c.registryOf(jobs.HandlerFunc(func(ctx context.Context, task *jobs.Task) (jobs.Result, error) {
			if string(task.Job.Payload) == `"hold"` {
				return gated(gate)(ctx, task)
			}
			return jobs.Result{}, nil
		})),
		sync: time.Second, maxWorkers: 200, queueSize: queue, maxPayload: 1 << 20,
		lease: 30 * time.Second, maxLost: 5, logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	n, err := startNode(t.Context(), o)
	mustDo(t, err)
	b := benchNode{node: n}
	defer func() { mustDo(t, errors.Join(n.stopTaking(0), n.close())) }()
	js := jetStream(t, n)
	stream, err := js.Stream(t.Context(), broker.JobsStream)
	mustDo(t, err)

	holding := 0
	for round := 1; round <= 6; round++ {
		holders := map[jobs.Lane]bool{} // who gets a job that holds on in this round
		for range random.IntN(4) {
			holders[c.lanes()[random.IntN(len(c.lanes()))]] = true
		}
		for i := range each {
			l := c.lanes()[random.IntN(len(c.lanes()))]
			payload := []byte(`{}`)
			if i > each/2 && holders[l] {
				payload = []byte(`"hold"`)
				holding++
				delete(holders, l)
			}
			_, _, err := n.submitter.Submit(t.Context(), &jobs.Submission{Type: l.Type, Priority: l.Priority, RetryCount: -1, Payload: payload})
			mustDo(t, err)
		}
		mustDo(t, b.awaitAll(t.Context(), round*each-holding, patience))

		before, err := n.broker.JobsState(t.Context())
		mustDo(t, err)
		every, err := n.trimmer.trimLanes(t.Context(), before)
		mustDo(t, err)
		floors := map[jobs.Lane]uint64{}
		mustDo(t, n.store.Unfinished(t.Context(), func(some []*jobs.Job) error {
			for _, j := range some {
				if _, err := stream.GetMsg(t.Context(), j.Seq); err != nil {
					t.Errorf("round %d: the message of unfinished job %d of lane %v: %v", round, j.Seq, j.Lane(), err)
				}
				if low, ok := floors[j.Lane()]; !ok || j.Seq < low {
					floors[j.Lane()] = j.Seq
				}
			}
			return nil
		}))
		if !every {
			after, err := n.broker.JobsState(t.Context())
			mustDo(t, err)
			if dead, was := int(after.Msgs)-holding, int(before.Msgs)-holding; dead > was/2 {
				t.Errorf("round %d: %d of %d dead messages are left, and not every lane was trimmed", round, dead, was)
			}
			continue
		}
		for _, l := range c.lanes() {
			m, err := stream.GetMsg(t.Context(), 1, jetstream.WithGetMsgSubject(fmt.Sprintf("jobs.%s.%d", l.Type, l.Priority)))
			switch {
			case errors.Is(err, jetstream.ErrMsgNotFound):
			case err != nil:
				t.Fatal(err)
			case floors[l] == 0 || m.Sequence < floors[l]:
				t.Errorf("round %d: lane %v begins at %d, its lowest unfinished job is %d", round, l, m.Sequence, floors[l])
			}
		}
	}
	open()
	mustDo(t, b.awaitAll(t.Context(), 6*each, patience))
	mustDo(t, n.trimmer.trim(t.Context()))
	if state, err := n.broker.JobsState(t.Context()); err != nil || state.Msgs > trimMany {
		t.Errorf("%d messages are left of jobs that have all ended, %v", state.Msgs, err)
	}
}

// startHeld starts a node for the types of c. Jobs of the first one run until the test is
// over.
func startHeld(t *testing.T, c *benchCommand, queue int) *node {
	t.Helper()
	gate := make(chan struct{})
	types := c.types(noop)
	types[0].Handler = gated(gate)
	n, err := startNode(t.Context(), nodeOptions{
		dirs: foldersIn(t.TempDir()), registry: jobs.NewRegistry(types...),
		sync: time.Second, maxWorkers: 10, queueSize: queue, maxPayload: 1 << 20,
		lease: 30 * time.Second, maxLost: 5, logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	mustDo(t, err)
	t.Cleanup(func() {
		close(gate)
		mustDo(t, errors.Join(n.stopTaking(0), n.close()))
	})
	return n
}

// TestTrimIsNotTriedInVain: a job that runs long holds all of its lane behind it. Trying
// to trim that again and again took a quarter of the jobs/s.
func TestTrimIsNotTriedInVain(t *testing.T) {
	const queue, ended = 1000, 600 // more than half of the queue
	c := &benchCommand{Types: 2, Priorities: 1, Payload: 40, Jobs: ended, Submitters: 1, Window: 100, MaxTime: patience}
	held, free := c.lanes()[0], c.lanes()[1]
	n := startHeld(t, c, queue)
	n.trimmer.mu.Lock() // it rests, and ours works
	defer n.trimmer.mu.Unlock()
	_, _, err := n.submitter.Submit(t.Context(), &jobs.Submission{Type: held.Type, Priority: held.Priority, RetryCount: -1, Payload: []byte(`{}`)})
	mustDo(t, err)
	b := benchNode{node: n}
	_, err = b.submitTo(t.Context(), c, []jobs.Lane{free})
	mustDo(t, err)
	mustDo(t, b.awaitAll(t.Context(), ended, patience))

	ours := &trimmer{n: n, kick: make(chan struct{}, 1)}
	trim := func(left int, tried time.Time, want uint64) {
		t.Helper()
		ours.left.Store(int64(left))
		ours.tried = tried
		mustDo(t, ours.trim(t.Context()))
		if state, err := n.broker.JobsState(t.Context()); err != nil || state.Msgs != want {
			t.Errorf("%d messages are there, want %d, after a trim that knows of %d in vain; %v", state.Msgs, want, left, err)
		}
	}
	trim(ended-queue/2, time.Now(), ended+1) // not enough has come since
	trim(ended-queue/2-1, time.Now(), 1)
	_, err = b.submitTo(t.Context(), c, []jobs.Lane{free})
	mustDo(t, err)
	mustDo(t, b.awaitAll(t.Context(), 2*ended, patience))
	trim(ended, time.Now(), ended+1)
	trim(ended, time.Now().Add(-trimAgain), 1) // what held them may have ended
	if left := ours.left.Load(); left != 0 {
		t.Errorf("%d dead messages are noted, want none", left)
	}

	// A trim is asked for by what is in the stream, however far its ends are apart.
	position := uint64(2*ended + 1)
	ours.left.Store(3000)
	for _, c := range []struct {
		more   uint64
		queued int
		want   bool
	}{
		{3000 - 1, 0, false},
		{3000 + queue/2 - 2, 0, false},
		{3000 + queue/2 - 1, 0, true},
		{3000 + queue/2 - 1, 1, false},
	} {
		ours.committed(&jobs.Commit{Positions: jobs.Positions{Jobs: position + c.more}, Load: jobs.Load{Queued: c.queued}})
		if asked := len(ours.kick) > 0; asked != c.want {
			t.Errorf("with %d jobs in the queue, %d messages later, a trim was asked for: %v", c.queued, c.more, asked)
		}
		for len(ours.kick) > 0 {
			<-ours.kick
		}
	}
}

// TestTrimGoesOn: a trim that stops when half is gone is followed by others, until only
// the job that runs is left.
func TestTrimGoesOn(t *testing.T) {
	const queue, each = 1000, 3000
	c := &benchCommand{Types: 2, Priorities: 2, Payload: 40, Jobs: 2 * each, Submitters: 1, Window: 100, MaxTime: patience}
	held, free := c.typeNames()[0], c.typeNames()[1]
	n := startHeld(t, c, queue)
	n.trimmer.mu.Lock() // it rests, and ours works
	_, _, err := n.submitter.Submit(t.Context(), &jobs.Submission{Type: held, Priority: 1, RetryCount: -1, Payload: []byte(`{}`)})
	mustDo(t, err)
	b := benchNode{node: n}
	ours := &trimmer{n: n, kick: make(chan struct{}, 1)}
	mustDo(t, n.broker.SetSlack(t.Context(), 3*each)) // ours is not there yet
	_, err = b.submitTo(t.Context(), c, []jobs.Lane{{Type: free, Priority: 1}, {Type: free, Priority: 2}})
	mustDo(t, err)
	mustDo(t, b.awaitAll(t.Context(), 2*each, patience))
	var left []uint64
	for range 3 {
		mustDo(t, ours.trim(t.Context()))
		state, err := n.broker.JobsState(t.Context())
		mustDo(t, err)
		left = append(left, state.Msgs)
	}
	n.trimmer.mu.Unlock()
	if left[len(left)-1] != 1 {
		t.Errorf("the messages after each trim were %d, want 1 at the end", left)
	}
}
