package pool_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/pool"
)

func TestPausedTypeStartsNothing(t *testing.T) {
	inRig(t, rigOptions{workers: 2, paused: map[string]bool{"b": true}}, func(r *rig) {
		r.submit("b1", "a5", "b1", "a5")
		r.quiet()
		r.want("it holds up no other", r.running(), "2 4")
		r.pool.SetPaused("a", true)
		r.submit("a1")
		r.finish(2, 4)
		r.want("what runs goes on to its end", r.job(2).Status.String(), "completed")
		r.want("both paused", r.running(), "")
		pass(5 * time.Minute)
		r.want("no lease of what is held expires", r.said("expired"), "")
		r.pool.SetPaused("b", false)
		pass(0)
		r.want("at once", r.running(), "1 3")
		r.pool.SetPaused("a", false)
		r.drain()
		if n := len(r.left()); n != 0 {
			t.Errorf("%d are left", n)
		}
	})
}

func TestPausedTypeIsNotPulled(t *testing.T) {
	inRig(t, rigOptions{paused: map[string]bool{"a": true}}, func(r *rig) {
		lane := jobs.Lane{Type: "a", Priority: 3}
		r.mu.Lock()
		asked := r.pulled[lane]
		r.mu.Unlock()
		if asked != 0 {
			t.Errorf("asked for %d though it is paused", asked)
		}
		r.submit("a3")
		r.quiet()
		if n := len(r.out); n != 0 {
			t.Errorf("%d are out", n)
		}
		r.pool.SetPaused("a", false)
		pass(0)
		r.want("then", r.running(), "1")
		r.pool.SetPaused("a", true)
		r.mu.Lock()
		r.pool.PullEnded(lane, r.pulled[lane])
		r.pulled[lane] = 0
		r.mu.Unlock()
		r.submit("a3")
		pass(2 * time.Second) // the pool looks at every lane once a second
		if n := len(r.out); n != 1 {
			t.Errorf("%d are out, want the one that runs", n)
		}
		r.pool.SetPaused("unknown", true)
	})
}

// TestPausedWhileAWorkerTakesTheJob puts the job back in its place.
func TestPausedWhileAWorkerTakesTheJob(t *testing.T) {
	inRig(t, rigOptions{workers: 2}, func(r *rig) {
		r.mu.Lock()
		r.onFind = func(seq uint64) {
			if seq <= 2 {
				r.pool.SetPaused("a", true)
			}
		}
		r.mu.Unlock()
		r.submit("a3", "a3", "a3", "b5")
		r.quiet()
		r.want("running", r.running(), "4")
		r.want("calls", r.said(), "")
		r.mu.Lock()
		r.onFind = nil
		r.mu.Unlock()
		r.finish(4)
		r.pool.SetPaused("a", false)
		r.quiet()
		r.want("then the first two", r.running(), "1 2")
	})
}

// TestPausedWhileAWorkerTakesTheOnlyJob of a lane: the pool looks at the lane again,
// although it was empty meanwhile.
func TestPausedWhileAWorkerTakesTheOnlyJob(t *testing.T) {
	inRig(t, rigOptions{workers: 2}, func(r *rig) {
		r.mu.Lock()
		r.onFind = func(uint64) { r.pool.SetPaused("a", true) }
		r.mu.Unlock()
		r.submit("a3")
		r.quiet()
		r.want("while it is paused", r.running(), "")
		r.mu.Lock()
		r.onFind = nil
		r.mu.Unlock()
		r.pool.SetPaused("a", false)
		r.quiet()
		r.want("afterwards", r.running(), "1")
	})
}

func TestPausedTypeDoesNotMakeOthersWaitForADelivery(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.submit("a5")
		r.quiet()
		r.submit("a5")
		r.quiet()
		expected := &jobs.Commit{Positions: jobs.Positions{Jobs: 10}, Changes: []jobs.Change{{After: &jobs.Job{Seq: 10, Type: "b", Priority: 1, Status: jobs.Pending}}}}
		r.pool.Committed(expected)
		r.pool.SetPaused("b", true)
		r.finish(1)
		r.want("running", r.running(), "2")
	})
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.submit("a5")
		r.quiet()
		r.submit("a5")
		r.quiet()
		r.pool.Committed(&jobs.Commit{Positions: jobs.Positions{Jobs: 10}, Changes: []jobs.Change{{After: &jobs.Job{Seq: 10, Type: "b", Priority: 1, Status: jobs.Pending}}}})
		r.finish(1)
		r.want("it waits for the better one", r.running(), "")
		r.pool.SetPaused("b", true)
		pass(0)
		r.want("but not when that is paused", r.running(), "2")
		pass(time.Second)
		r.submit("a5")
		r.pool.SetPaused("b", false)
		r.finish(2)
		r.want("and again after the pause", r.running(), "")
		pass(100 * time.Millisecond)
		r.want("for a while", r.running(), "3")
	})
}

func TestSuspectsOfAPausedTypeHoldUpNoOther(t *testing.T) {
	lost := func(n int) func(*jobs.Job) { return func(j *jobs.Job) { j.Lost = n } }
	inRig(t, rigOptions{workers: 8}, func(r *rig) {
		r.preset("a3", lost(2))
		r.quiet()
		r.preset("b3", lost(2))
		r.quiet()
		r.preset("a3", lost(2))
		r.preset("a3", lost(1))
		r.quiet()
		r.want("the first", r.running(), "1")
		r.pool.SetPaused("b", true)
		r.finish(1)
		r.want("the next of the other type", r.running(), "3")
		r.finish(3)
		r.want("and the last", r.running(), "4")
		r.pool.SetPaused("b", false)
		r.quiet()
		r.want("one that must run alone waits for it", r.running(), "4")
		r.finish(4)
		r.want("at last", r.running(), "2")
	})
}

func TestStopWhilePaused(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.submit("a3", "a3", "a3")
		r.quiet()
		r.pool.SetPaused("a", true)
		r.finish(1, 2) // shut wants the pool to stop with nothing left
	})
}

func limited(name, rate string, burst int) *jobs.Type {
	ty := typ(name)
	rt, err := jobs.ParseRate(rate)
	if err != nil {
		panic(err)
	}
	rt.Burst = burst
	ty.Rate = rt
	return ty
}

func TestRate(t *testing.T) {
	tests := []struct {
		rate  string
		burst int
		want  string // when the first ones start, in ms
	}{
		{rate: "10/s", burst: 1, want: "0 100 200 300 400"},
		{rate: "10/s", burst: 3, want: "0 0 0 100 200"},
		{rate: "2/s", want: "0 0 500 1000 1500"},
		{rate: "3/s", burst: 1, want: "0 333.333334 666.666668 1000.000002 1333.333336"},
		{rate: "1/m", want: "0 60000 120000 180000 240000"},
		{rate: "10/30s", burst: 2, want: "0 0 3000 6000 9000"},
		{rate: "0.5/s", want: "0 2000 4000 6000 8000"},
		{rate: "1000/s", burst: 1, want: "0 1 2 3 4"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s burst %d", tt.rate, tt.burst), func(t *testing.T) {
			inRig(t, rigOptions{workers: 20, types: []*jobs.Type{limited("a", tt.rate, tt.burst), typ("b")}}, func(r *rig) {
				pass(time.Hour) // a lull fills the bucket no further than the burst
				begin := time.Now()
				for range 5 {
					r.submit("a3")
				}
				r.submit("b5")
				pass(5 * time.Minute)
				r.gate.mu.Lock()
				var at []string
				for i, s := range r.gate.order {
					if strings.HasPrefix(s, "a") {
						at = append(at, fmt.Sprint(float64(r.gate.at[i].Sub(begin))/float64(time.Millisecond)))
					}
				}
				r.gate.mu.Unlock()
				r.want("starts", strings.Join(at, " "), tt.want)
				if !strings.HasPrefix(r.begun(), "a3/1 b") && !strings.Contains(r.begun(), "b5/6 a") {
					t.Errorf("the other type had to wait: %s", r.begun())
				}
			})
		})
	}
}

func TestRateIsThatOfAllPriorities(t *testing.T) {
	inRig(t, rigOptions{workers: 5, types: []*jobs.Type{limited("a", "10/s", 1)}}, func(r *rig) {
		r.submit("a5", "a5")
		pass(50 * time.Millisecond)
		r.submit("a3", "a1", "a2")
		pass(time.Second)
		r.want("the best first, when there is a token", r.begun(), "a5/1 a1/4 a2/5 a3/3 a5/2")
	})
}

func TestTokensAreForStarts(t *testing.T) {
	inRig(t, rigOptions{workers: 2, types: []*jobs.Type{limited("a", "1/m", 1)}}, func(r *rig) {
		r.preset("a3", func(j *jobs.Job) { j.Status = jobs.Cancelled })
		r.preset("a3", func(j *jobs.Job) { j.Place = jobs.Held })
		r.preset("a3", func(j *jobs.Job) { j.Terms = &jobs.Terms{ExpiresAt: 1} })
		next := r.submit("a3")
		r.quiet()
		r.want("running", r.running(), fmt.Sprint(next))
	})
}

func TestKeyGuard(t *testing.T) {
	a := typ("a")
	a.ConcurrencyPerKey = 2
	key := func(k string) func(*jobs.Message) { return terms(jobs.Terms{ConcurrencyKey: k}) }
	inRig(t, rigOptions{workers: 8, types: []*jobs.Type{a, typ("b")}}, func(r *rig) {
		r.gate.deaf = true
		for range 2 {
			r.submitWith("a3", key("x"))
		}
		r.submitWith("b3", key("x"))
		r.quiet()
		r.want("two of a, and one of b", r.running(), "1 2 3")
		// The tracker lets the next in, as it knows of the end; the handlers go on.
		r.cancel(1, "by hand")
		r.submitWith("a3", key("x"))
		r.submitWith("a3", key("y"))
		r.submitWith("b3", key("x"))
		r.quiet()
		r.want("only other keys", r.running(), "1 2 3 5")
		r.want("calls", r.saidSorted(), "nak 4 100ms, nak 6 100ms")
		pass(980 * time.Millisecond)
		r.want("while it may still be there", r.running(), "1 2 3 5")
		pass(120 * time.Millisecond)
		r.want("when it is given up", r.running(), "1 2 3 4 5")
		r.gate.mu.Lock()
		r.gate.running[1].end <- verdict{}
		r.gate.mu.Unlock()
		r.finish(3)
		pass(100 * time.Millisecond)
		r.want("the other type's", r.running(), "2 4 5 6")
		r.drain()
	})
}

func TestKeyIsFreeAfterEveryEnd(t *testing.T) {
	ends := map[string]func(*rig, uint64){
		"success": func(r *rig, seq uint64) { r.finish(seq) },
		"failure": func(r *rig, seq uint64) { r.end(verdict{err: jobs.Permanentf("no")}, seq) },
		"panic":   func(r *rig, seq uint64) { r.end(verdict{panics: true}, seq) },
		"snooze":  func(r *rig, seq uint64) { r.end(verdict{err: jobs.Snooze(time.Hour, "")}, seq) },
		"cancel":  func(r *rig, seq uint64) { r.cancel(seq, "by hand") },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			inRig(t, rigOptions{}, func(r *rig) {
				for seq := uint64(1); seq <= 3; seq++ {
					r.submitWith("a3", terms(jobs.Terms{ConcurrencyKey: "k"}))
					r.quiet()
					r.want("running", r.running(), fmt.Sprint(seq))
					end(r, seq)
				}
			})
		})
	}
}

// TestParkedSuspectHasNoKey: it does not run, so it must not stop others of its key.
func TestParkedSuspectHasNoKey(t *testing.T) {
	inRig(t, rigOptions{workers: 4}, func(r *rig) {
		r.preset("a3", func(j *jobs.Job) { j.Lost = 2 })
		r.quiet()
		r.preset("a3", func(j *jobs.Job) { j.Lost, j.Terms = 2, &jobs.Terms{ConcurrencyKey: "k"} })
		r.quiet()
		r.submitWith("a3", terms(jobs.Terms{ConcurrencyKey: "k"}))
		r.quiet()
		r.want("running", r.running(), "1 3")
		r.finish(3)
		r.finish(1)
		r.want("then", r.running(), "2")
	})
}

// TestPutBackKeepsTheOrder of many that several workers took at once.
func TestPutBackKeepsTheOrder(t *testing.T) {
	inRig(t, rigOptions{workers: 8}, func(r *rig) {
		r.mu.Lock()
		r.onFind = func(uint64) { r.pool.SetPaused("a", true) }
		r.mu.Unlock()
		for range 20 {
			r.submit("a3")
		}
		r.quiet()
		r.want("running", r.running(), "")
		r.mu.Lock()
		r.onFind = nil
		r.mu.Unlock()
		one := 1
		r.resize(&jobs.Resize{MaxWorkers: &one})
		r.pool.SetPaused("a", false)
		r.quiet()
		r.drain()
		var want []string
		for i := range 20 {
			want = append(want, fmt.Sprintf("a3/%d", i+1))
		}
		if got := strings.Fields(r.begun()); !slices.Equal(got, want) {
			t.Errorf("order %v", got)
		}
	})
}

// TestGateOfAnotherKind is used like all others: for starts, for the prefetch, and for
// the reason.
func TestGateOfAnotherKind(t *testing.T) {
	inRig(t, rigOptions{workers: 4, idle: true}, func(r *rig) {
		grant := r.pool.AddQuota("a")
		r.pool.Start(0, 0)
		r.submit("a1", "a1", "b5", "a1", "a1")
		r.quiet()
		r.want("it stops its own type only", r.running(), "3")
		if w := r.pool.Waiting(r.job(1), pool.Queueing{}); w == nil || w.Reason != "quota" {
			t.Errorf("the reason is %v", w)
		}
		if _, ok := r.out[1]; ok {
			t.Error("it was fetched though nothing of its type may start")
		}
		grant(2, time.Time{})
		r.quiet()
		r.want("two were granted", r.running(), "1 2 3")
		r.finish(1, 2, 3)
		r.want("used up", r.running(), "")
		grant(2, time.Now().Add(time.Minute))
		r.quiet()
		r.want("not yet", r.running(), "")
		pass(time.Minute)
		r.want("the pool wakes for that", r.running(), "4 5")
		r.drain()
	})
}
