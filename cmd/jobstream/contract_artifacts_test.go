package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
)

// leaves is a handler that leaves the files that its payload names. The content of each is
// its name and as many dots as the payload says.
func leaves(_ context.Context, t *jobs.Task) (jobs.Result, error) {
	var payload struct {
		Files []string
		Fill  int
	}
	if err := json.Unmarshal(t.Job.Payload, &payload); err != nil {
		return jobs.Result{}, jobs.Permanent(err)
	}
	for _, name := range payload.Files {
		w, err := t.Artifact()
		if err != nil {
			return jobs.Result{}, err
		}
		defer w.Abort()
		if _, err := fmt.Fprint(w, name+strings.Repeat(".", payload.Fill)); err != nil {
			return jobs.Result{}, err
		}
		if _, err := w.Commit(name, "text/plain"); err != nil {
			return jobs.Result{}, err
		}
	}
	return jobs.Result{}, nil
}

// TestContractArtifacts has a job leave several files, which outlive a restart and go with
// the job.
func TestContractArtifacts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := setup{handlers: map[string]jobs.Handler{"leaves": jobs.HandlerFunc(leaves)}}
	h := open(t, dir, s)
	id := h.await(h.submit(`{"type":"leaves","payload":{"files":["b","a"]}}`).ID, "completed").ID
	check := func() {
		t.Helper()
		var listed struct{ Artifacts []jobs.Artifact }
		r := h.do(http.MethodGet, "/jobs/"+id+"/artifacts", "")
		if err := json.Unmarshal(r.body, &listed); err != nil || len(listed.Artifacts) != 2 || listed.Artifacts[0].Name != "b" || listed.Artifacts[1].Name != "a" {
			t.Errorf("its files are %s", r.body)
		}
		for path, want := range map[string]string{"result": "b", "artifacts/b": "b", "artifacts/a": "a"} {
			if r := h.do(http.MethodGet, "/jobs/"+id+"/"+path, ""); r.code != http.StatusOK || string(r.body) != want {
				t.Errorf("%s is answered with %d: %s", path, r.code, r.body)
			}
		}
	}
	check()
	h.close()
	h = open(t, dir, s)
	check()
	if r := h.do(http.MethodDelete, "/jobs/"+id, ""); r.code != http.StatusNoContent {
		t.Errorf("DELETE is answered with %d %s", r.code, r.body)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "artifacts")); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// TestContractArtifactsBound fills the room for files. It is free again once a job is
// deleted, also for a server that found the files at its start.
func TestContractArtifactsBound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := setup{
		handlers: map[string]jobs.Handler{"leaves": jobs.HandlerFunc(leaves)},
		change:   func(c *config.Config) { c.Artifacts.MaxBytes = 1000 },
	}
	h := open(t, dir, s)
	const large = `{"type":"leaves","retry_count":0,"payload":{"files":["a"],"fill":799}}`
	first := h.await(h.submit(large).ID, "completed").ID
	full := func() {
		t.Helper()
		if j := h.await(h.submit(large).ID, "failed"); !strings.Contains(j.Error, "artifacts.max_bytes") {
			t.Errorf("it failed with %q", j.Error)
		}
	}
	full()
	h.close()
	h = open(t, dir, s)
	full()
	h.await(h.submit(`{"type":"leaves","payload":{"files":["b"],"fill":199}}`).ID, "completed")
	full()
	h.do(http.MethodDelete, "/jobs/"+first, "")
	h.await(h.submit(large).ID, "completed")
	full()
	j := h.await(h.submit(`{"type":"cleanup","payload":{"older_than":"0s"}}`).ID, "completed")
	var result struct {
		Freed int `json:"freed_bytes"`
	}
	if mustDo(t, json.Unmarshal(j.Result, &result)); result.Freed < 1000 {
		t.Errorf("it freed %d bytes", result.Freed)
	}
	h.await(h.submit(large).ID, "completed")
}
