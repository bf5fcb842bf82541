package client_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"jobstream/broker/client"
	"jobstream/cmd/node"
	"jobstream/jobs"
)

// leave makes a file of a task.
func leave(t *jobs.Task, name, content string) error {
	w, err := t.Artifact()
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := io.WriteString(w, content); err != nil {
		return err
	}
	_, err = w.Commit(name, "text/plain")
	return err
}

// TestFiles: an attempt leaves its files if it completes the job, and no others. One with an
// input gets it once, and finds it where it is.
func TestFiles(t *testing.T) {
	t.Parallel()
	typ := remote("x")
	typ.Inputs = []jobs.InputRule{{Name: "text"}}
	s := serve(t, node.Options{}, typ, remote("source"))
	folders := make(chan string, 2)
	types := jobs.NewRegistry(
		doing("source", func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
			return jobs.Result{}, leave(t, "first.txt", strings.Repeat("content ", 1<<17))
		}),
		doing("x", func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
			in, err := t.Input("text")
			if err != nil {
				return jobs.Result{}, err
			}
			again, err := t.Input("text")
			if err != nil || again.Path != in.Path {
				return jobs.Result{}, jobs.Permanentf("the second time it is %+v, %v", again, err)
			}
			folders <- in.Path
			b, err := os.ReadFile(in.Path)
			if err != nil {
				return jobs.Result{}, err
			}
			if t.Attempt == 1 {
				return jobs.Result{}, errors.Join(leave(t, "dropped", "x"), errors.New("once more"))
			}
			return jobs.Result{Value: len(b)}, errors.Join(leave(t, "a/b.txt", "one"), leave(t, "c ä.txt", ""))
		}),
	)
	c := s.client()
	work(t, c, types, client.Options{REST: s.rest()})
	source := submit(t, c, "source", nil)
	if j := ended(t, c, source); j.Status != jobs.Completed || j.Artifact == nil || j.Artifact.Size != 8<<17 {
		t.Fatalf("the source is %s: %s %+v", j.Status, j.Error, j.Artifact)
	}
	id := submit(t, c, "x", nil, func(s *jobs.Submission) { s.Terms = &jobs.Terms{Inputs: []jobs.Input{{Name: "text", Job: source}}} })
	j := ended(t, c, id)
	if files := j.Files(); j.Status != jobs.Completed || string(j.Result) != "1048576" || len(files) != 2 || files[0].Name != "b.txt" || files[1].Name != "c ä.txt" {
		t.Errorf("the job is %s: %s, with the result %s and the files %+v", j.Status, j.Error, j.Result, files)
	}
	if got := s.get("/jobs/" + id.String() + "/artifacts/b.txt"); got != "one" {
		t.Errorf("the file has %q", got)
	}
	for range 2 {
		if path := <-folders; !gone(path) {
			t.Errorf("%s is left on the machine of the worker", path)
		}
	}
}

func gone(path string) bool {
	_, err := os.Stat(path)
	return os.IsNotExist(err)
}

// TestNoFiles: without the address of REST, a task that needs a file fails and says why.
func TestNoFiles(t *testing.T) {
	t.Parallel()
	s := serve(t, node.Options{}, remote("x"))
	c := s.client()
	work(t, c, jobs.NewRegistry(doing("x", func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		return jobs.Result{}, leave(t, "a", "b")
	})), client.Options{})
	if j := ended(t, c, submit(t, c, "x", nil)); j.Status != jobs.Failed || !j.Permanent || !strings.Contains(j.Error, "client.Options.REST") {
		t.Errorf("the job is %s: %s", j.Status, j.Error)
	}
}
