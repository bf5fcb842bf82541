package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/handlers/webhook"
	"jobstream/jobs/intake"
	"jobstream/jobs/pool"
	"jobstream/status"
)

// callbacks are the parts that run them. They wait for other machines most of the time. So
// they must neither take workers from jobs, nor wait until long jobs have ended, nor take
// the room of jobs in the queue.
type callbacks struct {
	pool     *pool.Pool
	releaser *intake.Releaser
}

// newCallbackReleaser makes the releaser of callbacks.
func (c *core) newCallbackReleaser() {
	c.callbacks.releaser = intake.NewReleaser(intake.ReleaserOptions{
		Agenda: status.CallbackAgenda{Store: c.Store}, Inbox: c.Broker.Inbox,
		Room: max(min(intake.CallbackRoom, c.o.Bounds.Queue/2), 1), Callbacks: true, Logger: c.log,
	}, c.Store.QueuedCallbacks())
}

// callbackType is the type of callbacks with these options. The command line has checked
// them beside its configuration.
func callbackType(o *webhook.Options, version string, t webhook.Tracker) (*jobs.Type, error) {
	var problems []error
	if !o.Checked() {
		o.Check("", nil, func(path, text string) { problems = append(problems, fmt.Errorf("%s: %s", path, text)) })
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	o.Version = version
	typ := webhook.Type()
	typ.Handler = webhook.New(o, t)
	return typ, nil
}

// webhooksOf are the webhooks for the tracker.
func webhooksOf(o *webhook.Options) (all jobs.Webhooks) {
	for _, w := range o.Webhooks {
		all = append(all, w.Webhook)
	}
	return all
}

// committed is a listener of commits. It passes on what a commit has of callbacks, so that
// jobs without them cost nothing here.
func (cs *callbacks) committed(c *jobs.Commit) {
	of := jobs.Commit{Number: c.Number, At: c.At, Positions: c.Positions, Load: c.Load}
	for i := range c.Changes {
		if j := c.Changes[i].After; j != nil && j.Type == jobs.CallbackType {
			of.Changes = append(of.Changes, c.Changes[i])
		}
	}
	for i := range c.Outcomes {
		if c.Outcomes[i].Type == jobs.CallbackType {
			of.Outcomes = append(of.Outcomes, c.Outcomes[i])
		}
	}
	cs.releaser.Committed(&of)
	cs.pool.Committed(&of)
}

// newPools makes the pool for jobs and the one for callbacks.
func (c *core) newPools(o pool.Options, lanes []jobs.Lane) {
	var of, callbacks []jobs.Lane
	for _, l := range lanes {
		if l.Type == jobs.CallbackType {
			callbacks = append(callbacks, l)
		} else {
			of = append(of, l)
		}
	}
	c.Pool = pool.New(o, of)
	o.MaxWorkers, o.MinWorkers = webhook.Workers, 0
	c.callbacks.pool = pool.New(o, callbacks)
}

// forJobs are the types of the pool for jobs.
func forJobs(types []*jobs.Type) []*jobs.Type {
	return slices.DeleteFunc(slices.Clone(types), func(t *jobs.Type) bool { return t.Name == jobs.CallbackType })
}

// poolOf is the pool that runs the jobs of a type.
func (c *core) poolOf(typ string) *pool.Pool {
	if typ == jobs.CallbackType {
		return c.callbacks.pool
	}
	return c.Pool
}

// deliveries hands each delivery to the pool of its lane; see [jobs.Receiver].
type deliveries struct{ c *core }

// notHere is how long a delivery waits that this node may not have, since another one may
// lead.
const notHere = 500 * time.Millisecond

// Deliver hands a delivery over. A node that was frozen gives back what comes to it, until
// it knows whether it leads still.
func (d deliveries) Deliver(got jobs.Delivery) {
	p := d.c.poolOf(got.Lane.Type)
	if m := d.c.o.member; m == nil || m.machine.Leads() {
		p.Deliver(got)
		return
	}
	if err := d.c.Tail.Nak(got.Ref, notHere); err != nil {
		d.c.log.Warn("a delivery comes again when its lease ends", "error", err)
	}
	p.PullEnded(got.Lane, 1)
}

// PullEnded passes the end of a request on.
func (d deliveries) PullEnded(l jobs.Lane, n int) { d.c.poolOf(l.Type).PullEnded(l, n) }

// stopPools stops both pools at the same time; see [pool.Pool.Stop].
func (c *core) stopPools(ctx context.Context) error {
	stopped := make(chan error, 1)
	go func() { stopped <- c.callbacks.pool.Stop(ctx) }()
	return errors.Join(c.Pool.Stop(ctx), <-stopped)
}

// breakPools is [pool.Pool.Break] for both pools. They may not exist yet.
func (c *core) breakPools() {
	if c.Pool == nil {
		return
	}
	broken := make(chan struct{})
	go func() { defer close(broken); c.callbacks.pool.Break() }()
	c.Pool.Break()
	<-broken
}
