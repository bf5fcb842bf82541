// Package pool runs jobs: a bounded number of workers that take deliveries from the
// lanes by priority, run one attempt for each, record its outcome, and end the
// delivery when the tracker has committed it.
//
// Start reading at [Pool], then attempt.go, which runs one delivery.
package pool
