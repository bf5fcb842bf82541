package main

import (
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

// metrics are the metrics as text.
func (h *house) metrics() string {
	h.t.Helper()
	r := h.do(http.MethodGet, "/metrics", "")
	if r.code != http.StatusOK || !strings.HasPrefix(r.header.Get("Content-Type"), "text/plain") {
		h.t.Fatalf("/metrics is answered with %d %v: %s", r.code, r.header, r.body)
	}
	return string(r.body)
}

// TestContractMetrics lets jobs do everything that is counted, and reads the metrics.
func TestContractMetrics(t *testing.T) {
	t.Parallel()
	puppet := newPuppet()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"thumb": puppet}})
	done := h.submit(`{"type":"thumb"}`)
	puppet.next(t).finish()
	h.await(done.ID, "completed")
	failed := h.submit(`{"type":"thumb","retry_count":1}`)
	for range 2 {
		puppet.next(t).end <- fmt.Errorf("no luck")
	}
	h.await(failed.ID, "failed")
	running := h.submit(`{"type":"thumb"}`)
	play := puppet.next(t)
	h.await(running.ID, "processing")
	h.do(http.MethodPost, "/types/export/pause", "")
	waits := h.submit(`{"type":"export"}`)
	nc := h.dial()
	for i := range 300 { // clients can invent any number of types
		mustDo(t, nc.Publish(fmt.Sprintf("jobs.invented%d", i), []byte("{}")))
	}
	h.await(waits.Seq+300, "failed")
	follower := h.stream("")

	want := map[string]float64{
		`jobstream_jobs_ended_total{status="completed",type="thumb"}`:      1,
		`jobstream_jobs_ended_total{status="failed",type="thumb"}`:         1,
		`jobstream_jobs_ended_total{status="failed",type="(unknown)"}`:     300,
		`jobstream_jobs{status="processing",type="thumb"}`:                 1,
		`jobstream_jobs{status="pending",type="export"}`:                   1,
		`jobstream_jobs_submitted_total{type="thumb"}`:                     3,
		`jobstream_attempts_total{outcome="failed",type="thumb"}`:          2,
		`jobstream_attempts_total{outcome="completed",type="thumb"}`:       1,
		`jobstream_job_wait_seconds_count{type="thumb"}`:                   4,
		`jobstream_attempt_duration_seconds_count{type="thumb"}`:           3,
		`jobstream_type_paused{type="export"}`:                             1,
		`jobstream_type_workers_busy{type="thumb"}`:                        1,
		`jobstream_waiting_jobs{reason="type_paused",type="export"}`:       1,
		`jobstream_workers_busy`:                                           1,
		`jobstream_queue_jobs`:                                             2,
		`jobstream_followers`:                                              1,
		`jobstream_healthy{part="tracker"}`:                                1,
		`jobstream_tracker_lag_messages{stream="JOBS"}`:                    0,
		`jobstream_http_requests_total{code="200",operation="pause"}`:      1,
		`jobstream_http_requests_total{code="202",operation="submit"}`:     4,
		`jobstream_http_request_duration_seconds_count{operation="pause"}`: 1,
	}
	// Figures are counted up at the end of each second.
	var text string
	var all []string
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(strings.Join(all, "\n"))
		}
	})
	waitUntil(t, func() bool {
		text, all = h.metrics(), nil
		for name, value := range want {
			found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(text)
			if found == nil {
				all = append(all, name+" is missing")
			} else if got, err := strconv.ParseFloat(found[1], 64); err != nil || got != value {
				all = append(all, fmt.Sprintf("%s is %s, not %v", name, found[1], value))
			}
		}
		return len(all) == 0
	})
	if strings.Contains(text, "invented") || !regexp.MustCompile(`(?m)^jobstream_oldest_waiting_seconds\{type="export"\} [0-9.e-]+$`).MatchString(text) {
		t.Errorf("the metrics are\n%s", text)
	}
	promtool := exec.CommandContext(t.Context(), jobstest.Tool(t, "promtool"), "check", "metrics")
	promtool.Stdin = strings.NewReader(text)
	if out, err := promtool.CombinedOutput(); err != nil {
		t.Errorf("promtool says %v\n%s", err, out)
	}
	for _, line := range regexp.MustCompile(`(?m)^[a-z_]+`).FindAllString(text, -1) {
		if !strings.HasPrefix(line, "jobstream_") && !strings.HasPrefix(line, "go_") && !strings.HasPrefix(line, "process_") {
			t.Errorf("there is a metric %s", line)
		}
	}
	if r := h.do(http.MethodHead, "/metrics", ""); r.code != http.StatusOK || len(r.body) != 0 {
		t.Errorf("HEAD gives %d", r.code)
	}
	h.do(http.MethodGet, "/metrics?a=b", "").wantProblem(t, 422, "invalid_request")
	follower.cancel()
	play.finish()
	h.await(running.ID, "completed")
}
