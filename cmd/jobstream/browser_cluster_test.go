package main

import (
	"fmt"
	"testing"
)

// TestBrowserCluster looks at a cluster through the dashboard of each of its nodes, and sees
// that one of them is gone. A server that is alone shows no nodes.
func TestBrowserCluster(t *testing.T) {
	bed := newCluster(t)
	bed.start(bed.nodes...)
	leader, others := bed.leader()
	bed.awaitEqual()
	look := func(m *member) *browser {
		t.Helper()
		b := newBrowser(t, &house{t: t, rest: m.rest})
		b.visit("/")
		b.shows(".nodes", leader.name)
		return b
	}
	for _, m := range bed.nodes {
		b := look(m)
		for _, n := range bed.nodes {
			b.shows(".nodes", n.name)
		}
		b.shows(".nodes", "★ leads")
		b.holds("a hash of each", `[...document.querySelectorAll('.nodes td[data-name=hash]')].length === 3 && ![...document.querySelectorAll('.nodes td[data-name=hash]')].some((e) => e.innerText.includes('–'))`)
		for _, theme := range []string{"light", "dark"} {
			b.size(1280, 900)
			b.theme(theme)
			b.accessible(fmt.Sprintf("the nodes at %s, %s", m.name, theme))
			b.screenshot(fmt.Sprintf("cluster-%s-%s", m.name, theme))
			b.size(375, 700)
			if wide := eval[int](b, `document.documentElement.scrollWidth`); wide > 375 {
				t.Errorf("the nodes are %d pixels wide on a phone of 375", wide)
			}
			b.screenshot(fmt.Sprintf("cluster-%s-%s-phone", m.name, theme))
		}
	}
	b := look(others[0])
	others[1].kill()
	b.shows(".nodes", "✕ not ready")
	b.shows(".nodes", "it has said nothing for")
	b.shows(".attention", "is not ready: it has said nothing for")
	b.screenshot("cluster-one-gone")

	alone := newBrowser(t, open(t, t.TempDir(), setup{}))
	alone.visit("/")
	alone.shows("h1", "Overview")
	alone.holds("its figures", `document.querySelector('.figures')`)
	if eval[bool](alone, `!!document.querySelector('.nodes')`) {
		t.Error("a server that is alone shows nodes")
	}
}
