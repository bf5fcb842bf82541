package node

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/jobs"
	"jobstream/jobs/access"
)

// echo answers a job with its payload.
func echo(_ context.Context, t *jobs.Task) (jobs.Result, error) {
	return jobs.Result{Value: t.Job.Payload}, nil
}

// TestNodeWithoutPorts: a node has the doors that it was asked for, and no others.
func TestNodeWithoutPorts(t *testing.T) {
	t.Parallel()
	n, _ := open(t, Options{}, typesOf(jobs.HandlerFunc(echo), "echo")...)
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

// TestNodeListens at the addresses that it was asked for, and refuses those that would
// give the server away.
func TestNodeListens(t *testing.T) {
	t.Parallel()
	types := typesOf(jobs.HandlerFunc(echo), "echo")
	n, _ := open(t, Options{HTTP: ":0", NATS: ":0"}, types...)
	if !strings.HasPrefix(n.HTTPURL(), "http://127.0.0.1:") || !strings.HasPrefix(n.NATSURL(), "nats://127.0.0.1:") {
		t.Errorf("it listens at %q and %q", n.HTTPURL(), n.NATSURL())
	}
	post(t, n.HTTPURL()+"/jobs", `{"type":"echo"}`)
	nc, err := nats.Connect(n.NATSURL())
	mustDo(t, err)
	defer nc.Close()
	_, err = nc.Request("jobstream.stats", nil, patience)
	mustDo(t, err)
	if m, err := nc.Request("jobstream.reload", nil, patience); err != nil || !strings.Contains(string(m.Data), "this needs the scope admin") {
		t.Errorf("whoever reaches the port may do what needs admin: %v", err)
	}
	closed := access.NewKeyring(access.Options{})
	for want, o := range map[string]Options{
		"":                                       {HTTP: "0.0.0.0:0", NATS: "0.0.0.0:0", Keyring: closed},
		"insecure":                               {HTTP: "[::]:0", NATS: "0.0.0.0:0", Insecure: true},
		`node.Options.HTTP: "0.0.0.0" is not`:    {HTTP: "0.0.0.0:0"},
		`node.Options.NATS: "192.0.2.1" is not`:  {HTTP: ":0", NATS: "192.0.2.1:4222"},
		`node.Options.NATS: "example.com" is`:    {NATS: "example.com:1", Keyring: anybody()},
		`node.Options.HTTP: "8080" is not an ad`: {HTTP: "8080"},
		`node.Options.NATS: ":x" is not an addr`: {NATS: ":x"},
		`node.Options.HTTP: ":70000" is not an`:  {HTTP: ":70000"},
		"is in use":                              {HTTP: strings.TrimPrefix(n.HTTPURL(), "http://")},
	} {
		o.Dir = t.TempDir()
		n, err := Open(t.Context(), o, nil)
		if err == nil {
			mustDo(t, n.Close())
		}
		if opens := want == "" || want == "insecure"; opens != (err == nil) || !opens && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestClose drains: a job that runs has the grace to end, and new ones are refused.
func TestClose(t *testing.T) {
	t.Parallel()
	running, gate := make(chan struct{}, 1000), make(chan struct{})
	dir := t.TempDir()
	types := typesOf(jobs.HandlerFunc(func(ctx context.Context, task *jobs.Task) (jobs.Result, error) {
		running <- struct{}{}
		return gated(gate)(ctx, task)
	}), "gated")
	n, err := Open(t.Context(), Options{Dir: dir}, jobs.NewRegistry(types...))
	mustDo(t, err)
	s := &jobs.Submission{Type: "gated", Priority: 1, RetryCount: -1}
	j, err := n.Submit(t.Context(), s)
	mustDo(t, err)
	<-running
	closed := make(chan error, 1)
	go func() { closed <- n.Close() }()
	var refused *jobs.Error
	for refused == nil { // until it drains, which it does not have to do at once
		if _, err := n.Submit(t.Context(), s); err != nil && !errors.As(err, &refused) {
			t.Fatal(err)
		}
	}
	if refused.Kind != jobs.ShuttingDown {
		t.Errorf("a new job is refused with %v", refused)
	}
	close(gate)
	mustDo(t, <-closed)
	n, _ = open(t, Options{Dir: dir}, types...)
	if j, err = n.Wait(t.Context(), j.ID); err != nil || j.Status != jobs.Completed || j.Attempt != 1 {
		t.Errorf("the job is %v, %v", j, err)
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
		n, err := Open(t.Context(), Options{Dir: dir, NATS: ":0"}, jobs.NewRegistry(types...))
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
		mustDo(t, n.Shutdown(atOnce))
		mustDo(t, <-served)
		if url := n.NATSURL(); !strings.HasPrefix(url, "nats://") {
			t.Errorf("a closed node was at %q", url)
		}
	}
	close(gate)
	for i, dir := range dirs {
		n, _ := open(t, Options{Dir: dir}, types...)
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
