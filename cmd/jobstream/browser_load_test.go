package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
)

// The budgets of the dashboard. Those of time count where nothing else is tested beside.
const (
	maxFirstVisit = 75 << 10 // bytes of the page and its modules
	maxRows       = 500      // of tables in the page
	maxHeap       = 30 << 20 // bytes
	maxBusy       = 0.1      // of the main thread, at 10,000 jobs a second
	maxPaint      = 300      // milliseconds to the first paint, at idle
)

// TestBrowserWeight: a first visit to the overview loads little, and a second one nothing.
func TestBrowserWeight(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{})
	b := newBrowser(t, h)
	sent := func() int64 {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.sent
	}
	b.visit("/")
	b.shows("h1", "Overview")
	b.holds("the charts", `document.querySelectorAll(".u-over").length === 2`)
	b.visit("/") // whatever the first one has asked for has come by now
	b.shows("h1", "Overview")
	first := sent()
	if first == 0 || first > maxFirstVisit {
		t.Errorf("a first visit is %d bytes, at most %d are wanted", first, maxFirstVisit)
	}
	b.holds("the charts", `document.querySelectorAll(".u-over").length === 2`)
	b.visit("/jobs")
	if again := sent() - first; again > 20<<10 { // headers, and the module of another view
		t.Errorf("later visits are %d bytes", again)
	}
	bodies := eval[int](b, `performance.getEntriesByType("resource").filter((e) => e.name.includes("/ui/-/vendor") || e.name.includes("app.js")).reduce((n, e) => n + e.transferSize, 0)`)
	if bodies != 0 {
		t.Errorf("%d bytes of modules come again", bodies)
	}
}

// TestContractBrowserUnderLoad has the overview and the list of jobs open while 10,000 jobs a
// second are submitted and done: both stay within their budgets, and are live.
func TestContractBrowserUnderLoad(t *testing.T) {
	if raced || os.Getenv("JOBSTREAM_TOOLS") != "required" {
		t.Skip("NOT TESTED: the budgets are those of .ci/run, without the race detector")
	}
	h := open(t, t.TempDir(), setup{
		change:   func(c *config.Config) { c.Worker.MaxWorkers = 50 },
		handlers: map[string]jobs.Handler{"quick": jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil })},
	})
	b := newBrowser(t, h)
	paint := math.Inf(1) // of the best of three visits
	for range 3 {
		b.visit("/")
		b.shows(".live", "live")
		b.holds("a paint", `performance.getEntriesByName("first-contentful-paint").length`)
		paint = min(paint, eval[float64](b, `performance.getEntriesByName("first-contentful-paint")[0].startTime`))
	}
	t.Logf("the first paint took %.0f ms", paint)
	if paint > maxPaint {
		t.Errorf("the first paint took %.0f ms, at most %d are wanted", paint, maxPaint)
	}

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	body := `{"jobs":[` + strings.TrimSuffix(strings.Repeat(`{"type":"quick"},`, 500), ",") + `]}`
	loaded := make(chan int, 1)
	go func() { // 500 each 50 ms
		n := 0
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				loaded <- n
				return
			case <-tick.C:
				if a, err := h.try(ctx, http.MethodPost, "/jobs/batch", body); err == nil && a.code == http.StatusAccepted {
					n += 500
				}
			}
		}
	}()
	const seconds = 8
	for _, view := range []string{"/", "/jobs"} {
		b.visit(view)
		b.shows(".live", "live")
		begun, busy := time.Now(), b.metric("TaskDuration")
		b.holds("some seconds", fmt.Sprintf(`performance.now() > %d`, seconds*1000)) // the load needs time to be one
		share := (b.metric("TaskDuration") - busy) / time.Since(begun).Seconds()
		heap := b.metric("JSHeapUsedSize")
		rows := eval[int](b, `document.querySelectorAll("tr").length`)
		t.Logf("%s: %.1f %% of the main thread, %.1f MiB of heap, %d rows", view, 100*share, heap/(1<<20), rows)
		if share > maxBusy {
			t.Errorf("%s: the main thread is busy for %.0f %%", view, 100*share)
		}
		if heap > maxHeap {
			t.Errorf("%s: the heap has %.0f MiB", view, heap/(1<<20))
		}
		if rows > maxRows {
			t.Errorf("%s: there are %d rows", view, rows)
		}
	}
	stop()
	n := <-loaded
	t.Logf("%d jobs were submitted", n)
}
