// Package intake lets jobs in: a [Submitter] publishes what a door was asked for and
// answers when it is committed, a [Releaser] publishes jobs whose moment has come, and
// [Waits] lets callers wait for what becomes of a job.
//
// Start reading at [Submitter.Submit].
package intake
