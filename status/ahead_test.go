package status

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"jobstream/jobs"
)

// TestAhead: an end that is taken ahead of its message in STATUS is committed, and told
// of; the message then settles it, and costs no commit.
func TestAhead(t *testing.T) {
	tr := startTemp(t, Options{})
	m := message(1)
	tr.submit(m)
	tr.wait(1, 0)
	done := event(jobs.KindCompleted, m, 1)
	tr.Ahead(&done)
	told := tr.until("the end", func(all []jobs.Commit) bool { return ends(all) == 1 })
	for _, c := range told {
		if len(c.Settled) != 0 {
			t.Errorf("settled before its message has come: %+v", c.Settled)
		}
	}
	if j := tr.find(1); j.Status != jobs.Completed {
		t.Errorf("it is %s", j.Status)
	}
	before := syncs(t, tr)
	tr.Happened(5, []jobs.Event{done})
	told = tr.until("the message", func(all []jobs.Commit) bool { return all[len(all)-1].StatusPosition == 5 })
	if last := told[len(told)-1]; len(last.Settled) != 1 || last.Settled[0].Seq != 1 || last.Number != 0 {
		t.Errorf("the message told of %+v", last)
	}
	if n := ends(told); n != 1 {
		t.Errorf("told of %d ends", n)
	}
	if now := syncs(t, tr); now != before {
		t.Errorf("%d fsyncs for what was known", now-before)
	}
	if p := tr.Positions(); p != (jobs.Positions{Jobs: 1, Status: 5}) {
		t.Errorf("positions %+v", p)
	}
	tr.reopen()
	if p := tr.Positions(); p != (jobs.Positions{Jobs: 1, Status: 5}) {
		t.Errorf("positions after a stop: %+v", p)
	}
}

// TestAheadThenKilled: the position that no commit has brought to disk is behind, and
// what is read again changes nothing.
func TestAheadThenKilled(t *testing.T) {
	tr := startTemp(t, Options{})
	m := message(1)
	tr.submit(m)
	tr.wait(1, 0)
	failed := event(jobs.KindFailed, m, 1)
	tr.Ahead(&failed)
	tr.until("the end", func(all []jobs.Commit) bool { return ends(all) == 1 })
	tr.Happened(5, []jobs.Event{failed})
	tr.wait(1, 5)
	killed := openCopy(t, tr)
	if p := killed.Positions(); p != (jobs.Positions{Jobs: 1}) {
		t.Errorf("positions %+v", p)
	}
	killed.run(idle{})
	killed.Happened(5, []jobs.Event{failed, failed})
	told := killed.until("the message", func(all []jobs.Commit) bool { return len(all) > 0 })
	if n := ends(told); n != 0 {
		t.Errorf("told of %d ends", n)
	}
	if j := killed.find(1); j.Status != jobs.Failed || j.Attempt != 1 || len(j.Errors) != 1 {
		t.Errorf("it is %+v", j)
	}
}

// TestAheadOfNothing: an end whose job is deleted makes no job.
func TestAheadOfNothing(t *testing.T) {
	tr := openTemp(t, Options{})
	tr.settleDown()
	tr.run(idle{})
	tr.submit(message(2))
	tr.wait(2, 0)
	gone := event(jobs.KindCompleted, message(1), 1)
	tr.Ahead(&gone)
	tr.Happened(1, []jobs.Event{event(jobs.KindCompleted, message(2), 1)})
	tr.wait(2, 1)
	tr.none(1)
}

// openCopy opens what a kill would leave of the tracker's files now, when nothing is
// being written.
func openCopy(t *testing.T, tr *tracker) *tracker {
	t.Helper()
	o := tr.o
	o.Path = filepath.Join(t.TempDir(), "status.db")
	for from, to := range map[string]string{tr.o.Path: o.Path, journalOf(tr.o.Path): journalOf(o.Path)} {
		data, err := os.ReadFile(from)
		if errors.Is(err, fs.ErrNotExist) && from != tr.o.Path {
			continue // no journal on this system
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	copied := open(t, o)
	t.Cleanup(copied.stop)
	return copied
}

// ends counts the ends that were told of.
func ends(all []jobs.Commit) (n int) {
	for i := range all {
		n += len(all[i].Ended)
	}
	return n
}

func syncs(t *testing.T, tr *tracker) uint64 {
	t.Helper()
	n, err := tr.Syncs()
	if err != nil {
		t.Fatal(err)
	}
	return n
}
