package node

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/api"
)

// Reread is a configuration that was read again; see [Handlers].
type Reread struct {
	// Types are the job types from now on. One that has not changed is the same value as
	// before.
	Types []*jobs.Type
	// LogLevel is the level of the log.
	LogLevel slog.Level
	// NeedsRestart are keys that have changed and are not taken up.
	NeedsRestart []string
}

// reloadTime bounds how long the broker may take to open the lanes of new types.
const reloadTime = 20 * time.Second

// Reload reads the configuration again and exchanges the job types, all of them or, with
// an error, none. A level of the log that has changed holds, too. When it returns both doors know the new types, and the pool runs them.
// Running jobs end with the definition with which they began. The error is an
// [*jobs.Error] that names each problem. The outcome is logged.
func (n *Node) Reload(ctx context.Context) (*api.Reloaded, error) {
	n.changing.Lock()
	defer n.changing.Unlock()
	r, err := n.reload(ctx)
	if err != nil {
		n.log.Error("the configuration was not taken up, and nothing has changed", "error", err)
		if e, ok := jobs.AsError(err); ok {
			for _, f := range e.Fields {
				n.log.Error("the configuration: " + f.Detail)
			}
		}
		return nil, err
	}
	n.log.Info("the job types were read again", "added", r.Added, "changed", r.Changed, "removed", r.Removed)
	if len(r.NeedsRestart) > 0 {
		n.log.Warn("some changes of the configuration need a restart", "keys", r.NeedsRestart)
	}
	return r, nil
}

// reload is Reload without its lock and log.
func (n *Node) reload(ctx context.Context) (*api.Reloaded, error) {
	if n.o.Handlers.Reread == nil {
		return nil, &jobs.Error{Kind: jobs.Conflict, Detail: "this server has no configuration that could be read again"}
	}
	conf, err := n.o.Handlers.Reread()
	if err != nil {
		return nil, err
	}
	c := n.core.Load()
	if c == nil {
		return nil, errHealing()
	}
	n.limits.mu.Lock()
	defer n.limits.mu.Unlock()
	types := n.limits.keep(n.registry, n.withInternal(conf.Types))
	r := differences(n.registry.Types(), types)
	r.NeedsRestart = conf.NeedsRestart
	if len(r.Added)+len(r.Changed)+len(r.Removed) > 0 {
		if err := c.setTypes(ctx, types); err != nil {
			return nil, err
		}
	}
	if n.takeUpLogLevel(conf.LogLevel) {
		r.TakenUp = append(r.TakenUp, "log.level")
	}
	return r, nil
}

// differences are the names of the types that differ.
func differences(was, is []*jobs.Type) *api.Reloaded {
	before, r := make(map[string]*jobs.Type), &api.Reloaded{}
	for _, t := range was {
		before[t.Name] = t
	}
	for _, t := range is {
		switch old := before[t.Name]; {
		case old == nil:
			r.Added = append(r.Added, t.Name)
		case old != t:
			r.Changed = append(r.Changed, t.Name)
		}
		delete(before, t.Name)
	}
	for name := range before {
		r.Removed = append(r.Removed, name)
	}
	slices.Sort(r.Removed)
	return r
}

// setTypes exchanges the types of a running core. Only its first steps can fail, and they
// change nothing that is in use.
func (c *core) setTypes(ctx context.Context, types []*jobs.Type) error {
	var added, removed []*jobs.Type
	next := jobs.NewRegistry(types...)
	for _, t := range types {
		if c.o.registry.Lookup(t.Name) == nil {
			added = append(added, t)
		}
	}
	for _, t := range c.o.registry.Types() {
		if next.Lookup(t.Name) == nil {
			removed = append(removed, t)
		}
	}
	paused, err := c.Store.Paused()
	if err == nil {
		opening, cancel := context.WithTimeout(ctx, reloadTime)
		defer cancel()
		err = c.Broker.Lanes.OpenMore(opening, lanesOf(added))
	}
	if err != nil {
		return &jobs.Error{Kind: jobs.Unavailable, RetryAfter: time.Second, Detail: fmt.Sprintf("the new types cannot be taken up at the moment: %v", err)}
	}
	if !c.Pool.SetTypes(forJobs(types), paused) {
		return &jobs.Error{Kind: jobs.ShuttingDown, Detail: "the server is shutting down", RetryAfter: 5 * time.Second}
	}
	before := c.o.registry.Types()
	c.o.registry.Replace(types...)
	closeIdle(before, types)
	c.Broker.Refresh()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), reloadTime)
	defer cancel()
	if err := c.Broker.Lanes.CloseSome(closing, lanesOf(removed)); err != nil {
		c.log.Warn("a queue of a removed type stays behind until the next start", "error", err)
	}
	c.warnOfUnknown()
	return nil
}

// closeIdle has the handlers of types let go of what they keep, but not of those that are
// still there.
func closeIdle(types, now []*jobs.Type) {
	for _, t := range types {
		if h, ok := t.Handler.(jobs.IdleCloser); ok && !slices.Contains(now, t) {
			h.CloseIdle()
		}
	}
}

// lanesOf are the lanes of these types. All callbacks have the same priority.
func lanesOf(types []*jobs.Type) (lanes []jobs.Lane) {
	for _, t := range types {
		if t.Name == jobs.CallbackType {
			lanes = append(lanes, jobs.Lane{Type: t.Name, Priority: jobs.DefaultPriority})
			continue
		}
		for p := jobs.HighestPriority; p <= jobs.LowestPriority; p++ {
			lanes = append(lanes, jobs.Lane{Type: t.Name, Priority: p})
		}
	}
	return lanes
}

// warnOfUnknown logs which types are missing: they have unfinished jobs.
func (c *core) warnOfUnknown() {
	for name, f := range c.Store.Figures() {
		waiting := 0
		for s := jobs.Scheduled; !s.Ended(); s++ {
			waiting += f.Now[s]
		}
		if waiting > 0 && c.o.registry.Lookup(name) == nil {
			c.log.Warn("there are unfinished jobs of a type that is not configured; they wait until it is again", "type", name, "jobs", waiting)
		}
	}
}
