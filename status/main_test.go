package status

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		crashChild(dir)
		return
	}
	flag.Parse()
	if err := flag.Set("rapid.checks", checks()); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// checks is how often each property is checked: as -rapid.checks or JOBSTREAM_CHECKS say,
// which .ci/run sets.
func checks() (n string) {
	n = "25"
	if testing.Short() {
		n = "10"
	}
	if asked := os.Getenv("JOBSTREAM_CHECKS"); asked != "" {
		n = asked
	}
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "rapid.checks" {
			n = f.Value.String()
		}
	})
	return n
}

// deadline is how long a test waits for what must happen: far longer than it
// ever takes.
const deadline = 3 * time.Minute

// tb is what *testing.T, *testing.B and *rapid.T have in common.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

func within(t tb) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(context.Background(), deadline)
}

var testTypes = jobs.NewRegistry(
	&jobs.Type{Name: "email", RetryCount: 3, Handler: noHandler{}},
	&jobs.Type{Name: "export", RetryCount: 1, Handler: noHandler{}},
)

// noHandler is a handler that no test here runs.
type noHandler struct{}

func (noHandler) Handle(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil }

// idle is a source that reads nothing: tests put into the sink themselves.
type idle struct{ from chan jobs.Positions }

func (i idle) Read(ctx context.Context, from jobs.Positions, _ jobs.Sink) error {
	if i.from != nil {
		i.from <- from
	}
	<-ctx.Done()
	return ctx.Err()
}

// tracker is a Store for tests, with a record of what Run published.
type tracker struct {
	*Store
	t       tb
	cancel  context.CancelFunc
	clock   func() jobs.Time // the test's clock, nil = the machine's
	done    chan error       // gets what Run returned
	damaged bool             // by the test

	mu   sync.Mutex
	cond *sync.Cond
	seen []jobs.Commit
}

// open opens a tracker that does not sync, without running it.
func open(t tb, o Options) *tracker {
	t.Helper()
	o.unsynced = true
	return openSynced(t, o)
}

// openSynced opens a tracker that does.
func openSynced(t tb, o Options) *tracker {
	t.Helper()
	if o.Registry == nil {
		o.Registry = testTypes
	}
	if o.Spacing == 0 {
		o.Spacing = time.Microsecond
	}
	s, err := Open(o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	tr := &tracker{Store: s, t: t}
	tr.cond = sync.NewCond(&tr.mu)
	return tr
}

// openTemp opens a tracker in a new folder; with cleanup.
func openTemp(t *testing.T, o Options) *tracker {
	t.Helper()
	o.Path = filepath.Join(t.TempDir(), "status.db")
	tr := open(t, o)
	t.Cleanup(func() { tr.stop() })
	return tr
}

// startSynced is startTemp of a tracker that syncs.
func startSynced(t *testing.T, o Options) *tracker {
	t.Helper()
	o.Path = filepath.Join(t.TempDir(), "status.db")
	tr := openSynced(t, o)
	t.Cleanup(func() { tr.stop() })
	tr.run(idle{})
	return tr
}

// startTemp is openTemp and run.
func startTemp(t *testing.T, o Options) *tracker {
	t.Helper()
	tr := openTemp(t, o)
	tr.run(idle{})
	return tr
}

// run starts the projector.
func (tr *tracker) run(source Source) {
	var ctx context.Context
	ctx, tr.cancel = context.WithCancel(context.Background())
	tr.done = make(chan error, 1)
	tr.Listen(tr.see)
	go func() { tr.done <- tr.Run(ctx, source) }()
}

func (tr *tracker) see(c *jobs.Commit) {
	// It is the receiver's for the time of the call only.
	kept := *c
	kept.Changes = slices.Clone(c.Changes)
	kept.Outcomes = slices.Clone(c.Outcomes)
	kept.Answers = slices.Clone(c.Answers)
	tr.mu.Lock()
	tr.seen = append(tr.seen, kept)
	tr.mu.Unlock()
	tr.cond.Broadcast()
}

// answers are those of one kind.
func answers(c *jobs.Commit, kind jobs.AnswerKind) (some []jobs.Answer) {
	for _, a := range c.Answers {
		if a.Kind == kind {
			some = append(some, a)
		}
	}
	return some
}

// until waits until what has been published fulfils a condition, and returns it.
func (tr *tracker) until(what string, ok func([]jobs.Commit) bool) []jobs.Commit {
	tr.t.Helper()
	end := time.Now().Add(deadline)
	wake := time.AfterFunc(deadline, tr.cond.Broadcast)
	defer wake.Stop()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for !ok(tr.seen) {
		if !time.Now().Before(end) {
			tr.t.Fatalf("not published in time: %s; there were %d commits, health: %v", what, len(tr.seen), tr.Health())
		}
		tr.cond.Wait()
	}
	return append([]jobs.Commit(nil), tr.seen...)
}

// halt ends the projector and returns what Run said. The file stays open.
func (tr *tracker) halt() error {
	if tr.cancel == nil {
		return nil
	}
	tr.cancel()
	tr.cancel = nil
	return <-tr.done
}

// stop ends the projector and closes the file, once.
func (tr *tracker) stop() {
	tr.t.Helper()
	if tr.Store == nil {
		return
	}
	if err := tr.halt(); err != nil {
		tr.t.Fatalf("Run: %v", err)
	}
	var i *inspection
	err := tr.db.View(func(tx *boltfile.Tx) (err error) {
		i, err = inspect(context.Background(), tx, nil)
		return err
	})
	if err != nil {
		tr.t.Fatalf("inspect: %v", err)
	}
	for _, f := range i.found {
		if !tr.damaged && f.Severity != jobs.Notice {
			tr.t.Fatalf("at its end the tracker has this: %+v", f)
		}
	}
	if err := tr.Close(); err != nil {
		tr.t.Fatalf("Close: %v", err)
	}
	tr.Store = nil
}

// reopen is stop and the same file opened again, not running.
func (tr *tracker) reopen() {
	tr.t.Helper()
	o := tr.o
	tr.stop()
	again := openSynced(tr.t, o) // or not, as before
	tr.Store = again.Store
	tr.mu.Lock()
	tr.seen = nil
	tr.mu.Unlock()
}

// wait waits until both positions are committed.
func (tr *tracker) wait(jobsSeq, statusSeq uint64) {
	tr.t.Helper()
	ctx, cancel := within(tr.t)
	defer cancel()
	if err := tr.WaitFor(ctx, jobs.Positions{Jobs: jobsSeq, Status: statusSeq}); err != nil {
		tr.t.Fatalf("%v; health: %v", err, tr.Health())
	}
}

// find is Find of a job that must be there.
func (tr *tracker) find(seq uint64) *jobs.Job {
	tr.t.Helper()
	j, err := tr.Find(seq)
	if err != nil || j == nil {
		tr.t.Fatalf("Find(%d) = %v, %v", seq, j, err)
	}
	return j
}

// none makes sure that there is no job for a sequence.
func (tr *tracker) none(seq uint64) {
	tr.t.Helper()
	if j, err := tr.Find(seq); j != nil || err != nil {
		tr.t.Fatalf("Find(%d) = %v, %v; want none", seq, j, err)
	}
}

// epoch is when the tests' jobs begin to come.
var epoch = jobs.TimeOf(time.Date(2024, 1, 15, 8, 0, 0, 0, time.UTC))

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// message is a submission of an email, seq seconds after the epoch.
func message(seq uint64) *jobs.Message {
	at := epoch.Add(seconds(int(seq)))
	return &jobs.Message{
		Seq: seq, At: at, ID: jobs.DerivedID(seq, at), Type: "email", Priority: 3,
		Payload: fmt.Appendf(nil, `{"n":%d}`, seq), RetryCount: -1,
	}
}

// event is something that happens to the job of message(seq) in an attempt.
func event(kind jobs.Kind, m *jobs.Message, attempt int) jobs.Event {
	started := m.At.Add(seconds(60 * attempt))
	e := jobs.Event{
		Kind: kind, ID: m.ID, Seq: m.Seq, Type: m.Type, Priority: m.Priority, CreatedAt: m.At, MaxAttempts: 4,
		Run: 1, Attempt: attempt, StartedAt: started, At: started.Add(seconds(5)), Node: "node-a",
	}
	switch kind {
	case jobs.KindStarted:
		e.At = started
	case jobs.KindProgress:
		e.At, e.Progress, e.Message = started.Add(seconds(1)), 40, "under way"
	case jobs.KindCompleted:
		e.Result = []byte(`{"ok":true}`)
	case jobs.KindFailed:
		e.Error = "it broke for good"
	case jobs.KindRetrying:
		e.Error, e.Due = "it broke", e.At.Add(seconds(10))
	}
	return e
}

func (tr *tracker) submit(ms ...*jobs.Message) {
	for _, m := range ms {
		tr.Submitted(m)
	}
}

func keysOf(js []*jobs.Job) (keys []uint64) {
	for _, j := range js {
		keys = append(keys, j.Key)
	}
	return keys
}
