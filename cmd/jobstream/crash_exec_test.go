//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	execjobs "jobstream/jobs/handlers/exec"
	"jobstream/jobs/handlers/exec/proc"
)

// programType runs the script in its payload.
func programType() config.JobType {
	o := execjobs.NewOptions()
	o.Command = []string{"/bin/sh", "-c", `eval "$1"`, "sh", "{{.payload}}"}
	o.KillAfter = 300 * time.Millisecond
	o.Check(".", func(path, text string) { panic(path + ": " + text) })
	return config.JobType{
		Run: "exec", Options: o, Timeout: time.Hour, RetryCount: 3,
		Backoff: jobs.Backoff{Kind: jobs.Constant, Base: 50 * time.Millisecond},
	}
}

// programShapes are programs that are hard to end.
var programShapes = map[string]string{
	"sleep":              `exec sleep 1000`,
	"child":              `sleep 1000`,
	"in background":      `sleep 1000 & wait`,
	"subshell":           `(sleep 1000); :`,
	"pipe":               `sleep 1000 | cat`,
	"held pipe":          `sleep 1000 & sleep 1000`,
	"setsid":             `setsid sleep 1000 & wait`,
	"daemon":             `(setsid sh -c 'sleep 1000 & sleep 1000' </dev/null >/dev/null 2>&1 3>&- &); sleep 1000`,
	"closed output":      `exec >&- 2>&- 3>&-; sleep 1000`,
	"ignores TERM":       `trap '' TERM; sleep 1000; sleep 1000`,
	"stopped":            `sh -c 'kill -STOP $$; sleep 1000'`,
	"does not read":      `exec <&-; sleep 1000`,
	"writes to a reader": `yes | sleep 1000`,
}

// programHouse is a server with programs, and how to see what is left of them.
type programHouse struct {
	t    *testing.T
	c    *child
	dir  string
	mark string
}

func newProgramHouse(t *testing.T) *programHouse {
	dir := t.TempDir()
	h := &programHouse{t: t, dir: dir, c: startChild(t, dir)}
	mark, err := execjobs.Mark(filepath.Join(dir, "data"))
	mustDo(t, err)
	h.mark = mark
	t.Cleanup(func() { proc.Sweep(mark) })
	return h
}

// submit begins a script.
func (h *programHouse) submit(script string, more string) string {
	h.t.Helper()
	return h.submitAs("program", script, more)
}

// submitAs submits a job of a type, with a text as its payload.
func (h *programHouse) submitAs(typ, script, more string) string {
	h.t.Helper()
	payload, _ := json.Marshal(script)
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.c.rest+"/jobs", strings.NewReader(fmt.Sprintf(`{"type":%q,"payload":%s%s}`, typ, payload, more)))
	mustDo(h.t, err)
	resp, err := http.DefaultClient.Do(req)
	mustDo(h.t, err)
	defer resp.Body.Close()
	var j struct{ ID string }
	if err := json.NewDecoder(resp.Body).Decode(&j); err != nil || resp.StatusCode != http.StatusAccepted {
		h.t.Fatalf("%s gives %d, %v", script, resp.StatusCode, err)
	}
	return j.ID
}

// begin begins all shapes and waits until their processes are there. A test that finds
// none of its own would find none that are left, either.
func (h *programHouse) begin(more string) (ids map[string]string) {
	h.t.Helper()
	ids = make(map[string]string)
	for name, script := range programShapes {
		ids[name] = h.submit(script, more)
	}
	waitUntil(h.t, func() bool { return len(proc.Left(h.mark)) >= len(programShapes) })
	for _, id := range ids {
		h.await(id, "processing")
	}
	return ids
}

// await waits for a status, and returns the error.
func (h *programHouse) await(id, status string) string {
	h.t.Helper()
	var j struct{ Status, Error string }
	waitUntil(h.t, func() bool { get(h.t, h.c.rest+"/jobs/"+id, &j); return j.Status == status })
	return j.Error
}

// nothingLeft waits until all workers are free, and finds no process then.
func (h *programHouse) nothingLeft() {
	h.t.Helper()
	var st struct {
		Active int `json:"active_workers"`
	}
	waitUntil(h.t, func() bool { get(h.t, h.c.rest+"/workers/stats", &st); return st.Active == 0 })
	if left := proc.Left(h.mark); len(left) > 0 {
		h.t.Errorf("processes are left: %v", left)
	}
}

func TestProgramsThatEnd(t *testing.T) {
	t.Parallel()
	h := newProgramHouse(t)
	seen := 0
	for name, script := range programShapes {
		id := h.submit(`(`+script+`) & sleep 0.3; echo "done"`, "")
		waitUntil(t, func() bool { return len(proc.Left(h.mark)) > 0 })
		seen++
		if e := h.await(id, "completed"); e != "" {
			t.Errorf("%s: %s", name, e)
		}
		h.nothingLeft()
	}
	if seen != len(programShapes) {
		t.Errorf("only %d programs were seen", seen)
	}
}

func TestProgramsThatTimeOut(t *testing.T) {
	t.Parallel()
	h := newProgramHouse(t)
	for name, id := range h.begin(`,"timeout":2,"retry_count":0`) {
		if e := h.await(id, "failed"); !strings.HasPrefix(e, "timed out after 2s") {
			t.Errorf("%s fails with %q", name, e)
		}
	}
	h.nothingLeft()
}

func TestProgramsThatAreCancelled(t *testing.T) {
	t.Parallel()
	h := newProgramHouse(t)
	for _, id := range h.begin("") {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.c.rest+"/jobs/"+id+"/cancel", nil)
		mustDo(t, err)
		resp, err := http.DefaultClient.Do(req)
		mustDo(t, err)
		resp.Body.Close()
		h.await(id, "cancelled")
	}
	h.nothingLeft()
	h.await(h.submit(`echo free`, ""), "completed")
}

// TestStormOfCancels submits and cancels at the same time, each job at another moment of
// its life.
func TestStormOfCancels(t *testing.T) {
	t.Parallel()
	h := newProgramHouse(t)
	const clients, each = 10, 50
	ids := make([][]string, clients)
	var group sync.WaitGroup
	for c := range clients {
		group.Go(func() {
			for n := range each {
				id, err := h.post("/jobs", `{"type":"program","payload":"setsid sleep 1000 & sleep 1000"}`)
				if err != nil {
					t.Error(err)
					return
				}
				ids[c] = append(ids[c], id)
				if n%3 > 0 { // some at once, some when others have come in, the rest at the end
					id = ids[c][n/2]
				}
				if _, err := h.post("/jobs/"+id+"/cancel", ""); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	for _, id := range slices.Concat(ids...) {
		if _, err := h.post("/jobs/"+id+"/cancel", ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range slices.Concat(ids...) {
		h.await(id, "cancelled")
	}
	h.nothingLeft()
	h.await(h.submit(`echo free`, ""), "completed")
}

// post sends a request. One that comes too late for its job is none that fails.
func (h *programHouse) post(path, body string) (id string, err error) {
	resp, err := http.Post(h.c.rest+path, "application/json", strings.NewReader(body)) //nolint:noctx // its server is ended
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var j struct{ ID string }
	err = json.NewDecoder(resp.Body).Decode(&j)
	if resp.StatusCode >= http.StatusBadRequest && resp.StatusCode != http.StatusConflict {
		err = fmt.Errorf("%s gives %d", path, resp.StatusCode)
	}
	return j.ID, err
}

// TestInheritedFiles has the server inherit a file from its parent, which is nobody's
// business of its programs.
func TestInheritedFiles(t *testing.T) {
	t.Parallel()
	secret, err := os.Create(filepath.Join(t.TempDir(), "secret"))
	mustDo(t, err)
	defer secret.Close()
	cmd := exec.Command(os.Args[0]) //nolint:noctx // it is killed by hand
	cmd.ExtraFiles = []*os.File{secret, secret, secret}
	dir := t.TempDir()
	h := &programHouse{t: t, dir: dir, c: startAs(t, cmd, dir)}
	inherited, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", cmd.Process.Pid))
	mustDo(t, err)
	has := func(path string) bool { target, _ := os.Readlink(path); return target == secret.Name() }
	if !slices.ContainsFunc(inherited, func(e os.DirEntry) bool { return has(fmt.Sprintf("/proc/%d/fd/%s", cmd.Process.Pid, e.Name())) }) {
		t.Fatal("the server has not inherited the file")
	}
	id := h.submit(`ls -l /proc/self/fd`, "")
	h.await(id, "completed")
	var j struct{ Result string }
	get(t, h.c.rest+"/jobs/"+id, &j)
	if !strings.Contains(j.Result, "pipe:") || strings.Contains(j.Result, "secret") {
		t.Errorf("a program has these files:\n%s", j.Result)
	}
}

// TestProgramsOfAStoppedServer stops the server in good order: the programs get a TERM
// after its grace, and their jobs no attempt less.
func TestProgramsOfAStoppedServer(t *testing.T) {
	t.Parallel()
	h := newProgramHouse(t)
	ids := h.begin("")
	mustDo(t, h.c.cmd.Process.Signal(syscall.SIGTERM))
	if err := <-h.c.done; err != nil {
		t.Errorf("the server ended with %v\n%s", err, h.c.logged())
	}
	if left := proc.Left(h.mark); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
	h.c = startChild(t, h.dir)
	waitUntil(t, func() bool { return len(proc.Left(h.mark)) >= len(programShapes) })
	for name, id := range ids {
		var j struct{ Attempt int }
		h.await(id, "processing")
		get(t, h.c.rest+"/jobs/"+id, &j)
		if j.Attempt != 1 {
			t.Errorf("%s is at attempt %d", name, j.Attempt)
		}
	}
	h.c.kill()
}

// TestProgramsOfAKilledServer kills it, and looks when the next one runs.
func TestProgramsOfAKilledServer(t *testing.T) {
	t.Parallel()
	h := newProgramHouse(t)
	ids := h.begin("")
	other := newProgramHouse(t) // on another folder: nothing of it may be touched
	bystander := other.submit("sleep 1000", "")
	other.await(bystander, "processing")
	before := proc.Left(h.mark)
	h.c.kill()
	h.c = startChild(t, h.dir)
	for _, pid := range before {
		for _, now := range proc.Left(h.mark) {
			if pid == now {
				t.Errorf("the process %d has outlived the start after its server's death", pid)
			}
		}
	}
	for name, id := range ids {
		h.await(id, "processing")
		if name == "sleep" && h.await(id, "processing") != "" {
			t.Errorf("%s has an error", name)
		}
	}
	if len(proc.Left(other.mark)) == 0 {
		t.Error("the programs of another server are gone")
	}
	other.await(bystander, "processing")
	h.c.kill()
	other.c.kill()
}
