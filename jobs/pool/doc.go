// Package pool runs jobs. A bounded number of workers get deliveries from the lanes by
// priority and make one attempt for each. The pool records how an attempt ends, and
// settles its delivery when the tracker has committed that.
//
// Start reading at [Pool], which names its parts in the order in which a delivery
// passes them. Then read attempt.go, from a delivery to its execution, and execution.go,
// from there to the outcome. What may start is decided in gate.go.
package pool
