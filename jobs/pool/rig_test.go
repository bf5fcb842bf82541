package pool_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/pool"
)

// rig is a pool with a queue and a tracker in memory, in a bubble of its own time.
// After quiet() everything that can happen has happened.
//
// The tracker folds submissions and events, and notifies the pool of its commits. A
// test may stop the commits.
type rig struct {
	t    *testing.T
	pool *pool.Pool
	gate *gate
	reg  *jobs.Registry

	*memQueue // its mu guards what follows, too

	o         rigOptions
	mouth     *mouth
	stop      context.CancelFunc
	work      sync.WaitGroup
	begin     time.Time
	seq       uint64
	records   map[uint64]*jobs.Job // by key
	owner     map[uint64]uint64    // keys by the sequences of later messages
	onFind    func(seq uint64)     // called after each lookup, before it returns
	artifacts jobs.Artifacts
	position  uint64
	submitted []*jobs.Message
	events    []jobs.Event
	holding   bool         // the tracker commits nothing
	losing    int          // so many appends are lost
	appended  []jobs.Event // all events, in order
	commits   chan struct{}
	onCommit  func(*jobs.Commit)
	key       jobs.LeaseKey
	revoked   func(worker, token, reason string)
}

type rigOptions struct {
	survivors uint64 // Options.SurvivorsUpTo
	unsettled int    // Options.MaxUnsettled
	artifacts jobs.Artifacts
	share     int // what a lane may hold in advance at least, 0 = its share of what all may
	paused    map[string]bool
	min       int // Options.MinWorkers
	workers   int
	types     []*jobs.Type // their handlers are the gate
	lease     time.Duration
	maxLost   int
	idle      bool // the pool is not started
}

// gate is the handler of all types: an attempt goes on until the test ends it.
type gate struct {
	mu      sync.Mutex
	running map[uint64]*passage
	order   []string // "type/seq" as they began
	at      []time.Time
	ended   []string // "seq cause" of contexts that ended
	most    int
	deaf    bool // attempts ignore their context
	// last is what attempts return when their context has ended, nil = the context's
	// error.
	last error
}

// errNone stands for no error in gate.last.
var errNone = errors.New("none")

type passage struct {
	task *jobs.Task
	end  chan verdict
}

type verdict struct {
	files  []string // names of artifacts that it leaves first, which are their content as well
	result jobs.Result
	err    error
	panics bool
}

func (g *gate) Handle(ctx context.Context, task *jobs.Task) (jobs.Result, error) {
	p := &passage{task: task, end: make(chan verdict, 1)}
	g.mu.Lock()
	g.running[task.Job.Seq] = p
	g.most = max(g.most, len(g.running))
	g.order = append(g.order, fmt.Sprintf("%s%d/%d", task.Job.Type, task.Job.Priority, task.Job.Seq))
	g.at = append(g.at, time.Now())
	deaf := g.deaf
	g.mu.Unlock()
	done := ctx.Done()
	if deaf {
		done = nil
	}
	var v verdict
	select {
	case v = <-p.end:
	case <-done:
		v.err = ctx.Err()
		g.mu.Lock()
		if g.last != nil {
			v.err = g.last
		}
		if g.last == errNone { //nolint:errorlint // the very value
			v.err = nil
		}
		g.ended = append(g.ended, fmt.Sprintf("%d %v", task.Job.Seq, context.Cause(ctx)))
		g.mu.Unlock()
	}
	g.mu.Lock()
	if g.running[task.Job.Seq] == p {
		delete(g.running, task.Job.Seq)
	}
	g.mu.Unlock()
	for _, name := range v.files {
		if _, err := leave(task, name); err != nil {
			return v.result, err
		}
	}
	if v.panics {
		panic("boom")
	}
	return v.result, v.err
}

// inRig runs f with a rig that is stopped, and checked for leaks, afterwards.
func inRig(t *testing.T, o rigOptions, f func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, o)
		defer r.shut()
		f(r)
	})
}

func typ(name string) *jobs.Type {
	return &jobs.Type{Name: name, RetryCount: 3, Timeout: time.Hour, Backoff: jobs.DefaultBackoff()}
}

func newRig(t *testing.T, o rigOptions) *rig {
	if o.lease == 0 {
		o.lease = 30 * time.Second
	}
	if o.workers == 0 {
		o.workers = 2
	}
	if o.maxLost == 0 {
		o.maxLost = 5
	}
	if o.types == nil {
		o.types = []*jobs.Type{typ("a"), typ("b")}
	}
	r := &rig{
		t: t, artifacts: o.artifacts, gate: &gate{running: make(map[uint64]*passage)}, memQueue: newMemQueue(o.lease), begin: time.Now(),
		records: make(map[uint64]*jobs.Job),
		owner:   make(map[uint64]uint64),
		commits: make(chan struct{}, 1),
		o:       o, key: jobs.NewLeaseKey(),
	}
	for _, ty := range o.types {
		if !ty.Remote && ty.Handler == nil {
			ty.Handler = r.gate
		}
	}
	r.reg = jobs.NewRegistry(o.types...)
	r.up(nil)
	return r
}

// up makes the pool, as a process does when it starts.
func (r *rig) up(running []*jobs.Job) {
	o := r.o
	var lanes []jobs.Lane
	for _, ty := range o.types {
		for p := jobs.HighestPriority; p <= jobs.LowestPriority; p++ {
			lanes = append(lanes, jobs.Lane{Type: ty.Name, Priority: p})
		}
	}
	r.mouth = &mouth{rig: r}
	rec := pool.NewRecorder(r.mouth, nil)
	r.pool = pool.New(pool.Options{
		Queue: r.memQueue, Tracker: r, Recorder: rec, Registry: r.reg, MaxWorkers: o.workers, Lease: o.lease, MaxLost: o.maxLost, Node: "here", SurvivorsUpTo: o.survivors, MaxUnsettled: o.unsettled,
		MinWorkers: o.min, Paused: o.paused, Artifacts: o.artifacts, LeaseKey: r.key, Running: slices.Values(running),
		Revoked: func(worker, token, reason string) {
			if r.revoked != nil {
				r.revoked(worker, token, reason)
			}
		},
		Logger: slog.New(slog.DiscardHandler),
	}, lanes)
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.work.Go(func() { _ = rec.Run(ctx) })
	p := r.pool
	r.work.Go(func() { _ = p.Run(ctx) })
	r.work.Go(func() { r.project(ctx, p) })
	r.work.Go(func() { r.run(ctx, p) })
	if o.share > 0 {
		r.pool.SetShare(o.share)
	}
	if !o.idle {
		r.pool.Start(r.position, r.seq)
	}
	r.quiet()
}

// mouth is what a process says to the event log. A dead one says nothing more.
type mouth struct {
	*rig
	dead bool // guarded by rig.mu
}

func (m *mouth) Append(events []jobs.Event) error {
	m.mu.Lock()
	dead := m.dead
	m.mu.Unlock()
	if dead {
		return nil
	}
	return m.rig.Append(events)
}

// restart ends the process and starts another one with the same queue and tracker: after
// a stop, or by kill -9. A power cut also loses the events that are not committed.
func (r *rig) restart(how string) {
	if how == "stop" {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := r.pool.Stop(ctx); err != nil {
			r.t.Errorf("stop: %v", err)
		}
	} else {
		r.mu.Lock()
		r.mouth.dead = true
		r.mu.Unlock()
		r.pool.Break()
	}
	r.stop()
	r.work.Wait()
	r.mu.Lock()
	if how == "power cut" {
		r.events = nil
	}
	r.mu.Unlock()
	r.fold()
	var running []*jobs.Job
	for seq, j := range r.records {
		switch {
		case j.Status != jobs.Processing:
		case r.reg.Lookup(j.Type).Remote, r.reg.Lookup(j.Type).HandsOver:
			running = append(running, j)
		default:
			r.records[seq] = j.Clone()
			r.records[seq].Lose(jobs.Now(), 100)
		}
	}
	r.reset()
	r.up(running)
}

// shut ends the rig: whatever still runs is released.
func (r *rig) shut() {
	r.hold(false)
	r.gate.mu.Lock()
	for _, p := range r.gate.running {
		select {
		case p.end <- verdict{}:
		default:
		}
	}
	r.gate.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.pool.Stop(ctx); err != nil {
		r.t.Errorf("the pool at the end: %v", err)
	}
	r.close()
	r.stop()
	r.work.Wait()
}

// quiet waits until nothing more happens by itself. It lets the recorder's deferral
// pass.
func (r *rig) quiet() { pass(10 * time.Millisecond) }

// The tracker.

func (r *rig) Find(seq uint64) (*jobs.Job, error) {
	r.mu.Lock()
	j, after := r.find(seq), r.onFind
	r.mu.Unlock()
	if after != nil {
		after(seq)
	}
	return j, nil
}

// find is the record of a message. r.mu is locked.
func (r *rig) find(seq uint64) *jobs.Job {
	if key, ok := r.owner[seq]; ok {
		seq = key
	}
	return r.records[seq]
}

// change changes a record by hand, like a cancellation or a retry in the tracker. It
// notifies the pool if that ends the job.
func (r *rig) change(seq uint64, f func(*jobs.Job)) {
	r.mu.Lock()
	was := r.find(seq)
	j := was.Clone()
	f(j)
	r.records[j.Key] = j
	r.mu.Unlock()
	if c := (&jobs.Commit{Changes: []jobs.Change{{Before: was, After: j}}}); j.Status.Ended() {
		if r.onCommit != nil {
			r.onCommit(c)
		}
		r.pool.Committed(c)
	}
}

// cancel cancels a job, and lets what follows happen.
func (r *rig) cancel(seq uint64, reason string) {
	r.change(seq, func(j *jobs.Job) { j.Cancel(jobs.Now(), reason) })
	r.quiet()
}

// publish publishes a job that waits outside the queue, and returns its new
// sequence.
func (r *rig) publish(seq uint64) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.wake()
	j := r.find(seq)
	m := r.put(fmt.Sprintf("%s%d", j.Type, j.Priority), func(m *jobs.Message) {
		at := *m
		*m = *j.Again()
		m.Seq, m.At = at.Seq, at.At
	})
	return m.Seq
}

func (r *rig) Append(events []jobs.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.losing > 0 {
		r.losing--
		return nil
	}
	r.appended = append(r.appended, events...)
	r.events = append(r.events, events...)
	r.wake()
	return nil
}

func (r *rig) wake() {
	select {
	case r.commits <- struct{}{}:
	default:
	}
}

// hold stops the tracker's commits, or lets them go on.
func (r *rig) hold(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holding = on
	r.wake()
}

func (r *rig) project(ctx context.Context, p *pool.Pool) {
	for {
		select {
		case <-r.commits:
			if c := r.fold(); c != nil {
				p.Committed(c)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (r *rig) fold() *jobs.Commit {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holding || len(r.submitted)+len(r.events) == 0 {
		return nil
	}
	c := &jobs.Commit{}
	for _, m := range r.submitted {
		j := jobs.NewJob(m, r.reg.Admitted(m.Type), true)
		change := jobs.Change{After: j}
		if known := r.byID(m.ID); m.Moved && known != nil {
			j = known.Clone()
			if !j.Status.Ended() {
				j.Enqueue(m.Seq, m.At)
			}
			r.owner[m.Seq] = j.Key
			r.records[j.Key] = j
			change = jobs.Change{Before: known, After: j}
		} else if r.records[m.Seq] == nil {
			r.records[m.Seq] = j
		}
		c.Changes = append(c.Changes, change)
		r.position = max(r.position, m.Seq)
	}
	for i := range r.events {
		e := &r.events[i]
		if e.Kind.EndsAttempt() {
			c.Outcomes = append(c.Outcomes, *e)
		}
		if was := r.find(e.Seq); was != nil {
			j := was.Clone()
			if jobs.Apply(j, e) {
				c.Changes = append(c.Changes, jobs.Change{Before: was, After: j})
				if (e.Kind == jobs.KindRetrying || e.Kind == jobs.KindLost) && j.Terms != nil && j.Terms.ConcurrencyKey != "" {
					j.Place = jobs.Due // its turn is over
				}
			}
			if _, moved := r.owner[e.Seq]; moved {
				r.records[j.Key] = j
			} else {
				r.records[e.Seq] = j
			}
		}
	}
	r.submitted, r.events = nil, nil
	c.Positions.Jobs = r.position
	if r.onCommit != nil {
		r.onCommit(c)
	}
	return c
}

// byID finds a record. r.mu is locked.
func (r *rig) byID(id jobs.ID) *jobs.Job {
	for _, j := range r.records {
		if j.ID == id {
			return j
		}
	}
	return nil
}

// submit puts jobs ("a3" = type a, priority 3) into queue and tracker, in this
// order, and returns the sequence of the first.
func (r *rig) submit(lanes ...string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.seq + 1
	for _, l := range lanes {
		r.put(l, func(*jobs.Message) {})
	}
	r.wake()
	return first
}

// put makes one message. r.mu is locked.
func (r *rig) put(l string, change func(*jobs.Message)) *jobs.Message {
	r.seq++
	m := &jobs.Message{
		Seq: r.seq, At: jobs.Now(), Type: l[:len(l)-1], Priority: jobs.Priority(l[len(l)-1] - '0'), RetryCount: -1,
		ID: jobs.DerivedID(r.seq, jobs.Now()),
	}
	change(m)
	r.submitted = append(r.submitted, m)
	r.add(m)
	return m
}

// submitWith submits one job after a change to its message.
func (r *rig) submitWith(l string, change func(*jobs.Message)) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.wake()
	return r.put(l, change).Seq
}

// preset commits a job with this record, before the queue shows it.
func (r *rig) preset(l string, change func(*jobs.Job)) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := &jobs.Message{Seq: r.seq + 1, At: jobs.Now(), Type: l[:len(l)-1], Priority: jobs.Priority(l[len(l)-1] - '0'), RetryCount: -1, ID: jobs.DerivedID(r.seq+1, jobs.Now())}
	j := jobs.NewJob(m, r.reg.Admitted(m.Type), true)
	change(j)
	r.records[m.Seq] = j
	r.put(l, func(*jobs.Message) {})
	r.wake()
	return m.Seq
}

// job is the committed record.
func (r *rig) job(seq uint64) *jobs.Job {
	j, _ := r.Find(seq)
	if j == nil {
		r.t.Fatalf("job %d is not known", seq)
	}
	return j
}

// log are the events of a job so far.
func (r *rig) log(seq uint64) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var s []string
	for _, e := range r.appended {
		if e.Seq == seq {
			s = append(s, e.Kind.String())
		}
	}
	return strings.Join(s, " ")
}

// The workers.

// begun are the attempts in the order of their beginning.
func (r *rig) begun() string {
	r.gate.mu.Lock()
	defer r.gate.mu.Unlock()
	return strings.Join(r.gate.order, " ")
}

// running are the sequences of those that run, in order.
func (r *rig) running() string {
	r.gate.mu.Lock()
	defer r.gate.mu.Unlock()
	var s []int
	for seq := range r.gate.running {
		s = append(s, int(seq))
	}
	slices.Sort(s)
	return strings.Trim(fmt.Sprint(s), "[]")
}

func (r *rig) passage(seq uint64) *passage {
	r.gate.mu.Lock()
	defer r.gate.mu.Unlock()
	p := r.gate.running[seq]
	if p == nil {
		r.t.Fatalf("job %d does not run", seq)
	}
	return p
}

// end ends attempts and lets what follows happen.
func (r *rig) end(v verdict, seqs ...uint64) {
	for _, seq := range seqs {
		r.passage(seq).end <- v
	}
	r.quiet()
}

func (r *rig) finish(seqs ...uint64) { r.end(verdict{}, seqs...) }

// drain ends what runs until nothing does.
func (r *rig) drain() {
	for {
		r.gate.mu.Lock()
		n := 0
		for _, p := range r.gate.running {
			select {
			case p.end <- verdict{}:
				n++
			default:
			}
		}
		r.gate.mu.Unlock()
		if n == 0 {
			return
		}
		r.quiet()
	}
}

// resize resizes the pool, which takes it.
func (r *rig) resize(z *jobs.Resize) {
	if err := r.pool.Resize(z); err != nil {
		r.t.Errorf("resize: %v", err)
	}
}

func (r *rig) want(what, got, want string) {
	r.t.Helper()
	if got != want {
		r.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// nested is a list in a list, n deep.
func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
