package status

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
	"jobstream/status/index"
	"jobstream/status/record"
)

// chosen says whether a filter chooses a job, told apart from what the tracker
// uses for that.
func chosen(f *jobs.Filter, j *jobs.Job) bool {
	within := func(t, after, before jobs.Time) bool {
		if after == 0 && before == 0 {
			return true
		}
		return t != 0 && t >= after && (before == 0 || t < before)
	}
	has := func(text, part string) bool { return strings.Contains(strings.ToLower(text), strings.ToLower(part)) }
	texts := j.Error
	for _, e := range j.Errors {
		texts += "\n" + e.Error
	}
	tagged := len(f.Tags) == 0
	for _, t := range f.Tags {
		tagged = tagged || slices.Contains(j.Tags, t)
	}
	return tagged &&
		(f.Statuses == nil || slices.Contains(f.Statuses, j.Status)) &&
		(f.Types == nil || slices.Contains(f.Types, j.ListedAs())) &&
		(f.Priorities == nil || slices.Contains(f.Priorities, j.Priority)) &&
		within(j.CreatedAt, f.CreatedAfter, f.CreatedBefore) &&
		within(j.StartedAt, f.StartedAfter, f.StartedBefore) &&
		within(j.EndedAt, f.EndedAfter, f.EndedBefore) &&
		has(texts, f.Error) && (f.Payload == "" || has(string(j.Payload), f.Payload))
}

// drawJobs puts random jobs into a tracker, in several chunks, and returns them
// in the order of their keys. Their times of creation are in no order.
func drawJobs(rt *rapid.T, tr *tracker) []*jobs.Job {
	seq, events := uint64(0), uint64(0)
	for range rapid.SampledFrom([]int{0, 1, 5, 20, 60}).Draw(rt, "jobs") {
		seq += rapid.SampledFrom([]uint64{1, 1, 1, 2, 700, 5000, 50000}).Draw(rt, "gap")
		m := message(seq)
		m.At = epoch.Add(seconds(rapid.IntRange(0, 5).Draw(rt, "at") * 600))
		m.Type = rapid.SampledFrom([]string{"email", "email", "export", "else"}).Draw(rt, "type")
		m.Priority = jobs.Priority(rapid.IntRange(1, 5).Draw(rt, "priority"))
		m.Tags = rapid.SliceOfN(rapid.SampledFrom([]string{"red", "green"}), 0, 2).Draw(rt, "tags")
		m.Payload = []byte(rapid.SampledFrom([]string{
			`{"to":"Ann@example.com"}`, `{"to":"bob@EXAMPLE.com", "n":1}`, `"Köln"`, `[]`,
			`"` + strings.Repeat("x", record.InlinePayload) + ` the End"`,
		}).Draw(rt, "payload"))
		tr.submit(m)
		for _, e := range drawLife(rt, m) {
			events++
			tr.Happened(events, []jobs.Event{e})
		}
	}
	tr.wait(seq, events)
	return tr.all(jobs.Filter{})
}

// drawLife is what happens to a job: nothing, a start, or attempts and an end.
func drawLife(rt *rapid.T, m *jobs.Message) (life []jobs.Event) {
	if m.Type == "else" {
		return nil // it has failed already
	}
	attempts := rapid.IntRange(0, 3).Draw(rt, "attempts")
	for n := 1; n <= attempts; n++ {
		kind := jobs.KindRetrying
		if n == attempts {
			kind = rapid.SampledFrom([]jobs.Kind{jobs.KindStarted, jobs.KindRetrying, jobs.KindCompleted, jobs.KindFailed, jobs.KindCancelled}).Draw(rt, "kind")
		}
		e := event(kind, m, n)
		if e.Error != "" {
			e.Error = rapid.SampledFrom([]string{"dial tcp: TIMEOUT", "i/o timeout", "no such host", "Straße"}).Draw(rt, "error")
		}
		life = append(life, e)
	}
	return life
}

func drawSearch(rt *rapid.T) (f jobs.Filter) {
	some := func(what string) bool { return rapid.SampledFrom([]bool{true, false, false, false}).Draw(rt, what) }
	moment := func(what string) jobs.Time {
		if !some("with " + what) {
			return 0
		}
		return epoch.Add(seconds(rapid.IntRange(0, 7).Draw(rt, what)*600 - 1 + rapid.IntRange(0, 2).Draw(rt, "off")))
	}
	if some("by status") {
		f.Statuses = rapid.SliceOfN(rapid.SampledFrom([]jobs.Status{jobs.Pending, jobs.Processing, jobs.Retrying, jobs.Completed, jobs.Failed}), 1, 3).Draw(rt, "statuses")
	}
	if some("by type") {
		f.Types = rapid.SliceOfN(rapid.SampledFrom([]string{"email", "export", "else", "never"}), 1, 3).Draw(rt, "types")
	}
	if some("by tag") {
		f.Tags = rapid.SliceOfN(rapid.SampledFrom([]string{"red", "green", "never"}), 1, 3).Draw(rt, "tags")
	}
	if some("by priority") {
		f.Priorities = rapid.SliceOfN(rapid.Map(rapid.IntRange(1, 5), func(n int) jobs.Priority { return jobs.Priority(n) }), 1, 3).Draw(rt, "priorities")
	}
	f.CreatedAfter, f.CreatedBefore = moment("created_after"), moment("created_before")
	f.StartedAfter, f.StartedBefore = moment("started_after"), moment("started_before")
	f.EndedAfter, f.EndedBefore = moment("ended_after"), moment("ended_before")
	if some("by error") {
		f.Error = rapid.SampledFrom([]string{"timeout", "TCP", "no such", "strasse", "STRAße", "never"}).Draw(rt, "error")
	}
	if some("by payload") {
		f.Payload = rapid.SampledFrom([]string{"@example.COM", `"to":"b`, "KÖLN", "the end", "[]", "never"}).Draw(rt, "payload")
	}
	return f
}

// Any filter, order and size of pages gives all chosen jobs once, in order. No call
// looks at more than it may.
func TestSearchModel(t *testing.T) {
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
		for range 30 {
			f := drawSearch(rt)
			var want []*jobs.Job
			for _, j := range all {
				if chosen(&f, j) {
					want = append(want, j)
				}
			}
			checkSearch(rt, tr, f, want)
			checkNumbers(rt, tr, f, want)
		}
	})
}

func checkSearch(rt *rapid.T, tr *tracker, f jobs.Filter, want []*jobs.Job) {
	p := jobs.Page{Filter: f, Limit: rapid.IntRange(1, 20).Draw(rt, "limit"), Asc: rapid.Bool().Draw(rt, "asc")}
	if !p.Asc {
		want = slices.Clone(want)
		slices.Reverse(want)
	}
	within := bounds{
		call:  budget{rapid.SampledFrom([]int{1, 2, 7, 1000}).Draw(rt, "call"), rapid.SampledFrom([]int{1, 2000, math.MaxInt}).Draw(rt, "bytes")},
		piece: budget{rapid.SampledFrom([]int{1, 3, 1000}).Draw(rt, "piece"), rapid.SampledFrom([]int{1, math.MaxInt}).Draw(rt, "piece bytes")},
	}
	var got []*jobs.Job
	scans := f.Scans() || f.CreatedAfter != 0 || f.CreatedBefore != 0
	for pages := 0; ; pages++ {
		l, err := tr.look(context.Background(), p, within)
		if err != nil {
			rt.Fatalf("%v", err)
		}
		got = append(got, l.Jobs...)
		switch {
		case len(l.Jobs) > p.Limit, scans && l.Scanned > within.call.records, l.Scanned < len(l.Jobs):
			rt.Fatalf("%d jobs with limit %d, %d records looked at with bounds %+v", len(l.Jobs), p.Limit, l.Scanned, within)
		case !scans && l.Scanned != len(l.Jobs):
			rt.Fatalf("%d records were looked at for %d jobs, though the indexes know them", l.Scanned, len(l.Jobs))
		case !scans && l.Next != "" && (len(l.Jobs) < p.Limit || len(got) == len(want)):
			rt.Fatalf("there is nothing after %d of %d jobs, and a cursor", len(got), len(want))
		case l.Next != "" && l.Scanned == 0:
			rt.Fatalf("page %d got no further", pages)
		case l.ShowScanned != (f.Scans() || l.Next != "" && len(l.Jobs) < p.Limit):
			rt.Fatalf("scanned is shown: %v; %d jobs, next %q", l.ShowScanned, len(l.Jobs), l.Next)
		}
		if p.Cursor = l.Next; l.Next == "" {
			break
		}
	}
	if !slices.EqualFunc(got, want, jobstest.Same) {
		rt.Fatalf("Search(%+v), bounds %+v: %v, want %v", p, within, keysOf(got), keysOf(want))
	}
}

// checkNumbers compares the walk and everything that counts.
func checkNumbers(rt *rapid.T, tr *tracker, f jobs.Filter, want []*jobs.Job) {
	if got := tr.all(f); !slices.EqualFunc(got, want, jobstest.Same) {
		rt.Fatalf("Scan(%+v): %v, want %v", f, keysOf(got), keysOf(want))
	}
	exact := !f.Scans() && f.CreatedAfter == 0 && f.CreatedBefore == 0
	if n := tr.count(f); n < len(want) || exact && n != len(want) {
		rt.Fatalf("Count(%+v) = %d, want %d", f, n, len(want))
	}
	var counts jobs.Counts
	for _, j := range want {
		counts.Add(j.ListedAs(), j.Status, 1)
	}
	check := func(what string, got jobs.Counts, err error) {
		if err != nil || got.Total != counts.Total || got.Statuses != counts.Statuses || !maps.Equal(got.Types, counts.Types) {
			rt.Fatalf("%s of %+v: %+v, %v; want %+v", what, f, got, err, counts)
		}
	}
	got, err := tr.Counts(context.Background(), f)
	check("Counts", got, err)
	// The same in the smallest pieces, and not from the counters.
	piece := budget{rapid.SampledFrom([]int{1, 5, chunkCost + 1}).Draw(rt, "piece"), math.MaxInt}
	got, err = tr.countWalk(context.Background(), &f, piece)
	check("the walk's counts", got, err)
}

// fill submits n jobs with consecutive keys and waits for them.
func fill(tr *tracker, n uint64, change func(*jobs.Message)) {
	done := make(chan struct{})
	go func() { // more than the inbox holds
		defer close(done)
		for seq := uint64(1); seq <= n; seq++ {
			m := message(seq)
			if change != nil {
				change(m)
			}
			tr.Submitted(m)
		}
	}()
	<-done
	tr.wait(n, 0)
}

// A few among many are found without a look at the others, and so is a time
// that leaves whole chunks out.
func TestSparseMatchesReadNothingElse(t *testing.T) {
	t.Parallel()
	const n = 3*index.ChunkSize + 100
	tr := startTemp(t, Options{})
	fill(tr, n, func(m *jobs.Message) {
		if m.Seq%5000 == 7 {
			m.Tags = []string{"rare"}
		}
	})
	failed := []uint64{9, 2*index.ChunkSize + 1, n}
	for i, seq := range failed {
		e := event(jobs.KindFailed, message(seq), 1)
		tr.Happened(uint64(i+1), []jobs.Event{e})
	}
	tr.wait(n, uint64(len(failed)))
	at := func(seq uint64) jobs.Time { return message(seq).At }
	for name, c := range map[string]struct {
		filter jobs.Filter
		want   []uint64
		looks  int // at most
	}{
		"status":              {jobs.Filter{Statuses: []jobs.Status{jobs.Failed}}, failed, 3},
		"status never":        {jobs.Filter{Statuses: []jobs.Status{jobs.Cancelled}}, nil, 0},
		"tag":                 {jobs.Filter{Tags: []string{"rare"}}, []uint64{7, 5007, 10007}, 3},
		"tag and status":      {jobs.Filter{Tags: []string{"rare"}, Statuses: []jobs.Status{jobs.Failed}}, nil, 0},
		"type never":          {jobs.Filter{Types: []string{"export"}}, nil, 0},
		"failed and text":     {jobs.Filter{Statuses: []jobs.Status{jobs.Failed}, Error: "BROKE for"}, failed, 3},
		"rare and text":       {jobs.Filter{Tags: []string{"rare"}, Payload: `"N":5007`}, []uint64{5007}, 3},
		"ended at all":        {jobs.Filter{EndedAfter: 1}, failed, 3},
		"ended early":         {jobs.Filter{EndedBefore: at(index.ChunkSize)}, failed[:1], 1},
		"started early":       {jobs.Filter{StartedBefore: at(100)}, failed[:1], index.ChunkSize},
		"created in a chunk":  {jobs.Filter{CreatedAfter: at(index.ChunkSize + 5), CreatedBefore: at(index.ChunkSize + 7)}, []uint64{index.ChunkSize + 5, index.ChunkSize + 6}, index.ChunkSize},
		"created never":       {jobs.Filter{CreatedAfter: at(n + 1)}, nil, 0},
		"ended before it all": {jobs.Filter{EndedBefore: at(1)}, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			for _, asc := range []bool{true, false} {
				l, err := tr.look(t.Context(), jobs.Page{Filter: c.filter, Asc: asc}, searchBounds)
				got := keysOf(l.Jobs)
				if !asc {
					slices.Reverse(got)
				}
				if err != nil || !slices.Equal(got, c.want) || l.Next != "" || l.Scanned > c.looks {
					t.Errorf("asc %v: %v, %d looked at, next %q, %v; want %v, at most %d", asc, got, l.Scanned, l.Next, err, c.want, c.looks)
				}
			}
		})
	}
	// A whole chunk within the range is read no more than the page needs.
	l, err := tr.look(t.Context(), jobs.Page{Filter: jobs.Filter{CreatedAfter: at(index.ChunkSize), CreatedBefore: at(2 * index.ChunkSize)}, Asc: true}, searchBounds)
	if err != nil || len(l.Jobs) != jobs.DefaultLimit || l.Scanned != len(l.Jobs) || l.ShowScanned {
		t.Errorf("%d jobs, %d looked at, %v", len(l.Jobs), l.Scanned, err)
	}
}

// A scan that finds nothing comes back after so many records, and goes on from
// there.
func TestSearchIsBounded(t *testing.T) {
	t.Parallel()
	const n = 20_000 + index.ChunkSize
	tr := startTemp(t, Options{})
	fill(tr, n, nil)
	p := jobs.Page{Filter: jobs.Filter{Payload: `{"n":1}`}}
	first, err := tr.look(t.Context(), p, searchBounds)
	if err != nil || len(first.Jobs) != 0 || first.Next == "" || first.Scanned != 20_000 || !first.ShowScanned {
		t.Fatalf("%+v, %v", first, err)
	}
	again, err := tr.look(t.Context(), p, searchBounds)
	if err != nil || again.Next != first.Next {
		t.Errorf("the same call again: %+v, %v", again, err)
	}
	p.Cursor = first.Next
	l, err := tr.look(t.Context(), p, searchBounds)
	if err != nil || !slices.Equal(keysOf(l.Jobs), []uint64{1}) || l.Next != "" || l.Scanned != index.ChunkSize {
		t.Errorf("%v, %+v, %v", keysOf(l.Jobs), l, err)
	}
	// A filter that takes everything is not ended by the bound, but by the limit.
	p = jobs.Page{Filter: jobs.Filter{Payload: `n`}, Limit: jobs.MaxLimit}
	l, err = tr.look(t.Context(), p, searchBounds)
	if err != nil || len(l.Jobs) != jobs.MaxLimit || l.Scanned != jobs.MaxLimit {
		t.Errorf("%d jobs, %d looked at, %v", len(l.Jobs), l.Scanned, err)
	}
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := tr.look(ctx, p, searchBounds); !errors.Is(err, why) {
		t.Errorf("an ended context: %v", err)
	}
	if _, err := tr.Counts(ctx, p.Filter); !errors.Is(err, why) {
		t.Errorf("counts with an ended context: %v", err)
	}
}

// Large payloads end a search before it has looked at many records.
func TestSearchIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	const n, size = 30, 10_000
	fill(tr, n, func(m *jobs.Message) { m.Payload = []byte(`"` + strings.Repeat("x", size) + `"`) })
	within := searchBounds
	within.call.bytes = 5 * size
	p := jobs.Page{Filter: jobs.Filter{Payload: "y"}}
	l, err := tr.look(t.Context(), p, within)
	if err != nil || l.Scanned != 5 || l.Next == "" || !l.ShowScanned {
		t.Errorf("%+v, %v", l, err)
	}
	// Records count as well as payloads that are kept apart from them.
	p.Filter = jobs.Filter{Priorities: []jobs.Priority{1}}
	within.call.bytes = 1
	if l, err = tr.look(t.Context(), p, within); err != nil || l.Scanned != 1 || l.Next == "" {
		t.Errorf("%+v, %v", l, err)
	}
	// Without a filter that scans, the limit alone counts.
	p.Filter = jobs.Filter{}
	if l, err = tr.look(t.Context(), p, within); err != nil || len(l.Jobs) != n || l.Next != "" || l.ShowScanned {
		t.Errorf("%d jobs, next %q, %v", len(l.Jobs), l.Next, err)
	}
}

// A type or tag whose name begins with another one's is another one.
func TestNamesThatBeginAlike(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	names := []string{"a", "a-b", "a\x00\x00\x00\x00\x00", "a\x01", "ab", "b"}
	fill(tr, 60, func(m *jobs.Message) { m.Tags = []string{names[m.Seq%6]} })
	for i, name := range names {
		for _, asc := range []bool{true, false} {
			l, err := tr.look(t.Context(), jobs.Page{Filter: jobs.Filter{Tags: []string{name}}, Asc: asc}, searchBounds)
			if err != nil || len(l.Jobs) != 10 {
				t.Errorf("%q: %v, %v", name, keysOf(l.Jobs), err)
			}
			for _, j := range l.Jobs {
				if int(j.Key%6) != i {
					t.Errorf("%q has %d", name, j.Key)
				}
			}
		}
	}
}
