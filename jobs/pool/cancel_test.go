package pool_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

func TestCancelOfARunningJob(t *testing.T) {
	for name, last := range map[string]error{
		"the context's error": nil,
		"an error":            errors.New("interrupted"),
		"a permanent error":   jobs.Permanentf("interrupted"),
		"a snooze":            jobs.Snooze(time.Minute, "later"),
		"no error":            errNone,
	} {
		t.Run(name, func(t *testing.T) {
			inRig(t, rigOptions{workers: 1}, func(r *rig) {
				r.gate.last = last
				r.submit("a3", "a3")
				r.quiet()
				r.cancel(1, "cancelled by hand")
				r.want("what the handler heard", strings.Join(r.gate.ended, ""), "1 the job was cancelled")
				r.want("record", jobstest.Brief(r.job(1)), "cancelled 1/0 cancelled by hand")
				r.want("events", r.log(1), "started cancelled")
				r.want("calls", r.said(), "ack 1")
				r.want("the worker goes on", r.running(), "2")
				if e := r.appended[1]; e.Error != "cancelled by hand" || e.Run != 1 || e.Attempt != 1 {
					t.Errorf("the outcome is %+v", e)
				}
			})
		})
	}
}

func TestCancelOfAHandlerThatIgnoresIt(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.gate.deaf = true
		r.submit("a3", "a3")
		r.quiet()
		p := r.passage(1)
		r.cancel(1, "by hand")
		pass(900 * time.Millisecond)
		r.want("at first it has its worker", r.running(), "1")
		pass(100 * time.Millisecond)
		r.want("then it is given up", r.running(), "1 2")
		r.want("calls", r.said(), "ack 1")
		p.task.Progress(99, "still here")
		p.end <- verdict{result: jobs.Result{Value: "late"}}
		r.quiet()
		r.want("and what it says is ignored", jobstest.Brief(r.job(1)), "cancelled 1/0 by hand")
		r.want("events", r.log(1), "started cancelled")
		if w := r.pool.Workers(); w.Active != 1 {
			t.Errorf("%d workers are active", w.Active)
		}
	})
}

// TestCancelOfAWaitingJob never runs it, wherever its message is.
func TestCancelOfAWaitingJob(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.submit("a3", "a3", "a3")
		r.quiet()
		r.cancel(2, "by hand")
		r.finish(1)
		r.want("begun", r.begun(), "a3/1 a3/3")
		r.want("calls", r.saidSorted(), "ack 1, ack 2")
	})
}

// TestCancelWhileAWorkerTakesTheJob: whenever the cancellation comes, the handler is
// not called, or is interrupted.
func TestCancelWhileAWorkerTakesTheJob(t *testing.T) {
	for name, job := range map[string]func(*jobs.Job){
		"a plain job":    func(*jobs.Job) {},
		"a suspect":      func(j *jobs.Job) { j.Lost = 1 },
		"one with a key": func(j *jobs.Job) { j.Terms = &jobs.Terms{ConcurrencyKey: "k"} },
	} {
		t.Run(name, func(t *testing.T) {
			inRig(t, rigOptions{workers: 1}, func(r *rig) {
				once := false
				r.mu.Lock()
				r.onFind = func(seq uint64) {
					if !once && seq == 1 {
						once = true
						// The lookup has found it pending; now that is over.
						r.change(1, func(j *jobs.Job) { j.Cancel(jobs.Now(), "by hand") })
					}
				}
				r.mu.Unlock()
				r.preset("a3", job)
				r.quiet()
				r.want("begun", r.begun(), "")
				r.want("record", jobstest.Brief(r.job(1)), "cancelled 0/0 by hand")
				r.want("calls", r.said(), "ack 1")
				r.submit("a3")
				r.quiet()
				r.want("the next", r.running(), "2")
			})
		})
	}
}

// TestCancelBetweenTheSecondLookupAndTheStart of a job that was published again.
func TestCancelBetweenTheSecondLookupAndTheStart(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.preset("a3", func(j *jobs.Job) { j.Place = jobs.Due })
		r.quiet()
		r.said()
		looked := 0
		r.mu.Lock()
		r.onFind = func(seq uint64) {
			if looked++; looked == 2 {
				r.change(1, func(j *jobs.Job) { j.Cancel(jobs.Now(), "by hand") })
			}
		}
		r.mu.Unlock()
		next := r.publish(1)
		r.quiet()
		if looked != 2 {
			t.Fatalf("it was looked up %d times", looked)
		}
		r.want("begun", r.begun(), "")
		r.want("calls", r.said(), fmt.Sprintf("ack %d", next))
		r.submit("a3")
		r.quiet()
		r.want("the next", r.running(), fmt.Sprint(next+1))
	})
}

func TestCancelWhileTheStartIsStored(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.hold(true)
		r.preset("a3", func(j *jobs.Job) { j.Lost = 2 })
		r.preset("a3", func(j *jobs.Job) { j.Lost = 2 })
		r.pool.Committed(&jobs.Commit{Positions: jobs.Positions{Jobs: 2}})
		r.quiet()
		r.cancel(1, "by hand")
		r.want("calls", r.said(), "ack 1")
		r.hold(false)
		r.quiet()
		r.want("begun", r.begun(), "a3/2")
		r.want("record", jobstest.Brief(r.job(1)), "cancelled 0/0 by hand")
	})
}

func TestCancelOfAParkedSuspect(t *testing.T) {
	inRig(t, rigOptions{workers: 3}, func(r *rig) {
		for range 3 {
			r.preset("a3", func(j *jobs.Job) { j.Lost = 2 })
			r.quiet()
		}
		r.want("running", r.running(), "1")
		r.cancel(2, "by hand")
		r.finish(1)
		r.quiet()
		r.want("begun", r.begun(), "a3/1 a3/3")
	})
}

func TestCancelAtTheVeryEnd(t *testing.T) {
	for name, end := range map[string]verdict{
		"success": {result: jobs.Result{Value: "late"}},
		"failure": {err: errors.New("no luck")},
		"snooze":  {err: jobs.Snooze(time.Second, "later")},
	} {
		t.Run(name, func(t *testing.T) {
			inRig(t, rigOptions{workers: 1}, func(r *rig) {
				r.submit("a3")
				r.quiet()
				r.hold(true)
				r.end(end, 1) // recorded, but the cancel is stored first
				r.cancel(1, "by hand")
				r.hold(false)
				r.quiet()
				pass(2 * time.Second)
				r.want("record", jobstest.Brief(r.job(1)), "cancelled 1/0 by hand")
				if n := len(r.left()); n != 0 {
					t.Errorf("%d messages are left; calls: %s", n, r.said())
				}
				r.want("begun", r.begun(), "a3/1")
			})
		})
	}
}

// TestOutcomeOfAnEarlierRun: the job was cancelled and retried, while the handler of
// its first run still returns.
func TestOutcomeOfAnEarlierRun(t *testing.T) {
	inRig(t, rigOptions{workers: 2}, func(r *rig) {
		r.gate.deaf = true
		r.submit("a3")
		r.quiet()
		old := r.passage(1)
		r.cancel(1, "by hand")
		r.change(1, func(j *jobs.Job) { j.Rerun(jobs.Now()) })
		next := r.publish(1)
		r.quiet()
		r.want("not beside itself", r.running(), "1")
		r.said()
		old.end <- verdict{result: jobs.Result{Value: "of the first run"}}
		r.quiet()
		r.want("the first run is settled", r.said(), "ack 1")
		r.want("record", jobstest.Brief(r.job(1)), "pending 0/0")
		pass(time.Second)
		r.want("the second runs", r.running(), fmt.Sprint(next))
		r.end(verdict{result: jobs.Result{Value: "second"}}, next)
		if j := r.job(1); j.Run != 2 || string(j.Result) != `"second"` || j.Status != jobs.Completed {
			t.Errorf("run %d: %s, %s", j.Run, jobstest.Brief(j), j.Result)
		}
	})
}

// TestJobThatEndsElsewhere: the tracker ended it by its deadline before it knew of its
// start.
func TestJobThatEndsElsewhere(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		at := in(time.Second)
		r.submitWith("a3", terms(jobs.Terms{Deadline: at}))
		r.quiet()
		r.change(1, func(j *jobs.Job) {
			j.Status = jobs.Pending
			if !j.Expire(at) {
				t.Error("it has not expired")
			}
		})
		r.quiet()
		r.want("what the handler heard", strings.Join(r.gate.ended, ""), "1 deadline exceeded")
		r.want("events", r.log(1), "started failed")
		r.want("calls", r.said(), "ack 1")
	})
}

func TestCancelDuringAStop(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		done := make(chan error, 1)
		go func() { done <- r.pool.Stop(context.Background()) }()
		r.quiet()
		r.cancel(1, "by hand")
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.want("record", jobstest.Brief(r.job(1)), "cancelled 1/0 by hand")
		r.want("calls", r.said(), "ack 1")
	})
}
