package main

import (
	"testing"
	"time"

	"jobstream/jobs"
)

// TestPurgedWhileRunning purges JOBS, as an operator might, while a job runs:
// it is published again, and does not run beside itself.
func TestPurgedWhileRunning(t *testing.T) {
	t.Parallel()
	held := newPuppet()
	h := open(t, t.TempDir(), setup{handlers: map[string]jobs.Handler{"held": held, "quick": jobs.HandlerFunc(nothing)}})
	first := h.submit(`{"type":"held"}`).ID
	running := held.next(t)
	_, js := adminStreams(t, h.nats)
	stream, err := js.Stream(t.Context(), "JOBS")
	mustDo(t, err)
	mustDo(t, stream.Purge(t.Context()))
	select {
	case <-h.log.has("published again"):
	case <-time.After(patience):
		t.Fatal("nothing is published again")
	}
	h.await(h.submit(`{"type":"quick"}`).ID, "completed")
	if s := h.stats(); s.ActiveWorkers != 1 {
		t.Errorf("%d workers run one job", s.ActiveWorkers)
	}
	running.finish()
	if j := h.await(first, "completed"); j.Attempt != 1 {
		t.Errorf("it ended in attempt %d", j.Attempt)
	}
	if more := len(held.stage); more != 0 {
		t.Errorf("it began %d times more", more)
	}
}
