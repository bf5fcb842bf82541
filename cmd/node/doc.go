// Package node is the server as a value: a program opens it, serves it and closes it.
//
// A program that has jobs of its own starts here: it fills a [jobstream/jobs.Registry],
// opens a node with it, and makes jobs by [jobstream/jobs.Definition.Submit]. [Options]
// have a default for everything but the data folder. No port is open unless it asks for
// one.
//
// Where to start in the code: [Open] in node.go makes a [Node] of its Options. A node has
// doors for REST and NATS, and a core behind them. start.go connects the parts of a core.
// recover.go brings streams and tracker together at a start. stop.go ends everything.
// When the broker is stuck (health.go), another core replaces the first (heal.go).
package node
