// Package traces exports what a node does as spans of OpenTelemetry: requests that submit
// jobs, the waits of jobs, their attempts, requests of the kind http, and notifications. It
// is the only package that knows OpenTelemetry, and a node works the same without it.
//
// Where to start: [FromEnv] makes a [Tracer] from the standard environment variables.
// Spans of jobs are made from commits, after the fact (follow.go). So they cost nothing
// where jobs run, and are right after a crash. Their ids follow from the job (place.go), so
// that an attempt knows its own before it has a span, also in another process.
package traces
