package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"jobstream/jobs/jobstest"
)

// The example workers, each with its program and the programs that it needs.
var exampleWorkers = []struct {
	name  string
	tools []string
	argv  func(t *testing.T, dir string) []string // dir is that of the examples
}{
	{"worker-curl.sh", []string{"bash", "curl", "jq"}, script("bash")},
	{"worker-nats.sh", []string{"bash", "nats", "jq"}, script("bash")},
	{"worker-fetch.mjs", []string{"node"}, script("node")},
	{"worker-nats.mjs", []string{"node", "npm"}, nodeWithNATS},
	{"worker.py", []string{"python3"}, script("python3")},
	{"go", []string{"go"}, goProgram},
}

// script runs the example by an interpreter.
func script(interpreter string) func(*testing.T, string) []string {
	return func(_ *testing.T, file string) []string { return []string{interpreter, file} }
}

// nodeWithNATS installs the client beside a copy of the example.
func nodeWithNATS(t *testing.T, file string) []string {
	t.Helper()
	dir := t.TempDir()
	text, err := os.ReadFile(file)
	mustDo(t, err)
	copied := filepath.Join(dir, filepath.Base(file))
	mustDo(t, os.WriteFile(copied, text, 0o600))
	npm := exec.CommandContext(t.Context(), "npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", dir, "@nats-io/transport-node@3.4.0")
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("npm install: %v\n%s", err, out)
	}
	return []string{"node", copied}
}

// goProgram builds the example.
func goProgram(t *testing.T, dir string) []string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "worker")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return []string{program}
}

// startWorker starts a worker with a process group of its own. kill ends that as by
// kill -9.
func (h *house) startWorker(t *testing.T, argv []string) (kill func()) {
	t.Helper()
	c := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	c.Env = append(os.Environ(), "JOBSTREAM_URL="+h.rest, "NATS_URL="+h.nats)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Stdout, c.Stderr = t.Output(), t.Output()
	c.WaitDelay = time.Second
	mustDo(t, c.Start())
	dead := false
	kill = func() {
		if dead {
			return
		}
		dead = true
		killTree(t, c.Process.Pid)
		_ = c.Wait() // it was killed
	}
	t.Cleanup(kill)
	return kill
}

// killTree kills a process and all below it: a script may give its children groups of
// their own.
func killTree(t *testing.T, pid int) {
	t.Helper()
	all, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	if err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
	for _, child := range strings.Fields(string(all)) {
		var n int
		if _, err := fmt.Sscan(child, &n); err == nil {
			killTree(t, n)
		}
	}
}

// TestExampleWorkers runs each example with its real tools. One is killed in the middle of
// a job, which another one ends. That one also has to stop a job that is cancelled, and to
// report one that fails.
func TestExampleWorkers(t *testing.T) {
	t.Parallel()
	for _, e := range exampleWorkers {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			for _, tool := range e.tools {
				jobstest.Tool(t, tool)
			}
			file, err := filepath.Abs(filepath.Join("../../jobs/examples", e.name))
			mustDo(t, err)
			argv := e.argv(t, file)
			h := open(t, t.TempDir(), setup{change: remotely(5*time.Second, "shout")})
			kill := h.startWorker(t, argv)
			id := h.submit(`{"type":"shout","payload":{"text":"hello <&> there","seconds":3}}`).ID
			first := h.await(id, "processing").Node
			kill()
			h.startWorker(t, argv)
			j := h.await(id, "completed")
			var result struct{ Text, Worker string }
			mustDo(t, json.Unmarshal(j.Result, &result))
			if result.Text != "HELLO <&> THERE" || result.Worker == first || result.Worker == "" || j.Node != result.Worker || j.Attempt != 1 {
				t.Errorf("attempt %d by %s made %s; the first worker was %s", j.Attempt, j.Node, j.Result, first)
			}
			if _, kinds := h.events(id); !strings.Contains(kinds, "lost") {
				t.Errorf("what happened to it is %s", kinds)
			}

			long := h.submit(`{"type":"shout","payload":{"text":"x","seconds":3600}}`).ID
			h.await(long, "processing")
			h.cancel(long, "")
			failing := h.submit(`{"type":"shout","payload":{"text":5},"retry_count":0}`).ID
			if j := h.await(failing, "failed"); j.Error == "" || j.Node != result.Worker { // the same worker goes on
				t.Errorf("it failed at %s: %s", j.Node, j.Error)
			}
			h.await(h.submit(`{"type":"shout","payload":{"text":"bye"}}`).ID, "completed")
		})
	}
}
