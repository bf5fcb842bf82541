package pool

import (
	"context"
	"fmt"
	"time"

	"jobstream/jobs"
)

// Stop ends taking jobs, gives back what has not started, and waits for what
// runs until ctx ends. Handlers that are still at it then have their context
// cancelled with [jobs.ErrShutdown]; their jobs go back to the queue and use up no
// attempt. Stop returns when the tracker has committed all that, so the
// projector must run on meanwhile; the error says what did not get that far.
func (p *Pool) Stop(ctx context.Context) error {
	p.halt()
	p.await(ctx, func() bool { return p.running == 0 })
	p.kill()
	settled, cancel := context.WithTimeout(context.Background(), 2*p.longestGrace()+resendAfter)
	defer cancel()
	p.await(settled, func() bool { return p.running == 0 && len(p.leased) == 0 })
	return p.closed()
}

// Break is Stop where nothing can be stored any more: handlers have their context
// cancelled at once, and it returns when they have, or have been given up. Whatever
// they have done, the tracker may still have their jobs as running.
func (p *Pool) Break() {
	p.halt()
	p.kill()
	ended, cancel := context.WithTimeout(context.Background(), 2*p.longestGrace())
	defer cancel()
	p.await(ended, func() bool { return p.running == 0 })
	_ = p.closed() // of course something is not stored
}

// longestGrace is the time after which every handler has returned or is given up.
func (p *Pool) longestGrace() time.Duration {
	longest := jobs.DefaultGrace
	for _, t := range p.types {
		longest = max(longest, t.GraceOrDefault())
	}
	return longest
}

// halt begins nothing more and gives back what has not started.
func (p *Pool) halt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopping {
		close(p.next)
	}
	p.stopping = true
	for _, l := range p.lanes {
		for _, d := range l.buf {
			p.release(d)
		}
		l.buf = nil
	}
	for _, w := range p.suspects.parked {
		p.release(w.d)
	}
	p.suspects.parked = nil
}

// kill tells all handlers to stop.
func (p *Pool) kill() {
	p.mu.Lock()
	p.killed = true
	var left []*execution
	for _, d := range p.leased {
		if d.exec != nil {
			left = append(left, d.exec)
		}
	}
	p.mu.Unlock()
	for _, x := range left {
		x.interrupt(jobs.ErrShutdown)
	}
}

// await waits until done, which is called with p.mu held, or ctx ends.
func (p *Pool) await(ctx context.Context, done func() bool) {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		p.idle.Broadcast()
		p.mu.Unlock()
	})
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !done() && ctx.Err() == nil {
		p.idle.Wait()
	}
}

// closed stops the clocks, and says what was not stored.
func (p *Pool) closed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.giveUp.Stop()
	p.wake.stop()
	p.limits.stop()
	if p.running > 0 || len(p.leased) > 0 {
		return fmt.Errorf("%d jobs still run and %d outcomes are not stored; they will run again", p.running, len(p.leased)-p.running)
	}
	return nil
}
