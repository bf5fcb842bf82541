//go:build linux

package main

import (
	"syscall"
	"testing"
	"time"
)

// TestCrashFrozen stops the server for longer than its lease and lets it go on. Every
// job ends once, and no attempt begins twice. verifyAll knows the latter from the file
// of starts that handlers write.
func TestCrashFrozen(t *testing.T) {
	t.Parallel()
	inCI(t)
	const lease = time.Second
	rng := seeded(t)
	dir := t.TempDir()
	promised := &acked{}
	c := startChild(t, dir, childLease+"="+lease.String())
	for range 2 {
		under(t, c, rng.Uint64(), promised, func() {
			mustDo(t, c.cmd.Process.Signal(syscall.SIGSTOP))
			frozen := time.NewTimer(2*lease + time.Duration(rng.Int64N(int64(lease)))) // time passing is what is tested
			<-frozen.C
			mustDo(t, c.cmd.Process.Signal(syscall.SIGCONT))
			after := promised.count.Load() + 100
			waitUntil(t, func() bool { return promised.count.Load() >= after })
		})
		missingAccepted(t, c, promised)
	}
	verifyAll(t, c, dir, promised)

	mustDo(t, c.cmd.Process.Signal(syscall.SIGTERM))
	if err := <-c.done; err != nil {
		t.Errorf("the stop was not clean: %v\n%s", err, c.logged())
	}
}
