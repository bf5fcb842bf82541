package status

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
)

// BenchmarkSearch asks a tracker with a million jobs, most of which have ended:
// one page of each kind of list, and counts. "scan" is one call that looks at as
// many records as it may and finds nothing; "scan/all" is all such calls until
// the end.
func BenchmarkSearch(b *testing.B) {
	const n = 1_000_000
	tr := open(b, Options{
		Path: filepath.Join(b.TempDir(), "status.db"), Spacing: 5 * time.Millisecond,
		Checked: func(jobs.ID) bool { return true },
	})
	defer tr.stop()
	tr.run(idle{})
	fillMillion(tr, n)
	at := func(seq uint64) jobs.Time { return message(seq).At }
	rare := []jobs.Status{jobs.Failed}
	for _, c := range []struct {
		name   string
		filter jobs.Filter
		asc    bool
		want   int
	}{
		{"newest", jobs.Filter{}, false, 50},
		{"status/3 of a million", jobs.Filter{Statuses: rare}, false, 3},
		{"status/none", jobs.Filter{Statuses: []jobs.Status{jobs.Cancelled}}, false, 0},
		{"type", jobs.Filter{Types: []string{"export"}}, false, 50},
		{"type and status", jobs.Filter{Types: []string{"export"}, Statuses: []jobs.Status{jobs.Pending}}, false, 50},
		{"tag/1000 of a million", jobs.Filter{Tags: []string{"tag7"}}, false, 50},
		{"tag and status/none", jobs.Filter{Tags: []string{"tag7"}, Statuses: rare}, false, 0},
		{"created/in the middle", jobs.Filter{CreatedAfter: at(n / 2), CreatedBefore: at(n/2 + 30)}, false, 30},
		{"ended/first ones", jobs.Filter{EndedBefore: at(1000)}, false, 50},
		{"started/first ones", jobs.Filter{StartedBefore: at(1000)}, false, 50},
		{"priority", jobs.Filter{Priorities: []jobs.Priority{1}}, false, 50},
		{"failed with text", jobs.Filter{Statuses: rare, Error: "BROKE"}, false, 3},
		{"scan/payload", jobs.Filter{Payload: "nowhere@example.com"}, false, 0},
		{"scan/payload asc", jobs.Filter{Payload: "nowhere@example.com"}, true, 0},
		{"scan/error", jobs.Filter{Error: "nowhere"}, false, 0},
		{"scan/ended", jobs.Filter{EndedAfter: at(2 * n)}, false, 0},
		{"scan/priority", jobs.Filter{Priorities: []jobs.Priority{5}}, false, 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			var l found
			var err error
			b.ReportAllocs()
			for b.Loop() {
				if l, err = tr.look(b.Context(), jobs.Page{Filter: c.filter, Asc: c.asc}, searchBounds); err != nil || len(l.Jobs) != c.want {
					b.Fatal(len(l.Jobs), err)
				}
			}
			b.ReportMetric(float64(l.Scanned), "records")
			if l.Scanned > 0 {
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(l.Scanned), "ns/record")
			}
		})
	}
	for _, order := range []jobs.Order{jobs.ByEnd, jobs.ByRunAt, jobs.ByStart} {
		for _, st := range append(order.Statuses(), 0) {
			f := jobs.Filter{}
			if st != 0 {
				f.Statuses = []jobs.Status{st}
			}
			for _, asc := range []bool{false, true} {
				for name, f := range map[string]jobs.Filter{"": f, " export": {Statuses: f.Statuses, Types: []string{"export"}}} {
					b.Run(fmt.Sprintf("order/%v %v asc %v%s", jobs.OrderNames()[order], st, asc, name), func(b *testing.B) {
						for b.Loop() {
							if _, err := tr.look(b.Context(), jobs.Page{Filter: f, Asc: asc, Order: order}, searchBounds); err != nil {
								b.Fatal(err)
							}
						}
					})
				}
			}
		}
	}
	for name, f := range map[string]jobs.Filter{
		"q": {Query: "nowhere@example.com"}, "q seq": {Query: "500000"}, "fingerprint": {Fingerprints: []string{"0123456789abcdef"}},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := tr.look(b.Context(), jobs.Page{Filter: f}, searchBounds); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("failures", func(b *testing.B) {
		for b.Loop() {
			if _, err := tr.Failures(b.Context(), jobs.FailurePage{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("scan/all", func(b *testing.B) {
		for b.Loop() {
			p := jobs.Page{Filter: jobs.Filter{Payload: "nowhere@example.com"}}
			for p.Cursor = "-"; p.Cursor != ""; {
				p.Cursor = strings.Trim(p.Cursor, "-")
				l, err := tr.look(b.Context(), p, searchBounds)
				if err != nil || len(l.Jobs) != 0 {
					b.Fatal(len(l.Jobs), err)
				}
				p.Cursor = l.Next
			}
		}
	})
	b.Run("decode", func(b *testing.B) { // what a look at 20,000 records would take if it decoded them
		for b.Loop() {
			for range 10 {
				if _, _, err := tr.page(jobs.Filter{}, 0, false, 2000); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	for name, f := range map[string]jobs.Filter{
		"all": {}, "tag": {Tags: []string{"tag7"}}, "created": {CreatedAfter: at(1000), CreatedBefore: at(n - 1000)},
		"payload": {Payload: "nowhere@example.com"},
	} {
		b.Run("counts/"+name, func(b *testing.B) {
			for b.Loop() {
				if _, err := tr.Counts(b.Context(), f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// fillMillion makes n jobs with payloads of 200 bytes: nine of ten completed,
// three failed, a tenth of them exports, a thousand tags.
func fillMillion(tr *tracker, n uint64) {
	payload := fmt.Appendf(nil, `{"to":"user@example.com","subject":"Hello","body":"%s"}`, strings.Repeat("x", 140))
	change := func(m *jobs.Message) {
		m.Payload, m.Tags = payload, []string{fmt.Sprintf("tag%d", m.Seq%1000)}
		m.Priority = jobs.Priority(1 + m.Seq%4)
		if m.Seq%10 < 1 {
			m.Type = "export"
		}
	}
	fill(tr, n, change)
	failed := []uint64{n / 10 * 3, n / 2, n - 10}
	const pack = 500
	seq, status := uint64(0), uint64(0)
	for seq < n {
		var events []jobs.Event
		for range pack {
			seq++
			m := message(seq)
			change(m)
			switch {
			case slices.Contains(failed, seq):
				events = append(events, event(jobs.KindFailed, m, 1))
			case seq/10%10 != 0:
				events = append(events, event(jobs.KindCompleted, m, 1))
			}
		}
		status++
		tr.Happened(status, events)
	}
	tr.wait(n, status)
}
