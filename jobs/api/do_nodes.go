package api

import (
	"context"

	"jobstream/jobs"
	"jobstream/jobs/form"
	"jobstream/jobs/strict"
)

// NodeInfo is a node as the one that was asked knows it.
type NodeInfo struct {
	Name     string `json:"name"`
	Role     string `json:"role" jsonschema:"full: it has a tracker and may lead"`
	Leader   bool   `json:"leader" jsonschema:"it decides; the others pass on to it what changes something"`
	Position uint64 `json:"position" jsonschema:"the number of the last entry that its tracker has; 0 without a cluster"`
	Lag      uint64 `json:"lag" jsonschema:"how many entries the leader is ahead"`
	Ready    bool   `json:"ready" jsonschema:"it leads, or could at any moment"`
	Version  string `json:"version" jsonschema:"of the program; may be empty"`
	Address  string `json:"address,omitempty" jsonschema:"where it serves REST, if it does"`
	Why      string `json:"why,omitempty" jsonschema:"why it is not ready"`
	Silent   bool   `json:"-"` // the one that was asked hears nothing of it
	Hash     string `json:"hash,omitempty" jsonschema:"over the counters and positions of its tracker, some seconds ago; compare it where hash_at is the same"`
	HashAt   uint64 `json:"hash_at,omitempty" jsonschema:"how many transactions of the cluster the tracker had then"`
	Differs  bool   `json:"differs,omitempty" jsonschema:"its hash is another one than that of most nodes at the same place"`
	Workers  int    `json:"workers" jsonschema:"how many jobs it does at a time, at most; 0 if it is silent"`
	ClockMS  int64  `json:"clock_ms,omitempty" jsonschema:"how many milliseconds its clock is ahead of that of the node that was asked, about"`
}

// Nodes know the nodes of the cluster.
type Nodes interface {
	// Nodes lists them by name. Without a cluster that is one.
	Nodes() []NodeInfo
	// Remove removes a node that does not run from the cluster, for ever, while all others
	// are ready. That it is removed already is no error.
	Remove(ctx context.Context, name string) error
}

// nodeList is the answer of GET /nodes.
type nodeList struct {
	Nodes []NodeInfo `json:"nodes"`
}

var nodesDoc = form.Doc{
	Summary: "List the nodes of the cluster",
	Text:    "Every node answers, as far as it knows. Without a cluster there is one node, which leads.",
	Answer:  nodeList{},
}

func listNodes(_ context.Context, c Call, _ nothing) (Answer, error) {
	return Answer{JSON: &nodeList{c.Nodes.Nodes()}}, nil
}

// AppendJSON appends the answer.
func (l *nodeList) AppendJSON(b []byte) []byte { return appendMarshalled(b, l) }

var nodeRemoveDoc = form.Doc{
	Summary: "Remove a node from the cluster",
	Text: "For ever: its name does not come back. It must be stopped, and all others ready; as many nodes must be left as streams have copies. " +
		"The copies of streams that it had are made on other nodes; until they are complete no other node should be stopped, and the answer is `unavailable` after some seconds. To repeat it tells when they are.",
	Codes: []jobs.ErrorKind{jobs.NotFound, jobs.Conflict, jobs.Unavailable},
}

func removeNode(ctx context.Context, c Call, name string) (Answer, error) {
	jobs.About(ctx, name)
	return Answer{}, c.Nodes.Remove(ctx, name)
}

func readNodeBody(r Request) (name string, err error) {
	body, err := r.Body()
	if err != nil {
		return "", err
	}
	err = jobs.Read("", body, func(v strict.Value) {
		v.Object(strict.Need("name", func(v strict.Value) { name, _ = v.Text() }))
	})
	return name, err
}
