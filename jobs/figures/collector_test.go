package figures

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"jobstream/jobs"
)

// stand is a Source whose answer is set.
type stand struct{ now Now }

func (s *stand) Now(map[string]Waiting) Now { return s.now }

// lives are jobs whose lives go on at random, with what the figures should say of them.
type lives struct {
	r    *rand.Rand
	now  jobs.Time
	jobs []*jobs.Job
	want map[string]*tally
}

func (l *lives) tally(j *jobs.Job) *tally {
	t := l.want[j.Type]
	if t == nil {
		t = &tally{}
		l.want[j.Type] = t
	}
	return t
}

// step changes a job, or makes one.
func (l *lives) step() jobs.Change {
	l.now = l.now.Add(time.Duration(l.r.Int64N(int64(3 * time.Second))))
	if len(l.jobs) == 0 || l.r.IntN(3) == 0 {
		return l.submit()
	}
	at := l.r.IntN(len(l.jobs))
	was := l.jobs[at]
	is := was.Clone()
	l.jobs[at] = is
	switch {
	case was.Status.Ended():
		if l.r.IntN(2) == 0 {
			is.Rerun(l.now)
			l.tally(is).in++
			break
		}
		l.jobs = slices.Delete(l.jobs, at, at+1)
		return jobs.Change{Before: was}
	case was.Status == jobs.Scheduled, was.Place == jobs.Due:
		is.Enqueue(was.Seq+1000, max(l.now, was.DueAt))
		l.now = max(l.now, was.DueAt)
	case was.Status == jobs.Processing:
		l.end(is)
	case l.r.IntN(10) == 0:
		is.Cancel(l.now, "enough")
		l.tally(is).cancelled++
	default:
		l.start(is)
		if l.r.IntN(2) == 0 { // in the same commit
			l.end(is)
		}
	}
	return jobs.Change{Before: was, After: is}
}

func (l *lives) submit() jobs.Change {
	n := uint64(len(l.jobs) + 1)
	j := jobs.BlankJob()
	j.ID, j.Key, j.Seq, j.Type, j.Priority = jobs.NewID(), n, n, string('a'+rune(l.r.IntN(3))), jobs.Priority(1+l.r.IntN(5))
	j.Status, j.Run, j.MaxAttempts, j.CreatedAt, j.Payload = jobs.Pending, 1, 3, l.now, json.RawMessage("{}")
	j.History = append(j.History, jobs.HistoryEntry{Kind: jobs.KindSubmitted, At: l.now})
	switch l.r.IntN(4) {
	case 0:
		due := l.now.Add(time.Minute)
		j.Status, j.Place, j.DueAt, j.Terms = jobs.Scheduled, jobs.Due, due, &jobs.Terms{RunAt: due}
	case 1:
		j.Place = jobs.Held
	}
	l.jobs = append(l.jobs, j)
	l.tally(j).in++
	return jobs.Change{After: j}
}

// since is when j's next start is due, as its last change has it.
func (l *lives) since(j *jobs.Job) jobs.Time {
	switch last := j.History[len(j.History)-1]; last.Kind {
	case jobs.KindSubmitted:
		if j.Terms != nil && j.Terms.RunAt != 0 {
			return j.Terms.RunAt
		}
		return j.CreatedAt
	case jobs.KindRetrying:
		return last.Due
	case jobs.KindQueued:
		return min(last.At, j.Terms.RunAt)
	default:
		return last.At
	}
}

func (l *lives) start(j *jobs.Job) {
	l.tally(j).wait.Add(max(l.now.Sub(l.since(j)), 0))
	jobs.Apply(j, &jobs.Event{Kind: jobs.KindStarted, Run: j.Run, Attempt: j.Failures + 1, At: l.now, StartedAt: l.now})
}

func (l *lives) end(j *jobs.Job) {
	began := j.StartedAt
	l.now = l.now.Add(time.Duration(l.r.Int64N(int64(5 * time.Second))))
	e := &jobs.Event{Run: j.Run, Attempt: j.Attempt, At: l.now, StartedAt: began, Error: "no"}
	t := l.tally(j)
	switch n := l.r.IntN(5); {
	case n == 0:
		e.Kind = jobs.KindReleased
	case n < 3:
		e.Kind = jobs.KindCompleted
		t.done++
		t.run.Add(l.now.Sub(began))
	case j.Attempt == j.MaxAttempts:
		e.Kind = jobs.KindFailed
		t.failed++
		t.run.Add(l.now.Sub(began))
	default:
		e.Kind, e.Due = jobs.KindRetrying, l.now.Add(10*time.Second)
		t.retried++
		t.run.Add(l.now.Sub(began))
	}
	if !jobs.Apply(j, e) {
		panic(fmt.Sprintf("%+v does not change %+v", e, j))
	}
}

// waiting is what waits of a type, from the jobs themselves.
func (l *lives) waiting(typ string) (w Waiting, newest jobs.Time) {
	first := func(at *jobs.Time, since jobs.Time) {
		if *at == 0 || since < *at {
			*at = since
		}
	}
	for _, j := range l.jobs {
		if j.Type != typ || j.Status != jobs.Pending && j.Status != jobs.Retrying {
			continue
		}
		since := l.since(j)
		newest = max(newest, since)
		if j.Status == jobs.Pending {
			w.Places[j.Place]++
			d := &w.Priorities[j.Priority]
			d.Jobs++
			first(&d.Oldest, since)
		}
		if j.Status == jobs.Pending || since <= l.now {
			first(&w.Oldest, since)
		}
	}
	return w, newest
}

// TestCollector plays lives of jobs, begins anew now and then as after a heal, and compares
// with what it knows of each job.
func TestCollector(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for n := range 20 {
		l := &lives{r: rand.New(rand.NewPCG(seed, uint64(n))), now: 1_700_000_000_000_000_000, want: make(map[string]*tally)}
		c := New()
		c.Start(&stand{})
		for range 200 {
			commit := &jobs.Commit{Number: 1}
			for range 1 + l.r.IntN(5) {
				commit.Changes = append(commit.Changes, l.step())
			}
			c.Committed(commit)
			if l.r.IntN(50) == 0 {
				err := c.Begin(func(yield func(*jobs.Job) error) error {
					for _, j := range l.jobs {
						if j.Status == jobs.Pending || j.Status == jobs.Retrying {
							_ = yield(j)
						}
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				c.Start(&stand{})
			}
			l.compare(t, c)
		}
		for name, want := range l.want {
			if got := c.tallies[name]; !same(got, want) {
				t.Fatalf("type %s, life %d: %s, want %s", name, n, describe(got), describe(want))
			}
		}
	}
}

func (l *lives) compare(t *testing.T, c *Collector) {
	t.Helper()
	got := c.looks(l.now)
	for _, typ := range []string{"a", "b", "c"} {
		want, newest := l.waiting(typ)
		g := got[typ]
		if g.Places != want.Places {
			t.Fatalf("%s waits at %v, want %v", typ, g.Places, want.Places)
		}
		near := func(what string, got, want jobs.Time) {
			if off := want - got; off < 0 || got == 0 != (want == 0) || off > max(newest-want, jobs.Time(time.Second))/500 {
				t.Fatalf("%s of %s: %s, want %s", what, typ, got, want)
			}
		}
		near("the oldest", g.Oldest, want.Oldest)
		for p := range want.Priorities {
			if g.Priorities[p].Jobs != want.Priorities[p].Jobs {
				t.Fatalf("%s has %d of priority %d, want %d", typ, g.Priorities[p].Jobs, p, want.Priorities[p].Jobs)
			}
			near(fmt.Sprintf("the oldest of priority %d", p), g.Priorities[p].Oldest, want.Priorities[p].Oldest)
		}
	}
}

func same(a, b *tally) bool {
	return a != nil && describe(a) == describe(b)
}

func describe(t *tally) string {
	if t == nil {
		return "nothing"
	}
	return fmt.Sprint(t.in, t.done, t.failed, t.retried, t.cancelled, " wait ", t.wait.n, t.wait.Sum(), " run ", t.run.n, t.run.Sum())
}

// TestAgesStaySmall has many jobs wait over a week, and lets them go from both ends.
func TestAgesStaySmall(t *testing.T) {
	t.Parallel()
	const many = 200_000
	week := int64(7 * 24 * time.Hour)
	moment := func(i int) jobs.Time { return 1_700_000_000_000_000_000 + jobs.Time(int64(i)*(week/many)) }
	var a ages
	small := func() {
		if n := len(a.young.jobs) + len(a.old.jobs); n > 2*mostSlots {
			t.Fatalf("%d slots", n)
		}
	}
	for i := range many {
		a.count(moment(i), 1)
		small()
	}
	for i := range many/2 - 1 {
		a.count(moment(i), -1)
		a.count(moment(many-1-i), -1)
		if i%20_000 == 0 {
			if off := moment(i+1) - a.oldest(); off < 0 || off > jobs.Time(week/500) {
				t.Fatalf("the oldest is off by %v", time.Duration(off))
			}
		}
	}
	if a.jobs != 2 {
		t.Errorf("%d jobs are left", a.jobs)
	}
	// Younger ones come before the last of these go, so that there is always one.
	for i := range many {
		at := moment(many + i)
		a.count(at, 1)
		if i > 0 {
			a.count(moment(many+i-1), -1)
		}
		switch i {
		case 10:
			a.count(moment(many/2-1), -1)
		case 20:
			a.count(moment(many/2), -1)
		}
		if off := at - a.oldest(); i > 20 && (off < 0 || off > jobs.Time(2*time.Millisecond)) {
			t.Fatalf("the only job is off by %v", time.Duration(off))
		}
	}
	a.count(moment(2*many-1), -1)
	if len(a.young.jobs)+len(a.old.jobs) != 0 || a.jobs != 0 || a.oldest() != 0 {
		t.Errorf("%d jobs are left; the oldest since %v", a.jobs, a.oldest())
	}
}

// TestSample draws from many changes, and keeps within its bounds.
func TestSample(t *testing.T) {
	t.Parallel()
	var s sample
	for i := range 10_000 {
		s.add(&jobs.Job{Seq: uint64(i), Type: "email", Status: jobs.Failed, Error: string(make([]byte, 5000))})
	}
	list, skipped := s.changes()
	if len(list) == 0 || len(list) > MaxSample || skipped != 10_000-len(list) {
		t.Fatalf("%d changes, %d skipped", len(list), skipped)
	}
	for i := range list[1:] {
		if list[i].Seq >= list[i+1].Seq {
			t.Errorf("change %d is not in order", i)
		}
	}
	if b, err := json.Marshal(list); err != nil || len(b) > 4*sampleBytes {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// BenchmarkCommitted is what a job adds to the commits of its submission and of its end.
func BenchmarkCommitted(b *testing.B) {
	c := New()
	c.Start(&stand{})
	const n = 1000
	at := jobs.Time(1_700_000_000_000_000_000)
	in, out := &jobs.Commit{Number: 1}, &jobs.Commit{Number: 2}
	for i := range n {
		at = at.Add(100 * time.Microsecond)
		j := jobs.BlankJob()
		j.Type, j.Priority, j.Status, j.Run, j.Seq, j.CreatedAt = "email", 3, jobs.Pending, 1, uint64(i), at
		j.History = append(j.History, jobs.HistoryEntry{Kind: jobs.KindSubmitted, At: at})
		end := j.Clone()
		jobs.Apply(end, &jobs.Event{Kind: jobs.KindCompleted, Run: 1, Attempt: 1, StartedAt: at.Add(time.Millisecond), At: at.Add(2 * time.Millisecond)})
		in.Changes = append(in.Changes, jobs.Change{After: j})
		out.Changes = append(out.Changes, jobs.Change{Before: j, After: end})
	}
	b.ReportAllocs()
	for i := 0; i < b.N; i += n {
		c.Committed(in)
		c.Committed(out)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/job")
}
