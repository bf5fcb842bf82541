package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobstream/broker"
	"jobstream/broker/client"
	"jobstream/cmd/node"
	"jobstream/jobs"
)

// waiting is a handler that waits for the end of its context, and says why that has come.
type waiting struct {
	begun chan *jobs.Task
	why   chan error
	deaf  chan struct{} // not nil: it returns only when that is closed
}

func newWaiting() *waiting {
	return &waiting{begun: make(chan *jobs.Task, 1000), why: make(chan error, 1000)}
}

func (w *waiting) Handle(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
	w.begun <- t
	<-ctx.Done()
	w.why <- context.Cause(ctx)
	if w.deaf != nil {
		<-w.deaf
	}
	return jobs.Result{}, ctx.Err()
}

func await[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(longest):
		t.Fatalf("%s has not come", what)
		panic(0)
	}
}

// untilStatus waits until a job has a status.
func untilStatus(t *testing.T, s *server, id jobs.ID, want jobs.Status) *jobs.Job {
	t.Helper()
	for end := time.Now().Add(longest); ; {
		j, err := s.Parts().Store.Job(t.Context(), id)
		mustDo(t, err)
		if j.Status == want {
			return j
		}
		if time.Now().After(end) {
			t.Fatalf("the job is %s, not %s", j.Status, want)
		}
		commit := make(chan struct{})
		time.AfterFunc(5*time.Millisecond, func() { close(commit) })
		<-commit
	}
}

func TestCancelOfARunningJob(t *testing.T) {
	t.Parallel()
	s := serve(t, node.Options{}, remote("x"))
	h := newWaiting()
	work(t, s.client(), jobs.NewRegistry(doing("x", h.Handle)), client.Options{})
	id := submit(t, s, "x", 1)
	await(t, h.begun, "the job")
	s.post("/jobs/"+id.String()+"/cancel", `{"reason":"timed out"}`) // a reason that looks like another one
	if why := await(t, h.why, "the end of the context"); !errors.Is(why, jobs.ErrCancelled) {
		t.Errorf("the handler was interrupted because %v", why)
	}
	if j := ended(t, s, id); j.Status != jobs.Cancelled || j.Error != "timed out" {
		t.Errorf("the job is %s: %s", j.Status, j.Error)
	}
}

// TestHandlerThatIgnoresTheEnd loses its job after the grace of its type, and its place.
func TestHandlerThatIgnoresTheEnd(t *testing.T) {
	t.Parallel()
	s := serve(t, node.Options{}, remote("x"))
	h := newWaiting()
	h.deaf = make(chan struct{})
	defer close(h.deaf)
	typ := doing("x", h.Handle)
	typ.Grace = 10 * time.Millisecond
	work(t, s.client(), jobs.NewRegistry(typ), client.Options{Concurrency: 1})
	first := submit(t, s, "x", 1)
	await(t, h.begun, "the first job")
	second := submit(t, s, "x", 2)
	s.post("/jobs/"+first.String()+"/cancel", `{}`)
	if got := await(t, h.begun, "the second job"); got.Job.ID != second {
		t.Errorf("job %s has begun", got.Job.ID)
	}
}

// TestBeats: jobs that run longer than their leases keep them, and one beat is for all.
func TestBeats(t *testing.T) {
	t.Parallel()
	const span = 4 * time.Second
	typ := remote("x")
	typ.Lease = span
	s := serve(t, node.Options{}, typ)
	h := newWaiting()
	const n = 50
	end := make(chan struct{})
	f := func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		h.begun <- t
		<-end
		return jobs.Result{}, nil
	}
	c := s.client()
	work(t, c, jobs.NewRegistry(doing("x", f)), client.Options{Concurrency: n})
	var all []jobs.ID
	for i := range n {
		all = append(all, submit(t, s, "x", i))
	}
	for range n {
		await(t, h.begun, "a job")
	}
	<-time.After(2 * span) // this is the time that they run
	close(end)
	for _, id := range all {
		if j := ended(t, s, id); j.Status != jobs.Completed || j.Lost != 0 || j.Attempt != 1 {
			t.Errorf("job %s is %s after %d lost workers: %s", id, j.Status, j.Lost, j.Error)
		}
	}
	if beats := requests(t, s, "worker-beat"); beats < 3 || beats > n {
		t.Errorf("%d beats were sent", beats)
	}
}

// requests is how many requests an endpoint of the service has had.
func requests(t *testing.T, s *server, endpoint string) int {
	t.Helper()
	nc, err := nats.Connect(s.NATSURL())
	mustDo(t, err)
	defer nc.Close()
	m, err := nc.Request("$SRV.STATS."+broker.ServiceName, nil, longest)
	mustDo(t, err)
	_, rest, _ := strings.Cut(string(m.Data), `"name":"`+endpoint+`"`)
	_, rest, _ = strings.Cut(rest, `"num_requests":`)
	var count int
	_, err = fmt.Sscan(strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return ' '
		}
		return r
	}, rest[:20]), &count)
	mustDo(t, err)
	return count
}

// TestDrain: at the end of its context a worker begins nothing more, and finishes what runs.
func TestDrain(t *testing.T) {
	t.Parallel()
	s := serve(t, node.Options{}, remote("x"))
	begun, end := make(chan struct{}, 10), make(chan struct{})
	f := func(ctx context.Context, t *jobs.Task) (jobs.Result, error) {
		begun <- struct{}{}
		<-end
		return jobs.Result{Value: "done"}, ctx.Err()
	}
	c := s.client()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- c.Work(ctx, jobs.NewRegistry(doing("x", f)), client.Options{Concurrency: 1, Grace: longest})
	}()
	first := submit(t, s, "x", 1)
	await(t, begun, "the first job")
	second := submit(t, s, "x", 2)
	cancel()
	close(end)
	mustDo(t, await(t, done, "the end of the worker"))
	if j := ended(t, s, first); j.Status != jobs.Completed {
		t.Errorf("the running job is %s: %s", j.Status, j.Error)
	}
	if j, err := s.Parts().Store.Job(t.Context(), second); err != nil || j.Status != jobs.Pending || j.Attempt != 0 {
		t.Errorf("the waiting job is %+v, %v", j, err)
	}
}

// TestDrainGivesBack: what is not done within the grace goes back to the queue at once, and
// uses up no attempt. So does a job that comes after the end.
func TestDrainGivesBack(t *testing.T) {
	t.Parallel()
	s := serve(t, node.Options{}, remote("x"))
	h := newWaiting()
	h.deaf = make(chan struct{})
	typ := doing("x", h.Handle)
	typ.Grace = 10 * time.Millisecond
	c := s.client()
	stop := work(t, c, jobs.NewRegistry(typ), client.Options{Grace: -1})
	id := submit(t, s, "x", 1)
	await(t, h.begun, "the job")
	mustDo(t, stop())
	if why := await(t, h.why, "the end of the context"); !errors.Is(why, jobs.ErrShutdown) {
		t.Errorf("the handler was interrupted because %v", why)
	}
	close(h.deaf)
	if j := untilStatus(t, s, id, jobs.Pending); j.Failures != 0 || j.Lost != 0 {
		t.Errorf("it has %d failures, and has lost %d workers", j.Failures, j.Lost)
	}
	// The server still has an ask of that worker, and its connection is open. So the job
	// comes to it once more, and goes back.
	next := newWaiting()
	work(t, s.client(), jobs.NewRegistry(doing("x", next.Handle)), client.Options{Grace: -1})
	if got := await(t, next.begun, "the job at another worker"); got.Job.ID != id || got.Attempt != 1 {
		t.Errorf("it got job %s, attempt %d", got.Job.ID, got.Attempt)
	}
	s.post("/jobs/"+id.String()+"/cancel", `{}`)
	_ = await(t, next.why, "the end of the job")
}

// TestRestarts: a server that stops and starts again under a worker and under those who
// submit loses no job and does none twice.
func TestRestarts(t *testing.T) {
	t.Parallel()
	s := serve(t, node.Options{}, remote("x"))
	var ran [60]atomic.Int32
	step := make(chan struct{}, len(ran))
	f := func(_ context.Context, t *jobs.Task) (jobs.Result, error) {
		var i int
		if _, err := fmt.Sscan(string(t.Job.Payload), &i); err != nil {
			return jobs.Result{}, jobs.Permanent(err)
		}
		ran[i].Add(1)
		step <- struct{}{}
		return jobs.Result{Value: i}, nil
	}
	work(t, s.client(), jobs.NewRegistry(doing("x", f)), client.Options{Concurrency: 3})
	all := make(chan jobs.ID, len(ran))
	c := s.client()
	go func() {
		for i := range ran {
			all <- submit(t, c, "x", i)
		}
	}()
	results := make(chan error, len(ran))
	go func() {
		for range ran {
			id := <-all
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), longest)
				defer cancel()
				j, err := c.Wait(ctx, id)
				if err == nil && (j == nil || j.Status != jobs.Completed || j.Attempt != 1 || j.Lost > 0) {
					err = fmt.Errorf("job %s is %+v", id, j)
				}
				results <- err
			}()
		}
	}()
	for range 3 {
		for range 10 {
			await(t, step, "a job")
		}
		s.close()
		s.open()
	}
	for range ran {
		mustDo(t, await(t, results, "the end of a job"))
	}
	for i := range ran {
		if n := ran[i].Load(); n != 1 {
			t.Errorf("job %d ran %d times", i, n)
		}
	}
}

// TestStartsBeforeTheServer: neither a worker nor who submits needs a server to begin.
func TestStartsBeforeTheServer(t *testing.T) {
	t.Parallel()
	s := serve(t, node.Options{}, remote("x"))
	s.close()
	f := func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{Value: "here"}, nil }
	c := s.client()
	work(t, c, jobs.NewRegistry(doing("x", f)), client.Options{})
	made := make(chan jobs.ID, 1)
	go func() { made <- submit(t, c, "x", 1) }()
	s.open()
	if j := ended(t, c, await(t, made, "the job")); string(j.Result) != `"here"` {
		t.Errorf("it is %s: %s", j.Status, j.Result)
	}
}

// TestLostConnection: a handler whose server is away for the time of a lease is interrupted,
// as another worker may have its job.
func TestLostConnection(t *testing.T) {
	t.Parallel()
	typ := remote("x")
	typ.Lease = time.Second
	s := serve(t, node.Options{}, typ)
	h := newWaiting()
	its := doing("x", h.Handle)
	its.Grace = 10 * time.Millisecond
	work(t, s.client(), jobs.NewRegistry(its), client.Options{})
	id := submit(t, s, "x", 1)
	await(t, h.begun, "the job")
	s.close()
	if why := await(t, h.why, "the end of the context"); !errors.Is(why, client.ErrLost) {
		t.Errorf("the handler was interrupted because %v", why)
	}
	s.open()
	await(t, h.begun, "the job again")
	s.post("/jobs/"+id.String()+"/cancel", `{}`)
	if j := ended(t, s, id); j.Failures != 0 {
		t.Errorf("it has %d failures: %s", j.Failures, j.Error)
	}
}

// TestWorkRefuses what cannot work, and says what to do.
func TestWorkRefuses(t *testing.T) {
	t.Parallel()
	f := func(context.Context, *jobs.Task) (jobs.Result, error) { return jobs.Result{}, nil }
	s := serve(t, node.Options{}, remote("x"), doing("local", f))
	elsewhere := remote("elsewhere")
	both := jobs.NewRegistry(doing("x", f), doing("local", f), doing("unknown", f), elsewhere)
	closed := client.New(func() *nats.Conn {
		nc, err := nats.Connect(s.NATSURL())
		mustDo(t, err)
		nc.Close()
		return nc
	}())
	c := s.client()
	tests := []struct {
		c    *client.Client
		r    *jobs.Registry
		o    client.Options
		want string
	}{
		{c, both, client.Options{Types: []string{"local"}}, "/types/0: is a type that the server runs itself; it must be one for workers elsewhere, and those that are: x; such a type has run: remote in its configuration"},
		{c, both, client.Options{Types: []string{"x", "unknown"}}, "/types/1: is not a known type"},
		{c, both, client.Options{Types: []string{"y"}}, `Options.Types has "y", for which the registry has no function; it has some for local, unknown, x`},
		{c, both, client.Options{Types: []string{"elsewhere"}}, `Options.Types has "elsewhere", for which the registry has no function`},
		{c, jobs.NewRegistry(elsewhere), client.Options{}, "the worker would have 0 types; 1 to 100 are possible"},
		{c, both, client.Options{Concurrency: -1}, "Options.Concurrency is -1; it must be from 1 to 1000"},
		{c, both, client.Options{Concurrency: 1001}, "Options.Concurrency is 1001"},
		{c, both, client.Options{Name: "w 1"}, `Options.Name is "w 1"; it must be 1 to 64 letters`},
		{c, both, client.Options{REST: "localhost:8080"}, `Options.REST is "localhost:8080"; it must be a URL like http://127.0.0.1:8080`},
		{closed, both, client.Options{Types: []string{"x"}}, "connection closed"},
	}
	for _, tt := range tests {
		ctx, cancel := context.WithTimeout(t.Context(), longest)
		err := tt.c.Work(ctx, tt.r, tt.o)
		cancel()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %s", tt.o, err, tt.want)
		}
	}
}

// TestAhead: of short jobs a worker has more than it runs. If those before them take long,
// they go back, and others do them, with no attempt used up. So they do when the worker is to
// stop. One that is cancelled meanwhile never begins.
func TestAhead(t *testing.T) {
	t.Parallel()
	s := serve(t, node.Options{}, remote("x"))
	gate, begun := make(chan struct{}), make(chan jobs.ID, 100)
	types := jobs.NewRegistry(doing("x", func(ctx context.Context, task *jobs.Task) (jobs.Result, error) {
		begun <- task.Job.ID
		if string(task.Job.Payload) != `"long"` {
			return jobs.Result{}, nil
		}
		select {
		case <-gate:
			return jobs.Result{}, nil
		case <-ctx.Done():
			return jobs.Result{}, context.Cause(ctx)
		}
	}))
	c := s.client()
	stop := work(t, c, types, client.Options{Concurrency: 1, Grace: longest})
	first := submit(t, s, "x", "short") // so that the worker knows its pace
	untilStatus(t, s, first, jobs.Completed)
	await(t, begun, "the first job")
	long := submit(t, s, "x", "long")
	await(t, begun, "the long job")
	var all []jobs.ID
	for range 3 {
		all = append(all, submit(t, s, "x", "short"))
	}
	untilStatus(t, s, all[0], jobs.Processing)
	s.post("/jobs/"+all[0].String()+"/cancel", "")
	for _, id := range all[1:] {
		untilStatus(t, s, id, jobs.Pending)
	}
	other := work(t, s.client(), types, client.Options{Concurrency: 1})
	for _, id := range all[1:] {
		if j := untilStatus(t, s, id, jobs.Completed); j.Attempt != 1 {
			t.Errorf("attempt %d", j.Attempt)
		}
		await(t, begun, "a job at the other worker")
	}
	mustDo(t, other())
	close(gate)
	untilStatus(t, s, long, jobs.Completed)
	mustDo(t, stop())
	select {
	case id := <-begun:
		t.Errorf("%v has begun, of %v", id, all)
	default:
	}
}

// TestEndsTogether: the ends of many jobs that end at a time are all stored, with what each
// has returned, although one of them cannot be.
func TestEndsTogether(t *testing.T) {
	t.Parallel()
	s := serve(t, node.Options{}, remote("x"))
	const count = 40
	var running atomic.Int32
	gate := make(chan struct{})
	types := jobs.NewRegistry(doing("x", func(_ context.Context, task *jobs.Task) (jobs.Result, error) {
		if running.Add(1) == count {
			close(gate)
		}
		<-gate
		if string(task.Job.Payload) == "7" {
			return jobs.Result{Value: strings.Repeat("x", jobs.MaxResult+1)}, nil
		}
		return jobs.Result{Value: task.Job.Payload}, nil
	}))
	work(t, s.client(), types, client.Options{Concurrency: count})
	all := make([]jobs.ID, count)
	for i := range all {
		all[i] = submit(t, s, "x", i, func(sub *jobs.Submission) { sub.RetryCount = 0 })
	}
	for i, id := range all {
		if i == 7 {
			untilStatus(t, s, id, jobs.Failed)
			continue
		}
		if j := untilStatus(t, s, id, jobs.Completed); string(j.Result) != fmt.Sprint(i) {
			t.Errorf("job %d has returned %s", i, j.Result)
		}
	}
}
