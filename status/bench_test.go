package status

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"jobstream/jobs"
)

// BenchmarkFold is what a job costs the tracker: its submission and its
// completion, with payloads of 200 bytes, in batches of 1000 jobs, and of one, as
// when little happens. With TMPDIR in memory it leaves the disk out.
func BenchmarkFold(b *testing.B) {
	for _, size := range []int{1000, 1} {
		b.Run(fmt.Sprint(size), func(b *testing.B) { benchmarkFold(b, size) })
	}
}

func benchmarkFold(b *testing.B, size int) {
	payload := []byte(`{"text":"` + strings.Repeat("x", 189) + `"}`)
	tr := open(b, Options{Path: filepath.Join(b.TempDir(), "status.db")})
	defer tr.stop()
	tr.Notified(1 << 62)
	seq := uint64(0)
	made := func() (in, out batch) {
		for range size {
			seq++
			m := message(seq)
			m.Payload, m.Checked = payload, true
			in.messages = append(in.messages, *m)
			out.events = append(out.events, event(jobs.KindCompleted, m, 1))
		}
		in.jobs, out.status = seq, seq
		return in, out
	}
	b.ReportAllocs()
	jobsDone := 0
	for b.Loop() {
		b.StopTimer()
		in, out := made()
		b.StartTimer()
		for _, part := range []*batch{&in, &out} {
			if _, _, err := tr.fold(part, tr.input()); err != nil {
				b.Fatal(err)
			}
		}
		jobsDone += size
	}
	b.ReportMetric(float64(2*jobsDone)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(jobsDone), "ns/job")
}

// BenchmarkQuery asks a tracker with 50,000 jobs.
func BenchmarkQuery(b *testing.B) {
	const n = 50_000
	tr := open(b, Options{Path: filepath.Join(b.TempDir(), "status.db")})
	defer tr.stop()
	for from := uint64(1); from <= n; from += 5000 {
		var part batch
		for seq := from; seq < from+5000; seq++ {
			m := message(seq)
			m.Tags = []string{fmt.Sprintf("tag%d", seq%1000)}
			part.messages = append(part.messages, *m)
			part.jobs = seq
			if seq%10 != 0 {
				part.events = append(part.events, event(jobs.KindCompleted, m, 1))
				part.status = seq
			}
		}
		if _, _, err := tr.fold(&part, tr.input()); err != nil {
			b.Fatal(err)
		}
	}
	pending := jobs.Filter{Statuses: []jobs.Status{jobs.Pending}, Types: []string{"email"}}
	tagged := jobs.Filter{Tags: []string{"tag7"}}
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			if tr.count(pending) != n/10 {
				b.Fatal("wrong")
			}
		}
	})
	for name, f := range map[string]jobs.Filter{"newest": {}, "pending": pending, "tagged": tagged} {
		b.Run("list/"+name, func(b *testing.B) {
			for b.Loop() {
				if found, _, err := tr.List(b.Context(), jobs.Page{Filter: f}); err != nil || len(found) != 50 {
					b.Fatal(len(found), err)
				}
			}
		})
	}
	b.Run("find", func(b *testing.B) {
		for seq := uint64(1); b.Loop(); seq = seq%n + 1 {
			tr.find(seq)
		}
	})
}
