package metrics

import (
	"context"
	"io"
	"log/slog"
	"math"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"jobstream/jobs/figures"
	"jobstream/jobs/jobstest"
)

// full is a snapshot in which nothing is missing.
func full() *Snapshot {
	email := Type{
		Now: map[string]int{"pending": 3}, Ended: map[string]int{"failed": 2}, Reasons: map[string]int{"queue": 3},
		Oldest: 1.5, Paused: true, Workers: Level{1, 2}, Known: true,
	}
	email.In, email.Done, email.Failed, email.Retried = 10, 5, 2, 1
	for _, ms := range []int{0, 1, 2, 40, 40, 41, 5_000} {
		email.Wait.Add(time.Duration(ms) * time.Millisecond)
		email.Run.Add(time.Duration(ms) * time.Millisecond)
	}
	s := &Snapshot{
		Version: "v1", Checks: map[string]bool{"tracker": true, "broker": false},
		Types:   map[string]Type{"email": email, figures.OtherTypes: {}},
		Workers: Workers{Level{1, 10}, false}, Queue: Level{4, 1000},
		Tracker:  Tracker{Lag: map[string]uint64{"JOBS": 1, "STATUS": 0}, Bytes: 4096, Unnotified: 1},
		Streams:  map[string]Stream{"JOBS": {1, 2}},
		Doors:    map[string]Level{"rest": {1, 100}, "nats": {1, 0}},
		DiskFree: 1 << 30, Followers: 2,
		Members: 3, Nodes: map[string]Node{"a": {Leader: true, Ready: true, Position: 7}, "b": {Position: 5, Lag: 2, Differs: true, Ahead: -0.7}},
	}
	s.Tracker.Commits.Add(time.Millisecond)
	return s
}

func made(s *Snapshot) *Metrics {
	m := New(func(context.Context) *Snapshot { return s }, slog.New(slog.DiscardHandler))
	m.Requests.Of("submit").Answered(202, time.Millisecond, false)
	m.Requests.Of("events").Answered(200, time.Hour, true)
	return m
}

// TestNames checks names and helps by the rules of Prometheus.
func TestNames(t *testing.T) {
	t.Parallel()
	m := made(full())
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil || len(problems) != 0 {
		t.Errorf("%v, %v", problems, err)
	}
	all, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, family := range all {
		names = append(names, family.GetName())
	}
	for i := range table {
		if name := namespace + "_" + table[i].name; !slices.Contains(names, name) {
			t.Errorf("%s has no value in a full snapshot", name)
		}
	}
}

// TestFormats checks the answer in each format, and that there is one while the server
// heals.
func TestFormats(t *testing.T) {
	t.Parallel()
	for accept, want := range map[string]string{
		"":                             "text/plain",
		"application/openmetrics-text": "application/openmetrics-text",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited": "application/vnd.google.protobuf",
	} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		made(full()).Handler().ServeHTTP(w, r)
		if !strings.HasPrefix(w.Header().Get("Content-Type"), want) || w.Code != 200 || !strings.Contains(w.Body.String(), "jobstream_jobs_ended_total") && !strings.Contains(w.Body.String(), "jobstream_jobs_ended") {
			t.Errorf("%q is answered with %d %v", accept, w.Code, w.Header())
		}
	}
	w := httptest.NewRecorder()
	made(nil).Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	if body, _ := io.ReadAll(w.Body); w.Code != 200 || !strings.Contains(string(body), "go_goroutines") || !strings.Contains(string(body), `jobstream_http_requests_total{code="202",operation="submit"} 1`) {
		t.Errorf("without a snapshot the answer is %d %s", w.Code, body)
	}
}

// TestHistogram compares both forms of a histogram with what was added.
func TestHistogram(t *testing.T) {
	t.Parallel()
	s := full()
	all, err := made(s).registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(f *dto.MetricFamily) bool { return f.GetName() == "jobstream_job_wait_seconds" })
	var h *dto.Histogram
	for _, m := range all[i].GetMetric() {
		if m.GetLabel()[0].GetValue() == "email" {
			h = m.GetHistogram()
		}
	}
	if h.GetSampleCount() != 7 || math.Abs(h.GetSampleSum()-5.124) > 1e-9 {
		t.Errorf("it has %d values, together %v", h.GetSampleCount(), h.GetSampleSum())
	}
	want := map[float64]uint64{0.0025: 3, 0.01: 3, 0.05: 6, 2.5: 6, 10: 7, 24 * 3600: 7}
	for _, b := range h.GetBucket() {
		if n, ok := want[b.GetUpperBound()]; ok && n != b.GetCumulativeCount() {
			t.Errorf("up to %v there are %d, not %d", b.GetUpperBound(), b.GetCumulativeCount(), n)
		}
	}
	// The native buckets, by their upper bounds.
	native, count, at := uint64(0), int64(0), 0
	index := int32(0)
	for _, span := range h.GetPositiveSpan() {
		index += span.GetOffset()
		for range span.GetLength() {
			count += h.GetPositiveDelta()[at]
			at++
			if bound := math.Exp2(float64(index) / 8); bound > 0.037 && bound < 0.046 {
				native += uint64(count) //nolint:gosec // a count
			}
			index++
		}
	}
	if h.GetSchema() != 3 || native != 3 || h.GetZeroCount() != 1 {
		t.Errorf("the native histogram of schema %d has %d around 40 ms, and %d zeros", h.GetSchema(), native, h.GetZeroCount())
	}
}

// TestDashboardAndRules checks that every metric of the dashboard and the rules is
// exported.
func TestDashboardAndRules(t *testing.T) {
	t.Parallel()
	all, err := made(full()).registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	exported := make(map[string]bool)
	for _, family := range all {
		name := family.GetName()
		exported[name] = true
		if family.GetType() == dto.MetricType_HISTOGRAM {
			exported[name+"_bucket"], exported[name+"_sum"], exported[name+"_count"] = true, true, true
		}
	}
	used := make(map[string]bool)
	for _, file := range []string{"grafana.json", "alerts.yml", "alerts_test.yml"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`\b(jobstream|process|go)_[a-z0-9_]+`).FindAllString(string(b), -1)
		if len(names) < 5 {
			t.Errorf("%s uses %v", file, names)
		}
		for _, name := range names {
			used[name] = true
			if !exported[name] {
				t.Errorf("%s uses %s, which is not exported", file, name)
			}
		}
	}
	for _, name := range []string{"jobstream_oldest_waiting_seconds", "jobstream_tracker_lag_messages", "jobstream_disk_free_bytes", "process_open_fds", "jobstream_jobs_ended_total"} {
		if !used[name] {
			t.Errorf("nothing looks at %s", name)
		}
	}
}

// TestRules lets Prometheus' own tool check the rules, and run their tests.
func TestRules(t *testing.T) {
	t.Parallel()
	promtool := jobstest.Tool(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
