package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/cmd/jobstream/internal/config"
	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

// timetable is a schedule as clients see it.
type timetable struct {
	Name, Cron, Every, Timezone, Type, Source, Overlap string
	Paused                                             bool
	Skipped                                            int
	NextRunAt                                          *time.Time `json:"next_run_at"`
	LastRunAt                                          *time.Time `json:"last_run_at"`
	LastJobID                                          string     `json:"last_job_id"`
	CreatedAt                                          time.Time  `json:"created_at"`
}

// fire is a job that a schedule has made.
type fire struct {
	ID, Schedule, Status string
	Priority             int
	ScheduledFor         *time.Time `json:"scheduled_for"` // nil: by hand
	CreatedAt            time.Time  `json:"created_at"`
}

func readTimetable(t *testing.T, body []byte) *timetable {
	t.Helper()
	var e timetable
	if err := json.Unmarshal(body, &e); err != nil || e.Name == "" {
		t.Fatalf("not a schedule: %v: %s", err, body)
	}
	return &e
}

// addSchedule creates a schedule.
func (h *house) addSchedule(format string, args ...any) *timetable {
	h.t.Helper()
	body := fmt.Sprintf(format, args...)
	r := h.do(http.MethodPost, "/schedules", body)
	if r.code != http.StatusCreated {
		h.t.Fatalf("%s is answered with %d: %s", body, r.code, r.body)
	}
	e := readTimetable(h.t, r.body)
	if at := r.header.Get("Location"); at != "/schedules/"+e.Name {
		h.t.Errorf("Location is %q", at)
	}
	return e
}

func (h *house) timetable(name string) *timetable {
	h.t.Helper()
	r := h.do(http.MethodGet, "/schedules/"+name, "")
	if r.code != http.StatusOK {
		h.t.Fatalf("schedule %s is answered with %d: %s", name, r.code, r.body)
	}
	return readTimetable(h.t, r.body)
}

// fires are the jobs of a schedule, in the order in which they were made.
func (h *house) fires(name string) []fire {
	h.t.Helper()
	return firesIn(h.t, name, h.do(http.MethodGet, "/jobs?order=asc&limit=500", "").body)
}

func firesIn(t *testing.T, name string, body []byte) (all []fire) {
	t.Helper()
	var page struct {
		Jobs []fire
		Next string `json:"next_cursor"`
	}
	if err := json.Unmarshal(body, &page); err != nil || page.Next != "" {
		t.Fatalf("not the whole list: %v: %s", err, body)
	}
	for _, f := range page.Jobs {
		if f.Schedule == name {
			all = append(all, f)
		}
	}
	return all
}

// awaitFires waits until a schedule has made so many jobs.
func (h *house) awaitFires(name string, n int) (all []fire) {
	h.t.Helper()
	waitUntil(h.t, func() bool { all = h.fires(name); return len(all) >= n })
	return all
}

// checkGrid checks that a schedule's times are on its grid, one after the other,
// and none was fired before it came.
func checkGrid(t *testing.T, e *timetable, all []fire, every time.Duration) {
	t.Helper()
	for i, f := range all {
		if want := e.CreatedAt.Add(time.Duration(i+1) * every); !f.ScheduledFor.Equal(want) {
			t.Errorf("fire %d is for %s, not for %s", i, f.ScheduledFor, want)
		}
		if f.CreatedAt.Before(*f.ScheduledFor) {
			t.Errorf("fire %d for %s came before its time, at %s", i, f.ScheduledFor, f.CreatedAt)
		}
	}
}

// past waits until a moment has passed, which only the clock shows.
func past(moment time.Time) { <-time.After(time.Until(moment) + time.Millisecond) }

func quiet() setup {
	nothing := jobs.HandlerFunc(func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil })
	return setup{handlers: map[string]jobs.Handler{"tick": nothing}}
}

func TestContractSchedulesFire(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), quiet())
	e := h.addSchedule(`{"name":"every","cron":"@every 1s","type":"tick","overlap":"queue","priority":2,"payload":{"a":1},"tags":["x"]}`)
	clock := h.addSchedule(`{"name":"clock","cron":"* * * * * *","timezone":"America/New_York","type":"tick","overlap":"queue"}`)
	if !e.NextRunAt.Equal(e.CreatedAt.Add(time.Second)) || e.LastRunAt != nil || e.Source != "api" {
		t.Errorf("the new schedule is %+v", e)
	}
	var all []fire
	waitUntil(t, func() bool { // a machine that has much to do may be late, but not always
		all = h.fires("every")
		return len(all) >= 4 && slices.ContainsFunc(all, func(f fire) bool { return f.CreatedAt.Sub(*f.ScheduledFor) <= 50*time.Millisecond })
	})
	checkGrid(t, e, all, time.Second)
	for _, f := range all {
		if f.Priority != 2 {
			t.Errorf("its job has priority %d", f.Priority)
		}
	}
	for i, f := range h.awaitFires("clock", 3) {
		if want := clock.CreatedAt.Truncate(time.Second).Add(time.Duration(i+1) * time.Second); !f.ScheduledFor.Equal(want) {
			t.Errorf("fire %d is for %s, not for %s", i, f.ScheduledFor, want)
		}
	}
	h.await(all[0].ID, "completed")

	r := h.do(http.MethodPost, "/schedules/every/pause", "")
	if e = readTimetable(t, r.body); r.code != http.StatusOK || !e.Paused || e.NextRunAt != nil || e.LastRunAt == nil || e.LastJobID == "" {
		t.Errorf("paused, it is %s", r.body)
	}
	n := len(h.fires("every"))
	r = h.do(http.MethodPost, "/schedules/every/run", "")
	j := readJob(t, r.body)
	if r.code != http.StatusAccepted || r.header.Get("Location") != "/jobs/"+j.ID || string(j.Payload) != `{"a":1}` {
		t.Errorf("a run by hand is answered with %d: %s", r.code, r.body)
	}
	h.await(j.ID, "completed")
	if e = h.timetable("every"); e.LastJobID != j.ID {
		t.Errorf("after a run by hand it is %+v", e)
	}
	past(time.Now().Add(2 * time.Second))
	all = h.fires("every")
	if len(all) != n+1 || all[n].ScheduledFor != nil {
		t.Errorf("a paused schedule made %d jobs beside the one by hand: %+v", len(all)-n-1, all[n:])
	}
	resumed := time.Now()
	if r = h.do(http.MethodPost, "/schedules/every/resume", ""); r.code != http.StatusOK {
		t.Errorf("resume is answered with %d: %s", r.code, r.body)
	}
	all = h.awaitFires("every", n+2)
	if next := all[n+1].ScheduledFor; next.Before(resumed) {
		t.Errorf("it caught up %s, which passed while it was paused", next)
	}
	if r = h.do(http.MethodDelete, "/schedules/every", ""); r.code != http.StatusNoContent {
		t.Errorf("delete is answered with %d: %s", r.code, r.body)
	}
	n = len(h.fires("every"))
	past(time.Now().Add(1500 * time.Millisecond))
	if all = h.fires("every"); len(all) != n {
		t.Errorf("a deleted schedule made %+v", all[n:])
	}
	h.do(http.MethodGet, "/schedules/every", "").wantProblem(t, 404, "not_found")
}

// A schedule's job gets in past the bound of the queue, but not beside its last one
// unless the schedule allows that.
func TestContractSchedulesOverlap(t *testing.T) {
	t.Parallel()
	p := newPuppet()
	h := open(t, t.TempDir(), setup{
		handlers: map[string]jobs.Handler{"play": p},
		change:   func(c *config.Config) { c.Worker.QueueSize, c.Worker.MaxWorkers = 3, 10 },
	})
	h.addSchedule(`{"name":"skip","every":"1s","type":"play"}`)
	first := p.next(t)
	h.addSchedule(`{"name":"queue","every":"1s","type":"play","overlap":"queue"}`)
	others := []*play{p.next(t), p.next(t), p.next(t)}
	waitUntil(t, func() bool { return h.timetable("skip").Skipped >= 2 })
	if all := h.fires("skip"); len(all) != 1 || all[0].ID != first.id() {
		t.Errorf("beside a running job it made %+v", all)
	}
	h.do(http.MethodPost, "/jobs", `{"type":"play"}`).wantProblem(t, 429, "queue_full")
	first.finish()
	h.awaitFires("skip", 2)
	if n := h.timetable("queue").Skipped; n != 0 {
		t.Errorf("%d times of the queuing one were skipped", n)
	}
	for _, name := range []string{"skip", "queue"} {
		h.do(http.MethodDelete, "/schedules/"+name, "")
	}
	for _, pl := range others {
		pl.finish()
	}
	waitUntil(t, func() bool {
		select {
		case pl := <-p.stage:
			pl.finish()
		default:
		}
		s := h.stats()
		return s.QueuedJobs+s.ActiveWorkers == 0
	})
}

func TestContractSchedulesAfterADowntime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir, quiet())
	one := h.addSchedule(`{"name":"one","every":"1s","type":"tick","overlap":"queue"}`)
	h.addSchedule(`{"name":"none","every":"1s","type":"tick","overlap":"queue","catch_up":"none"}`)
	h.addSchedule(`{"name":"never","every":"1s","type":"tick","paused":true}`)
	h.awaitFires("none", 1)
	h.close()
	past(time.Now().Add(3 * time.Second))
	up := time.Now()
	h = open(t, dir, quiet())
	ready := time.Now()
	all := h.awaitFires("one", 4)
	before := 0
	for before < len(all) && all[before].CreatedAt.Before(up) {
		before++
	}
	checkGrid(t, one, all[:before], time.Second)
	waitUntil(t, func() bool { all = h.fires("one"); return len(all) >= before+3 })
	// The last time before the runner began, somewhere between up and ready, is
	// caught up, and those after it come one by one.
	first := *all[before].ScheduledFor
	if first.Before(up.Add(-time.Second)) || first.After(ready) {
		t.Errorf("started at %s and ready at %s it caught up %s", up, ready, first)
	}
	for i, f := range all[before:] {
		if want := first.Add(time.Duration(i) * time.Second); !f.ScheduledFor.Equal(want) {
			t.Errorf("fire %d after the start is for %s, not for %s", i, f.ScheduledFor, want)
		}
	}
	for _, f := range h.awaitFires("none", 3) {
		if f.CreatedAt.After(up) && f.ScheduledFor.Before(up) {
			t.Errorf("without catching up it fired %s at %s", f.ScheduledFor, f.CreatedAt)
		}
	}
	if e := h.timetable("never"); !e.Paused || len(h.fires("never")) != 0 {
		t.Errorf("the paused one is %+v", e)
	}
}

func TestContractSchedulesOfTheConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	parse := func(body string) schedule.Spec {
		s, err := schedule.ParseSpec([]byte(body))
		mustDo(t, err)
		return *s
	}
	with := func(specs ...schedule.Spec) setup {
		s := quiet()
		s.change = func(c *config.Config) { c.Schedules = specs }
		return s
	}
	fixed, theirs := parse(`{"name":"fixed","every":"1h","type":"tick"}`), parse(`{"name":"both","cron":"@daily","type":"tick"}`)
	h := open(t, dir, with(fixed))
	h.addSchedule(`{"name":"both","every":"1h","type":"tick"}`)
	for _, r := range []*reply{
		h.do(http.MethodPost, "/schedules", `{"name":"fixed","every":"2h","type":"tick"}`),
		h.do(http.MethodPut, "/schedules/fixed", `{"every":"2h","type":"tick"}`),
		h.do(http.MethodDelete, "/schedules/fixed", ""),
		h.do(http.MethodPost, "/schedules/fixed/pause", ""),
	} {
		if p := r.wantProblem(t, 409, "conflict"); !strings.Contains(p.Detail, "configuration") {
			t.Errorf("it says only %q", p.Detail)
		}
	}
	r := h.do(http.MethodPost, "/schedules/fixed/run", "")
	j := readJob(t, r.body)
	if r.code != http.StatusAccepted {
		t.Errorf("a run by hand is answered with %d: %s", r.code, r.body)
	}
	before := h.timetable("fixed")
	if before.Source != "config" || before.LastJobID != j.ID {
		t.Errorf("it is %+v", before)
	}
	h.close()

	h = open(t, dir, with(fixed, theirs))
	after := h.timetable("fixed")
	if after.LastJobID != before.LastJobID || !after.NextRunAt.Equal(*before.NextRunAt) {
		t.Errorf("after a restart it is %+v, before it was %+v", after, before)
	}
	if e := h.timetable("both"); e.Source != "config" || e.Cron != "@daily" || !strings.Contains(h.log.String(), "replaces one that was made by a request") {
		t.Errorf("the configuration did not win: %+v\n%s", e, h.log)
	}
	h.close()

	h = open(t, dir, with(theirs))
	h.do(http.MethodGet, "/schedules/fixed", "").wantProblem(t, 404, "not_found")
	h.timetable("both")
}

func TestContractSchedulesRefused(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), quiet())
	for body, pointer := range map[string]string{
		`{"name":"a","type":"tick"}`:                                                 "/cron",
		`{"name":"a","type":"tick","cron":"@daily","every":"1h"}`:                    "/every",
		`{"name":"a","type":"tick","cron":"0 0 30 2 *"}`:                             "/cron",
		`{"name":"a","type":"tick","cron":"@daily","timezone":"Middle-earth/Shire"}`: "/timezone",
		`{"name":"a","type":"tick","every":"500ms"}`:                                 "/every",
		`{"name":"a/b","type":"tick","every":"1h"}`:                                  "/name",
		`{"name":"a","type":"email","every":"1h","payload":{}}`:                      "/payload/to",
		`{"name":"a","type":"email","every":"1h","delay":5}`:                         "/delay",
	} {
		p := h.do(http.MethodPost, "/schedules", body).wantProblem(t, 422, "invalid_request")
		found := false
		for _, at := range p.pointers() {
			found = found || at == pointer
		}
		if !found {
			t.Errorf("%s: wrong is said to be %v", body, p.pointers())
		}
	}
	h.do(http.MethodPost, "/schedules", `{"name":"a","type":"fax","every":"1h"}`).wantProblem(t, 422, "unknown_type")
	if r := h.do(http.MethodGet, "/schedules", ""); r.code != http.StatusOK || strings.TrimSpace(string(r.body)) != `{"schedules":[]}` {
		t.Errorf("something was kept: %s", r.body)
	}
}

// A process that is killed at any moment fires no time twice, and none that it
// lived through is left out.
func TestContractSchedulesSurviveKills(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it kills a process several times")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	c := startChild(t, dir)
	ask := func(method, path, body string) []byte {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, c.rest+path, strings.NewReader(body))
		mustDo(t, err)
		resp, err := http.DefaultClient.Do(req)
		mustDo(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		mustDo(t, err)
		if resp.StatusCode >= 300 {
			t.Fatalf("%s %s is answered with %d: %s", method, path, resp.StatusCode, b)
		}
		return b
	}
	e := readTimetable(t, ask(http.MethodPost, "/schedules", `{"name":"tick","every":"1s","type":"quick","overlap":"queue"}`))
	type life struct{ from, to time.Time }
	lives := []life{{from: e.CreatedAt}}
	for range 4 {
		// right at a fire, where it hurts most: from just before to just after
		past(time.Now().Add(time.Second))
		next := e.CreatedAt.Add(time.Since(e.CreatedAt).Truncate(time.Second) + time.Second)
		past(next.Add(time.Duration(rng.IntN(30)-5) * time.Millisecond))
		c.kill()
		lives[len(lives)-1].to = time.Now()
		c = startChild(t, dir)
		lives = append(lives, life{from: time.Now()})
	}
	var all []fire
	waitUntil(t, func() bool {
		all = firesIn(t, "tick", ask(http.MethodGet, "/jobs?order=asc&limit=500&status=completed", ""))
		return len(all) > 0 && all[len(all)-1].ScheduledFor.After(lives[len(lives)-1].from.Add(time.Second))
	})
	lives[len(lives)-1].to = *all[len(all)-1].ScheduledFor
	fired := make(map[int64]bool)
	for _, f := range all {
		if fired[f.ScheduledFor.UnixNano()] {
			t.Errorf("%s was fired twice", f.ScheduledFor)
		}
		fired[f.ScheduledFor.UnixNano()] = true
		if f.CreatedAt.Before(*f.ScheduledFor) {
			t.Errorf("%s was fired before its time, at %s", f.ScheduledFor, f.CreatedAt)
		}
	}
	// Times near a kill may have been missed, and are caught up only if no later
	// one was missed, too.
	for _, l := range lives {
		for x := e.CreatedAt.Add(time.Second); x.Before(l.to.Add(-500 * time.Millisecond)); x = x.Add(time.Second) {
			if x.After(l.from) && !fired[x.UnixNano()] {
				t.Errorf("%s was not fired, but the server lived from %s to %s", x, l.from, l.to)
			}
		}
	}
	c.kill()
}
