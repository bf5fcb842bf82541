package pool_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/pool"
)

// why is what a job waits for: "reason +until detail".
func (r *rig) why(seq uint64, q pool.Queueing) string {
	return describeWait(r.pool.Waiting(r.job(seq), q))
}

func describeWait(w *jobs.Waiting) string {
	if w == nil {
		return "nothing"
	}
	s := w.Reason
	if w.Until != 0 {
		s += " " + w.Until.Sub(jobs.Now()).String()
	}
	if w.Detail != "" {
		s += ": " + w.Detail
	}
	if w.Position > 0 {
		s += fmt.Sprintf(" #%d", w.Position)
	}
	return s
}

func TestWaiting(t *testing.T) {
	capped := typ("capped")
	capped.MaxWorkers = 2
	keyed := typ("keyed")
	keyed.ConcurrencyPerKey = 2
	types := []*jobs.Type{typ("a"), capped, keyed, limited("slow", "1/m", 1), typ("paused"), typ("alone")}
	third := pool.Queueing{Position: 3}
	tests := []struct {
		name string
		busy []string // what runs
		lane string
		job  func(*jobs.Job)
		q    pool.Queueing
		pass time.Duration
		want string
	}{
		{name: "ended", lane: "a3", job: func(j *jobs.Job) { j.Status = jobs.Failed }, want: "nothing"},
		{name: "scheduled", lane: "a3", q: third, job: func(j *jobs.Job) { j.Status, j.Place, j.DueAt = jobs.Scheduled, jobs.Due, in(time.Hour) }, want: "scheduled 1h0m0s"},
		{name: "scheduled, of an unknown type", lane: "unknown3", job: func(j *jobs.Job) { j.Status, j.Place, j.DueAt = jobs.Scheduled, jobs.Due, in(time.Hour) }, want: "scheduled 1h0m0s"},
		{name: "snoozed", lane: "a3", job: func(j *jobs.Job) {
			j.Status, j.Place, j.DueAt, j.Message = jobs.Scheduled, jobs.Due, in(time.Minute), "no file yet"
		}, want: "scheduled 1m0s: no file yet"},
		{name: "backoff", lane: "a3", q: third, job: func(j *jobs.Job) { j.Status, j.DueAt, j.Attempt, j.Failures = jobs.Retrying, in(time.Minute), 1, 1 }, want: "backoff 1m0s: attempt 1 of 4 failed"},
		{name: "backoff of a keyed one", lane: "keyed3", job: func(j *jobs.Job) {
			j.Status, j.Place, j.DueAt, j.Attempt, j.Failures = jobs.Retrying, jobs.Due, in(time.Minute), 1, 1
			j.Terms = &jobs.Terms{ConcurrencyKey: "k"}
		}, want: "backoff 1m0s: attempt 1 of 4 failed"},
		{name: "due, with room", lane: "a3", job: func(j *jobs.Job) { j.Status, j.Place, j.DueAt = jobs.Scheduled, jobs.Due, 1 }, want: "starting: it is being put into the queue"},
		{name: "due, without room", lane: "a3", q: pool.Queueing{Full: true, Position: 9}, job: func(j *jobs.Job) { j.Status, j.Place, j.DueAt = jobs.Scheduled, jobs.Due, 1 }, want: "queue_full: its time has come, but the queue has no room"},
		{name: "to run again", lane: "a3", q: pool.Queueing{Full: true}, job: func(j *jobs.Job) { j.Place = jobs.Due }, want: "starting: it is being put into the queue"},
		{name: "an unknown type", lane: "unknown3", q: third, job: func(j *jobs.Job) { j.Status = jobs.Pending }, want: `no_worker: the type "unknown" is not configured #3`},
		{name: "a paused type", lane: "paused3", q: third, want: `type_paused: the type "paused" is paused #3`},
		{name: "a paused type, held", lane: "paused3", job: func(j *jobs.Job) { j.Place = jobs.Held }, want: `type_paused: the type "paused" is paused`},
		{name: "held by its key", lane: "keyed3", q: third, job: func(j *jobs.Job) { j.Place, j.Terms = jobs.Held, &jobs.Terms{ConcurrencyKey: "acme"} }, want: `key_limit: 2 of 2 jobs with the concurrency key "acme" have their turn`},
		{name: "the type's bound", busy: []string{"capped3", "capped3"}, lane: "capped3", q: third, want: "type_limit: 2 of 2 running #3"},
		{name: "the rate", busy: []string{"slow3"}, lane: "slow3", q: pool.Queueing{Position: 1}, pass: 20 * time.Second, want: "rate_limit 39.99s: at most 1/m may start #1"},
		{name: "the rate, for those before it", busy: []string{"slow3"}, lane: "slow3", q: third, want: "rate_limit 2m59.99s: at most 1/m may start #3"},
		{name: "all busy", busy: []string{"a3", "a3", "a3", "a3"}, lane: "a3", q: third, want: "all_busy: 4 of 4 workers are running #3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inRig(t, rigOptions{workers: 4, types: types, paused: map[string]bool{"paused": true}}, func(r *rig) {
				r.submit(tt.busy...)
				r.quiet()
				if tt.job == nil {
					tt.job = func(*jobs.Job) {}
				}
				seq := r.preset(tt.lane, tt.job)
				pass(tt.pass)
				r.want("it waits for", describeWait(r.pool.Waiting(r.job(seq), tt.q)), tt.want)
			})
		})
	}
}

// TestPauseAll pauses a pool that follows the load. What runs goes on, and nothing else
// starts until it is resumed.
func TestPauseAll(t *testing.T) {
	inRig(t, rigOptions{workers: 4, min: 1, types: []*jobs.Type{typ("a"), typ("paused")}, paused: map[string]bool{"paused": true}}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		r.pool.PauseAll(true)
		r.submit("a1", "paused3")
		r.finish(1)
		pass(time.Second)
		r.want("paused", r.begun(), "a3/1")
		r.want("its size", r.active(), "0/1")
		r.want("a job waits for", r.why(2, pool.Queueing{Position: 1}), "workers_paused: the workers of this server are paused #1")
		r.want("one with another reason besides", r.why(3, pool.Queueing{Position: 1}), `type_paused: the type "paused" is paused #1`)
		r.pool.PauseAll(false)
		r.quiet()
		r.want("resumed", r.begun(), "a3/1 a1/2")
	})
}

func TestWaitingForItsTurn(t *testing.T) {
	inRig(t, rigOptions{workers: 2, unsettled: 1}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		r.want("running", r.why(1, pool.Queueing{}), "nothing")
		r.hold(true)
		r.submit("a3", "a3")
		pass(0)
		r.mu.Lock()
		waiting := jobs.NewJob(r.submitted[1], r.reg.Lookup("a"), true)
		r.mu.Unlock()
		r.want("the second one of the lane", describeWait(r.pool.Waiting(waiting, pool.Queueing{Position: 2})), "queue: 1 are before it in its lane #2")
		r.want("the first one", describeWait(r.pool.Waiting(waiting, pool.Queueing{Position: 1})), "starting #1")
		r.finish(1)
		r.want("behind the tracker", describeWait(r.pool.Waiting(waiting, pool.Queueing{})), "queue: 1 outcomes have to be stored first")
		r.hold(false)
	})
}

func TestWaitingOfOneThatJustStarts(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.submit("a3")
		pass(0) // it runs, but the record of that is held back
		r.want("status", r.job(1).Status.String(), "pending")
		r.want("it waits for", r.why(1, pool.Queueing{Position: 1}), "starting: a worker has it; its record will say so in a moment")
		r.quiet()
		r.want("then", r.why(1, pool.Queueing{}), "nothing")
		r.hold(true)
		r.end(verdict{err: errors.New("no luck")}, 1)
		r.hold(false)
		r.quiet()
		if got := r.why(1, pool.Queueing{}); !strings.HasPrefix(got, "backoff ") {
			t.Errorf("after its failure it waits for %s", got)
		}
	})
}

func TestWaitingOfAParkedSuspect(t *testing.T) {
	inRig(t, rigOptions{workers: 3}, func(r *rig) {
		for range 2 {
			r.preset("a3", func(j *jobs.Job) { j.Lost = 2 })
			r.quiet()
		}
		r.want("it waits for", r.why(2, pool.Queueing{}), "queue: it has lost its worker 2 times, so other such jobs have to end first")
	})
}

func TestWaitingForAKeyWhoseHandlerIsOnItsWayOut(t *testing.T) {
	inRig(t, rigOptions{workers: 3}, func(r *rig) {
		r.gate.deaf = true
		for range 2 {
			r.submitWith("a3", terms(jobs.Terms{ConcurrencyKey: "k"}))
			r.quiet()
			r.cancel(1, "by hand")
		}
		r.want("it waits for", r.why(2, pool.Queueing{}), `key_limit: 1 of 1 jobs with the concurrency key "k" have their turn`)
		pass(2 * time.Second)
		r.gate.mu.Lock()
		r.gate.running[1].end <- verdict{}
		r.gate.mu.Unlock()
	})
}

func TestWaitingWhileStopping(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.submit("a3", "a3")
		r.quiet()
		done := make(chan error)
		go func() { done <- r.pool.Stop(context.Background()) }()
		r.quiet()
		r.want("it waits for", r.why(2, pool.Queueing{}), "no_worker: the server is shutting down")
		r.finish(1)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWaitingJSON(t *testing.T) {
	for want, w := range map[string]jobs.Waiting{
		`{"reason":"starting"}`:                                         {Reason: jobs.WaitStarting},
		`{"reason":"scheduled","until":"1970-01-01T00:00:01Z"}`:         {Reason: jobs.WaitScheduled, Until: jobs.Time(time.Second)},
		`{"reason":"queue","detail":"\"x\" is before it","position":2}`: {Reason: jobs.WaitQueue, Detail: `"x" is before it`, Position: 2},
	} {
		if got := string(w.AppendJSON([]byte("x"))); got != "x"+want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestWaitReasons counts waiting jobs by the reason that each of them has by itself.
func TestWaitReasons(t *testing.T) {
	capped, keyed := typ("capped"), typ("keyed")
	capped.MaxWorkers = 1
	types := []*jobs.Type{typ("a"), capped, keyed, typ("paused")}
	inRig(t, rigOptions{workers: 2, types: types, paused: map[string]bool{"paused": true}}, func(r *rig) {
		r.submit("capped3")
		pass(time.Second)
		waiting := map[string]jobs.Places{
			"a": {5, 0, 0}, "capped": {3, 0, 0}, "keyed": {0, 1, 7}, "paused": {1, 2, 3}, "unknown": {4, 0, 0}, "nothing": {},
		}
		for _, full := range []bool{false, true} {
			got := r.pool.WaitReasons(waiting, full)
			for name, want := range map[string]map[string]int{
				"a": {jobs.WaitStarting: 1, jobs.WaitQueue: 4}, "capped": {jobs.WaitTypeLimit: 3}, "keyed": {jobs.WaitKeyLimit: 7, jobs.WaitStarting: 1},
				"paused": {jobs.WaitTypePaused: 6}, "unknown": {jobs.WaitNoWorker: 4}, "nothing": {},
			} {
				if !maps.Equal(got[name], want) {
					t.Errorf("%s, with a full queue %v: %v, want %v", name, full, got[name], want)
				}
			}
		}
		r.pool.PauseAll(true)
		if got := r.pool.WaitReasons(waiting, false)["a"]; !maps.Equal(got, map[string]int{jobs.WaitWorkersPaused: 5}) {
			t.Errorf("while the pool is paused: %v", got)
		}
	})
}
