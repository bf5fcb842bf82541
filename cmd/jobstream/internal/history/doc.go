// Package history judges a server, or a cluster of them, by what was seen from outside:
// what clients asked and were answered, when handlers ran, what the tracker shows at the
// end, and which faults were made meanwhile. Tests fill a [History]; start with its
// method Problems, whose rules stand in rules.go.
//
// Rules about keys and pauses are those of a register that changes at once and for
// everybody; see [Linearizable].
package history
