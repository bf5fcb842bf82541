package node

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"jobstream/jobs"
)

// lease gets n jobs of the type render.
func lease(t *testing.T, n *Node, worker string, count int) (tokens []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(tokens) < count {
		got, err := n.Parts().Pool.Leases().Next(ctx, &jobs.Ask{Types: []string{"render"}, Max: count - len(tokens), Wait: time.Minute, Worker: worker})
		mustDo(t, err)
		for _, l := range got {
			tokens = append(tokens, l.Token)
		}
		if ctx.Err() != nil {
			t.Fatalf("%d of %d jobs came", len(tokens), count)
		}
	}
	return tokens
}

func (n *Node) done(t *testing.T, token string) jobs.Ending {
	t.Helper()
	return n.Parts().Pool.Leases().Done(t.Context(), []jobs.Done{{Token: token, Result: json.RawMessage(`"fine"`)}})[0]
}

func submitRender(t *testing.T, n *Node, count int) (ids []jobs.ID) {
	t.Helper()
	for range count {
		j, err := n.Submit(t.Context(), &jobs.Submission{Type: "render", Priority: 3, RetryCount: -1})
		mustDo(t, err)
		ids = append(ids, j.ID)
	}
	return ids
}

func renderType() []*jobs.Type {
	return []*jobs.Type{{Name: "render", Remote: true, RetryCount: 3, Timeout: time.Hour, Backoff: jobs.DefaultBackoff()}}
}

// TestLeasesOutliveTheCore: a worker elsewhere notices nothing of a clean stop, of a crash
// and of a broker that is started anew, and an answer that it did not get is repeated.
func TestLeasesOutliveTheCore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n, err := Open(t.Context(), Options{Dir: dir}, jobs.NewRegistry(renderType()...))
	mustDo(t, err)
	ids := submitRender(t, n, 6)
	tokens := lease(t, n, "w-1", 5)

	mustDo(t, n.Shutdown(t.Context()))
	n, err = Open(t.Context(), Options{Dir: dir}, jobs.NewRegistry(renderType()...))
	mustDo(t, err)
	if e := n.done(t, tokens[0]); e.Err != nil || e.Status != jobs.Completed || e.Repeated {
		t.Errorf("after a stop: %+v", e)
	}

	n.stopWatch()
	<-n.watched
	<-n.down(errors.New("as if it were stuck"))
	mustDo(t, n.up(t.Context()))
	if e := n.done(t, tokens[1]); e.Err != nil || e.Repeated {
		t.Errorf("after a new broker: %+v", e)
	}

	<-n.down(errors.New("as if it had crashed")) // as after kill -9 there is no clean mark
	n, _ = open(t, Options{Dir: dir}, renderType()...)
	for i, repeated := range []bool{true, true, false} {
		if e := n.done(t, tokens[i]); e.Err != nil || e.Repeated != repeated {
			t.Errorf("after a crash, job %d: %+v", i, e)
		}
	}
	b, err := n.Parts().Pool.Leases().Beat(t.Context(), "w-1", tokens)
	if err != nil || len(b.Lost) > 0 {
		t.Errorf("beats: %+v, %v", b, err)
	}
	last := lease(t, n, "w-2", 1) // the one that nobody has; the others are delivered again, too
	for _, token := range append(last, tokens[3:]...) {
		if e := n.done(t, token); e.Err != nil || e.Repeated {
			t.Errorf("in the end: %+v", e)
		}
	}
	for i, id := range ids {
		j, err := n.Wait(t.Context(), id)
		mustDo(t, err)
		if j.Status != jobs.Completed || j.Lost != 0 || j.Attempt != 1 || string(j.Result) != `"fine"` {
			t.Errorf("job %d is %s, lost %d, result %s", i, j.Status, j.Lost, j.Result)
		}
	}
}

// TestTypeIsNotRemoteAnyMore: the server runs what a worker elsewhere had.
func TestTypeIsNotRemoteAnyMore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n, err := Open(t.Context(), Options{Dir: dir}, jobs.NewRegistry(renderType()...))
	mustDo(t, err)
	ids := submitRender(t, n, 1)
	tokens := lease(t, n, "w-1", 1)
	mustDo(t, n.Shutdown(t.Context()))
	n, _ = open(t, Options{Dir: dir}, typesOf(jobs.HandlerFunc(echo), "render")...)
	j, err := n.Wait(t.Context(), ids[0])
	mustDo(t, err)
	if j.Status != jobs.Completed || j.Lost != 1 || j.Attempt != 1 {
		t.Errorf("the job is %s, lost %d", j.Status, j.Lost)
	}
	e, _ := jobs.AsError(n.done(t, tokens[0]).Err)
	if e.Kind != jobs.LeaseLost || e.State.Status != jobs.Completed {
		t.Errorf("its worker is told %+v", e)
	}
}
