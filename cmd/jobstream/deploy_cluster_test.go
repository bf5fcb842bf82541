package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"jobstream/jobs/jobstest"
)

// TestThreeNodes starts the cluster of the page about it by its script, waits until one of
// the nodes leads and all are ready, and stops it.
func TestThreeNodes(t *testing.T) {
	t.Parallel()
	sh := jobstest.Tool(t, "sh")
	bin, err := built()
	mustDo(t, err)
	dir, ports := filepath.Join(t.TempDir(), "cluster"), 1000+10*rand.IntN(2000)
	t.Log("PORTS", ports)
	var out bytes.Buffer
	c := exec.CommandContext(t.Context(), sh, "deploy/three-nodes", dir)
	c.Env = append(cleanEnviron(), "PATH="+os.Getenv("PATH"), "JOBSTREAM="+bin, fmt.Sprint("PORTS=", ports))
	c.Stdout, c.Stderr = &out, &out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	mustDo(t, c.Start())
	url := fmt.Sprintf("http://127.0.0.1:%d/nodes", 8081+ports)
	deadline := time.Now().Add(2 * time.Minute)
	for state := ""; state != "ready"; state = threeNodes(t, url) {
		if time.Now().After(deadline) {
			t.Fatalf("the nodes are %s\n%s", state, &out)
		}
		time.Sleep(50 * time.Millisecond) // between two looks: the nodes are other processes
	}
	mustDo(t, c.Process.Signal(syscall.SIGTERM))
	_ = c.Wait() // it ends by the signal
	for n := range 3 {
		log, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("n%d.log", n+1)))
		if err != nil || !bytes.Contains(log, []byte("ready")) {
			t.Errorf("node %d: %s, %v", n+1, log, err)
		}
	}
}

// threeNodes is "ready" if the answer has three nodes that are, and one of them leads; else
// what it has.
func threeNodes(t *testing.T, url string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	mustDo(t, err)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = answer.Body.Close() }()
	var got struct {
		Nodes []struct{ Leader, Ready bool }
	}
	if err := json.NewDecoder(answer.Body).Decode(&got); err != nil {
		return err.Error()
	}
	ready, leaders := 0, 0
	for _, n := range got.Nodes {
		if n.Ready {
			ready++
		}
		if n.Leader {
			leaders++
		}
	}
	if ready == 3 && leaders == 1 {
		return "ready"
	}
	return fmt.Sprintf("%d ready, %d leading", ready, leaders)
}
