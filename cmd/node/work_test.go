package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
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

// TestCapOverMembers: the cap of a type holds over all nodes, and while another one begins to
// lead: all that it allows run, and never more.
func TestCapOverMembers(t *testing.T) {
	t.Parallel()
	const most, count = 4, 24
	var running, highest atomic.Int32
	gate := make(chan struct{})
	m := &members{t: t}
	m.types = func(int) []*jobs.Type {
		types := typesOf(jobs.HandlerFunc(func(ctx context.Context, task *jobs.Task) (jobs.Result, error) {
			for now := running.Add(1); ; {
				if before := highest.Load(); now <= before || highest.CompareAndSwap(before, now) {
					break
				}
			}
			defer running.Add(-1)
			return gated(gate)(ctx, task)
		}), "capped")
		types[0].MaxWorkers = most
		return types
	}
	m.begin(3, func(all []Options) {
		for i := range all {
			all[i].Workers = Workers{Max: 3, Grace: time.Millisecond}
		}
	})
	all := make([]jobs.ID, count)
	for k := range all {
		j, err := m.nodes[m.leader()].Submit(t.Context(), &jobs.Submission{Type: "capped", Priority: 1, RetryCount: -1, Payload: []byte("1")})
		mustDo(t, err)
		all[k] = j.ID
	}
	for k := range all {
		if k == count/2 {
			m.stop(m.leader())
			m.leader()
		}
		want := int32(min(most, count-k))
		m.wait(fmt.Sprintf("%d jobs run", want), func() bool { return running.Load() == want })
		gate <- struct{}{}
		m.wait("one of them ends", func() bool { return running.Load() != want || k < count-most })
	}
	for _, id := range all {
		if j, err := m.nodes[m.leader()].Wait(t.Context(), id); err != nil || j.Status != jobs.Completed {
			t.Fatalf("the job is %v, %v", j, err)
		}
	}
	if n := highest.Load(); n > most {
		t.Errorf("%d ran at a time, of at most %d", n, most)
	}
}

// TestCancelOfMembers: a job that is cancelled at one node is interrupted at another one.
func TestCancelOfMembers(t *testing.T) {
	t.Parallel()
	m, starts := &members{t: t}, make(chan begun, 3)
	ends := make(chan error, 3)
	m.types = func(i int) []*jobs.Type {
		return typesOf(jobs.HandlerFunc(func(ctx context.Context, task *jobs.Task) (jobs.Result, error) {
			starts <- begun{i, task.Job.ID}
			<-ctx.Done()
			ends <- context.Cause(ctx)
			return jobs.Result{}, ctx.Err()
		}), "long")
	}
	m.begin(3, func(all []Options) {
		for i := range all {
			all[i].Workers = Workers{Max: 1, Grace: time.Second}
		}
	})
	leader := m.leader()
	for range 3 {
		_, err := m.nodes[leader].Submit(t.Context(), &jobs.Submission{Type: "long", Priority: 1, RetryCount: 0, Payload: []byte("1")})
		mustDo(t, err)
	}
	for range 3 {
		b := <-starts
		if w := m.do((b.node+1)%3, http.MethodPost, "/jobs/"+b.id.String()+"/cancel", ""); w.Code != http.StatusAccepted {
			t.Fatalf("node %d does not cancel: %d %s", b.node+1, w.Code, w.Body)
		}
		if err := <-ends; !errors.Is(err, jobs.ErrCancelled) {
			t.Errorf("the job of node %d ends with %v", b.node+1, err)
		}
	}
}

// TestWorkersOfNodes: each node has a number of workers, which can be changed for all or for
// one of them, at any node. Whoever leads next keeps it.
func TestWorkersOfNodes(t *testing.T) {
	t.Parallel()
	gate, starts := make(chan struct{}), make(chan int, 100)
	m := &members{t: t}
	m.types = func(i int) []*jobs.Type {
		return typesOf(jobs.HandlerFunc(func(ctx context.Context, task *jobs.Task) (jobs.Result, error) {
			starts <- i
			return gated(gate)(ctx, task)
		}), "gated")
	}
	m.begin(3, func(all []Options) {
		for i := range all {
			all[i].Workers = Workers{Max: 1, Grace: time.Millisecond}
		}
	})
	leader := m.leader()
	other, third := (leader+1)%3, (leader+2)%3
	name := func(i int) string { return m.options[i].Name }
	most := func(i, want int) {
		t.Helper()
		m.wait(fmt.Sprintf("the nodes have %d workers", want), func() bool {
			return strings.Contains(m.get(i, "/workers/stats").Body.String(), fmt.Sprintf(`,"max_workers":%d,"`, want))
		})
	}
	most(other, 3)
	for body, pointer := range map[string]string{
		`{"node":"n9","max_workers":2}`:                                         `"/node"`,
		`{"node":"n1","max_workers":2,"types":{"gated":{"max_workers":1}}}`:     `"/types"`,
		fmt.Sprintf(`{"node":%q,"max_workers":2,"min_workers":1}`, name(third)): `"/min_workers"`,
	} {
		if w := m.do(other, http.MethodPut, "/workers", body); w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), pointer) {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	for _, body := range []string{`{"max_workers":2}`, fmt.Sprintf(`{"node":%q,"max_workers":3}`, name(other))} {
		if w := m.do(third, http.MethodPut, "/workers", body); w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	most(third, 7)
	for range 10 {
		_, err := m.nodes[leader].Submit(t.Context(), &jobs.Submission{Type: "gated", Priority: 1, RetryCount: -1, Payload: []byte("1")})
		mustDo(t, err)
	}
	at := make([]int, 3)
	for range 7 {
		select {
		case i := <-starts:
			at[i]++
		case <-time.After(2 * time.Minute):
			t.Fatalf("jobs run on nodes %v only", at)
		}
	}
	if at[leader] != 2 || at[other] != 3 || at[third] != 2 {
		t.Errorf("leader, other and third do %d, %d and %d jobs; want 2, 3 and 2", at[leader], at[other], at[third])
	}
	if body := m.get(third, "/workers/stats").Body.String(); !strings.Contains(body, `"active_workers":7,`) || !strings.Contains(body, `"utilisation":`) {
		t.Errorf("the stats are %s", body)
	}
	if body := m.get(third, "/workers").Body.String(); strings.Count(body, `"job":`) != 7 || !strings.Contains(body, fmt.Sprintf(`"node":%q`, name(other))) {
		t.Errorf("at work are %s", body)
	}
	m.stop(leader)
	m.leader()
	most(other, 5)
	close(gate)
}
