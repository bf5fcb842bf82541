package node

import "jobstream/jobs/api"

// roleFull is the role of a node with a tracker; see [api.NodeInfo].
const roleFull = "full"

// alone is a node without a cluster; see [api.Nodes].
type alone struct{ c *core }

// Nodes lists this node.
func (a alone) Nodes() []api.NodeInfo {
	n := api.NodeInfo{Name: a.c.name, Role: roleFull, Leader: true, Ready: true, Version: a.c.o.Version, Workers: a.c.Pool.Workers().Max}
	if err := a.c.health.now(); err != nil {
		n.Ready, n.Why = false, err.Error()
	}
	return []api.NodeInfo{n}
}
