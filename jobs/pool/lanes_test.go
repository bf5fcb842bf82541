package pool_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
)

// TestManyLanesHoldLittle: the prefetch is bounded, however many lanes there are, and
// each busy lane has some. The best priority goes first, and types alternate.
func TestManyLanesHoldLittle(t *testing.T) {
	const types, each, workers = 200, 5, 100 // two rounds of workers are a turn of all types
	var all []*jobs.Type
	for i := range types {
		all = append(all, typ(fmt.Sprintf("t%03d-", i)))
	}
	inRig(t, rigOptions{types: all, workers: workers}, func(r *rig) {
		lanes := types * int(jobs.LowestPriority)
		check := func(what string) {
			t.Helper()
			if n := r.pool.Prefetched(); n < lanes || n > 8192 {
				t.Errorf("%s: %d are held or asked for, of %d lanes", what, n, lanes)
			}
		}
		check("with nothing to do")
		var names []string
		for _, p := range []jobs.Priority{5, 3, 1} {
			for range each {
				for _, typ := range all {
					names = append(names, fmt.Sprintf("%s%d", typ.Name, p))
				}
			}
		}
		r.submit(names...)
		r.quiet()
		check("with much to do")
		// The workers were free when the first came, of the lowest priority: from now on
		// the highest goes first.
		before := len(strings.Fields(r.begun()))
		r.said("extend")
		pass(time.Minute)
		if n := strings.Count(r.said("extend"), "extend"); n > 6*(8192+workers) {
			t.Errorf("%d leases were renewed in a minute", n)
		}
		count := make(map[string]int)
		for range 20 {
			r.drain1()
			begun := strings.Fields(r.begun())[before:]
			clear(count)
			for _, b := range begun[:min(len(begun), types)] {
				lane, _, _ := strings.Cut(b, "/")
				if !strings.HasSuffix(lane, "1") {
					t.Fatalf("%s has begun while others of priority 1 wait", b)
				}
				count[lane]++
			}
			if len(begun) >= types {
				break
			}
		}
		if len(count) != types {
			t.Errorf("of %d types %d had a turn among the first %d", types, len(count), types)
		}
		check("meanwhile")
		for range types * each * 3 {
			if r.drain1(); len(r.left()) == 0 {
				break
			}
		}
		if n := len(r.left()); n > 0 {
			t.Errorf("%d jobs are left", n)
		}
		pass(time.Minute)
		check("at the end")
	})
}
