package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
)

// TestContractCheckpoint has each attempt leave a checkpoint for the next one. It
// survives restarts, the loss of the tracker, and a retry by hand.
func TestContractCheckpoint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	found := make(chan string, 10)
	s := setup{
		handlers: map[string]jobs.Handler{"careful": jobs.HandlerFunc(func(_ context.Context, task *jobs.Task) (jobs.Result, error) {
			found <- string(task.Checkpoint())
			if err := task.SetCheckpoint(map[string]int{"run": task.Job.Run, "attempt": task.Attempt}); err != nil {
				return jobs.Result{}, jobs.Permanent(err)
			}
			if task.Job.Run == 2 {
				return jobs.Result{}, nil
			}
			return jobs.Result{}, errors.New("not yet")
		})},
		change: func(c *config.Config) {
			typ := c.Jobs["careful"]
			typ.RetryCount, typ.Backoff = 1, jobs.Backoff{Kind: jobs.Constant, Base: time.Second}
			c.Jobs["careful"] = typ
		},
	}
	next := func(want string) {
		t.Helper()
		select {
		case got := <-found:
			if got != want {
				t.Errorf("an attempt found %q, want %q", got, want)
			}
		case <-time.After(patience):
			t.Fatal("no attempt")
		}
	}
	h := open(t, dir, s)
	id := h.submit(`{"type":"careful"}`).ID
	next("")
	h.await(id, "retrying")
	h.close()
	mustDo(t, os.Remove(filepath.Join(dir, "status.db")))
	h = open(t, dir, s)
	next(`{"attempt":1,"run":1}`)
	h.await(id, "failed")
	h.close()
	h = open(t, dir, s)
	h.do(http.MethodPost, "/jobs/"+id+"/retry", "")
	next(`{"attempt":2,"run":1}`)
	h.await(id, "completed")
}
