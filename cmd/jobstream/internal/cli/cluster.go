package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// ClusterStatusCommand lists the nodes of a cluster.
type ClusterStatusCommand struct{ remote }

// clusterNode is what the command reads of a node.
type clusterNode struct {
	Name     string `json:"name"`
	Role     string `json:"role"`
	Leader   bool   `json:"leader"`
	Position uint64 `json:"position"`
	Lag      uint64 `json:"lag"`
	Ready    bool   `json:"ready"`
	Version  string `json:"version"`
	Address  string `json:"address"`
	Why      string `json:"why"`
	Hash     string `json:"hash"`
	HashAt   uint64 `json:"hash_at"`
	Differs  bool   `json:"differs"`
	ClockMS  int64  `json:"clock_ms"`
}

// Run lists the nodes.
func (c *ClusterStatusCommand) Run(p *Program) error {
	s, err := c.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	var all struct {
		Nodes []clusterNode `json:"nodes"`
	}
	body, err := s.get(s.ctx, "/nodes", nil, &all)
	if err != nil {
		return err
	}
	if s.json {
		return s.raw(body)
	}
	var rows [][]cell
	for i := range all.Nodes {
		rows = append(rows, all.Nodes[i].row())
	}
	return s.table([]string{"NODE", "ROLE", "STATE", ">ENTRY", ">LAG", ">CLOCK MS", ">HASH AT", "HASH", "VERSION", "ADDRESS", "WHY"}, rows)
}

func (n *clusterNode) row() []cell {
	state := cell{"ready", good}
	hash := text(n.Hash)
	if n.Differs {
		hash = cell{n.Hash, bad}
	}
	switch {
	case n.Differs:
		state = cell{"differs", bad}
	case n.Leader:
		state = cell{"leads", good}
	case !n.Ready:
		state = cell{"not ready", bad}
	}
	return []cell{text(n.Name), text(n.Role), state, number(n.Position), number(n.Lag), text(strconv.FormatInt(n.ClockMS, 10)), number(n.HashAt), hash, text(n.Version), text(n.Address), text(n.Why)}
}

// ClusterRemoveCommand removes a node from a cluster.
type ClusterRemoveCommand struct {
	remote
	Name string `arg:"" placeholder:"NAME" help:"The node. It must be stopped, and all others ready."`
}

// Run removes the node.
func (c *ClusterRemoveCommand) Run(p *Program) error {
	s, err := c.open(p)
	if err != nil {
		return err
	}
	defer s.end()
	if _, err := s.Do(s.ctx, http.MethodDelete, "/nodes/"+url.PathEscape(c.Name), nil, nil); err != nil {
		return s.interrupted(err, "the node may have been removed; it is safe to repeat it")
	}
	_, err = fmt.Fprintf(p.Stdout, "node %s is removed for ever; take its address out of broker.cluster.routes of the others\n", clean(c.Name))
	return err
}
