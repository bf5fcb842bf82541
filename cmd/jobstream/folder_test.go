package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestOldFolder opens a data folder of the first version with a tracker of this form,
// which was killed. jobs.jsonl has that version's answers to GET /jobs/{id}, which must
// stay the same.
func TestOldFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unpack(t, filepath.Join("testdata", "folder", "first.tar.gz"), dir)
	old := oldJobs(t, filepath.Join(dir, "jobs.jsonl"))
	if len(old) != 15 {
		t.Fatalf("the folder holds %d jobs", len(old))
	}
	h := openFolder(t, dir)
	sameJobs(t, h, old)
	h.close()
	h = openFolder(t, dir)
	sameJobs(t, h, old)

	submission := `{"type":"waits","payload":{"to":"a@example.com","subject":"Hi","body":"x"}`
	again := h.do(http.MethodPost, "/jobs", submission+`}`, "Idempotency-Key", "k1")
	if id := readJob(t, again.body).ID; old[id] == nil {
		t.Errorf("the idempotency key is forgotten: job %s is new", id)
	}
	h.do(http.MethodPost, "/jobs", submission+`,"unique_key":"u1"}`).wantProblem(t, http.StatusConflict, "duplicate")
	var schedules struct{ Schedules []map[string]any }
	mustDo(t, json.Unmarshal(h.do(http.MethodGet, "/schedules", "").body, &schedules))
	if s := schedules.Schedules; len(s) != 2 || s[0]["name"] != "mine" || s[0]["every"] != "300d" || s[1]["name"] != "nightly" {
		t.Errorf("the schedules are %v", s)
	}
	ran := 0
	for id, j := range old {
		if j["type"] == "export" {
			r := h.do(http.MethodGet, "/jobs/"+id+"/result", "")
			if r.code != http.StatusOK || len(r.body) != 213 {
				t.Errorf("the export is answered with %d and %d bytes", r.code, len(r.body))
			}
		}
	}
	h.do(http.MethodPost, "/types/waits/resume", "")
	for id, j := range old {
		if j["type"] == "waits" && j["status"] == "pending" {
			h.await(id, "retrying") // its mail server does not answer
			ran++
		}
	}
	if ran != 8 {
		t.Errorf("%d jobs ran", ran)
	}
}

// facts are what a folder of an old version has besides its jobs; see make.py.
type facts struct {
	Results    map[string]int // sizes of artifacts by job
	Unique     string         // the job with the unique key u1
	Idempotent string         // the job of the idempotency key k1
	Upload     string         // an artifact that no job has
	Schedules  []string
}

// TestOldFolders opens folders of old versions, one for each form that data had: before
// delays and keys (plain), with folders for files (files), with inputs, leases and callbacks
// (leases), with formats that have names (named), and with places in traces (traced). Each server was killed with jobs in
// every state that it knew. testdata/folder/make.py has made them.
func TestOldFolders(t *testing.T) {
	t.Parallel()
	for name, count := range map[string]int{"plain": 7, "files": 13, "leases": 16, "named": 16, "traced": 16} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			unpack(t, filepath.Join("testdata", "folder", name+".tar.gz"), dir)
			data, file := filepath.Join(dir, "data"), filepath.Join(dir, "config.yaml")
			old := oldJobs(t, filepath.Join(dir, "jobs.jsonl"))
			if len(old) != count {
				t.Errorf("the folder has %d jobs", len(old))
			}
			healthy := func(args ...string) {
				t.Helper()
				if code, checks, said := doctor(t, append(args, "--config", file)...); code != 0 || len(checks) > 0 {
					t.Errorf("doctor %q: exit code %d, found %q: %s", args, code, checks, said)
				}
			}
			healthy("--data", data)
			for range 2 {
				h := openFolder(t, dir)
				keptJobs(t, h, old)
				token, err := os.ReadFile(filepath.Join(data, "operator-token")) //nolint:gosec // of this test
				mustDo(t, err)
				healthy("--url", h.rest, "--token", strings.Fields(string(token))[0])
				h.close()
				healthy("--data", data)
			}
			h := openFolder(t, dir)
			keptFacts(t, h, filepath.Join(dir, "facts.json"))
		})
	}
}

// keptJobs checks that all jobs are as they were, but for the state of those that go on.
func keptJobs(t *testing.T, h *house, old map[string]map[string]any) {
	t.Helper()
	still := make(map[string]map[string]any)
	for id, was := range old {
		status := was["status"].(string)
		if slices.Contains([]string{"completed", "failed", "cancelled", "scheduled", "retrying"}, status) || was["type"] == "far" {
			still[id] = was
			continue
		}
		still[id] = make(map[string]any)
		for _, name := range []string{"id", "type", "payload", "priority", "tags", "created_at", "max_attempts", "inputs", "concurrency_key"} {
			if value, known := was[name]; known {
				still[id][name] = value
			}
		}
	}
	sameJobs(t, h, still)
}

// keptFacts checks what else an old folder has.
func keptFacts(t *testing.T, h *house, file string) {
	t.Helper()
	b, err := os.ReadFile(file) //nolint:gosec // of this test
	mustDo(t, err)
	var known facts
	mustDo(t, json.Unmarshal(b, &known))
	for id, size := range known.Results {
		if r := h.do(http.MethodGet, "/jobs/"+id+"/result", ""); r.code != http.StatusOK || len(r.body) != size {
			t.Errorf("the result of %s is answered with %d and %d bytes, not %d", id, r.code, len(r.body), size)
		}
	}
	const mail = `"payload":{"to":"a@example.com","subject":"Hi","body":"x"}`
	if known.Unique != "" {
		h.do(http.MethodPost, "/jobs", `{"type":"email",`+mail+`,"unique_key":"u1"}`).wantProblem(t, http.StatusConflict, "duplicate")
	}
	if known.Idempotent != "" {
		again := h.do(http.MethodPost, "/jobs", `{"type":"slow",`+mail+`}`, "Idempotency-Key", "k1")
		if id := readJob(t, again.body).ID; id != known.Idempotent {
			t.Errorf("the idempotency key is forgotten: job %s is new", id)
		}
	}
	if known.Upload != "" {
		h.submit(`{"type":"fed","inputs":{"file":"%s"}}`, known.Upload)
	}
	var now struct{ Schedules []struct{ Name string } }
	mustDo(t, json.Unmarshal(h.do(http.MethodGet, "/schedules", "").body, &now))
	for _, s := range known.Schedules {
		if !slices.ContainsFunc(now.Schedules, func(e struct{ Name string }) bool { return e.Name == s }) {
			t.Errorf("the schedule %s is gone", s)
		}
	}
	h.submit(`{"type":"report"}`)
}

// openFolder starts the program with the configuration of an unpacked folder.
func openFolder(t *testing.T, dir string) *house {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h := newHouse(t, cancel)
	env := []string{"JOBSTREAM_WORKER_SHUTDOWN_GRACE=0", "JOBSTREAM_SERVER_PORT=0", "JOBSTREAM_BROKER_PORT=-1", "JOBSTREAM_DATA_DIR=" + filepath.Join(dir, "data")}
	go func() {
		if code := run(ctx, []string{"serve", "--config", filepath.Join(dir, "config.yaml")}, env, io.Discard, h.log); code != 0 {
			h.ended <- "it failed"
		}
		close(h.ended)
	}()
	h.awaitReady()
	return h
}

// sameJobs compares what the server says about jobs with what it said before.
func sameJobs(t *testing.T, h *house, old map[string]map[string]any) {
	t.Helper()
	for id, was := range old {
		var is map[string]any
		mustDo(t, json.Unmarshal(h.do(http.MethodGet, "/jobs/"+id, "").body, &is))
		for name := range maps.Keys(was) {
			if name != "waiting" && !reflect.DeepEqual(is[name], was[name]) {
				t.Errorf("%s of the %v job %s is %v, was %v", name, was["type"], id, is[name], was[name])
			}
		}
	}
}

// oldJobs reads a file of job resources, a line each.
func oldJobs(t *testing.T, path string) map[string]map[string]any {
	t.Helper()
	f, err := os.Open(path) //nolint:gosec // of this test
	mustDo(t, err)
	defer func() { _ = f.Close() }()
	all := make(map[string]map[string]any)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var j map[string]any
		if len(lines.Bytes()) > 0 {
			mustDo(t, json.Unmarshal(lines.Bytes(), &j))
			all[j["id"].(string)] = j
		}
	}
	return all
}

// unpack makes the files of an archive of ours below dir.
func unpack(t *testing.T, archive, dir string) {
	t.Helper()
	f, err := os.Open(archive) //nolint:gosec // of this test
	mustDo(t, err)
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	mustDo(t, err)
	for r := tar.NewReader(z); ; {
		head, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		mustDo(t, err)
		path := filepath.Join(dir, filepath.Clean("/"+head.Name)) //nolint:gosec // made by us
		if head.Typeflag == tar.TypeDir {
			mustDo(t, os.MkdirAll(path, 0o750))
			continue
		}
		body, err := io.ReadAll(r)
		mustDo(t, err)
		mustDo(t, os.MkdirAll(filepath.Dir(path), 0o750))
		mustDo(t, os.WriteFile(path, body, 0o600))
	}
}
