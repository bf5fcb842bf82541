package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
)

type runShown struct {
	At      time.Time
	Job     *string
	Skipped bool
}

func (h *house) runs(name string) []runShown {
	h.t.Helper()
	var a struct{ Runs []runShown }
	r := h.do(http.MethodGet, "/schedules/"+name+"/runs", "")
	if err := json.Unmarshal(r.body, &a); r.code != http.StatusOK || err != nil || a.Runs == nil {
		h.t.Fatalf("GET /schedules/%s/runs: %d %s", name, r.code, r.body)
	}
	return a.Runs
}

// TestContractScheduleRuns lists what became of a schedule's moments, those that were
// skipped as well, over a restart.
func TestContractScheduleRuns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newPuppet()
	s := setup{handlers: map[string]jobs.Handler{"held": p}, change: func(c *config.Config) { c.Worker.ShutdownGrace = 0 }}
	h := open(t, dir, s)
	h.addSchedule(`{"name":"ticks","every":"1s","type":"held"}`)
	first := p.next(t) // it goes on, so the next moments are skipped
	waitUntil(t, func() bool {
		all := h.runs("ticks")
		return len(all) >= 3 && all[0].Skipped
	})
	h.do(http.MethodPost, "/schedules/ticks/pause", "")
	all := h.runs("ticks")
	last := all[len(all)-1]
	if last.Skipped || last.Job == nil || *last.Job != first.id() || all[0].Job != nil || !slices.IsSortedFunc(all, func(a, b runShown) int { return b.At.Compare(a.At) }) {
		t.Errorf("the runs are %+v, the first job is %s", all, first.id())
	}
	first.finish()
	h.await(first.id(), "completed")
	byHand := readJob(t, h.do(http.MethodPost, "/schedules/ticks/run", "").body)
	p.next(t).finish()
	h.await(byHand.ID, "completed")
	all = h.runs("ticks")
	if all[0].Job == nil || *all[0].Job != byHand.ID {
		t.Errorf("the run by hand: %+v", all[0])
	}
	h.close()
	h = open(t, dir, s)
	if got := h.runs("ticks"); len(got) != len(all) || *got[0].Job != byHand.ID {
		t.Errorf("after a restart: %+v", got)
	}
	h.do(http.MethodGet, "/schedules/none/runs", "").wantProblem(t, 404, "not_found")
	h.do(http.MethodDelete, "/schedules/ticks", "")
	h.do(http.MethodGet, "/schedules/ticks/runs", "").wantProblem(t, 404, "not_found")
	h.addSchedule(`{"name":"ticks","cron":"@yearly","type":"held"}`)
	if got := h.runs("ticks"); len(got) != 0 {
		t.Errorf("runs of another schedule of that name: %+v", got)
	}
}

// TestContractPreview asks for the moments of a schedule before it is made.
func TestContractPreview(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), setup{})
	next := func(query string) (all []time.Time) {
		t.Helper()
		var a struct{ Next []time.Time }
		r := h.do(http.MethodGet, "/schedules/preview?"+query, "")
		if err := json.Unmarshal(r.body, &a); r.code != http.StatusOK || err != nil || a.Next == nil {
			t.Fatalf("a preview of %s: %d %s", query, r.code, r.body)
		}
		return a.Next
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	mustDo(t, err)
	all := next("cron=" + url.QueryEscape("0 7 * * MON-FRI") + "&timezone=Europe/Berlin&n=10")
	if len(all) != 10 {
		t.Errorf("%d moments", len(all))
	}
	for i, at := range all {
		if l := at.In(berlin); l.Hour() != 7 || l.Minute() != 0 || l.Weekday() == time.Sunday || l.Weekday() == time.Saturday || !at.After(time.Now()) || i > 0 && !at.After(all[i-1]) {
			t.Errorf("moment %d is %v", i, l)
		}
	}
	if all := next("every=90s"); len(all) != 5 || all[4].Sub(all[0]) != 6*time.Minute {
		t.Errorf("an interval: %v", all)
	}
	for query, pointer := range map[string]string{
		"": "query/cron", "cron=x": "query/cron", "cron=0+0+31+2+*": "query/cron", "cron=@daily&every=5s": "query/every", "every=0": "query/every", "every=500d": "query/every",
		"cron=@daily&timezone=Mars": "query/timezone", "cron=@daily&n=101": "query/n", "cron=@daily&name=x": "query/name",
	} {
		h.do(http.MethodGet, "/schedules/preview?"+query, "").wantPointer(t, pointer)
	}
}
