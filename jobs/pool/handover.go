package pool

import (
	"context"
	"errors"
	"time"
)

// Lend makes the lease of an execution that runs here; see [jobs.Lender].
func (x *execution) Lend(ctx context.Context) (token string, span time.Duration, err error) {
	if x.lease == nil {
		return "", 0, errors.New("jobs of this type cannot be handed over")
	}
	if err := x.awaitStart(ctx); err != nil {
		return "", 0, err
	}
	p := x.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if x.over.Load() != 0 {
		return "", 0, errors.New("the attempt has ended")
	}
	if x.lease.token == "" {
		p.remote.leases.register(x)
	}
	return x.lease.token, x.lease.span, nil
}

// awaitStart returns when the start is committed.
func (x *execution) awaitStart(ctx context.Context) error {
	p := x.p
	w := p.awaited.begin(x)
	defer p.awaited.forget(w)
	if j, err := p.o.Tracker.Find(x.d.Seq); err != nil || j != nil && x.name().Of(j) {
		return err // that of a suspect is
	}
	p.o.Recorder.Record(x.StartEvent())
	t := time.NewTimer(resendAfter)
	defer t.Stop()
	select {
	case <-w.done:
		return nil
	case <-t.C:
		return errors.New("the start of the attempt could not be stored in time")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// handOver lets the lease of an execution begin, in place of its handler, which has
// returned. It returns false if there is no lease, or the execution has ended here.
func (x *execution) handOver() bool {
	p := x.p
	p.mu.Lock()
	ok := x.lease != nil && x.lease.token != "" && x.over.Load() == 0
	if ok {
		now := time.Now()
		p.crew.meter.leave(x.begun, now)
		x.away.Store(true)
		p.remote.leases.begin(x, now)
		if x.d.lane.typ.served(x.d) {
			p.dispatch()
		}
	}
	p.mu.Unlock()
	if !ok {
		return false
	}
	x.log.pause()
	p.leaveSuspects(x.job)
	if ended := x.ended.Load(); ended != nil {
		x.revoke(causeOf(ended)) // it was interrupted as one that runs here
	}
	return true
}
