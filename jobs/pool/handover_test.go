package pool_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

// lender is a handler that hands its work over. It returns when the test lets it.
type lender struct {
	tokens chan string
	back   chan error
}

func (l *lender) Handle(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
	token, span, err := t.Lease(ctx)
	if err != nil {
		return jobs.Result{}, err
	}
	if span != leaseSpan {
		return jobs.Result{}, fmt.Errorf("the lease is for %s", span)
	}
	l.tokens <- token
	select {
	case err = <-l.back:
	case <-ctx.Done():
		err = ctx.Err()
	}
	return jobs.Result{Value: "here"}, err
}

// inLender runs f with a rig of one worker, whose type h hands its work over.
func inLender(t *testing.T, f func(r *rig, l *lender)) {
	t.Helper()
	h := typ("h")
	l := &lender{}
	h.Handler, h.HandsOver = l, true
	inLeases(t, rigOptions{workers: 1, types: []*jobs.Type{h, typ("a")}}, func(r *rig) {
		l.tokens, l.back = make(chan string, 9), make(chan error, 9) // of its bubble
		f(r, l)
	})
}

func TestHandOver(t *testing.T) {
	inLender(t, func(r *rig, l *lender) {
		r.submit("h3")
		token := <-l.tokens
		r.submit("a3")
		r.quiet()
		r.want("before anybody gets it", jobstest.Brief(r.job(1)), "processing 1/0")
		r.want("the worker is busy", r.running(), "")
		l.back <- jobs.ErrHandedOver
		r.quiet()
		r.want("the worker does others", r.running(), "2")
		r.finish(2)
		r.want("record", jobstest.Brief(r.job(1)), "processing 1/0")
		for range 3 {
			pass(20 * time.Second)
			r.want("beat", r.beats("", token), "30s")
		}
		if w := r.pool.Workers(); w.Active != 0 || w.Types["h"].Active != 1 {
			t.Errorf("the pool counts %+v", w)
		}
		r.want("done", r.done(token), "completed")
		r.want("record", jobstest.Brief(r.job(1)), "completed 1/0 100%")
		r.want("queue", r.said("ack"), "ack 2, ack 1")
	})
}

// TestHandOverToABusyTarget: the first job that it takes on lets the others start.
func TestHandOverToABusyTarget(t *testing.T) {
	h := typ("h")
	l := &lender{}
	h.Handler, h.HandsOver = l, true
	inLeases(t, rigOptions{workers: 2, types: []*jobs.Type{h}}, func(r *rig) {
		l.tokens, l.back = make(chan string, 9), make(chan error, 9)
		r.submit("h3")
		first := <-l.tokens
		l.back <- jobs.Busy(time.Minute, "answered 429")
		r.quiet()
		r.submit("h3", "h3", "h3")
		pass(time.Minute)
		second := <-l.tokens
		if len(l.tokens) != 0 {
			t.Error("two are asked at a time")
		}
		l.back <- jobs.ErrHandedOver
		third, fourth := <-l.tokens, <-l.tokens
		l.back <- jobs.ErrHandedOver
		l.back <- jobs.ErrHandedOver
		r.quiet()
		for _, token := range []string{second, third, fourth} {
			r.want("done", r.done(token), "completed")
		}
		if first == second {
			t.Error("the lease is that of the first job")
		}
	})
}

// TestHandOverEndsEarly: whoever gets the lease may be quicker than the handler's return.
func TestHandOverEndsEarly(t *testing.T) {
	inLender(t, func(r *rig, l *lender) {
		r.submit("h3", "h3")
		token := <-l.tokens
		r.want("a beat", r.beats("", token), "30s")
		r.want("done", r.done(token), "completed")
		l.back <- jobs.ErrHandedOver
		second := <-l.tokens
		r.want("record", jobstest.Brief(r.job(1)), "completed 1/0 100%")
		l.back <- nil
		r.quiet()
		r.want("one that was not handed over", string(r.job(2).Result), `"here"`)
		r.want("its token", r.done(second), "completed, repeated")
		if w := r.pool.Workers(); w.Active != 0 || w.Types["h"].Active != 0 {
			t.Errorf("the pool counts %+v", w)
		}
	})
}

// TestHandOverToNobody: it is lost after a lease, and runs here again.
func TestHandOverToNobody(t *testing.T) {
	inLender(t, func(r *rig, l *lender) {
		r.submit("h3")
		first := <-l.tokens
		l.back <- jobs.ErrHandedOver
		pass(leaseSpan + time.Second)
		r.want("record", jobstest.Brief(r.job(1)), "retrying 1/0")
		second := <-l.tokens
		l.back <- jobs.ErrHandedOver
		r.quiet()
		r.want("the first", r.done(first), "lease_lost: processing 1")
		r.want("the second", r.done(second), "completed")
	})
}

func TestHandOverOutlivesTheServer(t *testing.T) {
	for _, how := range []string{"stop", "kill"} {
		t.Run(how, func(t *testing.T) {
			inLender(t, func(r *rig, l *lender) {
				r.submit("h3", "h3")
				token := <-l.tokens
				l.back <- jobs.ErrHandedOver
				here := <-l.tokens // its handler still runs
				r.restart(how)
				r.want("handed over", r.done(token), "completed")
				if how == "stop" {
					r.want("interrupted", r.done(here)[:10], "lease_lost")
					l.back <- nil
					<-l.tokens
				} else {
					r.want("it may have been handed over", r.done(here), "completed")
				}
				r.quiet()
				r.want("record", r.job(2).Status.String(), "completed")
			})
		})
	}
}

// TestHandOverIsCancelled: the work of somebody elsewhere is cancelled, and one that has no
// lease fails.
func TestHandOverIsCancelled(t *testing.T) {
	inLender(t, func(r *rig, l *lender) {
		r.submit("h3", "h3")
		token := <-l.tokens
		l.back <- jobs.ErrHandedOver
		r.quiet()
		r.cancel(1, "no more")
		r.want("beat", r.beats("", token), "30s, cancel 0: no more")
		<-l.tokens
		r.cancel(2, "nor this")
		r.quiet()
		r.want("running", fmt.Sprint(r.pool.Workers().Active), "0")
	})
	plain := typ("p")
	plain.Handler = jobs.HandlerFunc(func(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
		if _, _, err := t.Lease(ctx); err == nil {
			return jobs.Result{}, nil
		}
		return jobs.Result{}, jobs.Permanent(jobs.ErrHandedOver)
	})
	inRig(t, rigOptions{types: []*jobs.Type{plain}}, func(r *rig) {
		r.submit("p3")
		r.quiet()
		r.want("a type that does not hand over", r.job(1).Error, jobs.ErrHandedOver.Error())
	})
}
