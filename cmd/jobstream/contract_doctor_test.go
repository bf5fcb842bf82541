package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/api"
)

// doctor runs the command. It returns the exit code, what it found beyond notes, and what
// it printed.
func doctor(t *testing.T, args ...string) (code int, checks []string, said string) {
	t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"doctor", "-o", "json"}, args...)
	code = run(t.Context(), args, []string{"JOBSTREAM_DATA_MIN_FREE=0"}, &out, &errs)
	var seen api.Inspection
	if err := json.Unmarshal(out.Bytes(), &seen); err != nil {
		return code, nil, out.String() + errs.String()
	}
	for _, f := range seen.Findings {
		if f.Severity != jobs.Notice {
			checks = append(checks, f.Check)
		}
	}
	slices.Sort(checks)
	return code, checks, out.String() + errs.String()
}

// TestContractDoctorBusy inspects a server again and again while it has all kinds of work
// to do. There is nothing wrong with it, nor with its folder afterwards.
func TestContractDoctorBusy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	flaky := jobs.HandlerFunc(func(_ context.Context, task *jobs.Task) (jobs.Result, error) {
		if task.Attempt == 1 {
			return jobs.Result{}, fmt.Errorf("not yet")
		}
		return jobs.Result{}, nil
	})
	h := open(t, dir, setup{
		handlers: map[string]jobs.Handler{"quick": jobs.HandlerFunc(nothing), "flaky": flaky},
		change:   func(c *config.Config) { c.Data.MinFree = 0 },
	})
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for n := range 4 {
		load.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				bodies := []string{
					`{"type":"quick","tags":["a"]}`, `{"type":"flaky","concurrency_key":"k` + fmt.Sprint(i%3) + `"}`,
					`{"type":"report"}`, `{"type":"quick","delay":"1s","ttl":"1h"}`, fmt.Sprintf(`{"type":"quick","unique_key":"u%d-%d"}`, n, i),
				}
				if i%20 == 19 {
					_, _ = h.try(ctx, http.MethodPost, "/jobs/bulk", `{"action":"delete","filter":{"status":"completed"}}`)
				}
				if r, err := h.try(ctx, http.MethodPost, "/jobs", bodies[i%len(bodies)], "Idempotency-Key", fmt.Sprint(n, "-", i)); err == nil && r.code >= 500 {
					t.Errorf("answered %d: %s", r.code, r.body)
				}
			}
		})
	}
	for range 10 {
		if code, checks, said := doctor(t, "--url", h.rest, "--token", adminToken); code != 0 || len(checks) > 0 {
			t.Errorf("exit code %d: %s", code, said)
		}
	}
	cancel()
	load.Wait()
	if code, _, said := doctor(t, "--data", dir); code != 1 || !strings.Contains(said, "Leave --data out") {
		t.Errorf("the folder of a running server: %d %s", code, said)
	}
	h.close()
	file := filepath.Join(t.TempDir(), "config.yaml")
	mustDo(t, os.WriteFile(file, []byte("jobs: {quick: {run: report}, flaky: {run: report}, report: {}}\n"), 0o600))
	if code, checks, said := doctor(t, "--data", dir, "--config", file); code != 0 || len(checks) > 0 {
		t.Errorf("exit code %d: %s", code, said)
	}
}

// TestContractDoctorFinds damages a folder in ways that only a look around the tracker
// sees. The doctor finds exactly that, running and stopped, and a repair leaves a healthy
// folder on which a server has all its jobs.
func TestContractDoctorFinds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start := func() *house {
		return open(t, dir, setup{
			handlers: map[string]jobs.Handler{"quick": jobs.HandlerFunc(nothing)},
			change:   func(c *config.Config) { c.Data.MinFree = 0 },
		})
	}
	h := start()
	report := h.await(h.submit(`{"type":"report"}`).ID, "completed")
	later := h.submit(`{"type":"quick","delay":"1h"}`)
	h.addSchedule(`{"name":"odd","every":"300d","type":"quick"}`)

	old := time.Now().Add(-time.Hour)
	stray := func(path string) {
		t.Helper()
		path = filepath.Join(dir, path)
		mustDo(t, os.MkdirAll(path, 0o750))
		mustDo(t, os.WriteFile(filepath.Join(path, "x"), []byte("x"), 0o600))
		mustDo(t, os.Chtimes(path, old, old))
	}
	stray("artifacts/" + jobs.NewID().String() + ".d")
	stray("artifacts/in/" + jobs.NewID().String() + ".d")
	log := filepath.Join(dir, "logs", jobs.NewID().String()+".jsonl")
	mustDo(t, os.MkdirAll(filepath.Dir(log), 0o750))
	mustDo(t, os.WriteFile(log, nil, 0o600))
	mustDo(t, os.Chtimes(log, old, old))
	orphans := []string{"file.artifacts", "file.inputs", "file.logs"}
	if code, checks, said := doctor(t, "--url", h.rest, "--token", adminToken); code != exitWarnings || !slices.Equal(checks, orphans) {
		t.Errorf("exit code %d, found %q: %s", code, checks, said)
	}
	if code, _, said := doctor(t, "--url", h.rest, "--token", adminToken, "--repair"); code != exitUsage {
		t.Errorf("a repair of a running server: %d %s", code, said)
	}
	h.do(http.MethodGet, "/doctor", "").wantProblem(t, http.StatusForbidden, "forbidden")
	h.close()

	db, err := bbolt.Open(filepath.Join(dir, "status.db"), 0o600, nil)
	mustDo(t, err)
	mustDo(t, db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("due"))
		k, _ := b.Cursor().First()
		return b.Delete(k)
	}))
	mustDo(t, db.Close())
	files, err := filepath.Glob(filepath.Join(dir, "artifacts", report.ID+".d", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the report's files: %q, %v", files, err)
	}
	mustDo(t, os.Rename(files[0], files[0]+".away"))
	mustDo(t, os.WriteFile(filepath.Join(dir, "set-aside.jsonl"), []byte("{}\n"), 0o600))
	// The configuration of the command has no type quick.
	all := []string{"aside", "file.artifacts", "file.inputs", "file.logs", "file.missing", "index.due", "schedule", "type.unknown"}
	if code, checks, said := doctor(t, "--data", dir); code != exitFindings || !slices.Equal(checks, all) {
		t.Errorf("exit code %d, found %q: %s", code, checks, said)
	}
	if code, _, said := doctor(t, "--data", dir, "--repair"); code != exitFindings {
		t.Errorf("exit code %d: %s", code, said)
	}
	left := []string{"aside", "file.missing", "schedule", "type.unknown"}
	if code, checks, said := doctor(t, "--data", dir); code != exitFindings || !slices.Equal(checks, left) {
		t.Errorf("after the repair: exit code %d, found %q: %s", code, checks, said)
	}
	mustDo(t, os.Rename(files[0]+".away", files[0]))
	mustDo(t, os.Remove(filepath.Join(dir, "set-aside.jsonl")))
	h = start()
	if code, checks, said := doctor(t, "--url", h.rest, "--token", adminToken); code != 0 || len(checks) > 0 {
		t.Errorf("exit code %d, found %q: %s", code, checks, said)
	}
	if r := h.do(http.MethodGet, "/jobs/"+report.ID+"/result", ""); r.code != http.StatusOK {
		t.Errorf("the report's result: %d", r.code)
	}
	h.do(http.MethodPost, "/jobs/"+later.ID+"/run", "")
	h.await(later.ID, "completed")
}

// TestContractDoctorNoFolder inspects a folder without a tracker, and one with a file that
// is none.
func TestContractDoctorNoFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if code, _, said := doctor(t, "--data", dir); code != exitBroken || !strings.Contains(said, "no tracker") {
		t.Errorf("an empty folder: %d %s", code, said)
	}
	mustDo(t, os.WriteFile(filepath.Join(dir, "status.db"), bytes.Repeat([]byte("nonsense"), 4096), 0o600))
	if code, checks, said := doctor(t, "--data", dir); code != exitFindings || !slices.Equal(checks, []string{"tracker.file"}) {
		t.Errorf("a damaged file: %d %q %s", code, checks, said)
	}
}
