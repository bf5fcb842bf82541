// Package natsdoor answers the requests of the NATS service jobstream.NAME: the same
// operations as REST, by the same checks.
//
// Where to start: [Endpoints] makes them from the table of operations, [api.Operations].
package natsdoor
