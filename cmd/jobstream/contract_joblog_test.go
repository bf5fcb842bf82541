package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
)

// TestContractJobLog reads the log of a job that fails once, while it runs and later.
func TestContractJobLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	step := make(chan struct{})
	h := open(t, dir, setup{handlers: map[string]jobs.Handler{
		"chatty": jobs.HandlerFunc(func(_ context.Context, task *jobs.Task) (jobs.Result, error) {
			task.Logf(jobs.LevelInfo, "begin %d", task.Attempt)
			<-step
			task.LogOutput(jobs.LevelInfo, "stderr", "a \x1b[31m line")
			if task.Attempt == 1 {
				return jobs.Result{}, fmt.Errorf("no luck")
			}
			return jobs.Result{}, nil
		}),
	}})
	nc := h.dial()
	live, err := nc.SubscribeSync("jobstream.log.chatty.*")
	if err != nil {
		t.Fatal(err)
	}
	mustDo(t, nc.Flush())
	j := h.submit(`{"type":"chatty","retry_count":1}`)
	follower := h.follow("/jobs/" + j.ID + "/log?follow=true")
	follower.line("begin 1")
	step <- struct{}{}
	follower.line(`stderr a \x1b[31m line`)
	follower.line("begin 2")
	step <- struct{}{}
	follower.line("stderr")
	if more := follower.rest(); more != "" {
		t.Errorf("followed to %q", more)
	}
	h.await(j.ID, "completed")

	r := h.do(http.MethodGet, "/jobs/"+j.ID+"/log", "")
	if lines := strings.Split(strings.TrimSpace(string(r.body)), "\n"); r.code != http.StatusOK || len(lines) != 4 || !strings.HasSuffix(lines[2], " 2 info   begin 2") {
		t.Errorf("the log is %d %q", r.code, r.body)
	}
	r = h.do(http.MethodGet, "/jobs/"+j.ID+"/log?attempt=2&tail=1", "", "Accept", "application/x-ndjson")
	var e struct {
		N, Attempt          int
		Level, Stream, Text string
		At                  time.Time
	}
	if json.Unmarshal(r.body, &e) != nil || e.N != 4 || e.Attempt != 2 || e.Stream != "stderr" || e.At.IsZero() || r.header.Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("the last entry is %s %v", r.body, r.header)
	}
	m, err := live.NextMsg(30 * time.Second)
	if err != nil || !strings.HasSuffix(m.Subject, j.ID) || !strings.Contains(string(m.Data), `"text":"begin 1"`) {
		t.Errorf("over NATS came %v, %v", m, err)
	}
	for path, want := range map[string]int{
		"/log?tail=0": 422, "/log?follow=maybe": 422, "/log?colour=red": 422, "/log?tail=1&tail=2": 422, "/log": 200,
	} {
		if r := h.do(http.MethodGet, "/jobs/"+j.ID+path, ""); r.code != want {
			t.Errorf("%s gives %d, not %d: %s", path, r.code, want, r.body)
		}
	}
	if r := h.do(http.MethodGet, "/jobs/"+jobs.NewID().String()+"/log", ""); r.code != http.StatusNotFound {
		t.Errorf("the log of no job gives %d", r.code)
	}
	if r := h.do(http.MethodHead, "/jobs/"+j.ID+"/log", ""); r.code != http.StatusOK || len(r.body) != 0 {
		t.Errorf("HEAD gives %d with %d bytes", r.code, len(r.body))
	}
	later := h.submit(`{"type":"chatty","delay":"1h"}`)
	if r := h.do(http.MethodHead, "/jobs/"+later.ID+"/log?follow=true", ""); r.code != http.StatusOK {
		t.Errorf("HEAD of a log without entries gives %d", r.code) // it does not follow
	}
	h.do(http.MethodDelete, "/jobs/"+j.ID, "")
	if left, _ := filepath.Glob(filepath.Join(dir, "logs", j.ID+"*")); len(left) != 0 {
		t.Errorf("%v is left of a deleted job", left)
	}
	builtIn := h.await(h.submit(`{"type":"export"}`).ID, "completed")
	if r := h.do(http.MethodGet, "/jobs/"+builtIn.ID+"/log", ""); !strings.Contains(string(r.body), "exported") {
		t.Errorf("a built-in logs %q", r.body)
	}
	if _, err := os.Stat(filepath.Join(dir, "logs", builtIn.ID)); err != nil {
		t.Error(err)
	}
}

// follower reads an answer that goes on.
type follower struct {
	h    *house
	body *http.Response
	s    *bufio.Scanner
}

func (h *house) follow(path string) *follower {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	h.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.rest+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := h.client.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { r.Body.Close() })
	return &follower{h, r, bufio.NewScanner(r.Body)}
}

// line reads the next line, which must contain this.
func (f *follower) line(want string) {
	f.h.t.Helper()
	if !f.s.Scan() || !strings.Contains(f.s.Text(), want) {
		f.h.t.Fatalf("the next line is %q, %v; want %q", f.s.Text(), f.s.Err(), want)
	}
}

// rest is everything until the end.
func (f *follower) rest() (s string) {
	for f.s.Scan() {
		s += f.s.Text() + "\n"
	}
	if err := f.s.Err(); err != nil {
		f.h.t.Errorf("the answer does not end: %v", err)
	}
	return s
}
