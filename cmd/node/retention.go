package node

import (
	"context"
	"time"

	"jobstream/jobs"
)

// forgetEvery is how often old idempotency keys are dropped.
const forgetEvery = time.Minute

// forgetTokens drops idempotency keys that are older than they are remembered.
func (n *Core) forgetTokens(ctx context.Context) error {
	tick := time.NewTicker(forgetEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		n.forgetOldTokens(ctx)
	}
}

// forgetOldTokens drops all of them; what fails is tried again at the next tick.
func (n *Core) forgetOldTokens(ctx context.Context) {
	for {
		some, err := n.forgetSomeTokens(ctx)
		if err != nil && ctx.Err() == nil {
			n.log.Warn("old idempotency keys could not be dropped; trying again", "error", err)
		}
		if err != nil || some == 0 {
			return
		}
	}
}

// forgetBatch is how many tokens one transaction drops at most.
const forgetBatch = 10_000

func (n *Core) forgetSomeTokens(ctx context.Context) (int, error) {
	c := jobs.ForgetTokens{Stamp: jobs.By("cleanup"), Most: forgetBatch}
	c.Before = c.At.Add(-jobs.TokenTime)
	oldest, err := n.Store.OldestToken()
	if err != nil || oldest == 0 || oldest >= c.Before {
		return 0, err
	}
	e, err := n.Store.Do(ctx, c)
	return e.Removed, err
}
