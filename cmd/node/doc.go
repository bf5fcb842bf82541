// Package node is the server as a value: what a program opens, serves and closes.
//
// Where to start: [Open] in node.go makes a [Node] of its [Options]. A node has doors, for
// REST and for NATS, and behind them a core. start.go puts the parts of a core together,
// recover.go says how a start brings streams and tracker together, and stop.go ends it all.
// When the broker is stuck (health.go), another core takes the place of the first (heal.go).
package node
