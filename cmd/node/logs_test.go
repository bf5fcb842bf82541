package node

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
)

// talk says which attempt it is, and fails in the first one.
func talk(_ context.Context, t *jobs.Task) (jobs.Result, error) {
	t.Logf(jobs.LevelInfo, "this is attempt %d", t.Attempt)
	if t.Attempt == 1 {
		return jobs.Result{}, errors.New("not now")
	}
	return jobs.Result{}, nil
}

// TestLogsOfMembers: the log of a job that two leaders have written is whole at every node,
// and for one that follows it.
func TestLogsOfMembers(t *testing.T) {
	t.Parallel()
	m := &members{t: t, types: func(int) []*jobs.Type {
		types := typesOf(jobs.HandlerFunc(talk), "talk")
		types[0].Backoff = jobs.Backoff{Kind: jobs.Constant, Base: time.Hour}
		return types
	}}
	m.begin(3, func([]Options) {})
	first := m.leader()
	w := m.do(first, http.MethodPost, "/jobs", `{"type":"talk","retry_count":1}`)
	path := "/jobs/" + idOf(t, w.Body.Bytes())
	m.wait("the first attempt has failed", func() bool { return strings.Contains(m.get(first, path).Body.String(), `"retrying"`) })
	m.stop(first)
	second := m.leader()
	m.start(first)
	for i := range 3 {
		m.wait("all nodes are ready", func() bool { return m.get(i, "/readyz").Code == http.StatusOK })
	}

	const one, two = "this is attempt 1", "this is attempt 2"
	third := 3 - first - second
	a, err := http.Get(m.nodes[third].HTTPURL() + path + "/log?follow=true") //nolint:noctx // it ends with the job
	mustDo(t, err)
	defer func() { _ = a.Body.Close() }()
	lines := bufio.NewScanner(a.Body)
	if !lines.Scan() || !strings.Contains(lines.Text(), one) {
		t.Fatalf("who follows is told %q, %v", lines.Text(), lines.Err())
	}
	if w := m.do(third, http.MethodPost, path+"/run", ""); w.Code != http.StatusAccepted {
		t.Fatal(w.Code, w.Body)
	}
	if !lines.Scan() || !strings.Contains(lines.Text(), two) || lines.Scan() {
		t.Errorf("who follows is told %q in the end, %v", lines.Text(), lines.Err())
	}
	for i := range 3 {
		all := m.get(i, path+"/log").Body.String()
		if a, b := strings.Index(all, one), strings.Index(all, two); a < 0 || b < a || strings.Count(all, "\n") != 2 {
			t.Errorf("node %d has the log %q", i+1, all)
		}
		if last := m.get(i, path+"/log?tail=1").Body.String(); !strings.Contains(last, two) || strings.Contains(last, one) {
			t.Errorf("node %d has the last line %q", i+1, last)
		}
		if early := m.get(i, path+"/log?attempt=1").Body.String(); !strings.Contains(early, one) || strings.Contains(early, two) {
			t.Errorf("node %d has of attempt 1 %q", i+1, early)
		}
	}
}
