package status

import (
	"slices"
	"strings"
	"testing"

	"jobstream/jobs"
)

// Commits that change jobs are numbered without a gap, over restarts, too; the others
// have no number.
func TestCommitNumbers(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	next := tr.Number()
	numbered := func(what string, c *jobs.Commit, changes int) {
		t.Helper()
		if changes == 0 {
			if c.Number != 0 || len(c.Changes) != 0 {
				t.Fatalf("%s: number %d, %d changes", what, c.Number, len(c.Changes))
			}
			return
		}
		if next++; c.Number != next || len(c.Changes) != changes || c.At == 0 {
			t.Fatalf("%s: number %d, want %d; %d changes, want %d; at %v", what, c.Number, next, len(c.Changes), changes, c.At)
		}
	}
	a, b := message(1), message(2)
	numbered("two jobs", tr.folds([]*jobs.Message{a, b}), 2)
	numbered("nothing", tr.folds(nil), 0)
	numbered("a repeat", tr.folds([]*jobs.Message{again(tr.find(1), 3, epoch)}, event(jobs.KindCompleted, a, 1)), 1)
	numbered("a known end", tr.folds(nil, event(jobs.KindCompleted, a, 1)), 0)
	tr.reopen()
	_, c := tr.cancels(2)
	numbered("a cancel", c, 1)
	c = tr.together(func() { _, err := tr.Do(t.Context(), jobs.Delete{Keys: []uint64{1, 2}}); tr.must(err) })
	numbered("a deletion", c, 2)
	if c.Changes[0].Before == nil || c.Changes[0].After != nil {
		t.Errorf("deleted: %+v", c.Changes[0])
	}
	tr.reopen()
	numbered("another job", tr.folds([]*jobs.Message{message(9)}), 1)
}

// A commit has so many bytes of payloads in memory as a batch may bring, however many
// events of jobs with large ones come at once. The position moves with the last event.
func TestCommitsOfLargeJobs(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	const n, size = 20, 1 << 20
	b := &batch{status: 1}
	for seq := uint64(1); seq <= n; seq++ {
		m := message(seq)
		m.Payload = []byte(`"` + strings.Repeat("x", size-2) + `"`)
		tr.receives(m)
		b.events = append(b.events, event(jobs.KindCompleted, m, 1))
	}
	commits, ended := 0, 0
	_, err := tr.foldOnce(b, func(c *jobs.Commit) {
		commits++
		bytes := 0
		for i := range c.Changes {
			bytes += len(c.Changes[i].After.Payload)
		}
		ended += len(c.Changes)
		if bytes > maxBatchBytes || (c.Positions.Status == 1) != (ended == n) || len(c.Outcomes) != len(c.Changes) {
			t.Errorf("commit %d: %d jobs, %d outcomes, %d bytes, at %+v", commits, len(c.Changes), len(c.Outcomes), bytes, c.Positions)
		}
	})
	if tr.must(err); ended != n || commits != (n*size+maxBatchBytes-1)/maxBatchBytes {
		t.Errorf("%d jobs ended with %d commits", ended, commits)
	}
}

// A listener that is forgotten gets no further commit; the others get all.
func TestForgetListener(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	var heard []uint64
	forget := tr.Listen(func(c *jobs.Commit) { heard = append(heard, c.Number) })
	all := make(chan uint64, 3)
	tr.Listen(func(c *jobs.Commit) { all <- c.Number })
	tr.submit(message(1))
	<-all
	forget()
	forget()
	tr.submit(message(2))
	if <-all; !slices.Equal(heard, []uint64{1}) {
		t.Errorf("it has heard of %v", heard)
	}
}
