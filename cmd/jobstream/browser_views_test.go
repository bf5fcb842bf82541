package main

import (
	"fmt"
	"testing"
)

// views are those of the dashboard, with what each shows when it is whole.
var views = []struct{ at, selector, text string }{
	{"/", "h1", "Overview"},
	{"/jobs", "#jobs", "report"},
	{"/jobs/1", "#job-status", "completed"},
	{"/failures", "h1", "Failures"},
	{"/types", "#types", "email"},
	{"/types/email", "h1", "email"},
	{"/schedules", "h1", "Schedules"},
	{"/workers", "h1", "Workers"},
	{"/new?type=report", "#new", "report"},
	{"/tail", "h1", "Tail"},
}

// TestBrowserViews opens each view, in both themes, on a screen and on a phone. axe finds
// nothing wrong with any, and none is wider than the phone.
func TestBrowserViews(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{})
	h.await(h.submit(`{"type":"report","tags":["weekly"]}`).ID, "completed")
	h.await(h.submit(`{"type":"cleanup","payload":{"older_than":"30d"}}`).ID, "completed")
	b := newBrowser(t, h)
	for _, theme := range []string{"light", "dark"} {
		for _, v := range views {
			b.size(1280, 900)
			b.visit(v.at)
			b.theme(theme)
			b.shows(v.selector, v.text)
			b.accessible(fmt.Sprintf("%s, %s", v.at, theme))
			b.size(375, 700)
			if wide := eval[int](b, `document.documentElement.scrollWidth`); wide > 375 {
				b.screenshot("too-wide")
				t.Errorf("%s is %d pixels wide on a phone of 375", v.at, wide)
			}
		}
	}
}
