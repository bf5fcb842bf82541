package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	goclient "jobstream/broker/client"
	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/handlers/remote"
)

// TestCrashGoClient kills the server again and again under a worker and under programs that
// submit and wait, all of them with package client. Each submission is one job, and each job
// is done.
func TestCrashGoClient(t *testing.T) {
	t.Parallel()
	y := &yard{t: t, door: "NATS", dir: t.TempDir(), line: newLine(t)}
	y.start()
	connect := func() *goclient.Client {
		c, err := goclient.Connect(y.line.url("nats"))
		mustDo(t, err)
		t.Cleanup(c.Close)
		return c
	}
	const n = 300
	var ran [n]atomic.Int32
	var count atomic.Int32
	far := jobs.Define[int, string]("far")
	types := jobs.NewRegistry()
	far.Handle(types, func(ctx context.Context, t *jobs.Task, i int) (string, error) {
		t.Progress(50, "half")
		count.Add(1)
		if ran[i].Add(1) == 1 && i%10 == 0 {
			return "", fmt.Errorf("the first attempt of %d", i)
		}
		select {
		case <-time.After(20 * time.Millisecond): // its work is to take time
			return fmt.Sprint("done ", i), nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	working, stop := context.WithCancel(ctx)
	worked := make(chan error, 1)
	go func() { worked <- connect().Work(working, types, goclient.Options{Name: "go-1", Concurrency: 5}) }()
	ends := make(chan error, n)
	for w := range 4 {
		c := connect()
		go func() {
			for i := w; i < n; i += 4 {
				j, err := far.Submit(ctx, c, i)
				if err != nil {
					ends <- err
					continue
				}
				go func() {
					out, err := far.Wait(ctx, c, j.ID)
					if err == nil && out != fmt.Sprint("done ", i) {
						err = fmt.Errorf("job %d has the result %q", i, out)
					}
					ends <- err
				}()
			}
		}()
	}
	for round := range rounds(t, 4) {
		waitUntil(t, func() bool { return int(count.Load()) >= min(n, (round+1)*40) })
		y.c.kill()
		y.start()
	}
	for range n {
		select {
		case err := <-ends:
			mustDo(t, err)
		case <-ctx.Done():
			t.Fatalf("not all jobs have ended\n%s", y.c.logged())
		}
	}
	stop()
	mustDo(t, <-worked)
	for i := range ran {
		if ran[i].Load() == 0 {
			t.Errorf("job %d did not run", i)
		}
	}
	var all struct{ Total int }
	if code := get(t, y.c.rest+"/jobs/counts?type=far&status=completed", &all); code != http.StatusOK || all.Total != n {
		t.Errorf("%d jobs are there, %d were submitted (status %d)", all.Total, n, code)
	}
}

// TestContractGoClient: with TLS and tokens, a worker needs the scope work, and who submits
// the scope submit. Files go over REST, by the same token and certificates.
func TestContractGoClient(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	dir := t.TempDir()
	files := a.files(dir, "127.0.0.1")
	h := open(t, t.TempDir(), setup{change: func(c *config.Config) {
		c.Server.TLS = files
		c.Server.Auth.Anonymous = []string{}
		knowRoles(c)
		c.Jobs["upper"] = config.JobType{
			Run: "remote", Options: &remote.Options{}, Timeout: time.Minute, Inputs: []jobs.InputRule{{Name: "text"}},
		}
	}})
	h.client = dials(a.client(a))
	connect := func(scope string) *goclient.Client {
		c, err := goclient.Connect(strings.Replace(h.nats, "nats://", "tls://", 1), nats.Token(secretOf(scope)), nats.RootCAs(files.ClientCA), nats.ClientCert(files.Cert, files.Key))
		mustDo(t, err)
		t.Cleanup(c.Close)
		return c
	}
	upper := jobs.Define[struct{}, int]("upper", jobs.Takes(jobs.InputRule{Name: "text"}))
	types := jobs.NewRegistry()
	places := make(chan string, 1)
	upper.Handle(types, func(_ context.Context, t *jobs.Task, _ struct{}) (int, error) {
		in, err := t.Input("text")
		if err != nil {
			return 0, err
		}
		places <- in.Path
		text, err := os.ReadFile(in.Path)
		if err != nil {
			return 0, err
		}
		w, err := t.Artifact()
		if err != nil {
			return 0, err
		}
		defer w.Abort()
		if _, err := io.WriteString(w, strings.ToUpper(string(text))); err != nil {
			return 0, err
		}
		made, err := w.Commit("upper.txt", "text/plain")
		if err != nil {
			return 0, err
		}
		return int(made.Size), nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	worked := make(chan error, 1)
	working, stop := context.WithCancel(ctx)
	go func() { worked <- connect("work").Work(working, types, goclient.Options{REST: h.rest, Grace: -1}) }()

	r := h.do(http.MethodPost, "/artifacts", "some text", "Authorization", "Bearer "+secretOf("submit"), "Content-Type", "text/plain")
	var up struct{ ID jobs.ID }
	mustDo(t, json.Unmarshal(r.body, &up))
	submitter := connect("submit")
	j, err := upper.Submit(ctx, submitter, struct{}{}, jobs.WithInput(jobs.Input{Name: "text", ID: up.ID}))
	mustDo(t, err)
	n, err := upper.Wait(ctx, submitter, j.ID)
	mustDo(t, err)
	got := h.do(http.MethodGet, "/jobs/"+j.ID.String()+"/artifacts/upper.txt", "", "Authorization", "Bearer "+secretOf("read"))
	if n != 9 || string(got.body) != "SOME TEXT" {
		t.Errorf("the file has %d bytes: %s", n, got.body)
	}
	if _, err := os.Stat(filepath.Dir(<-places)); !os.IsNotExist(err) {
		t.Errorf("the files of the attempt are left on the worker's machine: %v", err)
	}
	stop()
	mustDo(t, <-worked)

	if err := connect("submit").Work(ctx, types, goclient.Options{}); err == nil || !strings.Contains(err.Error(), "refuses the worker") || !strings.Contains(err.Error(), "work") {
		t.Errorf("a token without the scope works: %v", err)
	}
	if _, err := upper.Submit(ctx, connect("work"), struct{}{}); err == nil || kindOf(err) != jobs.Forbidden {
		t.Errorf("a token without the scope submits: %v", err)
	}
	if j, err := connect("work").Wait(ctx, j.ID); err == nil && j != nil {
		t.Errorf("a token without the scope sees the job: %+v", j)
	}
	wrong, err := goclient.Connect(strings.Replace(h.nats, "nats://", "tls://", 1), nats.Token("wrong"), nats.RootCAs(files.ClientCA), nats.ClientCert(files.Cert, files.Key))
	if err == nil {
		defer wrong.Close()
		if err = wrong.Work(ctx, types, goclient.Options{}); err == nil || !strings.Contains(err.Error(), "Authorization") {
			t.Errorf("a wrong token works: %v", err)
		}
	}
}

// kindOf is the kind of an error for callers.
func kindOf(err error) jobs.ErrorKind {
	e, _ := jobs.AsError(err)
	return e.Kind
}
