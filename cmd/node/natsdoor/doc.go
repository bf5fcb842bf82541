// Package natsdoor offers operations as endpoints of the NATS service: jobstream.NAME.
// They are the same as over REST, with the same checks.
//
// Where to start: [Endpoints] makes them from the table of operations, [api.Operations].
package natsdoor
