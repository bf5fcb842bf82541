package status

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"jobstream/jobs"
	"jobstream/jobs/jobstest"
	"jobstream/status/boltfile"
	"jobstream/status/record"
)

// twoAttempts is a job's way through two attempts.
func twoAttempts(m *jobs.Message) []jobs.Event {
	return []jobs.Event{
		event(jobs.KindStarted, m, 1), event(jobs.KindProgress, m, 1), event(jobs.KindRetrying, m, 1),
		event(jobs.KindStarted, m, 2), event(jobs.KindCompleted, m, 2),
	}
}

// However submission and events are cut into batches, and whichever comes
// first, the record is the same.
func TestSubmissionAndEventsInAnyOrder(t *testing.T) {
	t.Parallel()
	big := message(1)
	big.Payload = []byte(`"` + strings.Repeat("x", 3*record.InlinePayload) + `"`)
	big.Tags = []string{"red", "blue"}
	big.Timeout = seconds(7)
	small := message(1)
	small.Tags = []string{"red"}

	type step func(tr *tracker, m *jobs.Message)
	submission := func(tr *tracker, m *jobs.Message) { tr.submit(m) }
	events := func(from, to int) step {
		return func(tr *tracker, m *jobs.Message) {
			for i, e := range twoAttempts(m)[from:to] {
				tr.Happened(uint64(from+i+1), []jobs.Event{e})
			}
		}
	}
	packed := func(tr *tracker, m *jobs.Message) { tr.Happened(5, twoAttempts(m)) }
	for name, batches := range map[string][][]step{
		"submission, then events":        {{submission}, {events(0, 5)}},
		"one batch":                      {{submission, events(0, 5)}},
		"one batch, events first":        {{events(0, 5), submission}},
		"events, then submission":        {{events(0, 5)}, {submission}},
		"first event, then the rest":     {{events(0, 1)}, {submission, events(1, 5)}},
		"submission between events":      {{events(0, 3)}, {submission}, {events(3, 5)}},
		"each event in a batch":          {{submission}, {events(0, 1)}, {events(1, 2)}, {events(2, 3)}, {events(3, 4)}, {events(4, 5)}},
		"all events in one message":      {{submission}, {packed}},
		"packed events first":            {{packed}, {submission}},
		"repeated events":                {{submission, events(0, 5)}, {func(tr *tracker, m *jobs.Message) { tr.Happened(6, twoAttempts(m)) }}},
		"repeats before their turn came": {{submission, events(0, 3)}, {func(tr *tracker, m *jobs.Message) { tr.Happened(4, twoAttempts(m)[:3]) }}, {events(4, 5)}},
	} {
		for size, m := range map[string]*jobs.Message{"small": small, "big": big} {
			t.Run(name+"/"+size, func(t *testing.T) {
				want := jobs.NewJob(m, testTypes.Lookup(m.Type), true)
				for _, e := range twoAttempts(m) {
					jobs.Apply(want, &e)
				}
				tr := openTemp(t, Options{})
				// What comes before Run is one batch for certain.
				for i, batch := range batches {
					if i > 0 {
						tr.reopen()
					}
					for _, s := range batch {
						s(tr, m)
					}
					tr.inbox.mu.Lock()
					jobsSeq, statusSeq := tr.inbox.filled.jobs, tr.inbox.filled.status
					tr.inbox.mu.Unlock()
					tr.run(idle{})
					tr.wait(jobsSeq, statusSeq)
					if jobsSeq > 0 {
						tr.until("the submission", func(cs []jobs.Commit) bool {
							return slices.ContainsFunc(cs, func(c jobs.Commit) bool {
								return len(slices.Collect(c.Submitted())) == 1 && slices.Collect(c.Submitted())[0].ID == m.ID
							})
						})
					}
				}
				got := tr.find(1)
				if len(batches) == 1 || got.Status == jobs.Completed {
					if !jobstest.Same(got, want) {
						t.Errorf("got  %+v\nwant %+v", got, want)
					}
				} else {
					t.Errorf("status %v", got.Status)
				}
				tr.verify()
			})
		}
	}
}

// verify recounts everything that is derived from the records.
func (tr *tracker) verify() {
	tr.t.Helper()
	all := tr.all(jobs.Filter{Callbacks: true})
	now := make(map[string]*[jobs.NumStatus]int)
	byTag := make(map[string][]uint64)
	unfinished, low := 0, tr.Positions().Jobs+1
	for _, j := range all {
		if now[j.ListedAs()] == nil {
			now[j.ListedAs()] = &[jobs.NumStatus]int{}
		}
		now[j.ListedAs()][j.Status]++
		for _, tag := range j.Tags {
			if l := byTag[tag]; len(l) == 0 || l[len(l)-1] != j.Key {
				byTag[tag] = append(byTag[tag], j.Key)
			}
		}
		if inQueue(j) {
			unfinished++
			low = min(low, j.Seq)
		}
		seq := j.Seq
		if seq == 0 { // a callback that was not published yet
			seq = j.Key
		}
		for what, got := range map[string]*jobs.Job{"Find by seq": tr.find(seq), "Find by key": tr.find(j.Key), "Job": tr.job(j.ID)} {
			if !jobstest.Same(got, j) {
				tr.t.Fatalf("%s gives %+v, Scan gives %+v", what, got, j)
			}
		}
	}
	for name, f := range tr.Figures() {
		want := now[name]
		if want == nil {
			want = &[jobs.NumStatus]int{}
		}
		if f.Now != *want {
			tr.t.Fatalf("figures of %s: %v; recounted: %v", name, f.Now, *want)
		}
		for st := jobs.Scheduled; int(st) < jobs.NumStatus; st++ {
			if n := tr.count(jobs.Filter{Types: []string{name}, Statuses: []jobs.Status{st}}); n != want[st] {
				tr.t.Fatalf("Count of %s %v = %d, want %d", name, st, n, want[st])
			}
			if st.Ended() && f.Ever[st] < f.Now[st] {
				tr.t.Fatalf("%s: %d ever %v, %d now", name, f.Ever[st], st, f.Now[st])
			}
		}
		delete(now, name)
	}
	if len(now) > 0 {
		tr.t.Fatalf("figures lack %v", now)
	}
	for tag, want := range byTag {
		if got := keysOf(tr.all(jobs.Filter{Tags: []string{tag}, Callbacks: true})); !slices.Equal(got, want) {
			tr.t.Fatalf("jobs with tag %q: %v, want %v", tag, got, want)
		}
	}
	tr.verifyFailures(all)
	tr.verifyAttributes(all)
	if floor, n := tr.Floor(); floor != low || n != unfinished {
		tr.t.Fatalf("floor %d, in the queue %d; want %d, %d", floor, n, low, unfinished)
	}
	tr.verifyTerms(all)
}

// all is everything that a filter chooses, oldest first.
func (tr *tracker) all(f jobs.Filter) (found []*jobs.Job) {
	tr.t.Helper()
	ctx, cancel := within(tr.t)
	defer cancel()
	if err := tr.Scan(ctx, f, func(j *jobs.Job) error { found = append(found, j); return nil }); err != nil {
		tr.t.Fatalf("Scan: %v", err)
	}
	return found
}

func (tr *tracker) count(f jobs.Filter) int {
	tr.t.Helper()
	n, err := tr.Count(f)
	if err != nil {
		tr.t.Fatalf("Count: %v", err)
	}
	return n
}

func (tr *tracker) job(id jobs.ID) *jobs.Job {
	tr.t.Helper()
	j, err := tr.Job(context.Background(), id)
	if err != nil {
		tr.t.Fatalf("Job: %v", err)
	}
	return j
}

// A commit answers all who wait for it, and nothing twice.
func TestCommitTells(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	a, b, bad := message(1), message(2), message(3)
	bad.Type = "nonsense"
	tr.submit(a, b, bad)
	done := event(jobs.KindCompleted, a, 1)
	tr.Happened(1, []jobs.Event{event(jobs.KindStarted, a, 1), event(jobs.KindProgress, a, 1), done, event(jobs.KindStarted, b, 1)})
	tr.run(idle{})
	c := tr.until("the batch", func(cs []jobs.Commit) bool { return len(cs) > 0 })[0]
	if got := keysOf(slices.Collect(c.Submitted())); !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Errorf("submitted %v", got)
	}
	if got := keysOf(slices.Collect(c.Ended())); !slices.Equal(got, []uint64{1, 3}) {
		t.Errorf("ended %v", got)
	}
	if len(c.Outcomes) != 1 || c.Outcomes[0].Kind != jobs.KindCompleted || c.Outcomes[0].Seq != 1 {
		t.Errorf("settled %+v", c.Outcomes)
	}
	if c.Positions.Jobs != 3 || c.Load.Unfinished != 1 || c.Number == 0 {
		t.Errorf("position %d, unfinished %d, number %d", c.Positions.Jobs, c.Load.Unfinished, c.Number)
	}
	if j := slices.Collect(c.Ended())[1]; j.Status != jobs.Failed || !strings.Contains(j.Error, "nonsense") || j.Attempt != 0 || j.EndedAt == 0 {
		t.Errorf("a job of an unknown type became %+v", j)
	}

	// The same end again settles its delivery again, and ends nothing.
	tr.Happened(2, []jobs.Event{done})
	c = tr.until("the repeat", func(cs []jobs.Commit) bool { return len(cs) > 1 })[1]
	if len(c.Outcomes) != 1 || len(slices.Collect(c.Ended()))+len(slices.Collect(c.Submitted())) != 0 || c.Number != 0 {
		t.Errorf("a repeat published %+v", c)
	}
	tr.verify()
}

// Several events of one job in a batch become one change of its record.
func TestBatchCoalesces(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	m := message(1)
	tr.submit(m)
	for i, e := range twoAttempts(m) {
		tr.Happened(uint64(i+1), []jobs.Event{e})
	}
	tr.run(idle{})
	cs := tr.until("the batch", func(cs []jobs.Commit) bool { return len(cs) > 0 })
	if len(cs) != 1 || len(slices.Collect(cs[0].Ended())) != 1 || len(slices.Collect(cs[0].Submitted())) != 1 || len(cs[0].Outcomes) != 2 {
		t.Fatalf("published %+v", cs)
	}
	if j := slices.Collect(cs[0].Ended())[0]; j.Status != jobs.Completed || len(j.History) != 6 || j != slices.Collect(cs[0].Submitted())[0] {
		t.Errorf("%+v", j)
	}
}

// A job that is refused when it comes says why, whatever is wrong with it.
func TestRefusedSubmissions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*jobs.Message)
		want   string
	}{
		"unknown type": {func(m *jobs.Message) { m.Type = "nope" }, "unknown job type"},
		"a problem":    {func(m *jobs.Message) { m.Problem = "the subject makes no sense" }, "the subject makes no sense"},
		"not JSON":     {func(m *jobs.Message) { m.Payload = []byte("{") }, "not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := startTemp(t, Options{})
			m := message(1)
			c.change(m)
			tr.submit(m)
			cs := tr.until("the end", func(cs []jobs.Commit) bool { return len(cs) > 0 && len(slices.Collect(cs[0].Ended())) == 1 })
			if j := slices.Collect(cs[0].Ended())[0]; j.Status != jobs.Failed || !strings.Contains(j.Error, c.want) {
				t.Errorf("%+v", j)
			}
			if floor, n := tr.Floor(); floor != 2 || n != 0 {
				t.Errorf("floor %d, unfinished %d", floor, n)
			}
			tr.verify()
		})
	}
}

// A submission checked at the door is not checked again.
func TestCheckedSubmission(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{Checked: func(jobs.ID) bool { return true }})
	m := message(1)
	m.Payload = []byte(`{"to":`) // a second look would refuse it
	tr.submit(m)
	tr.wait(1, 0)
	if j := tr.find(1); j.Status != jobs.Pending {
		t.Errorf("%+v", j)
	}
}

// A type may go while its submissions are on their way. Those that were checked become
// jobs; others, and the runs of schedules, have no type.
func TestTypeIsRemovedOnTheWay(t *testing.T) {
	t.Parallel()
	types := testTypes.Now()
	tr := startTemp(t, Options{Registry: types, Checked: func(id jobs.ID) bool { return id != message(2).ID }})
	types.Replace(types.Lookup("export"))
	types.Replace(types.Lookup("export"))
	checked, bare, scheduled := message(1), message(2), message(3)
	checked.RetryCount = -1
	scheduled.Terms = &jobs.Terms{Schedule: "nightly"}
	tr.submit(checked, bare, scheduled)
	tr.wait(3, 0)
	if j := tr.find(1); j.Status != jobs.Pending || j.MaxAttempts != 4 || j.Unlisted {
		t.Errorf("checked: %+v", j)
	}
	for _, seq := range []uint64{2, 3} {
		if j := tr.find(seq); j.Status != jobs.Failed || !strings.Contains(j.Error, "unknown job type") {
			t.Errorf("%+v", j)
		}
	}
}

// Any number of made-up types is one in counts and filters; the jobs say theirs.
func TestUnknownTypesShareOneName(t *testing.T) {
	t.Parallel()
	const all = 5000
	tr := startTemp(t, Options{})
	name := func(seq uint64) string { return "made-up-" + strconv.FormatUint(seq, 10) }
	for seq := uint64(1); seq <= all; seq++ {
		m := message(seq)
		m.Type = name(seq)
		tr.submit(m)
	}
	tr.submit(message(all + 1))
	tr.wait(all+1, 0)
	for range 2 {
		if j := tr.find(7); j.Type != name(7) || !strings.Contains(j.Error, name(7)) || j.Status != jobs.Failed {
			t.Errorf("the job says %q: %s", j.Type, j.Error)
		}
		figures := tr.Figures()
		if f := figures[jobs.UnknownTypes]; len(figures) != 2 || f.Now[jobs.Failed] != all {
			t.Errorf("%d types are counted, %+v", len(figures), f)
		}
		for _, filter := range []jobs.Filter{{}, {CreatedAfter: epoch.Add(1), CreatedBefore: epoch.Add(seconds(1_000_000))}, {Error: "job"}} {
			c, err := tr.Counts(t.Context(), filter)
			if err != nil || c.Types[jobs.UnknownTypes][jobs.Failed] != all || len(c.AppendJSON(nil)) > 1000 {
				t.Errorf("%+v counts %d types, %v", filter, len(c.Types), err)
			}
		}
		for typ, want := range map[string]int{jobs.UnknownTypes: all, name(7): 0, "email": 1} {
			if n := tr.count(jobs.Filter{Types: []string{typ}}); n != want {
				t.Errorf("%d jobs of type %s, want %d", n, typ, want)
			}
		}
		tr.verify()
		tr.reopen()
		tr.run(idle{})
	}
}

// A second message with a known Job-Id changes nothing, but can be asked for.
func TestDuplicate(t *testing.T) {
	t.Parallel()
	for name, together := range map[string]bool{"same batch": true, "later": false} {
		t.Run(name, func(t *testing.T) {
			tr := openTemp(t, Options{})
			m := message(1)
			again := *m
			again.Seq, again.Payload = 2, []byte(`"another"`)
			tr.submit(m)
			if !together {
				tr.run(idle{})
				tr.wait(1, 0)
			}
			tr.submit(&again, message(3))
			if together {
				tr.run(idle{})
			}
			tr.wait(3, 0)
			byDup, err := tr.JobBySeq(t.Context(), 2)
			if err != nil || byDup == nil || byDup.ID != m.ID || byDup.Seq != 1 || !bytes.Equal(byDup.Payload, m.Payload) {
				t.Fatalf("by the duplicate's sequence: %+v, %v", byDup, err)
			}
			if n := tr.count(jobs.Filter{}); n != 2 {
				t.Errorf("%d jobs", n)
			}
			cs := tr.until("all", func(cs []jobs.Commit) bool { return len(cs) > 0 && cs[len(cs)-1].Positions.Jobs == 3 })
			total := 0
			for _, c := range cs {
				total += len(slices.Collect(c.Submitted()))
			}
			if total != 2 {
				t.Errorf("published %d submissions", total)
			}
			tr.verify()
			tr.reopen()
			tr.run(idle{})
			tr.verify()
		})
	}
}

// A job that is published again takes its new place in JOBS.
func TestMoved(t *testing.T) {
	t.Parallel()
	for name, together := range map[string]bool{"same batch": true, "later": false} {
		t.Run(name, func(t *testing.T) {
			tr := openTemp(t, Options{})
			a, b := message(1), message(2)
			moved := *a
			moved.Seq, moved.Moved, moved.At = 3, true, a.At.Add(seconds(100))
			tr.submit(a, b)
			if !together {
				tr.run(idle{})
				tr.wait(2, 0)
			}
			tr.submit(&moved)
			if together {
				tr.run(idle{})
			}
			tr.wait(3, 0)
			for _, seq := range []uint64{1, 3} {
				if j := tr.find(seq); j.ID != a.ID || j.Key != 1 || j.Seq != 3 || j.CreatedAt != a.At {
					t.Errorf("Find(%d) = %+v", seq, j)
				}
			}
			if floor, n := tr.Floor(); floor != 2 || n != 2 {
				t.Errorf("floor %d, unfinished %d", floor, n)
			}
			cs := tr.until("the move", func(cs []jobs.Commit) bool { return len(cs) > 0 && cs[len(cs)-1].Positions.Jobs == 3 })
			if last := slices.Collect(cs[len(cs)-1].Submitted()); !slices.ContainsFunc(last, func(j *jobs.Job) bool { return j.Seq == 3 && j.ID == a.ID }) {
				t.Errorf("submitted %v", keysOf(last))
			}
			tr.verify()
			tr.reopen()
			tr.run(idle{})
			tr.verify()

			// Events may speak of either place.
			second := *a
			second.Seq = 3
			tr.Happened(1, []jobs.Event{event(jobs.KindRetrying, a, 1)})
			tr.Happened(2, []jobs.Event{event(jobs.KindCompleted, &second, 2)})
			tr.wait(3, 2)
			if j := tr.find(1); j.Status != jobs.Completed || j.Failures != 1 {
				t.Errorf("%+v", j)
			}
			if floor, n := tr.Floor(); floor != 2 || n != 1 {
				t.Errorf("floor %d, unfinished %d", floor, n)
			}
			tr.verify()
		})
	}
}

// An ended job stays where it is.
func TestMovedAfterTheEnd(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	m := message(1)
	tr.submit(m)
	tr.Happened(1, []jobs.Event{event(jobs.KindCompleted, m, 1)})
	tr.wait(1, 1)
	moved := *m
	moved.Seq, moved.Moved = 2, true
	tr.submit(&moved)
	tr.wait(2, 1)
	if j := tr.find(2); j.Seq != 1 || j.Status != jobs.Completed {
		t.Errorf("%+v", j)
	}
	if floor, n := tr.Floor(); floor != 3 || n != 0 {
		t.Errorf("floor %d, unfinished %d", floor, n)
	}
	tr.verify()
}

// A message at or below the committed position has been folded already.
func TestOldMessagesAreSkipped(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	tr.submit(message(5))
	tr.wait(5, 0)
	old := message(4)
	other := message(5)
	other.ID = jobs.DerivedID(99, 99)
	tr.submit(old, other, message(6))
	tr.wait(6, 0)
	tr.none(4)
	if j := tr.find(5); j.ID != message(5).ID {
		t.Errorf("the job was replaced: %+v", j)
	}
	if n := tr.count(jobs.Filter{}); n != 2 {
		t.Errorf("%d jobs", n)
	}
	tr.verify()
}

// Events of deleted jobs, and of messages that never were, make no job; but
// the delivery behind them is settled.
func TestEventsOfUnknownJobs(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	tr.submit(message(10))
	tr.run(idle{})
	ctx, cancel := within(t)
	defer cancel()
	if err := tr.EndRebuild(ctx); err != nil {
		t.Fatal(err)
	}
	tr.wait(10, 0)
	if tr.New() {
		t.Fatal("still new after EndRebuild")
	}
	broken := event(jobs.KindCompleted, message(12), 1)
	broken.Priority = 0
	nowhere := event(jobs.KindCompleted, message(13), 1)
	nowhere.Seq = 0
	forged := []jobs.Event{event(jobs.KindCompleted, message(3), 1), broken, nowhere}
	for seq := uint64(11); seq < 1200; seq++ { // as many as would fill a queue
		forged = append(forged, event(jobs.KindStarted, message(seq), 1))
	}
	forged = append(forged, event(jobs.KindStarted, message(math.MaxUint64), 1))
	tr.Happened(1, forged)
	cs := tr.until("the events", func(cs []jobs.Commit) bool {
		return slices.ContainsFunc(cs, func(c jobs.Commit) bool { return len(c.Outcomes) > 0 })
	})
	if last := cs[len(cs)-1]; len(last.Outcomes) != 3 || len(slices.Collect(last.Ended())) != 0 {
		t.Errorf("%+v", last)
	}
	for _, seq := range []uint64{3, 12, 13, 1199, math.MaxUint64} {
		tr.none(seq)
	}
	if unfinished, _ := tr.Totals(); unfinished != 1 {
		t.Errorf("%d unfinished jobs", unfinished)
	}
	tr.verify()
}

// Each stream has a position of its own, and a start goes on behind them.
func TestPositionsAfterRestart(t *testing.T) {
	t.Parallel()
	tr := startTemp(t, Options{})
	m := message(7)
	tr.submit(m)
	tr.Happened(41, []jobs.Event{event(jobs.KindStarted, m, 1)})
	tr.Happened(43, nil) // a message without events moves the position, too
	tr.wait(7, 43)
	tr.reopen()
	want := jobs.Positions{Jobs: 7, Status: 43}
	if got := tr.Positions(); got != want {
		t.Fatalf("positions %+v", got)
	}
	from := make(chan jobs.Positions, 1)
	tr.run(idle{from: from})
	if got := <-from; got != want {
		t.Fatalf("reads from %+v", got)
	}
	if floor, n := tr.Floor(); floor != 7 || n != 1 {
		t.Errorf("floor %d, unfinished %d", floor, n)
	}
	if tr.New() {
		t.Log("a restart in the middle of a rebuild goes on with it")
	}
	tr.verify()
}

// A stop commits what had come, though it comes at the same moment in which the
// source ends.
func TestStopCommitsWhatWasRead(t *testing.T) {
	t.Parallel()
	rounds := 50
	if testing.Short() {
		rounds = 10
	}
	tr := openTemp(t, Options{})
	for i := range uint64(rounds) {
		read := make(chan struct{})
		tr.run(feedingSource(func(ctx context.Context, _ jobs.Positions, sink jobs.Sink) error {
			sink.Submitted(message(i + 1))
			close(read)
			<-ctx.Done()
			if i%2 == 0 {
				return nil
			}
			return ctx.Err()
		}))
		<-read
		if err := tr.halt(); err != nil {
			t.Fatalf("round %d: Run = %v", i, err)
		}
		if got := tr.Positions().Jobs; got != i+1 {
			t.Fatalf("round %d: stopped at %d", i, got)
		}
		tr.reopen()
	}
}

// feedingSource is a source made of a function.
type feedingSource func(ctx context.Context, from jobs.Positions, sink jobs.Sink) error

func (f feedingSource) Read(ctx context.Context, from jobs.Positions, sink jobs.Sink) error {
	return f(ctx, from, sink)
}

// A source that breaks ends Run with its error.
func TestSourceBreaks(t *testing.T) {
	t.Parallel()
	tr := openTemp(t, Options{})
	broken := errors.New("the broker is gone")
	tr.run(feedingSource(func(context.Context, jobs.Positions, jobs.Sink) error { return broken }))
	if err := <-tr.done; !errors.Is(err, broken) {
		t.Fatalf("Run = %v", err)
	}
	tr.cancel()
	tr.cancel = nil
	ctx, cancel := within(t)
	defer cancel()
	if _, _, err := tr.Delete(ctx, []uint64{1}); !errors.Is(err, boltfile.ErrClosed) {
		t.Errorf("Delete after the end: %v", err)
	}
}
