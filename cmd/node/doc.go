// Package node is the server as a value: broker, tracker, pool and doors, put together.
//
// Where to start: [Start] in start.go puts the parts together, recover.go says what
// happens at a start, and [NewBackend] is the node as both doors see it.
package node
