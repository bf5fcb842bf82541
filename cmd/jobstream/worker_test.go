//go:build unix

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	jobclient "jobstream/broker/client"
	"jobstream/jobs"
	"jobstream/jobs/access"
)

// workerProcess is a process with node.role: worker.
type workerProcess struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *logged
	at   string
	done chan error
	over bool
}

// notesOf makes a folder for programs: they write a line to the file begun, and end when
// there is a file go.
func notesOf(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	mustDo(t, err)
	return dir
}

// workerTypes are the types of workers in tests. far waits for the file go.
const (
	workerTypes = farType + `
  cat: {run: exec, command: [cat], sandbox: {mode: "off"}}
  page: {run: exec, command: [cat], stdout: artifact, artifact: {name: page.json}, sandbox: {mode: "off"}}
`
	farType = `
jobs:
  far:
    run: exec
    command: [sh, -c, 'echo begun $$ >> "$NOTES/begun"; while [ ! -e "$NOTES/go" ]; do sleep 0.05; done']
    env: {NOTES: %q}
    kill_after: 1s
    sandbox: {mode: "off"}`
)

// startWorker starts a worker with this head of its configuration, and these types. It need
// not be ready yet.
func startWorker(t *testing.T, notes, head, types string, env ...string) *workerProcess {
	t.Helper()
	bin, err := built()
	mustDo(t, err)
	dir := t.TempDir()
	mustDo(t, os.WriteFile(filepath.Join(dir, "config.yaml"), fmt.Appendf(nil, head+types, notes), 0o600))
	w := &workerProcess{t: t, cmd: exec.Command(bin, "--port=0"), log: newLogged(), done: make(chan error, 1)} //nolint:noctx // it is stopped by hand
	w.cmd.Dir, w.cmd.Env, w.cmd.Stderr = dir, append(cleanEnviron(), env...), w.log
	mustDo(t, w.cmd.Start())
	go func() { w.done <- w.cmd.Wait() }()
	t.Cleanup(func() {
		if !w.over {
			_ = w.cmd.Process.Kill()
			<-w.done
		}
		if t.Failed() {
			t.Logf("the log of a worker:\n%s", w.log)
		}
	})
	select {
	case err := <-w.done:
		w.over = true
		t.Fatalf("the worker ended: %v\n%s", err, w.log)
	case <-w.log.has("the worker has started"):
		w.at = attribute(w.log.line("the worker has started"), "health=")
	case <-time.After(patience):
		t.Fatalf("the worker does not start\n%s", w.log)
	}
	return w
}

// get is the answer of a door.
func (w *workerProcess) get(path string) (int, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.at+path, http.NoBody)
	mustDo(w.t, err)
	r, err := http.DefaultClient.Do(req)
	mustDo(w.t, err)
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(r.Body)
	mustDo(w.t, err)
	return r.StatusCode, string(body)
}

func (w *workerProcess) awaitReady() {
	w.t.Helper()
	waitUntil(w.t, func() bool { code, _ := w.get("/readyz"); return code == http.StatusOK })
}

// ends sends a signal and waits for the end of the process.
func (w *workerProcess) ends(s os.Signal) error {
	w.t.Helper()
	mustDo(w.t, w.cmd.Process.Signal(s))
	w.over = true
	return <-w.done
}

// begun is how often the program of far has begun.
func begun(notes string) int {
	text, _ := os.ReadFile(filepath.Join(notes, "begun")) // it is not there before the first one
	return strings.Count(string(text), "begun")
}

// serverOfWorkers are the types of a server that workers do, at fixed ports so that they
// find it again.
const serverOfWorkers = `
jobs:
  cat: {run: remote, lease: 5s}
  page: {run: remote, lease: 5s}
  far: {run: remote, lease: 5s, retry_count: 0}
`

// TestWorkerNode has a worker wait for its server, do jobs with and without files, and find
// the server again when that has restarted.
func TestWorkerNode(t *testing.T) {
	t.Parallel()
	rng, notes := seeded(t), notesOf(t)
	rest, port := freePort(t, rng), freePort(t, rng)
	w := startWorker(t, notes, fmt.Sprintf("node: {name: w1, role: worker}\nbroker: {url: 'nats://127.0.0.1:%d'}\nserver: {public_url: 'http://127.0.0.1:%d'}\n", port, rest), workerTypes)
	if code, _ := w.get("/livez"); code != http.StatusOK {
		t.Errorf("/livez is %d", code)
	}
	if code, body := w.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "no connection") {
		t.Errorf("/readyz without a server is %d: %s", code, body)
	}
	for _, path := range []string{"/jobs", "/", "/info", "/ui/"} {
		if code, _ := w.get(path); code != http.StatusNotFound {
			t.Errorf("%s is %d; a worker has no such door", path, code)
		}
	}
	dir := t.TempDir()
	mustDo(t, os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(serverOfWorkers), 0o600))
	start := func() *house {
		bin, err := built()
		mustDo(t, err)
		cmd := exec.Command(bin, fmt.Sprintf("--port=%d", rest), fmt.Sprintf("--nats-port=%d", port)) //nolint:noctx // it is stopped by hand
		cmd.Dir, cmd.Env = dir, cleanEnviron()
		return startServer(t, cmd, os.Interrupt)
	}
	h := start()
	w.awaitReady()
	if j := h.await(h.submit(`{"type":"cat","payload":{"n":7}}`).ID, "completed"); !strings.Contains(string(j.Result), "7") || !strings.HasPrefix(j.Node, "w1#") {
		t.Errorf("the result is %s, by %s", j.Result, j.Node)
	}
	j := h.await(h.submit(`{"type":"page","payload":{"n":8}}`).ID, "completed")
	if r := h.do(http.MethodGet, "/jobs/"+j.ID+"/artifacts/page.json", ""); r.code != http.StatusOK || !strings.Contains(string(r.body), "8") {
		t.Errorf("the artifact is %d: %s", r.code, r.body)
	}
	h.close()
	waitUntil(t, func() bool { code, _ := w.get("/readyz"); return code == http.StatusServiceUnavailable })
	h = start()
	w.awaitReady()
	h.await(h.submit(`{"type":"cat","payload":{"n":9}}`).ID, "completed")
	waitUntil(t, func() bool { // the job may be known to have ended before its worker knows that
		_, figures := w.get("/metrics")
		for _, want := range []string{"jobstream_worker_connected 1", "jobstream_worker_max 10", "jobstream_worker_busy 0", `jobstream_worker_attempts_total{end="done",type="cat"} 2`} {
			if !strings.Contains(figures, want) {
				return false
			}
		}
		return true
	})
	if err := w.ends(syscall.SIGTERM); err != nil {
		t.Errorf("the stop was not clean: %v", err)
	}
}

// TestWorkerNodeEnds stops a worker, which gives its job back without an attempt used up,
// and kills one, whose job comes again after the lease.
func TestWorkerNodeEnds(t *testing.T) {
	t.Parallel()
	notes, dir := notesOf(t), t.TempDir()
	mustDo(t, os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(serverOfWorkers), 0o600))
	h := startProgram(t, dir)
	start := func() *workerProcess {
		w := startWorker(t, notes, "node: {role: worker}\nworker: {shutdown_grace: 1s, max_workers: 2}\nserver: {public_url: '"+h.rest+"'}\n", workerTypes, "JOBSTREAM_BROKER_URL="+h.nats)
		w.awaitReady()
		return w
	}
	w := start()
	id := h.submit(`{"type":"far"}`).ID
	waitUntil(t, func() bool { return begun(notes) == 1 })
	if err := w.ends(syscall.SIGTERM); err != nil {
		t.Errorf("the stop was not clean: %v", err)
	}
	if j := h.job(id); j.Status != "pending" { // it has one attempt, so none is used up
		t.Errorf("after the stop of its worker the job is %s", j.Status)
	}
	w = start()
	waitUntil(t, func() bool { return begun(notes) == 2 })
	killed := time.Now()
	_ = w.ends(syscall.SIGKILL)
	start()
	waitUntil(t, func() bool { return begun(notes) == 3 })
	if after := time.Since(killed); after < jobs.MinLease/3 {
		t.Errorf("the job came again %s after its worker was killed, before the end of the lease", after)
	}
	mustDo(t, os.WriteFile(filepath.Join(notes, "go"), nil, 0o600))
	h.await(id, "completed")
}

// TestWorkerNodeRefused has workers end at once with an error that says what to change.
func TestWorkerNodeRefused(t *testing.T) {
	t.Parallel()
	notes := notesOf(t)
	dir := t.TempDir()
	mustDo(t, os.WriteFile(filepath.Join(dir, "config.yaml"), []byte("jobs: {cat: {run: remote}, far: {run: remote}, page: {run: exec, command: [cat]}}"), 0o600))
	h := startProgram(t, dir)
	w := startWorker(t, notes, "node: {role: worker}\nbroker: {url: '"+h.nats+"'}\nserver: {public_url: '"+h.rest+"'}\n", workerTypes)
	if err := <-w.done; err == nil || !strings.Contains(w.log.String(), "run: remote") || !strings.Contains(w.log.String(), "page") {
		t.Errorf("a worker for a type that the server does itself ends with %v:\n%s", err, w.log)
	}
	w.over = true
}

// TestWorkerNodeTLS has a worker of a server that encrypts, and lets nobody in without a
// certificate and a token. Its files go over REST by the same.
func TestWorkerNodeTLS(t *testing.T) {
	t.Parallel()
	notes, dir, token := notesOf(t), t.TempDir(), access.NewToken()
	a := newAuthority(t)
	f := a.files(dir, "127.0.0.1")
	mustDo(t, os.WriteFile(filepath.Join(dir, "config.yaml"), fmt.Appendf(nil, `
server:
  tls: {cert: cert.pem, key: key.pem, client_ca: ca.pem}
  auth: {anonymous: [], tokens: {w: {sha256: %s, scopes: [submit, work]}}}
%s`, access.HashOf(token), serverOfWorkers), 0o600))
	h := startProgram(t, dir)
	w := startWorker(t, notes, fmt.Sprintf("node: {role: worker}\nbroker: {url: 'tls://%s', tls: {ca: %q, cert: %q, key: %q}}\nserver: {public_url: %q}\n",
		h.nats[strings.Index(h.nats, "://")+3:], f.ClientCA, f.Cert, f.Key, h.rest), workerTypes, "JOBSTREAM_BROKER_TOKEN="+token)
	w.awaitReady()
	c, err := jobclient.Connect(h.nats, nats.Token(token), nats.Secure(a.client(a)))
	mustDo(t, err)
	defer c.Close()
	j, err := c.Submit(t.Context(), &jobs.Submission{Type: "page", Payload: []byte(`{"n":1}`)})
	mustDo(t, err)
	if j, err = c.Wait(t.Context(), j.ID); err != nil || j == nil || j.Status != jobs.Completed || j.Artifact == nil {
		t.Errorf("the job is %+v, %v", j, err)
	}
	if strings.Contains(w.log.String(), token) {
		t.Error("the log has the token")
	}
	w = startWorker(t, notes, fmt.Sprintf("node: {role: worker}\nbroker: {url: 'tls://%s', tls: {ca: %q, cert: %q, key: %q}}\nserver: {public_url: %q}\n",
		h.nats[strings.Index(h.nats, "://")+3:], f.ClientCA, f.Cert, f.Key, h.rest), workerTypes, "JOBSTREAM_BROKER_TOKEN="+access.NewToken())
	select {
	case err := <-w.done:
		w.over = true
		if err == nil || !strings.Contains(w.log.String(), "broker.token") {
			t.Errorf("a worker with a wrong token ends with %v:\n%s", err, w.log)
		}
	case <-time.After(patience):
		t.Errorf("a worker with a wrong token goes on:\n%s", w.log)
	}
}

// TestClusterWorkerNode has a worker do jobs of a cluster. A job goes on while its leader is
// killed, and ends at the next one. If the worker is killed, its job comes again after the
// lease, to another worker.
func TestClusterWorkerNode(t *testing.T) {
	b := newCluster(t)
	notes := notesOf(t)
	b.start(b.nodes...)
	leader, others := b.leader()
	start := func(name string) *workerProcess {
		w := startWorker(t, notes, fmt.Sprintf("node: {name: %s, role: worker}\nbroker: {url: '%s,%s,%s'}\n", name, others[0].nats, leader.nats, others[1].nats), farType)
		w.awaitReady()
		return w
	}
	w := start("w1")
	c, err := jobclient.Connect(leader.nats + "," + others[0].nats + "," + others[1].nats)
	mustDo(t, err)
	defer c.Close()
	id := farJob(t, c)
	waitUntil(t, func() bool { return begun(notes) == 1 })
	leader.kill()
	b.leader()
	w.awaitReady()
	mustDo(t, os.WriteFile(filepath.Join(notes, "go"), nil, 0o600))
	completes := func(id jobs.ID, node string) {
		t.Helper()
		if j, err := c.Wait(t.Context(), id); err != nil || j == nil || j.Status != jobs.Completed || !strings.HasPrefix(j.Node, node+"#") {
			t.Errorf("the job is %+v, %v, want it completed by %s", j, err, node)
		}
	}
	completes(id, "w1")
	completes(farJob(t, c), "w1")
	mustDo(t, os.Remove(filepath.Join(notes, "go")))
	before := begun(notes)
	id = farJob(t, c)
	waitUntil(t, func() bool { return begun(notes) == before+1 })
	killed := time.Now()
	_ = w.ends(syscall.SIGKILL)
	start("w2")
	waitUntil(t, func() bool { return begun(notes) == before+2 })
	t.Logf("the job came again %s after its worker was killed", time.Since(killed).Round(time.Millisecond))
	mustDo(t, os.WriteFile(filepath.Join(notes, "go"), nil, 0o600))
	completes(id, "w2")
}

// farJob makes a job of a cluster.
func farJob(t *testing.T, c *jobclient.Client) jobs.ID {
	t.Helper()
	j, err := c.Submit(t.Context(), &jobs.Submission{Type: "far"})
	mustDo(t, err)
	return j.ID
}
