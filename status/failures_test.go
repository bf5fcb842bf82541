package status

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
	"jobstream/status/boltfile"
)

// failures are all groups, a page at a time.
func (tr *tracker) failures(p jobs.FailurePage) (all []jobs.FailureGroup) {
	tr.t.Helper()
	for {
		l, err := tr.Failures(context.Background(), p)
		tr.must(err)
		all = append(all, l.Failures...)
		if p.Cursor = l.Next; p.Cursor == "" {
			return all
		}
	}
}

// verifyFailures compares the groups of failures with the jobs.
func (tr *tracker) verifyFailures(all []*jobs.Job) {
	tr.t.Helper()
	want := make(map[string]*jobs.FailureGroup)
	keys := make(map[string][]uint64)
	for _, j := range all {
		f := j.Fingerprint()
		if f == "" {
			continue
		}
		keys[f] = append(keys[f], j.Key)
		if j.Type == jobs.CallbackType {
			continue
		}
		if want[f] == nil {
			want[f] = &jobs.FailureGroup{Fingerprint: f, Type: j.ListedAs(), Error: jobs.NormalError(j.Error)}
		}
		want[f].Count++
		want[f].Example = j
		want[f].Last = max(want[f].Last, j.EndedAt)
		if j.Permanent {
			want[f].Permanent++
		}
	}
	last := jobs.Time(1 << 62)
	got := tr.failures(jobs.FailurePage{Limit: 3})
	for _, g := range got {
		w := want[g.Fingerprint]
		if w == nil || g.Count != w.Count || g.Permanent != w.Permanent || g.Type != w.Type || g.Error != w.Error || g.Last < w.Last || g.First > w.Last || g.Example == nil || g.Example.ID != w.Example.ID {
			tr.t.Fatalf("the group is %+v, want %+v", g, w)
		}
		if g.Last > last {
			tr.t.Fatalf("%v comes after %v", g.Last, last)
		}
		last = g.Last
	}
	if len(got) != len(want) {
		tr.t.Fatalf("%d groups, want %d", len(got), len(want))
	}
	for f, want := range keys {
		if got := keysOf(tr.all(jobs.Filter{Fingerprints: []string{f}, Callbacks: true})); !slices.Equal(got, want) {
			tr.t.Fatalf("jobs with the fingerprint %s: %v, want %v", f, got, want)
		}
	}
}

// verifyAttributes compares the attributes of terms with the jobs.
func (tr *tracker) verifyAttributes(all []*jobs.Job) {
	tr.t.Helper()
	want := make(map[string][]uint64)
	for _, j := range all {
		if t := j.Terms; t != nil {
			for _, name := range []string{"s" + t.Schedule, "c" + t.ConcurrencyKey, "u" + t.UniqueKey} {
				want[name] = append(want[name], j.Key)
			}
		}
	}
	for name, want := range want {
		f := jobs.Filter{Callbacks: true}
		switch values := []string{name[1:]}; {
		case name[1:] == "":
			continue
		case name[0] == 's':
			f.Schedules = values
		case name[0] == 'c':
			f.ConcurrencyKeys = values
		default:
			f.UniqueKeys = values
		}
		if got := keysOf(tr.all(f)); !slices.Equal(got, want) {
			tr.t.Fatalf("jobs with %q: %v, want %v", name, got, want)
		}
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	at := epoch.Add(seconds(100))
	ms := []*jobs.Message{message(1), message(2), message(3), message(4), message(5), message(6)}
	tr.folds(ms)
	fail := func(seq uint64, text string, permanent bool) jobs.Event {
		e := of(jobs.KindFailed, tr.find(seq), at.Add(seconds(int(seq))))
		e.Error, e.Permanent = text, permanent
		return e
	}
	tr.folds(nil, fail(1, "row 12345 is bad", false), fail(2, "row 99999 is bad", true), fail(3, "no such host", true), fail(4, "row 55555 is bad", false))
	groups := func(p jobs.FailurePage) (counts []int) {
		for _, g := range tr.failures(p) {
			counts = append(counts, g.Count)
		}
		return counts
	}
	tr.everywhere(func() {
		if got := groups(jobs.FailurePage{}); !slices.Equal(got, []int{3, 1}) {
			t.Errorf("groups of %v", got)
		}
		g := tr.failures(jobs.FailurePage{Limit: 1})[0]
		if g.Error != "row … is bad" || g.Permanent != 1 || g.First != at.Add(seconds(1)) || g.Last != at.Add(seconds(4)) || g.Example.Key != 4 {
			t.Errorf("%+v", g)
		}
		if c, err := tr.Counts(context.Background(), jobs.Filter{Fingerprints: []string{g.Fingerprint}}); err != nil || c.Total != 3 {
			t.Errorf("counts %+v, %v", c, err)
		}
	})
	tr.folds(nil, fail(5, "no such host", true))
	if got := groups(jobs.FailurePage{}); !slices.Equal(got, []int{2, 3}) {
		t.Errorf("the latest group is not the first: %v", got)
	}
	if got := groups(jobs.FailurePage{ByCount: true}); !slices.Equal(got, []int{3, 2}) {
		t.Errorf("by count: %v", got)
	}
	if got := groups(jobs.FailurePage{Types: []string{"export"}}); len(got) != 0 {
		t.Errorf("of another type: %v", got)
	}
	tr.retries(4, 2)
	tr.deletes(1)
	if got := groups(jobs.FailurePage{}); !slices.Equal(got, []int{2}) {
		t.Errorf("a group without jobs is still there: %v", got)
	}
	_, err := tr.Failures(context.Background(), jobs.FailurePage{Cursor: "nope"})
	if jobstest.Failure(t, err) != "invalid_request query/cursor" {
		t.Errorf("a bad cursor: %v", err)
	}
	tr.verify()
}

// A file of an earlier version gets the attributes of its jobs when it is opened.
func TestReindex(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	everyStatus(tr)
	before := tr.contents()
	tr.must(tr.db.Update(func(tx *boltfile.Tx) error {
		tr.must(tx.Drop(bucketFailures, bucketFailureAges))
		bits := tx.Bucket(bucketBits)
		var late [][]byte
		for c, k, _ := cursorOf(bits); k != nil; k, _ = c.Next() {
			if slices.Contains([]byte("ofcku"), k[0]) {
				late = append(late, bytes.Clone(k))
			}
		}
		for _, k := range late {
			tr.must(bits.Delete(k))
		}
		return tx.Bucket(bucketMeta).Delete(keyIndexes)
	}))
	tr.reopen()
	if after := tr.contents(); !maps.Equal(after, before) {
		t.Error("it differs from one that was indexed from the start")
	}
	tr.verify()
}
