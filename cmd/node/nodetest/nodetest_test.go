package nodetest_test

import (
	"context"
	"testing"
	"time"

	"jobstream/cmd/node"
	"jobstream/cmd/node/nodetest"
	"jobstream/jobs"
	"jobstream/jobs/schedule"
)

type note struct {
	Text string `json:"text"`
}

var (
	write = jobs.Define[note, int]("write")
	fail  = jobs.Define[struct{}, struct{}]("fail", jobs.Retries(0))
)

func registry() *jobs.Registry {
	r := jobs.NewRegistry()
	write.Handle(r, func(_ context.Context, _ *jobs.Task, in note) (int, error) { return len(in.Text), nil })
	fail.Handle(r, func(context.Context, *jobs.Task, struct{}) (struct{}, error) {
		return struct{}{}, jobs.Permanentf("it fails")
	})
	return r
}

func mustDo(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestStart starts a node, and looks for jobs in it.
func TestStart(t *testing.T) {
	t.Parallel()
	var o node.Options
	n := nodetest.Start(t, registry(), func(set *node.Options) {
		set.Workers.Max = 2
		o = *set
	})
	if n.HTTPURL()+n.NATSURL() != "" || o.Logger == nil {
		t.Errorf("the node listens at %q and %q", n.HTTPURL(), n.NATSURL())
	}
	j, err := write.Submit(t.Context(), n, note{"hello"}, jobs.Tags("a"))
	mustDo(t, err)
	done := nodetest.WaitFor(t, n, j.ID, jobs.Completed)
	if out, err := write.Result(done); err != nil || out != 5 {
		t.Errorf("the result is %d, %v", out, err)
	}
	one := nodetest.RequireSubmitted(t, n, write)
	if one.In.Text != "hello" || one.Job.ID != j.ID || one.Job.Tags[0] != "a" {
		t.Errorf("submitted is %+v", one)
	}
	later, err := write.Submit(t.Context(), n, note{"again"}, jobs.Delay(time.Hour))
	mustDo(t, err)
	nodetest.WaitFor(t, n, later.ID, jobs.Scheduled)
	if all := nodetest.AllSubmitted(t, n, write); len(all) != 2 || all[0].In.Text != "hello" || all[1].In.Text != "again" {
		t.Errorf("submitted are %+v", all)
	}
	if all := nodetest.AllSubmitted(t, n, fail); len(all) != 0 {
		t.Errorf("of a type without jobs there are %+v", all)
	}
}

// failing is a test that notes its failure.
type failing struct {
	testing.TB
	failed bool
}

type stopped struct{}

func (f *failing) Fatalf(string, ...any) { f.failed = true; panic(stopped{}) }
func (f *failing) Fatal(...any)          { f.failed = true; panic(stopped{}) }

// fails says whether f fails its test.
func fails(t *testing.T, f func(t testing.TB)) (failed bool) {
	t.Helper()
	inner := &failing{TB: t}
	defer func() {
		if r := recover(); r != nil && r != any(stopped{}) {
			panic(r)
		}
		failed = inner.failed
	}()
	f(inner)
	return
}

// TestFails: what a test requires and is not so fails it.
func TestFails(t *testing.T) {
	t.Parallel()
	n := nodetest.Start(t, registry())
	j, err := fail.Submit(t.Context(), n, struct{}{})
	mustDo(t, err)
	nodetest.WaitFor(t, n, j.ID, jobs.Failed)
	for name, f := range map[string]func(testing.TB){
		"another status":   func(t testing.TB) { nodetest.WaitFor(t, n, j.ID, jobs.Completed) },
		"no such job":      func(t testing.TB) { nodetest.WaitFor(t, n, jobs.NewID(), jobs.Completed) },
		"nothing":          func(t testing.TB) { nodetest.RequireSubmitted(t, n, write) },
		"a payload of old": func(t testing.TB) { nodetest.RequireSubmitted(t, n, jobs.Define[int, int]("fail")) },
	} {
		if !fails(t, f) {
			t.Errorf("%s: the test goes on", name)
		}
	}
	if fails(t, func(t testing.TB) { nodetest.RequireSubmitted(t, n, fail) }) {
		t.Error("what is so fails a test")
	}
}

// TestClock moves the clock: to the end of a delay, past an expiry, and to the time of a
// schedule.
func TestClock(t *testing.T) { // not parallel, because of the clock
	clock := nodetest.NewClock(t)
	daily, err := schedule.ParseSpec([]byte(`{"name":"daily","every":"1d","type":"write","payload":{"text":"day"}}`))
	mustDo(t, err)
	n := nodetest.Start(t, registry(), func(o *node.Options) { o.Schedules = []schedule.Spec{*daily} })
	begun := clock.Now()
	soon, err := write.Submit(t.Context(), n, note{"soon"}, jobs.Delay(time.Hour))
	mustDo(t, err)
	late, err := write.Submit(t.Context(), n, note{"late"}, jobs.Delay(30*24*time.Hour))
	mustDo(t, err)
	clock.Advance(time.Hour)
	if gone := clock.Now().Sub(begun); gone < time.Hour {
		t.Errorf("after an hour the clock has moved by %s", gone)
	}
	nodetest.WaitFor(t, n, soon.ID, jobs.Completed)
	nodetest.WaitFor(t, n, late.ID, jobs.Scheduled)

	// A delay counts from the clock's time, not the machine's.
	next, err := write.Submit(t.Context(), n, note{"next"}, jobs.Delay(time.Hour))
	mustDo(t, err)
	nodetest.WaitFor(t, n, next.ID, jobs.Scheduled)
	clock.Advance(2 * time.Hour)
	nodetest.WaitFor(t, n, next.ID, jobs.Completed)

	clock.Advance(24 * time.Hour)
	at := nodetest.WaitSubmitted(t, n, write, 4)[3]
	if at.In.Text != "day" || at.Job.Terms == nil || at.Job.Terms.Schedule != "daily" {
		t.Errorf("the schedule makes %+v", at)
	}
}

// BenchmarkStart is how long a test waits for its node.
func BenchmarkStart(b *testing.B) {
	r := registry()
	for b.Loop() {
		nodetest.Start(b, r) // the end of the benchmark closes them
	}
}
