// Package intake lets jobs in. A [Submitter] publishes submissions and answers when
// they are committed. A [Releaser] publishes jobs whose moment has come. [Waits] lets
// callers wait for a state of a job.
//
// Start reading at [Submitter.Submit].
package intake
