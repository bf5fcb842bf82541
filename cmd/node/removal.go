package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"jobstream/broker"
	"jobstream/jobs"
	"jobstream/jobs/api"
)

// A node is removed by an operator only, and for ever. Copies of streams that it had are made
// on another node, if there is one without. Its name is noted in the tracker before that, so
// every member can tell it, whenever it comes back.

// Remove removes a node from the cluster; see [api.Nodes]. This node leads.
func (m *member) Remove(ctx context.Context, name string) error {
	if err := m.takeOff(ctx, name); err != nil {
		return err
	}
	return m.awaitCopies(ctx, name)
}

// takeOff removes the node, if that is not done yet; one at a time.
func (m *member) takeOff(ctx context.Context, name string) error {
	m.n.changing.Lock()
	defer m.n.changing.Unlock()
	servers, err := m.removable(ctx, name)
	if err != nil {
		return err
	}
	if err := m.store.RemoveNode(name); err != nil {
		return removalFailed(name, err)
	}
	if slices.Contains(servers, broker.ServerID(name)) {
		if err := m.broker.RemoveServer(ctx, name); err != nil {
			return removalFailed(name, err)
		}
	}
	m.n.log.Info("a node was removed from the cluster, for ever", "node", name)
	return nil
}

// awaitCopies waits until the copies of all streams are complete without a removed node.
// Until then the loss of another one could stop the cluster.
func (m *member) awaitCopies(ctx context.Context, name string) error {
	for end := time.Now().Add(copiesTime); ; sleep(ctx, copiesPause) {
		stream := m.broker.Moving(ctx)
		switch {
		case stream == "":
			return nil
		case ctx.Err() != nil || time.Now().After(end):
			return &jobs.Error{Kind: jobs.Unavailable, RetryAfter: copiesTime, Detail: fmt.Sprintf(
				"node %s is removed, and the copy of stream %s that another one gets is not complete; stop no node before that: ask again until it is", name, stream)}
		}
	}
}

func removalFailed(name string, err error) error {
	return &jobs.Error{Kind: jobs.Unavailable, RetryAfter: time.Second, Detail: fmt.Sprintf("node %s is not removed yet: %v; remove it again", name, err)}
}

// removable says why a node cannot be removed now, and which servers the cluster has.
func (m *member) removable(ctx context.Context, name string) (servers []string, err error) {
	refused := func(format string, values ...any) ([]string, error) {
		return nil, &jobs.Error{Kind: jobs.Conflict, Detail: fmt.Sprintf(format, values...)}
	}
	servers, err = m.broker.ServerIDs(ctx)
	if err != nil {
		return nil, removalFailed(name, err)
	}
	removed, err := m.store.RemovedNodes()
	if err != nil {
		return nil, err
	}
	is := slices.Contains(servers, broker.ServerID(name))
	nodes := m.Nodes()
	known := make(map[string]*api.NodeInfo, len(nodes))
	for i := range nodes {
		known[broker.ServerID(nodes[i].Name)] = &nodes[i]
	}
	switch n := known[broker.ServerID(name)]; {
	case !is && slices.Contains(removed, name):
		return servers, nil // it is done already
	case !is:
		return nil, &jobs.Error{Kind: jobs.NotFound, Detail: fmt.Sprintf("the cluster has no node %s", jobs.Quote(name))}
	case name == m.n.o.Name:
		return refused("node %s leads the cluster; stop it first, and remove it then", name)
	case n != nil && !n.Silent || slices.Contains(m.broker.Members(), name):
		return refused("node %s runs; stop it first, and remove it then", name)
	}
	for _, id := range servers {
		switch n := known[id]; {
		case id == broker.ServerID(name):
		case n == nil:
			return refused("a node of the cluster has never been heard of since this one started; a node is removed only while all others are ready, so start it first")
		case !n.Ready:
			return refused("node %s is not ready (%s); a node is removed only while all others are", n.Name, n.Why)
		}
	}
	if left, copies := len(servers)-1, m.broker.Copies(); left < copies {
		return refused("%d nodes would be left, and streams have %d copies; add a node with a new name first (CLUSTER.md)", left, copies)
	}
	return servers, nil
}

// Remove is refused by a server that is alone.
func (alone) Remove(_ context.Context, _ string) error {
	return &jobs.Error{Kind: jobs.Conflict, Detail: "this server is alone: there is no cluster from which a node could be removed"}
}

// removedName says that a node with this name was removed; see [broker.Peers.Removed].
func (m *member) removedName(name string) bool {
	names, err := m.store.RemovedNodes()
	return err == nil && slices.Contains(names, name)
}

// askRemoved asks the other members whether this node was removed, until ctx ends. Then it
// ends, and its folder is of no use any more.
func (m *member) askRemoved(ctx context.Context) {
	for ctx.Err() == nil {
		if !m.broker.Peers.Removed(ctx) {
			sleep(ctx, askRemovedPause)
			continue
		}
		is := m.n.o.identity()
		is.Removed = true
		if err := is.write(m.n.dirs.identityPath()); err != nil {
			m.n.log.Error("that this node was removed cannot be noted", "error", err)
		}
		m.n.breaks(is.compare(m.n.o.identity(), m.n.dirs.Root))
		return
	}
}

const (
	copiesTime      = 20 * time.Second // for copies of streams
	copiesPause     = 200 * time.Millisecond
	askRemovedPause = 100 * time.Millisecond // between two questions
	removeAgain     = 10 * time.Second       // between two looks for removed nodes
)

// keepRemoved removes nodes again which were, and have come back: nats-server takes every
// server that it meets onto its list, after some minutes.
func (m *member) keepRemoved(ctx context.Context) {
	for sleep(ctx, removeAgain) {
		names, err := m.store.RemovedNodes()
		if err != nil || len(names) == 0 || !m.Leads() {
			continue
		}
		servers, err := m.broker.ServerIDs(ctx)
		for _, name := range names {
			if err == nil && slices.Contains(servers, broker.ServerID(name)) {
				if err := m.Remove(ctx, name); err != nil {
					m.n.log.Warn("a node that was removed has come back, and cannot be removed again yet", "node", name, "error", err)
				}
			}
		}
	}
}
