package changes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"jobstream/jobs"
)

// tracker makes commits of random changes, and is the past of a feed.
type tracker struct {
	feed *Feed

	mu     sync.Mutex
	number uint64
	jobs   []*jobs.Job
	ended  [][]int // by the number of the commit: jobs that ended with it
	floor  uint64
}

func newTracker() *tracker {
	tr := &tracker{ended: [][]int{nil}}
	tr.feed = New(tr, func() string { return "e0" })
	return tr
}

func (tr *tracker) Number() uint64 {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.number
}

func (tr *tracker) EndedSince(from jobs.EndedPlace, most, _ int) (p jobs.Ends, err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	p.Number, p.Floor, p.Next = tr.number, tr.floor, from
	for n := max(from.Number, tr.floor+1); n <= tr.number; n++ {
		if n != p.Next.Number {
			p.Next = jobs.EndedPlace{Number: n}
		}
		for _, i := range tr.ended[n][min(p.Next.Index, len(tr.ended[n])):] {
			if len(p.Jobs) == most {
				return p, nil
			}
			p.Jobs = append(p.Jobs, jobs.EndedJob{Number: n, Job: tr.jobs[i]})
			p.Next.Index++
		}
		p.Next = jobs.EndedPlace{Number: n + 1}
	}
	p.Whole = true
	return p, nil
}

// commit makes n jobs, and ends some that have not ended.
func (tr *tracker) commit(r *rand.Rand, n int) {
	tr.mu.Lock()
	c := &jobs.Commit{Number: tr.number + 1}
	var ended []int
	for range n {
		j := &jobs.Job{ID: jobs.NewID(), Seq: uint64(len(tr.jobs)), Type: []string{"a", "b"}[r.IntN(2)], Status: jobs.Pending, Payload: []byte("{\n\"x\":1\r\n}")}
		tr.jobs = append(tr.jobs, j)
		c.Changes = append(c.Changes, jobs.Change{After: j})
	}
	for i := max(0, len(tr.jobs)-4*n); i < len(tr.jobs)-n; i++ {
		was := tr.jobs[i]
		if was.Status.Ended() || r.IntN(2) == 0 {
			continue
		}
		is := was.Clone()
		is.Status = []jobs.Status{jobs.Completed, jobs.Failed}[r.IntN(2)]
		tr.jobs[i] = is
		c.Changes = append(c.Changes, jobs.Change{Before: was, After: is})
		ended = append(ended, i)
	}
	tr.number++
	tr.ended = append(tr.ended, ended)
	tr.mu.Unlock()
	tr.feed.Committed(c)
}

// got is one event as its client reads it.
type got struct {
	id, name string
	data     map[string]any
}

func read(t *testing.T, text []byte) got {
	t.Helper()
	var g got
	body, ok := bytes.CutSuffix(text, []byte("\n\n"))
	if !ok || bytes.Contains(body, []byte("\n\n")) {
		t.Errorf("an event is %q", text)
	}
	for _, line := range strings.Split(string(body), "\n") {
		switch name, value, _ := strings.Cut(line, ": "); name {
		case "id":
			g.id = value
		case "event":
			g.name = value
		case "data":
			if err := json.Unmarshal([]byte(value), &g.data); err != nil {
				t.Errorf("the data are %q: %v", value, err)
			}
		}
	}
	return g
}

// TestNoEndIsMissed has clients that come and go while jobs end. Each sees every end of
// its type, whatever the feed still has when it comes back.
func TestNoEndIsMissed(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	tr := newTracker()
	tr.feed.keep = 40 * 2 * 1100 // a few commits
	const clients, commits = 8, 400
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	views := make([]map[string]string, clients)
	begun := make(chan struct{}, clients)
	for i := range clients {
		r := rand.New(rand.NewPCG(seed, uint64(i+1)))
		views[i] = make(map[string]string)
		wg.Go(func() {
			filter, id := Filter{}, ""
			if i%2 == 1 {
				filter.Types = []string{"b"}
			}
			x := tr.feed.Follow(filter, "")
			defer func() { x.Close() }()
			id = read(t, x.Mark()).id
			begun <- struct{}{}
			for {
				texts, err := x.Next(ctx, nil)
				for _, text := range texts {
					g := read(t, text)
					if g.id != "" {
						id = g.id
					}
					if job, _ := g.data["id"].(string); job != "" {
						views[i][job] = g.data["status"].(string)
					}
				}
				switch {
				case x.at.Number > commits:
					return
				case errors.Is(err, ErrSlow), err == nil && r.IntN(12) == 0:
					x.Close()
					x = tr.feed.Follow(filter, id) // as after a lost connection
				case err != nil:
					t.Error(err)
					return
				}
			}
		})
	}
	for range clients {
		<-begun
	}
	r := rand.New(rand.NewPCG(seed, 0))
	for range commits {
		tr.commit(r, 1+r.IntN(10))
	}
	wg.Wait()
	for i, view := range views {
		for _, j := range tr.jobs {
			if j.Status.Ended() && (i%2 == 0 || j.Type == "b") && view[j.ID.String()] != j.Status.String() {
				t.Fatalf("client %d has %q of job %d, which is %s", i, view[j.ID.String()], j.Seq, j.Status)
			}
			if i%2 == 1 && j.Type == "a" && view[j.ID.String()] != "" {
				t.Fatalf("client %d has a job of another type", i)
			}
		}
	}
}

// next reads all that is there.
func next(t *testing.T, x *Follower) []got {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	texts, err := x.Next(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []got
	for _, text := range texts {
		all = append(all, read(t, text))
	}
	return all
}

// TestPlaces comes back to every event of a commit, exactly behind it.
func TestPlaces(t *testing.T) {
	t.Parallel()
	tr := newTracker()
	x := tr.feed.Follow(Filter{}, "")
	defer x.Close()
	tr.commit(rand.New(rand.NewPCG(1, 1)), 5)
	all := next(t, x)
	if len(all) != 5 || all[0].id != "e0-1-1" || all[4].id != "e0-2-0" || all[0].name != "job.pending" {
		t.Fatalf("the events are %v", all)
	}
	for i := range 4 {
		again := tr.feed.Follow(Filter{}, all[i].id)
		if rest := next(t, again); len(rest) != 4-i || rest[0].id != all[i+1].id {
			t.Errorf("behind %s come %v", all[i].id, rest)
		}
		again.Close()
	}
}

// TestSlow lets a follower take nothing, and checks what it misses.
func TestSlow(t *testing.T) {
	t.Parallel()
	tr := newTracker()
	tr.feed.keep = 40 * 1100
	r := rand.New(rand.NewPCG(2, 2))
	x := tr.feed.Follow(Filter{}, "")
	defer x.Close()
	tr.commit(r, 10)
	first := next(t, x)
	for range 20 {
		tr.commit(r, 10)
	}
	if _, err := x.Next(t.Context(), nil); !errors.Is(err, ErrSlow) {
		t.Errorf("it goes on with %v", err)
	}
	if n := len(tr.feed.kept); n > 4 || n == 0 {
		t.Errorf("%d commits are kept", n)
	}
	reason := func(id string) string {
		again := tr.feed.Follow(Filter{}, id)
		defer again.Close()
		e := next(t, again)[0]
		why, _ := e.data["reason"].(string)
		if why != "" && (e.name != "skipped" || e.data["detail"] == "") {
			t.Errorf("behind %s comes %v", id, e)
		}
		return why
	}
	last := fmt.Sprintf("e0-%d-0", tr.number)
	for id, want := range map[string]string{
		first[0].id: "only_ends", last: "", "e1-1-0": "unknown_id", "e0-99-0": "unknown_id", "e0-": "unknown_id", "e0-x-1": "unknown_id", "1": "unknown_id",
	} {
		if want == "unknown_id" {
			e := tr.feed.Follow(Filter{}, id)
			if len(e.first) == 0 {
				t.Errorf("%s is known", id)
			}
			e.Close()
		}
		if got := reason(id); got != want {
			t.Errorf("behind %s comes a skip for %q, not %q", id, got, want)
		}
	}
	tr.floor = 3
	if got := reason(first[0].id); got != "too_old" {
		t.Errorf("a place that the log has not any more is skipped for %q", got)
	}
}

// TestNobody checks that a feed without followers keeps nothing, and forgets what it has.
func TestNobody(t *testing.T) {
	t.Parallel()
	tr := newTracker()
	r := rand.New(rand.NewPCG(3, 3))
	tr.commit(r, 10)
	if len(tr.feed.kept) != 0 {
		t.Error("changes are kept for nobody")
	}
	x := tr.feed.Follow(Filter{}, "")
	tr.commit(r, 10)
	x.Close()
	if len(tr.feed.kept) != 1 || tr.feed.resting == nil {
		t.Error("changes are forgotten at once")
	}
	tr.feed.rest()
	tr.commit(r, 10)
	if len(tr.feed.kept) != 0 || tr.feed.weight != 0 {
		t.Error("changes are kept for ever")
	}
	y := tr.feed.Follow(Filter{}, read(t, x.Mark()).id)
	defer y.Close()
	if e := next(t, y); e[0].data["reason"] != "only_ends" || e[len(e)-1].id != "e0-4-0" {
		t.Errorf("after that come %v", e)
	}
	tr.feed.Close()
	if _, err := y.Next(t.Context(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed feed goes on with %v", err)
	}
}

// TestLargeJob checks that an event has a bound, and says what it leaves out.
func TestLargeJob(t *testing.T) {
	t.Parallel()
	j := &jobs.Job{ID: jobs.NewID(), Status: jobs.Pending, Payload: json.RawMessage(`"` + strings.Repeat("x", MaxEvent) + `"`)}
	text := event("e0", Place{Number: 1}, j, true)
	if e := read(t, text); e.data["id"] != j.ID.String() || e.name != "job.deleted" || len(text) > 2048 || !bytes.Contains(text, []byte("\n: omitted payload\n")) {
		t.Errorf("the event is %s", text)
	}
}

func BenchmarkCommitted(b *testing.B) {
	for _, followers := range []int{0, 1} {
		b.Run(fmt.Sprint(followers, " followers"), func(b *testing.B) {
			tr := newTracker()
			for range followers {
				defer tr.feed.Follow(Filter{}, "").Close()
			}
			c := &jobs.Commit{Number: 1}
			for range 500 {
				c.Changes = append(c.Changes, jobs.Change{After: &jobs.Job{Type: "a", Status: jobs.Pending}})
			}
			for b.Loop() {
				c.Number++
				tr.feed.Committed(c)
			}
		})
	}
}
