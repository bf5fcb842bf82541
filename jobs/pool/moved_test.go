package pool_test

import (
	"testing"
	"time"

	"jobstream/jobs"
)

// TestMovedJobDoesNotRunBesideItself: when somebody purges the queue, a running
// job is published again, too. Its new message waits until the attempt is over
// and its outcome stored.
func TestMovedJobDoesNotRunBesideItself(t *testing.T) {
	inRig(t, rigOptions{workers: 2}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		moved := func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			j := r.records[1].Clone()
			j.Seq = 2
			r.records[2] = j
		}
		moved()
		r.submitWith("a3", func(m *jobs.Message) { m.Moved = true })
		r.quiet()
		r.want("running", r.running(), "1")
		r.want("the new message", r.said(), "nak 2 1s")
		r.hold(true)
		r.finish(1)
		pass(2 * time.Second)
		r.want("begun before the outcome is stored", r.begun(), "a3/1")
		r.hold(false)
		r.quiet()
		moved()
		r.said()
		pass(2 * time.Second)
		r.want("after the end", r.said(), "ack 2")
		r.want("begun", r.begun(), "a3/1")
	})
}
