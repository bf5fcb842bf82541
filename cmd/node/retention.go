package node

import (
	"context"
	"time"

	"jobstream/jobs"
)

// forgetEvery is how often old idempotency keys and inputs are dropped.
const forgetEvery = time.Minute

// forget drops old idempotency keys and inputs, every minute until ctx ends.
func (c *core) forget(ctx context.Context) error {
	tick := time.NewTicker(forgetEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		c.forgetOldTokens(ctx)
		c.dropInputs(ctx)
	}
}

// dropInputs removes the files that no job needs any more.
func (c *core) dropInputs(ctx context.Context) {
	dropped, freed, err := c.Inputs.Drop(ctx)
	if err != nil && ctx.Err() == nil {
		c.log.Warn("files that no job needs could not be dropped; trying again", "error", err)
	}
	if dropped > 0 {
		c.log.Info("dropped files that no job has needed for a day", "files", dropped, "bytes", freed)
	}
}

// forgetOldTokens drops all old keys. After an error the next tick goes on.
func (c *core) forgetOldTokens(ctx context.Context) {
	for {
		some, err := c.forgetSomeTokens(ctx)
		if err != nil && ctx.Err() == nil {
			c.log.Warn("old idempotency keys could not be dropped; trying again", "error", err)
		}
		if err != nil || some == 0 {
			return
		}
	}
}

// forgetBatch is how many tokens one transaction drops at most.
const forgetBatch = 10_000

func (c *core) forgetSomeTokens(ctx context.Context) (int, error) {
	old := jobs.ForgetTokens{Stamp: jobs.By("cleanup"), Most: forgetBatch}
	old.Before = old.At.Add(-jobs.TokenTime)
	oldest, err := c.Store.OldestToken()
	if err != nil || oldest == 0 || oldest >= old.Before {
		return 0, err
	}
	e, err := c.Store.Do(ctx, old)
	return e.Removed, err
}

// retentionEvery is how often old jobs are deleted.
const retentionEvery = time.Hour

// startRetention deletes ended jobs that are old enough, at once and then hourly, until
// stop is called.
func (n *Node) startRetention() (stop func()) {
	if n.o.Retention <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.retention(ctx)
	}()
	return func() { cancel(); <-done }
}

func (n *Node) retention(ctx context.Context) {
	tick := time.NewTicker(retentionEvery)
	defer tick.Stop()
	for {
		deleted, freed, err := n.o.Handlers.Cleaner.Run(ctx, n.o.Retention, nil)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			n.log.Warn("deleting old jobs failed; it is tried again in an hour", "error", err)
		case deleted > 0:
			n.log.Info("deleted old jobs", "jobs", deleted, "bytes", freed, "older_than", n.o.Retention)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
