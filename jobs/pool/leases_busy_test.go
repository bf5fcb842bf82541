package pool_test

import (
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
	"jobstream/jobs/pool"
)

// TestLeaseOfABusyTarget: what the worker says of its target counts for the whole type, as
// if its handler ran here.
func TestLeaseOfABusyTarget(t *testing.T) {
	inLeases(t, rigOptions{}, func(r *rig) {
		r.submit("x3", "x3", "x3", "y3")
		first := r.next("w", "x")
		e := r.pool.Leases().Release(r.t.Context(), first.Token, &jobs.GiveBack{Delay: time.Minute, Reason: "answered 429", Busy: true})
		r.quiet()
		r.want("the job is put off", ending(e), "scheduled later")
		if w := r.pool.Waiting(r.job(2), pool.Queueing{}); w == nil || w.Reason != jobs.WaitTargetBusy || w.Until == 0 {
			t.Errorf("the next of its type waits for %+v", w)
		}
		r.want("other types go on", seqs(r.now(r.ask("w", 5, time.Second, "x", "y"))), "4")
		waits := r.ask("w", 5, 2*time.Minute-time.Second, "x")
		pass(59 * time.Second)
		r.want("nothing yet", seqs(r.now(waits)), "")
		pass(2 * time.Second)
		one := r.now(waits)
		r.want("then one alone", seqs(one), "2")
		e = r.pool.Leases().Fail(r.t.Context(), one[0].Token, &jobs.Failure{Error: "answered 503", Busy: true})
		r.quiet()
		r.want("a failed attempt", ending(e), "retrying later")
		r.want("record", jobstest.Brief(r.job(2)), "retrying 1/1 answered 503")
		r.want("the type waits again", seqs(r.now(r.ask("w", 5, 500*time.Millisecond, "x"))), "")
		pass(2 * time.Second)
		probe := r.next("w", "x")
		r.want("done", r.done(probe.Token), "completed")
		if w := r.pool.Waiting(r.job(2), pool.Queueing{}); w != nil && w.Reason == jobs.WaitTargetBusy {
			t.Errorf("a success has not opened the type: %+v", w)
		}
	})
}
