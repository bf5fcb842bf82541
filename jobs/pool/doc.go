// Package pool runs jobs. A bounded number of workers get deliveries from the lanes by
// priority, and make one attempt for each. The pool records the end of an attempt, and
// settles its delivery when the tracker has committed that.
//
// Start reading at [Pool], which lists its parts in the order in which a delivery
// passes them. Then read attempt.go, from a delivery to its execution, and
// execution.go, from there to the outcome. gate.go decides what may start. [Leases] in
// remote.go is the side for workers elsewhere.
package pool
