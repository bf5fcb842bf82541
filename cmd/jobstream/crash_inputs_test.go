package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/handlers/importer"
)

// inputsChild adds the types of the tests of inputs to the server under test.
func inputsChild(cfg *config.Config) map[string]jobs.Handler {
	backoff := jobs.Backoff{Kind: jobs.Constant, Base: 50 * time.Millisecond}
	cfg.Jobs["reads"] = config.JobType{Run: "reads", RetryCount: 3, Timeout: time.Minute, Backoff: backoff, Inputs: []jobs.InputRule{{Name: "file"}}}
	cfg.Jobs["import"] = config.JobType{Run: "import", RetryCount: 0, Timeout: time.Hour, Inputs: importer.Inputs()}
	return map[string]jobs.Handler{
		"reads": jobs.HandlerFunc(func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
			in, err := t.Input("file")
			if err != nil {
				return jobs.Result{}, err
			}
			f, err := in.Open()
			if err != nil {
				return jobs.Result{}, err
			}
			defer f.Close() //nolint:errcheck // opened for reading only
			sum := sha256.New()
			_, err = io.Copy(sum, f)
			return jobs.Result{Value: hex.EncodeToString(sum.Sum(nil))}, err
		}),
	}
}

// tryPost posts to a server that may be killed meanwhile; ok says whether it has answered
// with this status.
func tryPost(ctx context.Context, address string, body []byte, status int, into any) (ok bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return err == nil && resp.StatusCode == status && json.Unmarshal(b, into) == nil
}

// kept are the uploads and the jobs that were promised, with the sums of their files.
type kept struct {
	mu      sync.Mutex
	uploads map[string]string
	jobs    map[string]string
}

// load uploads files, and gives some of them to jobs, until ctx ends.
func (k *kept) load(ctx context.Context, rest string, rng *rand.Rand) {
	for ctx.Err() == nil {
		content := make([]byte, rng.IntN(200_000))
		for i := range content {
			content[i] = byte(rng.Uint32())
		}
		sum := sha256.Sum256(content)
		want := hex.EncodeToString(sum[:])
		var made struct{ ID, SHA256 string }
		if !tryPost(ctx, rest+"/artifacts?sha256="+want, content, http.StatusCreated, &made) {
			continue
		}
		k.mu.Lock()
		k.uploads[made.ID] = want
		k.mu.Unlock()
		var j struct{ ID string }
		if rng.IntN(2) == 0 && tryPost(ctx, rest+"/jobs", fmt.Appendf(nil, `{"type":"reads","inputs":{"file":"%s"}}`, made.ID), http.StatusAccepted, &j) {
			k.mu.Lock()
			k.jobs[j.ID] = want
			k.mu.Unlock()
		}
	}
}

func (k *kept) size() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.uploads)
}

// TestCrashInputs kills the server while files are uploaded and given to jobs. Whatever was
// answered with 201 can be used afterwards, and nothing is left of what was not.
func TestCrashInputs(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	dir := t.TempDir()
	k := &kept{uploads: map[string]string{}, jobs: map[string]string{}}
	for round := range rounds(t, 3) {
		c := startChild(t, dir)
		if left, err := filepath.Glob(filepath.Join(dir, "data", "artifacts", "in", ".*.tmp")); err != nil || len(left) > 0 {
			t.Errorf("half of an upload is left: %q, %v", left, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var loading sync.WaitGroup
		for range 4 {
			rng := rand.New(rand.NewPCG(rng.Uint64(), 1))
			loading.Go(func() { k.load(ctx, c.rest, rng) })
		}
		after := k.size() + 5 + rng.IntN(40)
		waitUntil(t, func() bool { return k.size() >= after })
		c.kill()
		cancel()
		loading.Wait()
		t.Logf("round %d: %d uploads, %d jobs", round, len(k.uploads), len(k.jobs))
	}
	c := startChild(t, dir)
	for id, sum := range k.uploads { // those that jobs have, too
		var j struct{ ID string }
		if !tryPost(t.Context(), c.rest+"/jobs", fmt.Appendf(nil, `{"type":"reads","inputs":{"file":"%s"}}`, id), http.StatusAccepted, &j) {
			t.Errorf("upload %s is lost", id)
			continue
		}
		k.jobs[j.ID] = sum
	}
	for id, sum := range k.jobs {
		var j struct {
			Status, Error string
			Result        any
		}
		if get(t, c.rest+"/jobs/"+id+"?wait=60s", &j); j.Status != "completed" || j.Result != sum {
			t.Errorf("job %s is %+v, its file has the sum %s", id, j, sum)
		}
	}
}

// TestCrashImport kills the server again and again while it imports 10,000 rows. Each
// becomes one job.
func TestCrashImport(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	dir := t.TempDir()
	const rows = 10_000
	var content strings.Builder
	content.WriteString("n,text\n")
	bad := 0
	for i := range rows {
		if rng.IntN(100) == 0 {
			bad++
			fmt.Fprintf(&content, "%d\n", i)
			continue
		}
		fmt.Fprintf(&content, "%d,\"row\n%d\"\n", i, i)
	}
	queue := childQueue + "=1000" // the import has to wait for it
	c := startChild(t, dir, queue)
	var up, job struct{ ID string }
	if !tryPost(t.Context(), c.rest+"/artifacts", []byte(content.String()), http.StatusCreated, &up) ||
		!tryPost(t.Context(), c.rest+"/jobs", fmt.Appendf(nil, `{"type":"import","payload":{"type":"quick","format":"csv","payload":{"n":"{{.row.n}}"},"tags":["imported"]},"inputs":{"file":"%s"}}`, up.ID), http.StatusAccepted, &job) {
		t.Fatal("the import is not taken")
	}
	var seen struct {
		Status, Message, Error string
		Result                 importer.Result
	}
	submitted := func() (n int) {
		get(t, c.rest+"/jobs/"+job.ID, &seen)
		_, _ = fmt.Sscanf(seen.Message, "%d of", &n)
		return n
	}
	kills := 0
	for at := 0; ; kills++ {
		at += 1 + rng.IntN(2500)
		waitUntil(t, func() bool { return submitted() >= at || seen.Status == "completed" || seen.Status == "failed" })
		if seen.Status != "processing" && seen.Status != "pending" && seen.Status != "scheduled" && seen.Status != "retrying" {
			break
		}
		c.kill()
		c = startChild(t, dir, queue)
	}
	if seen.Status != "completed" || seen.Result.Rows != rows || seen.Result.Refused != bad || seen.Result.Submitted != rows-bad {
		t.Fatalf("the import is %+v; %d rows are bad", seen, bad)
	}
	t.Logf("killed %d times; %d rows refused", kills, bad)
	found := make(map[string]int)
	for cursor := ""; ; {
		var page struct {
			Jobs []struct{ Payload struct{ N string } }
			Next string `json:"next_cursor"`
		}
		get(t, c.rest+"/jobs?tag=imported&limit=500&cursor="+url.QueryEscape(cursor), &page)
		for _, j := range page.Jobs {
			found[j.Payload.N]++
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	for n, times := range found {
		if times != 1 {
			t.Errorf("row %s has become %d jobs", n, times)
		}
	}
	if len(found) != rows-bad {
		t.Errorf("%d rows have become jobs, not %d", len(found), rows-bad)
	}
	resp, err := http.Get(c.rest + "/jobs/" + job.ID + "/result") //nolint:noctx // the server is there
	mustDo(t, err)
	defer func() { _ = resp.Body.Close() }()
	report, err := io.ReadAll(resp.Body)
	mustDo(t, err)
	if got := bytes.Count(report, []byte("has 1 cells, the header has 2")); got != bad {
		t.Errorf("the report has %d rows, not %d", got, bad)
	}
	var left struct{ Completed int }
	waitUntil(t, func() bool {
		get(t, c.rest+"/jobs/counts?tag=imported", &left)
		return left.Completed == rows-bad
	})
}
