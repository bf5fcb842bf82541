package status

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
	"jobstream/status/boltfile"
	"jobstream/status/index"
)

// List is Search for tests that ask for no scan.
func (s *Store) List(ctx context.Context, p jobs.Page) (found []*jobs.Job, next string, err error) {
	l, err := s.look(ctx, p, searchBounds)
	return l.Jobs, l.Next, err
}

// found is a page with its jobs.
type found struct {
	jobs.Listing
	Jobs []*jobs.Job
}

// look is search with all jobs of the page.
func (s *Store) look(ctx context.Context, p jobs.Page, within bounds) (l found, err error) {
	l.Listing, err = s.search(ctx, p, within, func(j *jobs.Job) bool { l.Jobs = append(l.Jobs, j); return true })
	return l, err
}

// A cursor that is none, or one of the other order, is the caller's error.
func TestBadCursors(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	tr.submit(message(1), message(2), message(3))
	tr.wait(3, 0)
	_, good, err := tr.List(t.Context(), jobs.Page{Limit: 1, Asc: true})
	if err != nil || good == "" {
		t.Fatalf("%q, %v", good, err)
	}
	for name, p := range map[string]jobs.Page{
		"other order":   {Cursor: good, Asc: false},
		"garbage":       {Cursor: "?!", Asc: true},
		"cut":           {Cursor: good[:len(good)-2], Asc: true},
		"longer":        {Cursor: good + "AA", Asc: true},
		"zero":          {Cursor: makeCursor(0, true), Asc: true},
		"unknown order": {Cursor: "eAAAAAAAAAAB", Asc: true},
		"a number":      {Cursor: "12345", Asc: false},
	} {
		t.Run(name, func(t *testing.T) {
			found, next, err := tr.List(t.Context(), p)
			var e *jobs.Error
			if !errors.As(err, &e) || e.Kind != jobs.InvalidRequest || len(e.Fields) != 1 || !strings.Contains(e.Fields[0].Pointer, "cursor") {
				t.Errorf("%v, %q, %v", keysOf(found), next, err)
			}
		})
	}
	if found, next, err := tr.List(t.Context(), jobs.Page{Cursor: makeCursor(1<<63, true), Asc: true}); len(found) != 0 || next != "" || err != nil {
		t.Errorf("beyond the end: %v, %q, %v", keysOf(found), next, err)
	}
	if found, _, err := tr.List(t.Context(), jobs.Page{Cursor: makeCursor(1<<63, false)}); len(found) != 3 || err != nil {
		t.Errorf("down from beyond the end: %v, %v", keysOf(found), err)
	}
}

func FuzzCursor(f *testing.F) {
	f.Add(makeCursor(1, true), true)
	f.Add("", false)
	f.Fuzz(func(t *testing.T, c string, asc bool) {
		key, ok := parseCursor(c, asc)
		if !ok {
			return
		}
		if again, ok := parseCursor(makeCursor(key, asc), asc); key == 0 || !ok || again != key {
			t.Fatalf("%q gave %d, and that %d", c, key, again)
		}
	})
}

// Pages don't overlap and leave nothing out while new jobs come.
func TestPagesWhileJobsCome(t *testing.T) {
	t.Parallel()
	for name, asc := range map[string]bool{"newest first": false, "oldest first": true} {
		t.Run(name, func(t *testing.T) {
			tr := startTemp(t, Options{})
			seq := uint64(0)
			more := func(n int) {
				for range n {
					seq++
					tr.submit(message(seq))
				}
				tr.wait(seq, 0)
			}
			more(20)
			p := jobs.Page{Limit: 3, Asc: asc}
			var got []uint64
			for pages := 0; ; pages++ {
				found, next, err := tr.List(t.Context(), p)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, keysOf(found)...)
				if next == "" {
					break
				}
				if p.Cursor = next; pages < 5 {
					more(2)
				}
			}
			var want []uint64
			if asc { // newer jobs come at the end
				for k := uint64(1); k <= seq; k++ {
					want = append(want, k)
				}
			} else {
				for k := uint64(20); k > 0; k-- {
					want = append(want, k)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %v\nwant %v", got, want)
			}
		})
	}
}

func TestListLimits(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	const n = jobs.DefaultLimit + 10
	for seq := uint64(1); seq <= n; seq++ {
		tr.submit(message(seq))
	}
	tr.run(idle{})
	tr.wait(n, 0)
	for limit, want := range map[int]int{0: jobs.DefaultLimit, 1: 1, jobs.DefaultLimit + 5: jobs.DefaultLimit + 5, jobs.MaxLimit: n} {
		found, next, err := tr.List(t.Context(), jobs.Page{Limit: limit})
		if err != nil || len(found) != want || (next == "") != (want == n) {
			t.Errorf("limit %d: %d jobs, next %q, %v", limit, len(found), next, err)
		}
	}
	if found, next, err := tr.List(t.Context(), jobs.Page{Limit: n}); err != nil || len(found) != n || next != "" {
		t.Errorf("a last page that is just full: %d jobs, next %q, %v", len(found), next, err)
	}
}

// Times narrow a list down, chunks that lie outside are not even looked at, and
// a job at a boundary belongs where it should.
func TestCreatedOverChunks(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	const n = 3*index.ChunkSize + 100
	stop := make(chan struct{})
	go func() { // more than the inbox holds
		defer close(stop)
		for seq := uint64(1); seq <= n; seq++ {
			m := message(seq)
			m.Payload = nil
			if seq%1000 == 0 {
				m.Tags = []string{"round"}
			}
			tr.Submitted(m)
		}
	}()
	tr.run(idle{})
	<-stop
	tr.wait(n, 0)
	at := func(seq uint64) jobs.Time { return message(seq).At }
	for name, c := range map[string]struct{ after, before, first, last uint64 }{
		"all":              {0, 0, 1, n},
		"one":              {5000, 5001, 5000, 5000},
		"first chunk":      {0, index.ChunkSize, 1, index.ChunkSize - 1},
		"second chunk":     {index.ChunkSize, 2 * index.ChunkSize, index.ChunkSize, 2*index.ChunkSize - 1},
		"over a boundary":  {index.ChunkSize - 3, index.ChunkSize + 3, index.ChunkSize - 3, index.ChunkSize + 2},
		"from the middle":  {6000, 0, 6000, n},
		"to the middle":    {0, 6000, 1, 5999},
		"nothing between":  {7000, 7000, 1, 0},
		"nothing after":    {n + 1, 0, 1, 0},
		"the last":         {n, 0, n, n},
		"nothing before 1": {0, 1, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var f jobs.Filter
			if c.after > 0 {
				f.CreatedAfter = at(c.after)
			}
			if c.before > 0 {
				f.CreatedBefore = at(c.before)
			}
			want := int(c.last + 1 - c.first)
			found := tr.all(f)
			if len(found) != want || want > 0 && (found[0].Key != c.first || found[want-1].Key != c.last) {
				t.Errorf("%d jobs, want %d from %d to %d", len(found), want, c.first, c.last)
			}
			if got := tr.count(f); got < want || got > want+2*index.ChunkSize {
				t.Errorf("Count = %d, want %d to whole chunks", got, want)
			}
			f.Tags = []string{"round"}
			if got := len(tr.all(f)); got != int(c.last/1000)-int((c.first-1)/1000) && want > 0 {
				t.Errorf("%d round ones", got)
			}
			for _, asc := range []bool{true, false} {
				page, _, err := tr.List(t.Context(), jobs.Page{Filter: jobs.Filter{CreatedAfter: f.CreatedAfter, CreatedBefore: f.CreatedBefore}, Limit: 2, Asc: asc})
				edge := c.first
				if !asc {
					edge = c.last
				}
				if err != nil || want > 0 && page[0].Key != edge || len(page) != min(want, 2) {
					t.Errorf("asc %v: %v, %v", asc, keysOf(page), err)
				}
			}
		})
	}
	tr.verify()
}

// A walk ends with its context, or with what yield returns, and may query and
// write while it goes on.
func TestScan(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	const n = scanBatch + 50
	for seq := uint64(1); seq <= n; seq++ {
		tr.submit(message(seq))
	}
	tr.run(idle{})
	tr.wait(n, 0)
	enough := errors.New("enough")
	seen := 0
	err := tr.Scan(t.Context(), jobs.Filter{}, func(*jobs.Job) error {
		if seen++; seen == 10 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || seen != 10 {
		t.Errorf("%d seen, %v", seen, err)
	}
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	seen = 0
	err = tr.Scan(ctx, jobs.Filter{}, func(*jobs.Job) error {
		if seen++; seen == 10 {
			cancel(why)
		}
		return nil
	})
	if !errors.Is(err, why) || seen > scanBatch {
		t.Errorf("%d seen, %v", seen, err)
	}
	seen = 0
	err = tr.Scan(t.Context(), jobs.Filter{}, func(j *jobs.Job) error {
		if seen++; seen == 1 {
			tr.submit(message(n + 1)) // a commit, which an open transaction would not see
			tr.wait(n+1, 0)
		}
		return nil
	})
	if err != nil || seen != n+1 {
		t.Errorf("%d seen of %d, %v", seen, n+1, err)
	}
}

// Only ended jobs are deleted, and nothing of them is left but the counters.
func TestDelete(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	var keys []uint64
	var events []jobs.Event
	for seq := uint64(1); seq <= 10; seq++ {
		m := message(seq)
		m.Tags = []string{"red", "red"}
		if seq == 2 {
			m.Payload = []byte(`"` + strings.Repeat("x", 9000) + `"`)
		}
		tr.submit(m)
		if seq <= 6 {
			events = append(events, event(jobs.KindCompleted, m, 1))
		}
		keys = append(keys, seq)
	}
	moved := *message(1)
	moved.Seq, moved.Moved = 11, true
	tr.submit(&moved)
	tr.Happened(1, events)
	tr.run(idle{})
	tr.wait(11, 1)
	ctx, cancel := within(t)
	defer cancel()
	if err := tr.EndRebuild(ctx); err != nil {
		t.Fatal(err)
	}
	n, size, err := tr.Delete(ctx, append(keys, 1, 1, 77))
	if n != 6 || size < 9000 || err != nil {
		t.Fatalf("deleted %d, %d bytes, %v", n, size, err)
	}
	for seq := uint64(1); seq <= 6; seq++ {
		tr.none(seq)
		if j := tr.job(message(seq).ID); j != nil {
			t.Errorf("%d is still there by its id", seq)
		}
	}
	tr.none(11)
	tr.verify()
	if f := tr.Figures()["email"]; f.Now[jobs.Completed] != 0 || f.Ever[jobs.Completed] != 6 || f.Now[jobs.Pending] != 4 {
		t.Errorf("figures %+v", f)
	}
	if got := keysOf(tr.all(jobs.Filter{Tags: []string{"red"}})); !slices.Equal(got, []uint64{7, 8, 9, 10}) {
		t.Errorf("red ones: %v", got)
	}
	// What came of it again makes no new job.
	tr.Happened(2, events)
	tr.wait(11, 2)
	tr.none(1)

	events = events[:0]
	for seq := uint64(7); seq <= 10; seq++ {
		events = append(events, event(jobs.KindFailed, message(seq), 1))
	}
	tr.Happened(3, events)
	tr.wait(11, 3)
	if n, _, err := tr.Delete(ctx, keys); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	err = tr.db.View(func(tx *boltfile.Tx) error {
		for _, name := range [][]byte{bucketJobs, bucketIDs, bucketPayloads, bucketBits, bucketMoved} {
			if k, _ := tx.Bucket(name).Cursor().First(); k != nil {
				t.Errorf("bucket %s still has %x", name, k)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	tr.reopen()
	tr.run(idle{})
	if f := tr.Figures()["email"]; f.Ever[jobs.Completed] != 6 || f.Ever[jobs.Failed] != 4 || f.Now != [jobs.NumStatus]int{} {
		t.Errorf("after a restart %+v", f)
	}
	tr.verify()
}

// Ended is bounded, goes on where it stopped, and knows what has ended.
func TestEnded(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	var events []jobs.Event
	for seq := uint64(1); seq <= 30; seq++ {
		m := message(seq)
		tr.submit(m)
		kind := []jobs.Kind{jobs.KindCompleted, jobs.KindFailed, jobs.KindStarted}[seq%3]
		e := event(kind, m, 1)
		if seq%2 == 0 {
			e.At = e.At.Add(seconds(3600))
		}
		events = append(events, e)
	}
	tr.Happened(1, events)
	tr.run(idle{})
	tr.wait(30, 1)
	early := epoch.Add(seconds(1800))
	for name, c := range map[string]struct {
		before   jobs.Time
		statuses []jobs.Status
		match    func(seq uint64) bool
	}{
		"all":              {epoch.Add(seconds(9999)), nil, func(s uint64) bool { return s%3 != 2 }},
		"early":            {early, nil, func(s uint64) bool { return s%3 != 2 && s%2 == 1 }},
		"early completed":  {early, []jobs.Status{jobs.Completed}, func(s uint64) bool { return s%3 == 0 && s%2 == 1 }},
		"failed or not":    {early, []jobs.Status{jobs.Failed, jobs.Cancelled}, func(s uint64) bool { return s%3 == 1 && s%2 == 1 }},
		"before any ended": {epoch, nil, func(uint64) bool { return false }},
	} {
		for limit := 1; limit <= 12; limit++ {
			var got, want []uint64
			for s := uint64(1); s <= 30; s++ {
				if c.match(s) {
					want = append(want, s)
				}
			}
			for after := uint64(0); ; {
				found, next, err := tr.Ended(t.Context(), c.before, c.statuses, after, limit)
				if err != nil || len(found) > limit {
					t.Fatalf("%s: %d of at most %d, %v", name, len(found), limit, err)
				}
				got = append(got, keysOf(found)...)
				if after = next; next == 0 {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s by %d: %v, want %v", name, limit, got, want)
			}
		}
	}
	if _, _, err := tr.Ended(t.Context(), early, []jobs.Status{jobs.Pending}, 0, 5); err == nil {
		t.Error("pending jobs have not ended")
	}
}

// A job that was looked up does not change under the reader.
func TestFoundJobsStay(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	m := message(1)
	tr.submit(m)
	tr.wait(1, 0)
	found := tr.find(1)
	before := *found
	for i, e := range twoAttempts(m) {
		tr.Happened(uint64(i+1), []jobs.Event{e})
		tr.wait(1, uint64(i+1))
	}
	if !jobstest.Same(found, &before) || len(found.History) != 1 {
		t.Errorf("changed to %+v", found)
	}
}
