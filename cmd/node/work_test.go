package node

import (
	"context"
	"fmt"
	"testing"
	"time"

	"jobstream/jobs"
)

// begun is an execution in a test: which node runs which job.
type begun struct {
	node int
	id   jobs.ID
}

// TestMembersWork: each member does jobs with its own handlers. A new leader interrupts none
// of those that another node runs, and each of them counts one attempt.
func TestMembersWork(t *testing.T) {
	t.Parallel()
	gate, starts := make(chan struct{}), make(chan begun, 100)
	m := &members{t: t}
	m.types = func(i int) []*jobs.Type {
		return typesOf(jobs.HandlerFunc(func(ctx context.Context, task *jobs.Task) (jobs.Result, error) {
			starts <- begun{i, task.Job.ID}
			return gated(gate)(ctx, task)
		}), "gated")
	}
	m.begin(3, func(all []Options) {
		for i := range all {
			all[i].Workers = Workers{Max: 1, Grace: 2 * time.Second}
		}
	})
	leader := m.leader()
	for k := range 3 {
		_, err := m.nodes[leader].Submit(t.Context(), &jobs.Submission{Type: "gated", Priority: 1, RetryCount: 0, Payload: fmt.Append(nil, k)})
		mustDo(t, err)
	}
	at := make(map[int]jobs.ID)
	for range 3 {
		select {
		case b := <-starts:
			at[b.node] = b.id
		case <-time.After(2 * time.Minute):
			t.Fatalf("jobs run on nodes %v only", at)
		}
	}
	if len(at) != 3 {
		t.Fatalf("3 jobs run on nodes %v; want one on each", at)
	}

	m.stop(leader)
	m.leader()
	again := begun{node: -1}
	close(gate)
	for i := range 3 {
		if i == leader {
			continue
		}
		j, err := m.nodes[i].Wait(t.Context(), at[i])
		if err != nil || j.Status != jobs.Completed || j.Attempt != 1 {
			t.Errorf("the job of node %d is %v, %v; want it done in one attempt", i+1, j, err)
		}
		j, err = m.nodes[i].Wait(t.Context(), at[leader])
		if err != nil || j.Status != jobs.Completed {
			t.Errorf("the job of the node that stopped is %v, %v", j, err)
		}
	}
	close(starts)
	for b := range starts {
		if b.id != at[leader] || again.node >= 0 {
			t.Errorf("%v ran again on node %d; want only the job of the node that stopped, once", b.id, b.node+1)
		}
		again = b
	}
}
