package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"jobstream/jobs/jobstest"
)

// The browser tests look at the dashboard as people do, with a real browser. This file has
// their common parts.

// browser is one tab, at a server.
type browser struct {
	t   *testing.T
	h   *house
	ctx context.Context //nolint:containedctx // it is the tab

	mu        sync.Mutex
	wrong     []string // errors of the console
	elsewhere []string // requests to other servers
	sent      int64    // bytes of bodies that came over the network
	requests  map[network.RequestID]string
}

// newBrowser opens a tab of a browser of its own, 1280 by 900.
func newBrowser(t *testing.T, h *house) *browser {
	t.Helper()
	if raced {
		t.Skip("SKIPPED: browsers look at a server without the race detector; .ci/run has them in a step of their own")
	}
	path := jobstest.Tool(t, "chromium")
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.Flag("no-sandbox", true), chromedp.WindowSize(1280, 900),
		chromedp.Flag("lang", "en-US"), chromedp.UserDataDir(t.TempDir()))
	b := &browser{t: t, h: h, requests: make(map[network.RequestID]string)}
	ctx, closeTab := chromedp.NewContext(context.Background(), chromedp.WithAllocatorOptions(options...), chromedp.WithListener(b.hear))
	b.ctx = ctx
	t.Cleanup(closeTab)
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.check)
	return b
}

// hear notes what must not happen.
func (b *browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		b.wrong = append(b.wrong, fmt.Sprint(e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			text := make([]string, len(e.Args))
			for i, a := range e.Args {
				text[i] = fmt.Sprint(string(a.Value), a.Description)
			}
			b.wrong = append(b.wrong, strings.Join(text, " "))
		}
	case *log.EventEntryAdded: // a refused request is the answer that a test may want
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
			b.wrong = append(b.wrong, e.Entry.Text+" "+e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		url := e.Request.URL
		b.requests[e.RequestID] = url
		if !strings.HasPrefix(url, b.h.rest) && !strings.HasPrefix(url, "data:") && !strings.HasPrefix(url, "blob:") {
			b.elsewhere = append(b.elsewhere, url)
		}
	case *network.EventLoadingFinished:
		if strings.Contains(b.requests[e.RequestID], "/ui/") {
			b.sent += int64(e.EncodedDataLength)
		}
	}
}

// check fails the test for what has gone wrong in the browser.
func (b *browser) check() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.wrong {
		b.t.Errorf("the browser complains: %s", w)
	}
	for _, e := range b.elsewhere {
		b.t.Errorf("the page asks for %s", e)
	}
}

// do runs actions, each of which must work.
func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, late := context.WithTimeout(b.ctx, patience)
	defer late()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.fatal(err)
	}
}

// fatal ends the test with what the page shows.
func (b *browser) fatal(err error) {
	b.t.Helper()
	b.screenshot(strings.ReplaceAll(b.t.Name(), "/", "-") + "-failed")
	text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body ? location.pathname + location.search + "\n" + document.body.innerText : "nothing"`))
	b.t.Fatalf("%v; the page shows\n%s", err, text)
}

// visit opens a view.
func (b *browser) visit(view string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.h.rest + "/ui" + view))
	b.holds("the frame", `document.querySelector("#app > *")`)
}

// holds waits until a condition of the page, in its language, holds.
func (b *browser) holds(what, condition string) {
	b.t.Helper()
	ctx, late := context.WithTimeout(b.ctx, patience)
	defer late()
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool]("!!("+condition+")", chromedp.WithPollingTimeout(patience))); err != nil {
		b.fatal(fmt.Errorf("%s: %w", what, err))
	}
}

// shows waits until an element has a text in it.
func (b *browser) shows(selector, text string) {
	b.t.Helper()
	b.holds(fmt.Sprintf("%s with %q", selector, text), fmt.Sprintf(`[...document.querySelectorAll(%q)].some((e) => e.innerText.includes(%q))`, selector, text))
}

// click clicks a button or link by its text, the first within an element.
func (b *browser) click(within, text string) {
	b.t.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll(%q)].flatMap((e) => [...e.querySelectorAll('button, a, summary')]).find((e) => e.innerText.trim().startsWith(%q) && !e.disabled)`, within, text)
	b.holds(fmt.Sprintf("%q in %s", text, within), find)
	eval[any](b, find+".click()")
}

// fill types a value into a field, as if by hand.
func (b *browser) fill(selector, value string) {
	b.t.Helper()
	b.set(selector, "input", value)
}

// choose chooses an entry of a list by its value.
func (b *browser) choose(selector, value string) {
	b.t.Helper()
	b.holds("the choice "+value, fmt.Sprintf(`[...(document.querySelector(%q)?.options || [])].some((o) => o.value === %q)`, selector, value))
	b.set(selector, "change", value)
}

// set gives a field a value, with the events that a hand would cause.
func (b *browser) set(selector, event, value string) {
	b.t.Helper()
	b.holds(selector, fmt.Sprintf(`document.querySelector(%q) && !document.querySelector(%q).disabled`, selector, selector))
	eval[any](b, fmt.Sprintf(`(() => { const e = document.querySelector(%q); e.focus(); e.value = %q; e.dispatchEvent(new Event(%q, {bubbles: true})); e.dispatchEvent(new Event("change", {bubbles: true})); })()`, selector, value, event))
}

// press types keys at the page.
func (b *browser) press(keys string) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(keys))
}

// eval evaluates an expression in the page, and waits for it if it is a promise.
func eval[T any](b *browser, expression string) T {
	b.t.Helper()
	ctx, late := context.WithTimeout(b.ctx, patience)
	defer late()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.fatal(fmt.Errorf("%.200s: %w", expression, err))
	}
	return v
}

// size makes the window another one.
func (b *browser) size(width, height int64) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 600})
	mustDo(b.t, err)
}

// theme chooses the colours.
func (b *browser) theme(name string) {
	b.t.Helper()
	eval[any](b, fmt.Sprintf(`localStorage.setItem('jobstream-theme', %q); document.documentElement.dataset.theme = %q`, name, name))
}

// screenshot stores what the window shows, where JOBSTREAM_SCREENSHOTS names a folder.
func (b *browser) screenshot(name string) {
	b.t.Helper()
	dir := os.Getenv("JOBSTREAM_SCREENSHOTS")
	if dir == "" {
		return
	}
	picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	mustDo(b.t, err)
	mustDo(b.t, os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o600))
}

// axe is the source of axe-core, fetched once.
var axe = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "axe-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)                                                                                            //nolint:errcheck // a leftover in the temporary folder
	fetch := exec.Command("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", dir, "axe-core@4.14.1") //nolint:noctx // all tests share it
	if out, err := fetch.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm install: %w\n%s", err, out)
	}
	source, err := os.ReadFile(filepath.Join(dir, "node_modules/axe-core/axe.min.js"))
	return string(source), err
})

// accessible lets axe look at the page, which must have no violation.
func (b *browser) accessible(what string) {
	b.t.Helper()
	jobstest.Tool(b.t, "npm")
	source, err := axe()
	mustDo(b.t, err)
	eval[int](b, source+";0")
	found := eval[[]struct {
		ID, Help string
		Nodes    []struct {
			HTML           string `json:"html"`
			FailureSummary string
		}
	}](b, `axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations)`)
	for _, v := range found {
		text, _ := json.MarshalIndent(v.Nodes, "", " ")
		b.t.Errorf("%s: %s (%s)\n%s", what, v.ID, v.Help, text[:min(len(text), 1500)])
	}
}

// metric is a figure of the tab: seconds or bytes.
func (b *browser) metric(name string) float64 {
	b.t.Helper()
	all, err := chromedp.Call(b.ctx, performance.GetMetrics, cdp.Empty{})
	mustDo(b.t, err)
	for _, m := range all.Metrics {
		if m.Name == name {
			return m.Value
		}
	}
	b.t.Fatalf("the browser has no metric %s", name)
	return 0
}
