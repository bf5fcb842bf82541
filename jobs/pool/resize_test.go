package pool_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/jobstest"
)

// many is n lanes to submit to.
func many(n int, lane string) []string {
	lanes := make([]string, n)
	for i := range lanes {
		lanes[i] = lane
	}
	return lanes
}

// active are how many run, and the size of the pool.
func (r *rig) active() string {
	w := r.pool.Workers()
	return fmt.Sprintf("%d/%d", w.Active, w.Size)
}

func TestPoolFollowsTheLoad(t *testing.T) {
	inRig(t, rigOptions{workers: 12, min: 2}, func(r *rig) {
		r.want("at first", r.active(), "0/2")
		r.submit(many(20, "a3")...)
		pass(0)
		r.want("at once", r.active(), "4/4")
		pass(99 * time.Millisecond)
		r.want("not too fast", r.active(), "4/4")
		pass(time.Millisecond)
		r.want("after 100 ms", r.active(), "8/8")
		pass(100 * time.Millisecond)
		r.want("after 200 ms", r.active(), "12/12")
		if r.gate.most > 12 {
			t.Errorf("%d have run at once", r.gate.most)
		}
		for range 11 {
			r.drain1()
			if r.running() == "" {
				break
			}
		}
		pass(8 * time.Second)
		r.want("for some seconds it stays", r.active(), "0/12")
		pass(4 * time.Second)
		r.want("then it shrinks", r.active(), "0/2")
		if n := len(r.left()); n != 0 {
			t.Errorf("%d are left", n)
		}
		r.submit(many(3, "a3")...)
		pass(0)
		r.want("and grows again", r.active(), "3/4")
	})
}

func TestPoolShrinksToWhatIsUsed(t *testing.T) {
	inRig(t, rigOptions{workers: 16, min: 1}, func(r *rig) {
		first := r.submit(many(16, "a3")...)
		pass(time.Second)
		r.want("all", r.active(), "16/16")
		for seq := first; seq < first+11; seq++ {
			r.passage(seq).end <- verdict{}
		}
		pass(time.Minute)
		r.want("about those that run", r.active(), "5/6")
		if w := r.pool.Workers(); w.Utilisation < 0.83 || w.Utilisation > 0.84 || w.Min != 1 || w.Max != 16 {
			t.Errorf("figures %+v", w)
		}
		r.submit("a3", "a3")
		pass(0)
		r.want("two more", r.active(), "7/12")
	})
}

// TestPoolGrowsForWhatMayStart only: more workers are of no use to a type that
// is paused, at its bound, or without a token.
func TestPoolGrowsForWhatMayStart(t *testing.T) {
	capped := typ("capped")
	capped.MaxWorkers = 1
	types := []*jobs.Type{capped, limited("limited", "1/s", 1), typ("paused"), typ("a")}
	inRig(t, rigOptions{workers: 16, min: 2, types: types, paused: map[string]bool{"paused": true}}, func(r *rig) {
		r.submit(many(5, "capped3")...)
		r.submit(many(3, "limited3")...)
		r.submit(many(5, "paused3")...)
		pass(900 * time.Millisecond)
		r.want("as many as may", r.active(), "2/2")
		pass(100 * time.Millisecond)
		r.want("when there is a token", r.active(), "3/4")
		r.pool.SetPaused("paused", false)
		pass(0)
		r.want("when the pause ends", r.active(), "4/4") // the last step was just now
		pass(100 * time.Millisecond)
		r.want("and for the rest", r.active(), "8/8")
	})
}

func TestResizeOfBothBounds(t *testing.T) {
	n := func(n int) *int { return &n }
	inRig(t, rigOptions{workers: 8}, func(r *rig) {
		sizes := func() string {
			w := r.pool.Workers()
			return fmt.Sprintf("%d %d-%d", w.Size, w.Min, w.Max)
		}
		steps := []struct {
			resize jobs.Resize
			want   string
			err    string
		}{
			{resize: jobs.Resize{}, want: "8 0-8"},
			{resize: jobs.Resize{MinWorkers: n(9)}, want: "8 0-8", err: "invalid_request /min_workers"},
			{resize: jobs.Resize{MinWorkers: n(8), MaxWorkers: n(7), Types: map[string]int{"a": 1}}, want: "8 0-8", err: "invalid_request /min_workers"},
			{resize: jobs.Resize{MinWorkers: n(4), MaxWorkers: n(10)}, want: "8 4-10"},
			{resize: jobs.Resize{MaxWorkers: n(20)}, want: "8 4-20"},
			{resize: jobs.Resize{MinWorkers: n(10)}, want: "10 10-20"},
			{resize: jobs.Resize{MaxWorkers: n(3)}, want: "3 3-3"},
			{resize: jobs.Resize{MaxWorkers: n(6)}, want: "3 3-6"},
			{resize: jobs.Resize{MinWorkers: n(0)}, want: "6 0-6"},
		}
		for i, s := range steps {
			if got := jobstest.Failure(t, r.pool.Resize(&s.resize)); got != s.err {
				t.Errorf("step %d: error %q, want %q", i, got, s.err)
			}
			r.want(fmt.Sprint("step ", i), sizes(), s.want)
		}
		if w := r.pool.Workers(); w.Types["a"].Max != 0 {
			t.Error("a refused resize has changed something")
		}
	})
}

// TestPoolGrowsByWhatIsMissing: after it was made smaller more may run than there
// are workers, and growing a little is then no reason to start more.
func TestPoolGrowsByWhatIsMissing(t *testing.T) {
	n := func(n int) *int { return &n }
	inRig(t, rigOptions{workers: 3}, func(r *rig) {
		r.submit(many(5, "a3")...)
		r.quiet()
		r.resize(&jobs.Resize{MaxWorkers: n(1), MinWorkers: n(1)})
		r.resize(&jobs.Resize{MaxWorkers: n(2)})
		r.quiet()
		r.want("no more start", r.running(), "1 2 3")
		r.resize(&jobs.Resize{MaxWorkers: n(8)})
		pass(time.Second)
		r.want("until there are more workers", r.running(), "1 2 3 4 5")
	})
}

func TestUtilisation(t *testing.T) {
	inRig(t, rigOptions{workers: 4}, func(r *rig) {
		share := func(want float64) {
			t.Helper()
			if got := r.pool.Workers().Utilisation; got < want-0.02 || got > want+0.02 {
				t.Errorf("utilisation %v, want %v", got, want)
			}
		}
		share(0)
		pass(time.Minute)
		share(0)
		r.submit("a3", "a3", "a3")
		pass(20 * time.Second)
		share(0.75)
		r.finish(1, 2)
		pass(5 * time.Second)
		share(0.5)
		pass(10 * time.Second)
		share(0.25)
	})
}

func TestStatsOfThePool(t *testing.T) {
	a := limited("a", "100/s", 0)
	a.MaxWorkers, a.ConcurrencyPerKey = 3, 2
	own := typ("own")
	own.Internal = true
	inRig(t, rigOptions{workers: 10, min: 2, types: []*jobs.Type{a, typ("b"), own}, paused: map[string]bool{"a": true}}, func(r *rig) {
		r.submit("b3")
		pass(time.Minute)
		w := r.pool.Workers()
		s := api.StatsOf(&w)
		b := string(s.AppendJSON(nil))
		for _, want := range []string{
			`"active_workers":1,"workers":2,"min_workers":2,"max_workers":10,"utilisation":0.5,`,
			`"a":{"active_workers":0,"max_workers":3,`, `"paused":true,"rate":"100/s","concurrency_per_key":2,`,
			`"b":{"active_workers":1,"max_workers":0,"queued_jobs":0,"scheduled_jobs":0,"retrying_jobs":0,"completed_jobs":0,"failed_jobs":0,"cancelled_jobs":0,`,
		} {
			if !strings.Contains(b, want) {
				t.Errorf("%s is missing in %s", want, b)
			}
		}
		if strings.Contains(b, "own") {
			t.Errorf("an internal type is shown: %s", b)
		}
	})
}
