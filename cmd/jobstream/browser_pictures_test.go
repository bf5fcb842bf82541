package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
)

// TestBrowserPictures makes the pictures of README.md, and one of every view in both themes,
// in the folder that JOBSTREAM_SCREENSHOTS names: a server under a mixed load.
func TestBrowserPictures(t *testing.T) {
	dir := os.Getenv("JOBSTREAM_SCREENSHOTS")
	if dir == "" {
		t.Skip("JOBSTREAM_SCREENSHOTS names no folder")
	}
	mustDo(t, os.MkdirAll(dir, 0o750))
	slow := func(d time.Duration, fail error) jobs.Handler {
		return jobs.HandlerFunc(func(ctx context.Context, task *jobs.Task) (jobs.Result, error) {
			for i := 1; i <= 10; i++ {
				task.Progress(i*10, fmt.Sprintf("row %d of 10000", i*1000))
				select {
				case <-ctx.Done():
					return jobs.Result{}, ctx.Err()
				case <-time.After(d / 10): // it is work
				}
			}
			return jobs.Result{}, fail
		})
	}
	h := open(t, t.TempDir(), setup{
		change: func(c *config.Config) { c.Worker.MaxWorkers = 12 },
		handlers: map[string]jobs.Handler{
			"thumbnail": slow(150*time.Millisecond, nil), "invoice": slow(6*time.Second, nil), "sync": slow(200*time.Millisecond, jobs.Permanentf("crm: 429 too many requests from this account")),
		},
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		for i, tick := 0, time.NewTicker(40*time.Millisecond); ; i++ {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			body := `{"type":"thumbnail","tags":["shop-7"],"payload":{"url":"https://example.com/a.jpg","size":"200x200"}}`
			switch {
			case i%40 == 0:
				body = `{"type":"sync","retry_count":0,"tags":["crm"]}`
			case i%60 == 1:
				body = `{"type":"invoice","priority":1,"tags":["tenant-7"],"payload":{"month":"2026-11","customer":4711}}`
			case i%90 == 2:
				body = `{"type":"email","delay":"10m","payload":{"to":"ann@example.com","subject":"Hello","body":"Hi"}}`
			}
			_, _ = h.try(ctx, "POST", "/jobs", body)
		}
	}()
	h.addSchedule(`{"name":"mornings","cron":"0 7 * * MON-FRI","timezone":"Europe/Berlin","type":"report"}`)
	h.addSchedule(`{"name":"sweep","every":"5s","type":"cleanup","payload":{"older_than":"30d"}}`)
	h.do("POST", "/types/export/pause", "")
	h.submit(`{"type":"export"}`)
	b := newBrowser(t, h)
	b.visit("/")
	b.holds("a minute of figures", `performance.now() > 60000`)
	b.screenshot("overview-light")
	last := func(status string) string {
		found, _ := h.list("?type=invoice&status=" + status)
		if len(found) == 0 {
			t.Fatalf("no invoice is %s", status)
		}
		return found[0].ID
	}
	for _, theme := range []string{"light", "dark"} {
		b.theme(theme)
		for name, at := range map[string]string{
			"overview": "/", "jobs": "/jobs", "failures": "/failures", "types": "/types", "type": "/types/thumbnail", "schedules": "/schedules",
			"workers": "/workers", "new": "/new?type=email", "tail": "/tail", "job": "/jobs/" + last("processing"),
		} {
			if name == "overview" && theme == "light" {
				continue // it would have no curves yet
			}
			b.visit(at)
			b.shows(".live", "live")
			b.holds("some seconds", `performance.now() > 4000`)
			b.screenshot(name + "-" + theme)
		}
	}
	made, err := filepath.Glob(filepath.Join(dir, "*.png"))
	mustDo(t, err)
	if len(made) < 20 {
		t.Errorf("there are %d pictures", len(made))
	}
}
