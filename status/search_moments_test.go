package status

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
)

// drawAny is a filter with some of all its fields.
func drawAny(rt *rapid.T, all []*jobs.Job) (f jobs.Filter) {
	some := func(label string, values ...string) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(values), 0, 2, rapid.ID).Draw(rt, label)
	}
	f.Statuses = drawStatuses(rt, []jobs.Status{jobs.Processing, jobs.Retrying, jobs.Completed, jobs.Failed, jobs.Cancelled})
	if rapid.Bool().Draw(rt, "narrow") {
		f.Types, f.Tags = some("types", "email", "export"), some("tags", "red", "green")
	}
	if len(all) == 0 || rapid.Bool().Draw(rt, "plain") {
		return f
	}
	j := rapid.SampledFrom(all).Draw(rt, "like")
	switch rapid.IntRange(0, 6).Draw(rt, "also") {
	case 0:
		f.Query = rapid.SampledFrom([]string{"EXAMPLE", "red", "email", "end", "timeout", fmt.Sprint(j.Seq), j.ID.String(), j.ID.String()[:20]}).Draw(rt, "query")
	case 1:
		f.IDs = []string{j.ID.String(), all[0].ID.String()[:rapid.IntRange(1, 36).Draw(rt, "prefix")]}
	case 2:
		if p := j.Fingerprint(); p != "" {
			f.Fingerprints = []string{p, "0123456789abcdef"}
		}
	case 3:
		f.Error = "timeout"
	case 4:
		f.CreatedAfter = j.CreatedAt
	}
	return f
}

// Lists by a moment have the jobs with that moment which the filter chooses, in order,
// whatever the size of the pages.
func TestSearchByMoment(t *testing.T) {
	t.Parallel()
	dir, n := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		tr := open(rt, Options{Path: filepath.Join(dir, fmt.Sprint(n))})
		defer func() {
			_ = tr.halt()
			_ = tr.Close()
		}()
		tr.run(idle{})
		all := drawJobs(rt, tr)
		for range 4 {
			p := jobs.Page{
				Filter: drawAny(rt, all), Asc: rapid.Bool().Draw(rt, "asc"), Limit: rapid.SampledFrom([]int{1, 2, 7, 500}).Draw(rt, "limit"),
				Order: rapid.SampledFrom([]jobs.Order{jobs.ByCreation, jobs.ByEnd, jobs.ByRunAt, jobs.ByStart}).Draw(rt, "order"),
			}
			want := wanted(p, all)
			var got []*jobs.Job
			for pages := 0; ; pages++ {
				l, err := tr.search(context.Background(), p, bounds{budget{3, 1 << 20}, budget{2, 1 << 20}}, func(j *jobs.Job) bool { got = append(got, j); return true })
				if err != nil {
					rt.Fatal(err)
				}
				if p.Cursor = l.Next; p.Cursor == "" {
					break
				}
				if pages > 1000 {
					rt.Fatal("it has no end")
				}
			}
			if !slices.EqualFunc(got, want, func(a, b *jobs.Job) bool { return jobstest.Same(a, b) }) {
				rt.Fatalf("%+v gives %v, want %v", p, keysOf(got), keysOf(want))
			}
		}
		tr.verify()
	})
}

// wanted are the jobs of all pages.
func wanted(p jobs.Page, all []*jobs.Job) (want []*jobs.Job) {
	for _, j := range all {
		if p.Match(j) && (p.Order == jobs.ByCreation || slices.Contains(p.Order.Statuses(), j.Status)) {
			want = append(want, j)
		}
	}
	slices.SortFunc(want, func(a, b *jobs.Job) int {
		n := cmp.Compare(a.Key, b.Key)
		if p.Order != jobs.ByCreation {
			n = cmp.Or(cmp.Compare(a.Moment(), b.Moment()), n)
		}
		if !p.Asc {
			n = -n
		}
		return n
	})
	return want
}

// A slot with a crowd of jobs is listed by their keys, a page at a time, and each once.
func TestSearchCrowd(t *testing.T) {
	t.Parallel()
	tr := byHand(t)
	const n = crowd + 100
	var ms []*jobs.Message
	for seq := uint64(1); seq <= n; seq++ {
		ms = append(ms, later(seq, 100_000))
	}
	tr.folds(ms)
	for _, asc := range []bool{true, false} {
		p := jobs.Page{Order: jobs.ByRunAt, Asc: asc, Limit: 500}
		var got []uint64
		for {
			l, err := tr.Search(context.Background(), p, func(j *jobs.Job) bool { got = append(got, j.Key); return true })
			if err != nil {
				t.Fatal(err)
			}
			if p.Cursor = l.Next; p.Cursor == "" {
				break
			}
		}
		if !asc {
			slices.Reverse(got)
		}
		if len(got) != n || !slices.IsSorted(got) || len(slices.Compact(got)) != n {
			t.Errorf("asc %v: %d jobs, want %d in order", asc, len(got), n)
		}
	}
	for _, cursor := range []string{"x", "AAAA", makeCursor(1, true)} {
		_, err := tr.Search(context.Background(), jobs.Page{Order: jobs.ByEnd, Cursor: cursor}, func(*jobs.Job) bool { return true })
		if jobstest.Failure(t, err) != "invalid_request query/cursor" {
			t.Errorf("cursor %q: %v", cursor, err)
		}
	}
}
