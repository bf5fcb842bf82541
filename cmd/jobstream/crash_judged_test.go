//go:build unix

package main

import (
	"testing"
	"time"
)

// TestCrashJudged kills a server, stops it and freezes it for longer than its lease,
// under load. What clients and handlers have seen is judged as a whole: see package
// history for the rules.
func TestCrashJudged(t *testing.T) {
	t.Parallel()
	inCI(t)
	const lease = time.Second
	b := newBed(t, 1, childLease+"="+lease.String())
	m := b.nodes[0]
	b.start(m)
	c := b.load(true)
	for range 2 {
		c.more(200 + b.rng.Int64N(200))
		m.freeze()
		b.pass(2*lease + b.upTo(lease))
		m.thaw()
		c.more(50 + b.rng.Int64N(200))
		m.kill()
		b.start(m)
		c.more(50 + b.rng.Int64N(200))
	}
	m.stop()
	b.start(m)
	c.more(100)
	c.stop()
	b.finish()
	m.stop()
}
