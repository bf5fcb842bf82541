// Package nodetest has what tests of programs with jobs need: a node that starts in
// milliseconds and ends with its test, waits for jobs, and a clock that a test sets.
//
// Start at [Start]. [jobs.Run] tries a function without any node.
package nodetest

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"jobstream/cmd/node"
	"jobstream/jobs"
	"jobstream/jobs/intake"
)

// patience is how long a wait may take in a test without a deadline of its own.
const patience = time.Minute

// Start opens a node that does the jobs of these types. It has no port, logs to the test,
// and is closed at the test's end: jobs that run then are interrupted. Its data folder is
// a new one, in memory where the system has a place for that, so nothing waits for a
// disk. change may set options before the start; Dir is not among them.
func Start(t testing.TB, r *jobs.Registry, change ...func(*node.Options)) *node.Node {
	t.Helper()
	o := node.Options{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	for _, f := range change {
		f(&o)
	}
	o.Dir = folder(t)
	if o.Workers.Grace == 0 {
		o.Workers.Grace = -1
	}
	n, err := node.Open(context.WithoutCancel(t.Context()), o, r)
	if err != nil {
		t.Fatalf("the node does not start: %v", err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("the node does not end well: %v", err)
		}
	})
	return n
}

// folder makes a folder that is removed at the test's end.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "jobstream-test-") //nolint:usetesting // TempDir is on a disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// until is the end of waits of a test.
func until(t testing.TB) (context.Context, context.CancelFunc) {
	limit := time.Now().Add(patience)
	if t, ok := t.(interface{ Deadline() (time.Time, bool) }); ok {
		if at, ok := t.Deadline(); ok && at.Add(-time.Second).Before(limit) {
			limit = at.Add(-time.Second) // it leaves time to say what is wrong
		}
	}
	return context.WithDeadline(t.Context(), limit)
}

// WaitFor returns a job when it has a status. The test fails at once if the job ends with
// another one, or is not there, and after a minute at the latest.
func WaitFor(t testing.TB, n *node.Node, id jobs.ID, status jobs.Status) *jobs.Job {
	t.Helper()
	ctx, cancel := until(t)
	defer cancel()
	p := n.Parts()
	j, err := p.Waits.Wait(ctx, id,
		func(j *jobs.Job) bool { return j.Status == status || intake.Ended(j) },
		func() (*jobs.Job, error) { return p.Store.Job(context.WithoutCancel(ctx), id) },
	)
	switch {
	case err != nil:
		t.Fatalf("job %s: %v", id, err)
	case j == nil:
		t.Fatalf("there is no job %s", id)
	case j.Status != status:
		t.Fatalf("job %s is %s, not %s: attempt %d of %d, error %q", id, j.Status, status, j.Attempt, j.MaxAttempts, j.Error)
	}
	return j
}

// Submitted is a job that was submitted, with its payload.
type Submitted[In any] struct {
	In  In
	Job *jobs.Job // as it was when it was looked up; read only
}

// AllSubmitted are the jobs of a type, in the order of submission.
func AllSubmitted[In, Out any](t testing.TB, n *node.Node, d *jobs.Definition[In, Out]) (all []Submitted[In]) {
	t.Helper()
	ctx, cancel := until(t)
	defer cancel()
	page := jobs.Page{Filter: jobs.Filter{Types: []string{d.Name()}}, Limit: jobs.MaxLimit, Asc: true}
	for {
		found, err := n.Parts().Store.Search(ctx, page, func(j *jobs.Job) bool {
			in, err := d.Payload(j)
			if err != nil {
				t.Fatalf("job %s: %v", j.ID, err)
			}
			all = append(all, Submitted[In]{in, j})
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		if page.Cursor = found.Next; page.Cursor == "" {
			return all
		}
	}
}

// WaitSubmitted is AllSubmitted as soon as there are so many jobs: for those that a
// schedule or another job makes. The test fails if they do not come within a minute.
func WaitSubmitted[In, Out any](t testing.TB, n *node.Node, d *jobs.Definition[In, Out], count int) []Submitted[In] {
	t.Helper()
	ctx, cancel := until(t)
	defer cancel()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		all := AllSubmitted(t, n, d)
		if len(all) >= count {
			return all
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			t.Fatalf("%d jobs of type %s were submitted, not %d", len(all), d.Name(), count)
		}
	}
}

// RequireSubmitted returns the only job of a type. The test fails if there is none, or
// more than one.
func RequireSubmitted[In, Out any](t testing.TB, n *node.Node, d *jobs.Definition[In, Out]) Submitted[In] {
	t.Helper()
	all := AllSubmitted(t, n, d)
	if len(all) != 1 {
		t.Fatalf("%d jobs of type %s were submitted, not one", len(all), d.Name())
	}
	return all[0]
}

// Clock is the clock of all nodes of the process. A test that has one cannot be parallel,
// because it would move the clocks of others.
type Clock struct{ ahead time.Duration }

// NewClock makes the clock of a test, which begins with the present time. Its end sets
// the clock back.
func NewClock(t testing.TB) *Clock {
	t.Helper()
	t.Setenv("JOBSTREAM_TEST_CLOCK", "") // testing refuses this to parallel tests
	t.Cleanup(func() { jobs.ShiftClock(0) })
	return &Clock{}
}

// Now is the present time of the nodes.
func (c *Clock) Now() time.Time { return jobs.Now().Std() }

// Advance moves the clock on. Jobs whose delay is over then start, those that have
// expired end, and schedules fire as after a pause of that length: once for all the times
// that have passed, unless their catch_up is none. Timeouts and the waits of retries stay
// real.
func (c *Clock) Advance(d time.Duration) {
	c.ahead += d
	jobs.ShiftClock(c.ahead)
}
