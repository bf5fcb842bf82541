package node

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/jobs"
)

// echo answers a job with its payload.
func echo(_ context.Context, t *jobs.Task) (jobs.Result, error) {
	return jobs.Result{Value: t.Job.Payload}, nil
}

// TestNodeWithoutPorts: a node has the doors that it was asked for, and no others.
func TestNodeWithoutPorts(t *testing.T) {
	t.Parallel()
	n, _ := open(t, Options{Types: typesOf(jobs.HandlerFunc(echo), "echo")})
	if url := n.NATSURL(); url != "" {
		t.Errorf("there is a NATS port, %s", url)
	}
	j, err := n.Submit(t.Context(), &jobs.Submission{Type: "echo", Priority: 1, RetryCount: -1, Payload: []byte(`"hello"`)})
	mustDo(t, err)
	if j, err = n.Wait(t.Context(), j.ID); err != nil || string(j.Result) != `"hello"` {
		t.Errorf("the job is %v, %v", j, err)
	}
	if _, err := n.Submit(t.Context(), &jobs.Submission{Type: "other", Priority: 1, RetryCount: -1}); err == nil {
		t.Error("a job of no type is admitted")
	}
}

// TestNodeServes has two nodes of one process serve at ports of their own, be closed with
// a job that runs, and go on with it.
func TestNodeServes(t *testing.T) {
	t.Parallel()
	running := make(chan struct{}, 4)
	gate := make(chan struct{})
	types := typesOf(jobs.HandlerFunc(func(ctx context.Context, task *jobs.Task) (jobs.Result, error) {
		running <- struct{}{}
		return gated(gate)(ctx, task)
	}), "gated")
	dirs := []string{t.TempDir(), t.TempDir()}
	ids := make([]jobs.ID, len(dirs))
	for i, dir := range dirs {
		n, err := Open(t.Context(), Options{Dir: dir, Types: types, NATS: NATS{Port: -1}})
		mustDo(t, err)
		var lc net.ListenConfig
		l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		mustDo(t, err)
		served := make(chan error, 1)
		go func() { served <- n.Serve(l) }()
		ids[i] = post(t, "http://"+l.Addr().String()+"/jobs", `{"type":"gated"}`)
		select {
		case <-running:
		case <-time.After(patience):
			t.Fatal("nothing runs")
		}
		nc, err := nats.Connect(n.NATSURL())
		mustDo(t, err)
		_, err = nc.Request("jobstream.stats", nil, patience)
		mustDo(t, err)
		nc.Close()
		atOnce, cancel := context.WithCancel(t.Context())
		cancel()
		mustDo(t, n.Close(atOnce))
		mustDo(t, <-served)
		if url := n.NATSURL(); !strings.HasPrefix(url, "nats://") {
			t.Errorf("a closed node was at %q", url)
		}
	}
	close(gate)
	for i, dir := range dirs {
		n, _ := open(t, Options{Dir: dir, Types: types})
		j, err := n.Wait(t.Context(), ids[i])
		mustDo(t, err)
		if j == nil || j.Status != jobs.Completed || j.Attempt != 1 {
			t.Errorf("job %d is %v", i, j)
		}
	}
}

// post submits a job over REST.
func post(t *testing.T, url, body string) jobs.ID {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	mustDo(t, err)
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	mustDo(t, err)
	defer func() { _ = answer.Body.Close() }()
	var j struct {
		ID jobs.ID `json:"id"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&j); err != nil || answer.StatusCode != http.StatusAccepted {
		t.Fatalf("POST /jobs: %d, %v", answer.StatusCode, err)
	}
	return j.ID
}
