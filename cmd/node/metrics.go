package node

import (
	"context"
	"os"

	"jobstream/httpapi/metrics"
	"jobstream/jobs"
	"jobstream/jobs/figures"
)

// snapshot is how the node stands, for its metrics; nil while it heals. What cannot be
// found out is missing. A member of a cluster that does not lead leaves out what the leader
// tells: jobs, queue and streams.
func (n *Node) snapshot(ctx context.Context) *metrics.Snapshot {
	c := n.core.Load()
	if c == nil && n.member != nil {
		return n.member.snapshot(ctx)
	}
	if c == nil {
		return nil
	}
	unfinished, _ := c.Store.Totals()
	w := c.Pool.Workers()
	s := &metrics.Snapshot{
		Version: n.o.Version, Checks: make(map[string]bool), Types: make(map[string]metrics.Type),
		Workers: metrics.Workers{Level: metrics.Level{Now: w.Active, Most: w.Size}, Paused: w.Paused},
		Queue:   metrics.Level{Now: unfinished, Most: n.o.Bounds.Queue},
		Streams: make(map[string]metrics.Stream), Doors: make(map[string]metrics.Level),
		Followers: c.changes.Followers(), Callbacks: c.Store.QueuedCallbacks(),
	}
	for part, err := range c.health.Check(ctx) {
		s.Checks[part] = err == nil
	}
	if _, free, err := leastFree([]string{n.dirs.Root, n.dirs.Broker, n.dirs.Artifacts}); err == nil {
		s.DiskFree = int64(min(free, 1<<62)) //nolint:gosec // bounded
	}
	c.snapTypes(s, &w)
	c.snapTracker(ctx, s)
	s.Doors["rest"] = metrics.Level{Now: n.rest.Connections(), Most: n.o.Bounds.Conns}
	if t, err := c.Broker.Traffic(); err == nil {
		s.Doors["nats"] = metrics.Level{Now: t.Clients, Most: n.o.Bounds.Conns}
		s.NATS = metrics.Traffic{In: t.In, Out: t.Out, InBytes: t.InBytes, OutBytes: t.OutBytes, Slow: t.Slow}
	}
	if n.member != nil {
		n.member.snapNodes(s)
	}
	return s
}

// snapshot is that of a member which does not lead.
func (m *member) snapshot(ctx context.Context) *metrics.Snapshot {
	s := &metrics.Snapshot{Version: m.n.o.Version, Checks: make(map[string]bool), Doors: make(map[string]metrics.Level), Followers: m.changes.Followers()}
	for part, err := range m.Check(ctx) {
		s.Checks[part] = err == nil
	}
	dirs := &m.n.dirs
	if _, free, err := leastFree([]string{dirs.Root, dirs.Broker, dirs.Artifacts}); err == nil {
		s.DiskFree = int64(min(free, 1<<62)) //nolint:gosec // bounded
	}
	if info, err := os.Stat(dirs.Tracker); err == nil {
		s.Tracker.Bytes = info.Size()
	}
	s.Doors["rest"] = metrics.Level{Now: m.n.rest.Connections(), Most: m.n.o.Bounds.Conns}
	m.snapNodes(s)
	return s
}

// snapNodes adds the nodes of the cluster.
func (m *member) snapNodes(s *metrics.Snapshot) {
	s.Members, s.Nodes = m.members(), make(map[string]metrics.Node)
	for _, n := range m.Nodes() {
		s.Nodes[n.Name] = metrics.Node{Leader: n.Leader, Ready: n.Ready, Differs: n.Differs, Position: n.Position, Lag: n.Lag, Ahead: float64(n.ClockMS) / 1000}
	}
}

// snapTypes adds the types. Clients can invent any number of them, so all that are not
// configured share a name, but for those whose jobs say themselves that they are unknown.
func (c *core) snapTypes(s *metrics.Snapshot, w *jobs.Workers) {
	at := func(name string) (string, metrics.Type) {
		if name != jobs.UnknownTypes && c.o.registry.Lookup(name) == nil {
			name = figures.OtherTypes
		}
		t, has := s.Types[name]
		if !has {
			t = metrics.Type{Now: make(map[string]int), Ended: make(map[string]int), Reasons: make(map[string]int)}
		}
		return name, t
	}
	for name, f := range c.Store.Figures() {
		name, t := at(name)
		for st := jobs.Scheduled; st <= jobs.Cancelled; st++ {
			if st.Ended() {
				t.Ended[st.String()] += f.Ever[st]
			} else {
				t.Now[st.String()] += f.Now[st]
			}
		}
		s.Types[name] = t
	}
	happened, commits := c.o.figures.Sums()
	s.Tracker.Commits = commits
	for name, sum := range happened {
		name, t := at(name)
		t.Add(&sum)
		s.Types[name] = t
	}
	now := jobs.Now()
	waiting := c.o.figures.Waiting()
	for name, one := range waiting {
		name, t := at(name)
		t.Oldest = max(t.Oldest, figures.SecondsSince(one.Oldest, now))
		s.Types[name] = t
	}
	for name, reasons := range c.reasons(waiting) {
		name, t := at(name)
		for reason, n := range reasons {
			t.Reasons[reason] += n
		}
		s.Types[name] = t
	}
	for name, of := range w.Types {
		name, t := at(name)
		t.Known, t.Paused, t.Workers = true, of.Paused, metrics.Level{Now: of.Active, Most: of.Max}
		s.Types[name] = t
	}
}

// snapTracker adds the tracker and the streams.
func (c *core) snapTracker(ctx context.Context, s *metrics.Snapshot) {
	s.Tracker.Lag = make(map[string]uint64)
	if info, err := os.Stat(c.o.dirs.Tracker); err == nil {
		s.Tracker.Bytes = info.Size()
	}
	if ends, err := c.Store.Behind(); err == nil {
		s.Tracker.Unnotified = ends
	}
	known := c.Store.Positions() // first, so that a lag is never too small
	if state, err := c.Broker.Streams.Jobs(ctx); err == nil {
		s.Streams["JOBS"] = metrics.Stream{Messages: state.Msgs, Bytes: state.Bytes}
		s.Tracker.Lag["JOBS"] = state.Last - min(known.Jobs, state.Last)
	}
	if state, err := c.Broker.Streams.Status(ctx); err == nil {
		s.Streams["STATUS"] = metrics.Stream{Messages: state.Msgs, Bytes: state.Bytes}
		s.Tracker.Lag["STATUS"] = state.Last - min(known.Status, state.Last)
	}
	if state, err := c.Broker.Streams.Notifications(ctx); err == nil {
		s.Streams["NOTIFICATIONS"] = metrics.Stream{Messages: state.Msgs, Bytes: state.Bytes}
	}
}
