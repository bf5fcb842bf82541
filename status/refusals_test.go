package status

import (
	"slices"
	"testing"

	"jobstream/jobs"
)

// A submission that was refused stays so: a copy of its message that comes later, when the
// unique key is free, gets the same answer and makes no job. Nor does a copy for which
// nobody waits; it is not listed as a failed job either.
func TestRefusedStaysSo(t *testing.T) {
	t.Parallel()
	waits := true
	tr := openTemp(t, Options{Registry: termTypes, Checked: func(jobs.ID) bool { return waits }})
	var log testLog
	tr.Replica().Lead(log.seal)
	tr.endsRebuild()
	copied := func(of *jobs.Message, seq uint64) *jobs.Message {
		m := *of
		m.Seq, m.Again = seq, true
		return &m
	}
	refuses := func(what string, c *jobs.Commit, m *jobs.Message, times int) {
		t.Helper()
		all := answers(c, jobs.SubmissionRefused)
		if len(slices.Collect(c.Submitted())) != 0 || len(all) != times {
			t.Fatalf("%s: submitted %v, answered %+v", what, slices.Collect(c.Submitted()), all)
		}
		for _, a := range all {
			if a.ID != m.ID || a.Err.Kind != jobs.Duplicate || a.Err.JobID != tr.find(1).ID {
				t.Errorf("%s: %s is refused: %+v", what, a.ID, a.Err)
			}
		}
	}
	tr.receives(unique(1, "k"))
	second := unique(2, "k")
	refuses("a copy in the same transaction", tr.folds([]*jobs.Message{second, copied(second, 3)}), second, 2)
	tr.cancels(1)
	refuses("a copy when the key is free", tr.receives(copied(second, 4)), second, 1)
	waits = false
	late := unique(5, "k")
	refuses("a copy that nobody waits for", tr.receives(copied(late, 5)), late, 0)
	for _, seq := range []uint64{2, 3, 4, 5} {
		tr.none(seq)
	}
	waits = true
	if c := tr.receives(copied(late, 6)); len(slices.Collect(c.Submitted())) != 1 {
		t.Fatalf("a copy that somebody waits for, whose first one is lost: %+v", c)
	}
	if c := tr.receives(copied(late, 7)); len(answers(c, jobs.SubmissionReplayed)) != 1 {
		t.Errorf("a copy of a known job: %+v", c)
	}
	tr.verify()
}

// Refusals are kept for a minute at least, and forgotten within three.
func TestRefusalsAreForgotten(t *testing.T) {
	t.Parallel()
	var r refusals
	var ids []jobs.ID
	for i := range 10 {
		ids = append(ids, jobs.NewID())
		now := epoch.Add(seconds(40 * i))
		r.remember([]jobs.Answer{{Kind: jobs.SubmissionRefused, ID: ids[i], Err: &jobs.Error{}}, {Kind: jobs.BatchDone, ID: jobs.NewID()}}, now)
		for k, id := range ids {
			switch age := 40 * (i - k); {
			case age <= 60 && r.of(id) == nil:
				t.Fatalf("after %d s one is forgotten", age)
			case age > 180 && r.of(id) != nil:
				t.Fatalf("after %d s one is kept", age)
			}
		}
	}
}
