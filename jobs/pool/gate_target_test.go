package pool_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/pool"
)

// release publishes jobs that are due, as intake does, and lets what follows happen.
func (r *rig) release(seqs ...uint64) {
	for _, seq := range seqs {
		r.change(seq, func(j *jobs.Job) { j.Place = jobs.InQueue })
		r.publish(seq)
	}
	r.quiet()
}

// starts are the moments at which attempts at jobs of a type began, since the rig's.
func (r *rig) starts(typ string) string {
	r.gate.mu.Lock()
	defer r.gate.mu.Unlock()
	var at []string
	for i, s := range r.gate.order {
		if strings.HasPrefix(s, typ) {
			at = append(at, r.gate.at[i].Sub(r.begin).Round(time.Second).String())
		}
	}
	return strings.Join(at, " ")
}

func TestBusyTargetStopsItsType(t *testing.T) {
	inRig(t, rigOptions{workers: 4}, func(r *rig) {
		r.submit("a3", "a3", "a3", "a3", "a3", "a3")
		r.quiet()
		r.want("running", r.running(), "1 2 3 4")
		busy := time.Now()
		r.end(verdict{err: jobs.Busy(time.Minute, "answered 429")}, 1)
		r.submit("b5")
		r.quiet()
		r.want("others of the type go on, and other types start", r.running(), "2 3 4 7")
		j := r.job(1)
		if j.Status != jobs.Scheduled || j.Failures != 0 || j.Message != "answered 429" || j.DueAt.Sub(jobs.Now()) > time.Minute {
			t.Errorf("the job is %s after %d failures, until %s: %s", j.Status, j.Failures, j.DueAt, j.Message)
		}
		for _, seq := range []uint64{1, 5, 6} {
			w := r.pool.Waiting(r.job(seq), pool.Queueing{Position: 3})
			if w == nil || w.Reason != jobs.WaitTargetBusy || w.Until == 0 || !strings.Contains(w.Detail, "answered 429; jobs of its type wait until 2000-01-01T00:01:00") {
				t.Errorf("job %d waits for %+v", seq, w)
			}
		}
		r.finish(2, 3)
		pass(time.Until(busy.Add(time.Minute - time.Millisecond)))
		r.want("a success of one that ran before does not matter", r.running(), "4 7")
		pass(time.Second)
		r.want("then one", r.running(), "4 5 7")
		if w := r.pool.Waiting(r.job(6), pool.Queueing{}); w == nil || w.Reason != jobs.WaitTargetBusy || w.Until != 0 || !strings.Contains(w.Detail, "one at a time") {
			t.Errorf("the next waits for %+v", w)
		}
		r.finish(4)
		r.want("only one", r.running(), "5 7")
		r.submit("a3", "a3", "a3")
		r.release(1)
		r.end(verdict{err: errors.New("answered 500")}, 5)
		r.want("a failure does not open it", r.running(), "6 7")
		r.cancel(6, "by hand")
		r.want("nor does a cancellation", r.running(), "7 8")
		r.finish(8)
		r.want("a success does", r.running(), "7 9 10 11")
		if a := r.passage(11).task.Attempt; a != 1 {
			t.Errorf("it is attempt %d", a)
		}
		r.drain()
	})
}

// TestBusyTargetOfUnknownDuration is asked after 1 s, and then after twice the time, up
// to 5 min.
func TestBusyTargetOfUnknownDuration(t *testing.T) {
	inRig(t, rigOptions{workers: 3}, func(r *rig) {
		for range 14 {
			r.submit("a3")
		}
		r.quiet()
		r.end(verdict{err: jobs.Busy(0, "answered 503")}, 1)
		r.end(verdict{err: jobs.Busy(0, "answered 503")}, 2, 3) // they began before the pause: it stays short
		for seq := uint64(4); seq <= 13; seq++ {
			pass(6 * time.Minute)
			for r.running() != fmt.Sprint(seq) {
				t.Fatalf("running: %s, want %d", r.running(), seq)
			}
			r.end(verdict{err: jobs.Busy(0, "answered 503")}, seq)
		}
		var pauses []string
		for seq := uint64(4); seq <= 13; seq++ {
			j := r.job(seq)
			pauses = append(pauses, j.DueAt.Sub(j.UpdatedAt).Round(time.Second).String())
		}
		r.want("pauses", strings.Join(pauses, " "), "2s 4s 8s 16s 32s 1m4s 2m8s 4m16s 5m0s 5m0s")
		pass(5 * time.Minute)
		r.finish(14)
		r.submit("a3")
		r.quiet()
		r.end(verdict{err: jobs.Busy(0, "answered 503")}, 15)
		r.want("and from the beginning", r.job(15).DueAt.Sub(r.job(15).UpdatedAt).Round(time.Second).String(), "1s")
	})
}

// TestBusyTargetIsAskedAtTheMoment that it has named, and no earlier.
func TestBusyTargetIsAskedAtTheMoment(t *testing.T) {
	inRig(t, rigOptions{workers: 3}, func(r *rig) {
		r.submit("a3", "a3", "a3", "a3", "a3", "a3")
		r.quiet()
		r.end(verdict{err: jobs.Busy(10*time.Second, "answered 429")}, 1)
		r.end(verdict{err: jobs.Busy(5*time.Second, "answered 429")}, 2)
		r.end(verdict{err: jobs.Busy(20*time.Second, "answered 429")}, 3)
		pass(30 * time.Second)
		r.end(verdict{err: jobs.Busy(time.Second, "answered 429")}, 4)
		pass(time.Minute)
		r.want("starts", r.starts("a"), "0s 0s 0s 20s 31s")
	})
}

// TestBusyTargetDuringALookUp puts a job back that a worker has not begun.
func TestBusyTargetDuringALookUp(t *testing.T) {
	inRig(t, rigOptions{workers: 2}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		r.mu.Lock()
		r.onFind = func(seq uint64) {
			if seq == 2 {
				r.mu.Lock()
				r.onFind = nil
				r.mu.Unlock()
				r.passage(1).end <- verdict{err: jobs.Busy(time.Minute, "answered 429")}
				time.Sleep(time.Millisecond) // of the bubble: until all of that has happened
			}
		}
		r.mu.Unlock()
		r.submit("a3", "a3")
		r.quiet()
		r.want("running", r.running(), "")
		pass(time.Minute)
		r.want("then", r.running(), "2")
		r.finish(2)
		r.want("and the rest", r.running(), "3")
	})
}

// TestBusyTargetOfAFailedAttempt stops the type all the same.
func TestBusyTargetOfAFailedAttempt(t *testing.T) {
	inRig(t, rigOptions{workers: 1}, func(r *rig) {
		r.submit("a3", "a3", "a3")
		r.quiet()
		r.end(verdict{err: jobs.BusyFailed(time.Hour, errors.New("answered 429 for a day"))}, 1)
		r.want("the job", r.job(1).Status.String()+": "+r.job(1).Error, "retrying: answered 429 for a day")
		r.want("running", r.running(), "")
		if w := r.pool.Waiting(r.job(1), pool.Queueing{}); w == nil || w.Reason != jobs.WaitBackoff {
			t.Errorf("it waits for %+v", w)
		}
		pass(time.Hour)
		r.end(verdict{err: jobs.BusyFailed(time.Hour, jobs.Permanentf("answered 429 for good"))}, 2)
		r.want("a permanent one", r.job(2).Status.String()+": "+r.job(2).Error, "failed: answered 429 for good")
		pass(59 * time.Minute)
		r.want("running", r.running(), "")
		pass(time.Minute)
		if r.running() == "" {
			t.Error("nothing runs")
		}
	})
}

func TestStopWhileTheTargetIsBusy(t *testing.T) {
	inRig(t, rigOptions{workers: 2}, func(r *rig) {
		r.submit("a3", "a3", "a3", "a3")
		r.quiet()
		r.end(verdict{err: jobs.Busy(time.Minute, "answered 429")}, 1)
		pass(time.Minute) // shut wants the pool to stop with nothing left
	})
}
