package status

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/api"
	"jobstream/jobs/jobstest"
	"jobstream/status/boltfile"
)

// The mark of a clean stop is there once, and an unmarked start keeps the outbox.
func TestCleanMark(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	if _, ok, _, err := tr.RemoveClean(""); ok || err != nil {
		t.Fatalf("a new file has a mark: %v", err)
	}
	tr.end(1)
	if err := tr.halt(); err != nil {
		t.Fatal(err)
	}
	want := Clean{Jobs: 12, Status: 34}
	if err := tr.MarkClean(want); err != nil {
		t.Fatal(err)
	}
	tr.reopen()
	if tr.New() {
		t.Error("new after a clean stop")
	}
	if got := tr.outbox(); len(got) != 0 {
		t.Errorf("the outbox has %v", got)
	}
	if got, ok, _, err := tr.RemoveClean(""); got != want || !ok || err != nil {
		t.Errorf("RemoveClean = %v, %v, %v", got, ok, err)
	}
	if _, ok, _, err := tr.RemoveClean(""); ok || err != nil {
		t.Errorf("taken twice; %v", err)
	}
	tr.reopen() // as after a crash
	if _, ok, _, err := tr.RemoveClean(""); ok || err != nil {
		t.Errorf("taken again after a restart; %v", err)
	}
	tr.run(idle{})
	if n := tr.end(2); n == 0 {
		t.Error("no commit number")
	}
}

// The file belongs to one process, and the second is refused at once.
func TestLocked(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	begun := time.Now()
	o := tr.o
	o.LockTimeout = 50 * time.Millisecond
	if _, err := Open(o); !errors.Is(err, boltfile.ErrLocked) || !strings.Contains(err.Error(), o.Path) {
		t.Fatalf("Open = %v", err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	tr.stop()
	again := open(t, o)
	again.stop()
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Open(Options{Path: filepath.Join(dir, "no", "status.db")}); err == nil || errors.Is(err, boltfile.ErrLocked) {
		t.Errorf("without its folder: %v", err)
	}
	tr := openTemp(t, Options{})
	o := tr.o
	err := tr.db.Update(func(tx *boltfile.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte{99}) })
	tr.stop()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first failure has let go of the file
		if _, err := Open(o); err == nil || errors.Is(err, boltfile.ErrLocked) || !strings.Contains(err.Error(), "format") {
			t.Errorf("a file of the future: %v", err)
		}
	}
}

// TestOpenExisting must not begin a new tracker where one was.
func TestOpenExisting(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	o := tr.o
	tr.stop()
	o.Existing = true
	again := open(t, o)
	again.stop()
	for name, damage := range map[string]func() error{
		"empty":   func() error { return os.Truncate(o.Path, 0) },
		"removed": func() error { return os.Remove(o.Path) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(o); err == nil || !strings.Contains(err.Error(), "put the data folder back") {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.WriteFile(o.Path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestClosed asks a tracker that is closed: an error for the caller, not a broken part.
func TestClosed(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	closed := tr.Store
	tr.stop()
	var known *jobs.Error
	if _, err := closed.Job(t.Context(), jobs.NewID()); !errors.As(err, &known) || api.HTTPStatus(known) != 503 {
		t.Errorf("got %v", err)
	}
}

func TestNode(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	for _, fallback := range []string{"first", "second"} {
		if name, err := tr.Node(fallback); name != "first" || err != nil {
			t.Errorf("Node(%s) = %s, %v", fallback, name, err)
		}
		tr.reopen()
	}
}

// running are the keys of those that are processing.
func (tr *tracker) running() []uint64 {
	tr.t.Helper()
	keys, err := tr.Running()
	tr.must(err)
	return keys
}

// A job that this process has interrupted itself waits again, without a lost worker.
func TestReleaseRunning(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	running, waiting := message(1), message(2)
	tr.submit(running, waiting)
	tr.Happened(1, []jobs.Event{event(jobs.KindStarted, running, 1)})
	tr.run(idle{})
	tr.wait(2, 1)
	ctx, cancel := within(t)
	defer cancel()
	c := jobs.Release{Stamp: jobs.Stamp{At: epoch.Add(time.Hour)}, Keys: append(tr.running(), 2, 3), Why: "because"}
	for _, want := range []int{1, 0} {
		if e, err := tr.Do(ctx, c); len(e.Changed) != want || err != nil {
			t.Fatalf("%+v, %v; want %d", e, err, want)
		}
	}
	j := tr.find(1)
	if j.Status != jobs.Pending || j.Lost != 0 || j.Failures != 0 {
		t.Errorf("%+v", j)
	}
}

// Jobs that ran in a process that died wait again, or have failed for good.
func TestLoseRunning(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	running, waiting, ended := message(1), message(2), message(3)
	tr.submit(running, waiting, ended)
	tr.Happened(1, []jobs.Event{event(jobs.KindStarted, running, 1), event(jobs.KindCompleted, ended, 1)})
	tr.run(idle{})
	tr.wait(3, 1)
	ctx, cancel := within(t)
	defer cancel()
	at := epoch.Add(time.Hour)

	lose := func(at jobs.Time) (states []string) {
		t.Helper()
		e, err := tr.Do(ctx, jobs.Lose{Stamp: jobs.Stamp{At: at}, Keys: append(tr.running(), 2, 4), MaxLost: 2})
		tr.must(err)
		for _, j := range e.Changed {
			states = append(states, j.Status.String())
		}
		return states
	}
	if got := lose(at); !slices.Equal(got, []string{"pending"}) {
		t.Fatalf("first: %v", got)
	}
	if j := tr.find(1); j.Status != jobs.Pending || j.Lost != 1 || j.Failures != 0 {
		t.Errorf("%+v", j)
	}
	if got := lose(at); len(got) != 0 {
		t.Fatalf("none is running: %v", got)
	}

	again := event(jobs.KindStarted, running, 1)
	again.StartedAt = at.Add(1)
	tr.Happened(2, []jobs.Event{again})
	tr.wait(3, 2)
	if got := lose(at.Add(2)); !slices.Equal(got, []string{"failed"}) {
		t.Fatalf("second: %v", got)
	}
	j := tr.find(1)
	if j.Status != jobs.Failed || j.Lost != 2 || !strings.Contains(j.Error, "max_lost") {
		t.Errorf("%+v", j)
	}
	itsEnd := func(c jobs.Commit) bool {
		return len(slices.Collect(c.Ended())) == 1 && slices.Collect(c.Ended())[0].Key == 1
	}
	cs := tr.until("its end", func(cs []jobs.Commit) bool { return slices.ContainsFunc(cs, itsEnd) })
	if c := cs[slices.IndexFunc(cs, itsEnd)]; c.Number == 0 || c.Load.Unfinished != 1 {
		t.Errorf("published %+v", c)
	}
	if got := tr.outbox(); len(got) == 0 || got[len(got)-1] != 1 {
		t.Errorf("outbox %v", got)
	}
	tr.verify()
}

// A tracker that was lost comes back from notifications, events and messages.
func TestRebuild(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	if !tr.New() {
		t.Fatal("a new file is not new")
	}
	// What a notification says of a job that ended, as its resource.
	m1 := message(1)
	m1.Tags = []string{"red"}
	ended := jobs.NewJob(m1, testTypes.Lookup("email"), true)
	for _, e := range twoAttempts(m1) {
		jobs.Apply(ended, &e)
	}
	body, err := json.Marshal(ended)
	if err != nil {
		t.Fatal(err)
	}
	seed := &jobs.Job{}
	if err := json.Unmarshal(body, seed); err != nil {
		t.Fatal(err)
	}
	unended := jobs.NewJob(message(9), testTypes.Lookup("email"), true)
	for range 2 { // seeds may come more than once
		if err := tr.Seed(seed, unended, seed); err != nil {
			t.Fatal(err)
		}
	}
	tr.none(9)

	// STATUS still has events of four jobs; JOBS has messages of some of them.
	m3, m4, m5 := message(3), message(4), message(5)
	m4.Payload, m4.Tags = []byte(`"`+strings.Repeat("y", 5000)+`"`), []string{"red", "blue"}
	moved5 := *m5
	moved5.Seq, moved5.Moved, moved5.Tags = 6, true, []string{"blue"}
	m2 := message(2) // ended; its message is gone
	var first []jobs.Event
	first = append(first, twoAttempts(m1)...)
	first = append(first, event(jobs.KindStarted, m2, 1), event(jobs.KindCompleted, m2, 1))
	first = append(first, event(jobs.KindRetrying, m4, 1), event(jobs.KindStarted, m5, 1))
	tr.Happened(10, first)
	tr.run(idle{})
	tr.wait(0, 10)
	tr.verify()
	tr.reopen() // a crash in the middle: it is still a rebuild
	if !tr.New() {
		t.Fatal("a rebuild that was interrupted is not gone on with")
	}
	if err := tr.Seed(seed); err != nil {
		t.Fatal(err)
	}
	tr.run(idle{})
	tr.submit(m3, m4, &moved5)
	tr.wait(6, 10)
	tr.verify()

	ctx, cancel := within(t)
	defer cancel()
	if err := tr.EndRebuild(ctx); err != nil {
		t.Fatal(err)
	}
	for seq, want := range map[uint64]struct {
		status  jobs.Status
		payload string
		tags    []string
	}{
		1: {jobs.Completed, string(m1.Payload), m1.Tags},
		2: {jobs.Completed, "", nil},
		3: {jobs.Pending, string(m3.Payload), nil},
		4: {jobs.Retrying, string(m4.Payload), m4.Tags},
		5: {jobs.Processing, string(m5.Payload), moved5.Tags},
	} {
		j := tr.find(seq)
		if j.Status != want.status || string(j.Payload) != want.payload || !slices.Equal(j.Tags, want.tags) || j.CreatedAt != message(seq).At {
			t.Errorf("job %d: %+v", seq, j)
		}
	}
	if j := tr.find(6); j.ID != m5.ID || j.Seq != 6 {
		t.Errorf("the moved one: %+v", j)
	}
	if got := tr.Figures()["email"].Ever[jobs.Completed]; got != 2 {
		t.Errorf("%d completed ever", got)
	}
	// The seeded one was notified before; the one from events may not have been.
	if got := tr.outbox(); slices.Contains(got, 1) || !slices.Contains(got, 2) {
		t.Errorf("outbox %v", got)
	}
	want := tr.all(jobs.Filter{})
	tr.reopen()
	if tr.New() {
		t.Error("new after EndRebuild and a restart")
	}
	tr.run(idle{})
	if got := tr.all(jobs.Filter{}); !slices.EqualFunc(got, want, jobstest.Same) {
		t.Errorf("after a restart: %v, want %v", keysOf(got), keysOf(want))
	}
	tr.verify()
}

// The streams may have gone back behind the tracker.
func TestRewind(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	m := message(5)
	tr.submit(m)
	tr.Happened(9, []jobs.Event{event(jobs.KindStarted, m, 1)})
	tr.wait(5, 9)
	want := jobs.Positions{Jobs: 5, Status: 3}
	tr.reopen()
	if _, err := tr.Prepare(jobs.Rewind{To: want}); err != nil {
		t.Fatal(err)
	}
	if got := tr.Positions(); got != want {
		t.Errorf("%+v", got)
	}
	tr.reopen()
	if got := tr.Positions(); got != want {
		t.Errorf("after a restart %+v", got)
	}
	tr.run(idle{})
	tr.Happened(4, []jobs.Event{event(jobs.KindCompleted, m, 1)})
	tr.wait(5, 4)
	if j := tr.find(5); j.Status != jobs.Completed {
		t.Errorf("%+v", j)
	}
	tr.verify()
}

func TestUnfinished(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	const n = 2*scanBatch + 10
	for seq := uint64(1); seq <= n; seq++ {
		m := message(seq)
		tr.submit(m)
		if seq%5 == 0 {
			tr.Happened(seq, []jobs.Event{event(jobs.KindCompleted, m, 1)})
		}
	}
	tr.run(idle{})
	tr.wait(n, n-n%5)
	var got []uint64
	err := tr.Unfinished(t.Context(), func(some []*jobs.Job) error {
		if len(some) == 0 || len(some) > scanBatch {
			t.Errorf("%d at once", len(some))
		}
		got = append(got, keysOf(some)...)
		return nil
	})
	if err != nil || len(got) != n-n/5 || !slices.IsSorted(got) {
		t.Errorf("%d of %d, %v", len(got), n-n/5, err)
	}
	enough := errors.New("enough")
	if err := tr.Unfinished(t.Context(), func([]*jobs.Job) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
}

func TestWaitForEnds(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tr.WaitFor(ctx, jobs.Positions{Jobs: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := tr.WaitFor(ctx, jobs.Positions{}); err != nil {
		t.Errorf("already there: %v", err)
	}
}

// Who wants to know which messages are needed reads no payloads: large ones cost no
// memory.
func TestQueuedReadsNoPayloads(t *testing.T) {
	tr := startTemp(t, Options{})
	const n, size = 20, 1 << 20
	fill(tr, n, func(m *jobs.Message) { m.Payload = []byte(`"` + strings.Repeat("x", size) + `"`) })
	var before, after runtime.MemStats
	var got []uint64
	runtime.ReadMemStats(&before)
	tr.must(tr.Queued(t.Context(), func(l jobs.Lane, seq uint64) { got = append(got, seq) }))
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; len(got) != n || took > size {
		t.Errorf("%d jobs, and %d bytes of memory for payloads of %d", len(got), took, size)
	}
}
