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

// openFolder starts the program with the configuration of an unpacked folder.
func openFolder(t *testing.T, dir string) *house {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h := newHouse(t, cancel)
	env := []string{"JOBSTREAM_SERVER_PORT=0", "JOBSTREAM_BROKER_PORT=-1", "JOBSTREAM_DATA_DIR=" + filepath.Join(dir, "data")}
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
