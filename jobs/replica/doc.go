// Package replica keeps the trackers of several nodes equal. One of the nodes leads: it
// alone changes its tracker by itself. What it is about to commit becomes an entry of a
// shared log first, and every other node applies the entries in order.
//
// The log is the lock. Each append says which entry it expects to be the last one, and
// the log refuses it otherwise. So whoever appends leads, and a node whose append is
// refused has been deposed.
//
// Where to start:
//
//   - [Entry] is what the log holds, and entry.go its encoding.
//   - [Log], [Tracker] and [Peers] are what a [Member] needs of the world.
//   - [Member] is a node: it follows, asks to lead, leads and steps down.
package replica
