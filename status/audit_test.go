package status

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"jobstream/jobs"
)

// asked is the context of a request for a change.
func asked(action string) (context.Context, *jobs.Request) {
	r := &jobs.Request{Act: jobs.Act{Actor: "ci", Action: action, Target: "x"}}
	return jobs.WithRequest(context.Background(), r), r
}

// auditOf is the log, the youngest first.
func (tr *tracker) auditOf(t *testing.T, refusals bool, before uint64) (all []jobs.AuditEntry) {
	t.Helper()
	err := tr.Audit(refusals, before, func(e jobs.AuditEntry) bool { all = append(all, e); return true })
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestAuditedCommands: a command of a request has an entry if it has changed something, and
// the request has only one.
func TestAuditedCommands(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	m := message(1)
	tr.submit(m)
	tr.wait(1, 0)
	key := tr.find(1).Key
	for i, c := range []struct {
		command jobs.Command
		noted   bool
	}{
		{jobs.Retry{Stamp: jobs.By("ci"), Keys: []uint64{key}}, false}, // it has not failed
		{jobs.Cancel{Stamp: jobs.By("ci"), Keys: []uint64{99}}, false},
		{jobs.Cancel{Stamp: jobs.By("ci"), Keys: []uint64{key}}, true},
		{jobs.Cancel{Stamp: jobs.By("ci"), Keys: []uint64{key}}, false}, // it has ended
		{jobs.Delete{Stamp: jobs.By("ci"), Keys: []uint64{key}}, true},
		{jobs.Delete{Stamp: jobs.By("ci"), Keys: []uint64{key}}, false},
		{jobs.Pause{Stamp: jobs.By("ci"), Type: "email", Paused: true}, true},
	} {
		before := len(tr.auditOf(t, false, 0))
		ctx, r := asked(fmt.Sprint(i))
		if _, err := tr.Do(ctx, c.command); err != nil {
			t.Fatal(err)
		}
		all := tr.auditOf(t, false, 0)
		if r.Noted() != c.noted || len(all) != before && !c.noted {
			t.Errorf("%T %d: noted is %v, with %d entries", c.command, i, r.Noted(), len(all)-before)
		}
		if !c.noted {
			continue
		}
		if e := all[0]; len(all) != before+1 || e.Act != r.Act || e.At != c.command.Origin().At || e.Refused {
			t.Errorf("%T has the entry %+v", c.command, e)
		}
		if _, err := tr.Do(ctx, jobs.Pause{Stamp: jobs.By("ci"), Type: "export"}); err != nil || len(tr.auditOf(t, false, 0)) != before+1 {
			t.Errorf("a second command of the request: %v", err)
		}
	}
	// a command that is refused has none
	ctx, r := asked("refused")
	if _, err := tr.Do(ctx, nonsense{}); err == nil || r.Noted() {
		t.Errorf("nonsense: %v", err)
	}
	if _, err := tr.Do(context.Background(), jobs.Pause{Stamp: jobs.By("clock"), Type: "email"}); err != nil {
		t.Fatal(err)
	}
	before := tr.auditOf(t, false, 0)
	if len(before) != 3 {
		t.Errorf("the log has %v", before)
	}
	tr.reopen()
	if after := tr.auditOf(t, false, 0); !slices.Equal(after, before) {
		t.Errorf("after a restart it has %v", after)
	}
	if some := tr.auditOf(t, false, before[0].Seq); !slices.Equal(some, before[1:]) {
		t.Errorf("behind the first there are %v", some)
	}
	errStop := errors.New("enough")
	if err := tr.Audit(false, 0, func(jobs.AuditEntry) bool { errStop = nil; return false }); err != nil || errStop != nil {
		t.Errorf("it stops with %v, %v", err, errStop)
	}
}

type nonsense struct{ jobs.Stamp }

// TestAuditIsBounded fills both lists: neither takes room of the other, and each drops what
// is too old or too much.
func TestAuditIsBounded(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	add := func(n int, at jobs.Time, refused bool) {
		t.Helper()
		note := jobs.Note{Stamp: jobs.By("test")}
		for i := range n {
			note.Entries = append(note.Entries, jobs.AuditEntry{At: at, Act: jobs.Act{Actor: "a", Action: fmt.Sprint(i)}, Refused: refused})
		}
		if _, err := tr.Do(t.Context(), note); err != nil {
			t.Fatal(err)
		}
	}
	add(5, epoch, false)
	add(jobs.MaxRefusals+7, epoch, true)
	if all := tr.auditOf(t, true, 0); len(all) != jobs.MaxRefusals || all[len(all)-1].Action != "7" || all[0].Seq != jobs.MaxRefusals+7 {
		t.Errorf("%d refusals, from %+v to %+v", len(all), all[0], all[len(all)-1])
	}
	if all := tr.auditOf(t, false, 0); len(all) != 5 {
		t.Errorf("%d others are left", len(all))
	}
	add(1, epoch.Add(jobs.AuditTime-time.Second), false)
	if n := len(tr.auditOf(t, false, 0)); n != 6 {
		t.Errorf("%d young enough", n)
	}
	add(1, epoch.Add(jobs.AuditTime), false)
	if n := len(tr.auditOf(t, false, 0)); n != 2 {
		t.Errorf("%d are left of those that are too old", n)
	}
	add(jobs.MaxAudit, epoch.Add(jobs.AuditTime), false)
	if n := len(tr.auditOf(t, false, 0)); n != jobs.MaxAudit {
		t.Errorf("%d entries", n)
	}
}
