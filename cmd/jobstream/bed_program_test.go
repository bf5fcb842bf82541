package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nodeProcesses are servers in processes of the built program, each with a file of its own for
// its configuration, which tests of a cluster change between two starts.
type nodeProcesses struct {
	t   *testing.T
	rng *rand.Rand
	all []*nodeProcess
}

// nodeProcess is one of them, over all its lives.
type nodeProcess struct {
	t      *testing.T
	name   string
	dir    string // of its configuration, and of its data below it
	rest   string // the URL
	ports  string // "server: {…}" and the port for NATS
	listen string // for routes

	cmd  *exec.Cmd // nil while it does not run
	log  *logged
	done chan error
}

// newNodes prepares nodes that do not run.
func newNodes(t *testing.T, names ...string) *nodeProcesses {
	t.Helper()
	p := &nodeProcesses{t: t, rng: seeded(t)}
	for _, name := range names {
		p.add(name)
	}
	return p
}

func (p *nodeProcesses) add(name string) *nodeProcess {
	p.t.Helper()
	rest, nats := freePort(p.t, p.rng), freePort(p.t, p.rng)
	n := &nodeProcess{
		t: p.t, name: name, dir: p.t.TempDir(), rest: fmt.Sprintf("http://127.0.0.1:%d", rest), listen: fmt.Sprintf("127.0.0.1:%d", freePort(p.t, p.rng)),
		ports: fmt.Sprintf("server: {port: %d}\nbroker: {port: %d", rest, nats),
	}
	p.t.Cleanup(func() {
		n.kill()
		if p.t.Failed() && n.log != nil {
			p.t.Logf("the last log of %s:\n%s", n.name, n.log)
		}
	})
	p.all = append(p.all, n)
	return n
}

// routes are the addresses of nodes, as a configuration lists them.
func routes(nodes ...*nodeProcess) string {
	var all []string
	for _, n := range nodes {
		all = append(all, fmt.Sprintf("%q", n.listen))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// member writes the configuration of a member of a cluster with these nodes. more are
// further keys of broker.cluster.
func (n *nodeProcess) member(among string, more ...string) {
	n.t.Helper()
	n.configure(fmt.Sprintf("node: {name: %s}\n%s, cluster: {listen: %q, routes: %s%s}}\n", n.name, n.ports, n.listen, among, strings.Join(append([]string{""}, more...), ", ")))
}

func (n *nodeProcess) configure(text string) {
	n.t.Helper()
	mustDo(n.t, os.WriteFile(filepath.Join(n.dir, "config.yaml"), []byte(text), 0o600))
}

// start starts the program. It need not be ready yet.
func (n *nodeProcess) start() {
	n.t.Helper()
	bin, err := built()
	mustDo(n.t, err)
	n.log, n.done = newLogged(), make(chan error, 1)
	n.cmd = exec.Command(bin) //nolint:noctx // it is stopped by hand
	n.cmd.Dir, n.cmd.Env, n.cmd.Stderr = n.dir, cleanEnviron(), n.log
	mustDo(n.t, n.cmd.Start())
	cmd, done := n.cmd, n.done
	go func() { done <- cmd.Wait() }()
}

// stop ends it in good order.
func (n *nodeProcess) stop() {
	n.t.Helper()
	mustDo(n.t, n.cmd.Process.Signal(syscall.SIGTERM))
	if err := n.ends(); err != nil {
		n.t.Errorf("the stop of %s: %v\n%s", n.name, err, n.log)
	}
}

// ends waits for the end of the process.
func (n *nodeProcess) ends() error {
	n.t.Helper()
	select {
	case err := <-n.done:
		n.cmd = nil
		return err
	case <-time.After(patience):
		n.t.Fatalf("%s does not end\n%s", n.name, n.log)
		return nil
	}
}

func (n *nodeProcess) kill() {
	if n.cmd != nil {
		_ = n.cmd.Process.Kill()
		<-n.done
		n.cmd = nil
	}
}

// do sends a request, and reads the answer; 0 = there was none.
func (n *nodeProcess) do(method, path, body string) (int, []byte) {
	n.t.Helper()
	r, err := http.NewRequestWithContext(n.t.Context(), method, n.rest+path, strings.NewReader(body))
	mustDo(n.t, err)
	answer, err := (&http.Client{Timeout: 30 * time.Second}).Do(r)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, nil
	}
	return answer.StatusCode, text
}

// submit submits a job that reports what the server did, whenever it is taken, and returns its id.
func (n *nodeProcess) submit(more string) (id string) {
	n.t.Helper()
	waitUntil(n.t, func() bool {
		code, body := n.do(http.MethodPost, "/jobs", `{"type":"report"`+more+`}`)
		var got struct{ ID string }
		if code != http.StatusAccepted || json.Unmarshal(body, &got) != nil {
			return false
		}
		id = got.ID
		return true
	})
	return id
}

// has waits until the node shows that a job has a status.
func (n *nodeProcess) has(id, status string) {
	n.t.Helper()
	var last string
	defer func() {
		if n.t.Failed() {
			n.t.Logf("job %s is at %s: %s", id, n.name, last)
		}
	}()
	waitUntil(n.t, func() bool {
		code, body := n.do(http.MethodGet, "/jobs/"+id, "")
		last = fmt.Sprint(code, " ", string(body))
		var got struct{ Status string }
		return code == http.StatusOK && json.Unmarshal(body, &got) == nil && got.Status == status
	})
}

// awaitReady waits until all nodes say of themselves that they are ready.
func awaitReady(t *testing.T, nodes ...*nodeProcess) {
	t.Helper()
	for _, n := range nodes {
		waitUntil(t, func() bool {
			select {
			case err := <-n.done:
				n.cmd = nil
				t.Fatalf("%s has ended: %v\n%s", n.name, err, n.log)
			default:
			}
			code, _ := n.do(http.MethodGet, "/readyz", "")
			return code == http.StatusOK
		})
	}
}

// list is what a node says of all nodes.
func (n *nodeProcess) list() (all []nodeSeen) {
	n.t.Helper()
	_, body := n.do(http.MethodGet, "/nodes", "")
	var got struct{ Nodes []nodeSeen }
	if json.Unmarshal(body, &got) != nil {
		return nil
	}
	return got.Nodes
}
