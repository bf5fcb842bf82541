package pool

import (
	"context"
	"fmt"
	"time"

	"jobstream/jobs"
)

// Stop starts no more jobs, gives back those that have not started, and waits for the
// running ones until ctx ends. Then it cancels the remaining handlers' contexts with
// [jobs.ErrShutdown]. Their jobs go back to the queue and use up no attempt. Leases stay:
// their workers are elsewhere, and the next pool takes them over. Stop returns when the
// tracker has committed all that, so the projector must still run. The error says what
// did not get that far.
func (p *Pool) Stop(ctx context.Context) error {
	p.halt()
	p.await(ctx, func() bool { return p.crew.running == 0 })
	p.kill()
	settled, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*p.longestGrace()+resendAfter)
	defer cancel()
	p.await(settled, func() bool { return p.crew.running == 0 && len(p.supply.leased) == p.remote.leases.living })
	return p.closed()
}

// Break is Stop for a pool whose results can no longer be stored. It cancels handlers'
// contexts at once, and returns when they have returned or were given up. The tracker
// may still have their jobs as running.
func (p *Pool) Break() {
	p.halt()
	p.kill()
	ended, cancel := context.WithTimeout(context.Background(), 2*p.longestGrace())
	defer cancel()
	p.await(ended, func() bool { return p.crew.running == 0 })
	_ = p.closed() // some outcomes are never stored
}

// longestGrace is the time after which every handler has returned or is given up.
func (p *Pool) longestGrace() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	longest := jobs.DefaultGrace
	for _, t := range p.types {
		longest = max(longest, t.GraceOrDefault())
	}
	for _, x := range p.claims.running() { // their types may have changed since
		longest = max(longest, x.typ.GraceOrDefault())
	}
	return longest
}

// halt starts no more jobs, and gives back those that have not started.
func (p *Pool) halt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopping {
		close(p.crew.next)
	}
	p.stopping, p.supply.open = true, false
	for _, d := range p.choice.clear() {
		p.release(d)
	}
	for _, d := range p.suspects.clear() {
		p.release(d)
	}
	p.remote.halt()
}

// kill interrupts all handlers.
func (p *Pool) kill() {
	p.mu.Lock()
	p.claims.killed = true
	left := p.claims.running()
	p.mu.Unlock()
	for _, x := range left {
		x.interrupt(jobs.ErrShutdown)
	}
}

// await waits until done is true, which is called with p.mu locked, or ctx ends.
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

// closed stops the alarms, and returns what was not stored.
func (p *Pool) closed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.choice.stop()
	p.claims.limits.stop()
	if running, leased := p.crew.running, len(p.supply.leased)-p.remote.leases.living; running > 0 || leased > 0 {
		return fmt.Errorf("%d jobs still run and %d outcomes are not stored; they will run again", running, leased-running)
	}
	return nil
}
