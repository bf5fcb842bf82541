package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
)

// busyHouse is a server whose jobs wait for their test: hold runs until the test ends or it is
// cancelled, fail fails, by its payload for good.
func busyHouse(t *testing.T, change func(*config.Config)) *house {
	t.Helper()
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	return open(t, t.TempDir(), setup{change: change, handlers: map[string]jobs.Handler{
		"hold": jobs.HandlerFunc(func(ctx context.Context, task *jobs.Task) (jobs.Result, error) {
			task.Progress(40, "row 4 of 10")
			task.Log(jobs.LevelInfo, "opened the file")
			select {
			case <-ctx.Done():
			case <-done:
			}
			return jobs.Result{}, ctx.Err()
		}),
		"fail": jobs.HandlerFunc(func(_ context.Context, task *jobs.Task) (jobs.Result, error) {
			if strings.Contains(string(task.Job.Payload), "once") && task.Job.Run > 1 {
				return jobs.Result{}, nil
			}
			return jobs.Result{}, jobs.Permanentf("smtp: 421 too many connections from %s", task.Job.ID)
		}),
	}})
}

// TestBrowserJob cancels, retries, changes, runs and deletes jobs, by the buttons of their page.
func TestBrowserJob(t *testing.T) {
	t.Parallel()
	h := busyHouse(t, nil)
	b := newBrowser(t, h)

	held := h.submit(`{"type":"hold","tags":["blue"],"payload":{"n":[1,{"deep":true}]}}`)
	h.await(held.ID, "processing")
	b.visit("/jobs/" + held.ID)
	b.shows("#job-status", "processing")
	b.shows(".log", "opened the file")
	b.shows("main", "row 4 of 10")
	b.click("main", "Cancel")
	b.shows("#job-status", "cancelled")
	b.click("main", "Retry")
	b.shows("#job-status", "processing")

	later := h.submit(`{"type":"hold","delay":"1h"}`)
	b.visit("/jobs/" + later.ID)
	b.shows("#why", "its time has not come")
	b.click("main", "Change")
	eval[any](b, `(() => { const s = document.querySelector('dialog select'); s.value = '1'; s.dispatchEvent(new Event('change', {bubbles: true})); })()`)
	b.click("dialog", "Save")
	b.shows("main", "priority 1")
	b.click("#why", "Run now")
	b.shows("#job-status", "processing")

	done := h.submit(`{"type":"report"}`)
	h.await(done.ID, "completed")
	b.visit("/jobs/" + done.ID)
	b.shows("main", "report-")
	b.click("main", "Delete")
	b.click("dialog", "Delete")
	b.shows("h1", "Jobs")
	if got := h.do(http.MethodGet, "/jobs/"+done.ID, ""); got.code != http.StatusNotFound {
		t.Errorf("the deleted job gives %d", got.code)
	}
}

// TestBrowserWhy: a page says why its job waits, and its button helps.
func TestBrowserWhy(t *testing.T) {
	t.Parallel()
	h := busyHouse(t, nil)
	b := newBrowser(t, h)
	h.do(http.MethodPost, "/types/hold/pause", "")
	waiting := h.submit(`{"type":"hold"}`)
	b.visit("/jobs/" + waiting.ID)
	b.shows("#why", "the type is paused")
	b.click("#why", "Resume")
	b.shows("#job-status", "processing")

	h.do(http.MethodPut, "/workers", `{"types":{"hold":{"max_workers":1}}}`)
	second := h.submit(`{"type":"hold"}`)
	b.visit("/jobs/" + second.ID)
	b.shows("#why", "its type is at its limit")
	b.click("#why", "Raise limit")
	b.click("dialog", "Raise")
	b.shows("#job-status", "processing")

	h.do(http.MethodPost, "/workers/pause", "")
	third := h.submit(`{"type":"report"}`)
	b.visit("/jobs/" + third.ID)
	b.shows("#why", "the workers are paused")
	b.click("#why", "Resume the workers")
	b.shows("#job-status", "completed")
}

// TestBrowserFailures retries some of a group first, then all of it, and deletes another.
func TestBrowserFailures(t *testing.T) {
	t.Parallel()
	h := busyHouse(t, nil)
	for range 7 {
		h.await(h.submit(`{"type":"fail","payload":"once"}`).ID, "failed")
	}
	b := newBrowser(t, h)
	b.visit("/failures")
	b.shows("#failures", "smtp: 421 too many connections")
	b.shows("#failures", "Retry 7")
	b.click("#failures", "Retry 5 first")
	b.shows("#trial", "5 completed")
	b.click("dialog", "Close")
	b.click("#failures", "Retry 2")
	b.shows("dialog", "Retry 2 jobs?")
	b.click("dialog footer", "Retry")
	b.shows("#bulk-done", "completed")
	b.click("dialog footer", "Close")
	b.shows("#failures", "No failed jobs")
}

// TestBrowserBulk deletes what a filter finds, after it has said how much that is.
func TestBrowserBulk(t *testing.T) {
	t.Parallel()
	h := busyHouse(t, nil)
	keep := h.submit(`{"type":"report"}`)
	h.await(keep.ID, "completed")
	for range 3 {
		h.await(h.submit(`{"type":"report","tags":["old"]}`).ID, "completed")
	}
	b := newBrowser(t, h)
	b.visit("/jobs?tag=old")
	b.holds("three rows", `document.querySelectorAll("#jobs tbody tr[id]").length === 3`)
	b.click("main .card header", "Delete")
	b.shows("dialog", "Delete 3 jobs?")
	b.click("dialog footer", "Delete")
	b.shows("#bulk-done", "completed")
	b.click("dialog footer", "Close")
	b.shows("#jobs", "No job matches")
	h.await(keep.ID, "completed")
}

// TestBrowserKeys does everything without a pointer.
func TestBrowserKeys(t *testing.T) {
	t.Parallel()
	h := busyHouse(t, nil)
	for range 3 {
		h.await(h.submit(`{"type":"fail"}`).ID, "failed")
	}
	b := newBrowser(t, h)
	b.visit("/")
	b.shows(".live", "live")
	b.press("?")
	b.shows("dialog", "new job")
	b.press(kb.Escape)
	b.holds("no dialog", `!document.querySelector("dialog")`)
	for key, heading := range map[string]string{"j": "Jobs", "f": "Failures", "t": "Types", "s": "Schedules", "w": "Workers", "l": "Tail", "o": "Overview"} {
		b.press("g")
		b.press(key)
		b.shows("h1", heading)
	}
	b.press("n")
	b.shows("h1", "New job")
	b.press("g")
	b.press("j")
	b.holds("three rows", `document.querySelectorAll("#jobs tbody tr[id]").length === 3`)
	b.press("j")
	b.holds("the second row", `document.querySelector("#row-1").getAttribute("aria-selected") === "true"`)
	b.press("k")
	b.press("a")
	b.shows("main", "3 selected")
	b.press("d")
	b.shows("dialog", "Delete 3 jobs?")
	b.press(kb.Enter)
	b.shows("#jobs", "No job matches")
	// chromedp would type the key as well, although the page has taken it
	eval[any](b, `document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "/", bubbles: true}))`)
	b.holds("the search has the focus", `document.activeElement.type === "search"`)
	b.press("type:report tag:\"a b\"")
	b.press(kb.Enter)
	b.holds("the address has the search", `location.search.includes("type=report") && location.search.includes("tag=a+b")`)
	b.press(" ")
	b.shows(".live", "paused")
	b.press(" ")
	b.shows(".live", "live")
	eval[any](b, `dispatchEvent(new KeyboardEvent("keydown", {key: "k", ctrlKey: true, bubbles: true}))`)
	b.shows("dialog", "Go to")
	b.press("type fail")
	b.press(kb.Enter)
	b.shows("h1", "fail")
}

// TestBrowserTypes pauses a type, and changes a limit.
func TestBrowserTypes(t *testing.T) {
	t.Parallel()
	h := busyHouse(t, nil)
	b := newBrowser(t, h)
	b.visit("/types/hold")
	b.click("main", "Pause")
	b.shows("#paused", "paused")
	b.click("main", "Resume")
	b.holds("not paused", `!document.querySelector("#paused")`)
	b.fill(`input[name=max_workers]`, "2")
	b.fill(`input[name=rate]`, "50/s")
	b.click("main", "Change")
	b.shows(".words", "until the next start")
	if got := h.jobType(http.MethodGet, "hold"); got.MaxWorkers != 2 {
		t.Errorf("hold runs %d at a time", got.MaxWorkers)
	}
	b.visit("/workers")
	b.click("main", "Pause")
	b.shows("#paused", "paused")
	b.click("main", "Resume")
	b.holds("not paused", `!document.querySelector("#paused")`)
	b.fill(`input[type=range]`, "7")
	b.shows(".words", "7 workers")
}

// TestBrowserSchedules makes a schedule, whose times it shows before, runs, pauses and deletes
// it.
func TestBrowserSchedules(t *testing.T) {
	t.Parallel()
	h := busyHouse(t, nil)
	b := newBrowser(t, h)
	b.visit("/schedules")
	b.click("main", "New schedule")
	b.fill(`#schedule input[name=name]`, "mornings")
	b.fill(`#schedule input[name=cron]`, "0 7 * * MON-FRIX")
	b.shows("#preview .trouble", "FRIX")
	b.fill(`#schedule input[name=cron]`, "0 7 * * MON-FRI")
	b.holds("five times", `document.querySelectorAll("#preview time").length === 5`)
	b.choose(`#schedule select[name=type]`, "report")
	b.click("#schedule footer", "Save")
	b.shows("#schedules", "07:00, Mon–Fri")
	b.click("#schedules", "Run now")
	b.shows(".words", "runs as")
	b.click("#schedules", "Pause")
	b.shows("#schedules", "paused")
	b.click("#schedules", "Delete")
	b.click("dialog", "Delete")
	b.shows("#schedules", "No schedules yet")
}

// TestBrowserNew submits a job by the form of its type's schema. What the server refuses
// stands at its field.
func TestBrowserNew(t *testing.T) {
	t.Parallel()
	h := configured(t, thumbnails)
	b := newBrowser(t, h)
	b.visit("/new?type=thumbnail")
	b.shows("#new", "url")
	b.fill(`#field-url`, "a.png")
	b.fill(`#field-size`, "10x10")
	b.click("#new", "Submit")
	b.shows("#new", "must be a URI with its scheme")
	b.fill(`#field-url`, "https://example.com/a.png")
	b.fill(`#field-quality`, "80")
	b.click("#new", "Submit")
	b.shows("#job-status", "completed")
	b.shows("main", "https://example.com/a.png")
	b.click("main", "Again")
	b.holds("the copy", `document.querySelector("#field-size")?.value === "10x10"`)
}

// TestBrowserHostile: whatever stands in jobs is text, in every view that shows it.
func TestBrowserHostile(t *testing.T) {
	t.Parallel()
	const evil = `<img src=x onerror="window.broken=1"><script>window.broken=2</script>{{constructor}}` + "`${window.broken=3}`"
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{
		"evil": jobs.HandlerFunc(func(_ context.Context, task *jobs.Task) (jobs.Result, error) {
			task.Log(jobs.LevelInfo, evil)
			if string(task.Job.Payload) == `"file"` {
				f, err := task.Artifact()
				if err != nil {
					return jobs.Result{}, err
				}
				_, err = f.Commit(`<b onclick=x>.html`, `text/html"><script>window.broken=4</script>`)
				return jobs.Result{}, err
			}
			return jobs.Result{}, errors.Join(jobs.Permanentf("%s", evil))
		}),
	}})
	quoted := fmt.Sprintf("%q", evil)
	failed := h.submit(`{"type":"evil","payload":{%s:%s},"tags":["<i>tag</i>"],"unique_key":"<u>key</u>"}`, quoted, quoted)
	h.await(failed.ID, "failed")
	file := h.submit(`{"type":"evil","payload":"file"}`)
	h.await(file.ID, "completed")
	nc := h.dial()
	h.accepted(nc, "jobs.no-such-type", quoted)
	b := newBrowser(t, h)
	for _, v := range []struct{ at, selector, text string }{
		{"/jobs/" + failed.ID, "main", "onerror"},
		{"/jobs/" + failed.ID, ".log", "onerror"},
		{"/jobs/" + file.ID, "main", "onclick"},
		{"/jobs", "#jobs", "<i>tag</i>"},
		{"/failures", "#failures", "onerror"},
		{"/tail", "h1", "Tail"},
		{"/", "h1", "Overview"},
		{"/jobs?tag=%3Cimg%20src%3Dx%20onerror%3D%22window.broken%3D5%22%3E", "h1", "Jobs"},
		{"/jobs/%3Cimg%20src%3Dx%20onerror%3D%22window.broken%3D6%22%3E", "h1", "onerror"},
	} {
		b.visit(v.at)
		b.shows(v.selector, v.text)
		if n := eval[int](b, `document.querySelectorAll("#app img, #app script, #app b[onclick]").length + (window.broken || 0)`); n != 0 {
			t.Errorf("%s runs what stands in a job", v.at)
		}
	}
}

// TestBrowserLogin: a server with tokens asks for one, and the page offers what it allows.
func TestBrowserLogin(t *testing.T) {
	t.Parallel()
	h := roles(t, setup{change: func(c *config.Config) { c.Server.Auth.Anonymous = []string{} }})
	b := newBrowser(t, h)
	b.visit("/types/report")
	b.shows("main", "This server wants a token")
	b.accessible("login")
	login := func(token string) {
		b.fill(`input[type=password]`, token)
		b.click("form", "Log in")
	}
	login("wrong")
	b.shows("main", "not valid any more")
	login(secretOf("read"))
	b.shows("h1", "report")
	b.shows(".live", "live")
	b.shows("footer", "read")
	b.shows("main", "Limits")
	if n := eval[int](b, `[...document.querySelectorAll("main button")].filter((e) => ["Pause", "Change"].includes(e.innerText)).length`); n != 0 {
		t.Error("it offers what the token may not do")
	}
	if text := eval[string](b, `document.cookie + JSON.stringify(localStorage)`); strings.Contains(text, "secret") {
		t.Errorf("the token is kept in %s", text)
	}
	b.click("header", "log out")
	b.shows("main", "This server wants a token")
	login(secretOf("admin"))
	b.click("main", "Pause")
	b.shows("#paused", "by admin")
}
