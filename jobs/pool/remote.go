package pool

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"jobstream/jobs"
)

// Leases is the side of a [Pool] for workers elsewhere. They choose from the lanes of
// remote types, as the pool's own workers do from the others. What they get passes the
// same gates, and its outcome goes the same way. Only the start is different: it is
// committed before the worker hears of it, because the worker outlives this process.
//
// A lease needs no goroutine. One clock looks for silent workers, another one for
// attempts whose time is over.
type Leases struct {
	p       *Pool
	asks    asks
	leases  leases
	workers remoteWorkers
	parked  []parkedRemote
	halted  chan struct{} // closed when no ask gets a job any more
	closed  chan struct{} // closed when nothing is committed any more
}

var _ jobs.Leases = (*Leases)(nil)

// parkedRemote is a suspect that waits for a worker that has nothing else. by is one that
// gets nothing more until then, as it would never be idle otherwise; nil if there is none.
type parkedRemote struct {
	d  *delivery
	by *remoteWorker
}

// Leases is the side for workers elsewhere.
func (p *Pool) Leases() *Leases { return p.remote }

func newLeases(p *Pool, key jobs.LeaseKey) *Leases {
	r := &Leases{p: p, halted: make(chan struct{}), closed: make(chan struct{})}
	r.asks.init()
	r.leases.init(key)
	r.workers.init()
	return r
}

// unnamed is the node of executions whose worker has no name. It cannot be a name.
const unnamed = "(unnamed)"

// nodeOf is the node of a worker in events.
func nodeOf(worker string) string { return cmp.Or(worker, unnamed) }

// Next waits for jobs; see [jobs.Leases].
func (r *Leases) Next(ctx context.Context, a *jobs.Ask) ([]jobs.Lease, error) {
	if a.Member && strings.HasPrefix(a.Worker, jobs.MemberWorker(r.p.o.Node, "")) {
		return nil, nil // it has asked before its node began to lead, whose pool does the work now
	}
	q, err := r.queue(a)
	if err != nil {
		return nil, err
	}
	defer r.leave(q)
	until := time.Now().Add(shortened(a.Wait))
	for {
		over := r.await(ctx, q, until)
		leases := r.lease(ctx, q)
		if len(leases) > 0 {
			return leases, nil
		}
		if over {
			return nil, r.stopped()
		}
		r.p.mu.Lock()
		r.asks.wait(q, true, time.Now())
		r.p.dispatch()
		r.p.mu.Unlock()
	}
}

// shortened is a wait, less up to a tenth if it is long. So those who began to wait
// together, after a restart, do not ask again together for ever.
func shortened(wait time.Duration) time.Duration {
	if wait < 10*time.Second {
		return wait
	}
	return wait - rand.N(wait/10)
}

// queue checks an ask and puts it into its line. It may have got something at once.
func (r *Leases) queue(a *jobs.Ask) (*ask, error) {
	p := r.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopping {
		return nil, errStopping()
	}
	types, err := r.typesOf(a)
	if err != nil {
		return nil, err
	}
	w := r.workers.seen(a.Worker, jobs.Now())
	switch {
	case r.asks.waiting >= jobs.MaxAsks:
		return nil, tooMany(fmt.Sprintf("%d workers wait for jobs already", r.asks.waiting))
	case w != nil && w.held >= jobs.MaxLeases:
		return nil, tooMany(fmt.Sprintf("the worker %s has %d leases already", jobs.Quote(w.name), w.held))
	}
	set := r.asks.set(types, a.Member)
	if set == nil {
		return nil, tooMany(fmt.Sprintf("workers that wait ask for %d different sets of types already", maxAskSets))
	}
	if set.uses++; set.uses == 1 {
		r.show(set)
	}
	q := &ask{Ask: a, set: set, worker: w, ready: make(chan struct{}, 1)}
	if w != nil {
		w.asks++
		w.types = a.Types
	}
	r.asks.wait(q, false, time.Now())
	for _, t := range types {
		for pr := jobs.HighestPriority; pr <= jobs.LowestPriority; pr++ {
			l := p.lanes[jobs.Lane{Type: t.Name, Priority: pr}]
			if l == nil {
				continue
			}
			p.supply.refill(l)
			if len(l.buf) == 0 && l.committed > l.delivered && p.choice.open(l) {
				p.choice.expect(l) // all lanes at the same time
			}
		}
	}
	p.dispatch()
	return q, nil
}

// typesOf are the types of an ask. p.mu is locked.
func (r *Leases) typesOf(a *jobs.Ask) (types []*poolType, err error) {
	var bad []jobs.FieldError
	for i, name := range a.Types {
		t := r.p.types[name]
		if t == nil || t.removed() || !t.Remote && !(a.Member && t.Anywhere()) {
			bad = append(bad, jobs.FieldError{Pointer: fmt.Sprint("/types/", i), Detail: r.noSuch(name, t)})
			continue
		}
		types = append(types, t)
	}
	if len(bad) == 0 {
		return types, nil
	}
	e := jobs.InvalidFields(bad...)
	e.Kind = jobs.UnknownType
	return nil, e
}

// noSuch says why a type is not for workers elsewhere.
func (r *Leases) noSuch(name string, t *poolType) string {
	var remote []string
	for _, t := range r.p.types {
		if t.Remote && !t.removed() && !t.Internal {
			remote = append(remote, t.Name)
		}
	}
	slices.Sort(remote)
	known := "no type is (run: remote)"
	if len(remote) > 0 {
		known = "those that are: " + strings.Join(remote, ", ")
	}
	if t == nil || t.removed() || t.Internal {
		return "is not a known type; it must be one for workers elsewhere, and " + known
	}
	return "is a type that the server runs itself; it must be one for workers elsewhere, and " + known
}

// show makes the view of a set. p.mu is locked.
func (r *Leases) show(s *askSet) {
	r.p.choice.show(&s.view, func(t *poolType) bool { return s.has(t) && (t.Remote || s.member && t.Anywhere()) })
}

// leave ends an ask.
func (r *Leases) leave(q *ask) {
	p := r.p
	p.mu.Lock()
	defer p.mu.Unlock()
	r.asks.remove(q, time.Now())
	q.set.uses--
	if q.worker != nil {
		q.worker.asks--
		q.worker.seen = jobs.Now()
	}
}

// await waits until an ask has got something. It says whether the ask is over.
func (r *Leases) await(ctx context.Context, q *ask, until time.Time) (over bool) {
	select { // what it has got already counts more than the end of its wait
	case <-q.ready:
		return false
	default:
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-q.ready:
		return false
	case <-timer.C:
	case <-ctx.Done():
	case <-r.halted:
	}
	r.p.mu.Lock()
	r.asks.remove(q, time.Now())
	r.p.mu.Unlock()
	return true
}

// serve gives those who ask what they may have. The sets of types have their turns. p.mu
// is locked.
func (r *Leases) serve() {
	if r.asks.waiting == 0 || r.p.stopping {
		return
	}
	for i := 0; i < len(r.asks.order); {
		if r.serveOne(r.asks.order[i]) {
			r.asks.turn(i)
			i = 0
		} else {
			i++
		}
	}
}

// serveOne serves one ask of a set, if there is something for one. p.mu is locked.
func (r *Leases) serveOne(s *askSet) bool {
	if q := s.idle(); q != nil && len(r.parked) > 0 {
		if d := r.unpark(s); d != nil {
			r.give(q, d)
			q.setAlone(true)
			return true
		}
	}
	q := s.first()
	if q == nil {
		return false
	}
	most := q.Max
	if q.worker != nil {
		most = min(most, jobs.MaxLeases-q.worker.held)
	}
	var got []*delivery
	for len(got) < most {
		d := r.p.next(&s.view)
		if d == nil {
			break
		}
		got = append(got, d)
	}
	if len(got) == 0 {
		return false
	}
	r.give(q, got...)
	return true
}

// give gives an ask deliveries and wakes it. p.mu is locked.
func (r *Leases) give(q *ask, got ...*delivery) {
	r.asks.remove(q, time.Now())
	q.got = got
	if q.worker != nil {
		q.worker.held += len(got)
	}
	q.ready <- struct{}{}
}

// unpark removes the first parked suspect that an ask of a set may have; nil if there is
// none. p.mu is locked.
func (r *Leases) unpark(s *askSet) *delivery {
	if r.p.choice.paused || r.p.outcomes.full() {
		return nil
	}
	for i, w := range r.parked {
		if d := w.d; s.has(d.lane.typ) && r.p.choice.open(d.lane) {
			r.dropParked(i)
			d.asOf, d.typ = r.p.claims.surprises, d.lane.typ.Type
			d.lane.typ.gates.enter(d)
			return d
		}
	}
	return nil
}

// dropParked removes one of the parked suspects. p.mu is locked.
func (r *Leases) dropParked(i int) {
	if by := r.parked[i].by; by != nil {
		by.drained = false
	}
	r.parked = slices.Delete(r.parked, i, i+1)
}

// park keeps a suspect for a worker that has nothing else. p.mu is locked.
func (r *Leases) park(d *delivery) {
	r.p.vacate(d, time.Now()) // a worker claims its job again
	r.parked = append(r.parked, parkedRemote{d: d})
}

// lease begins the executions of what an ask has got, and commits their starts.
func (r *Leases) lease(ctx context.Context, q *ask) []jobs.Lease {
	got := q.got
	q.got = nil
	if len(got) == 0 {
		return nil
	}
	if ctx.Err() != nil || q.Gone != nil && q.Gone() || r.isHalted() {
		r.giveUp(q, got)
		return nil
	}
	all := r.open(q, got)
	return r.hand(ctx, q, all, r.commit(all))
}

// giveUp returns deliveries to their lanes.
func (r *Leases) giveUp(q *ask, got []*delivery) {
	p := r.p
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range got {
		q.returned()
		if p.stopping || d.lane.typ.removed() {
			p.release(d)
			continue
		}
		p.vacate(d, time.Now())
		p.choice.restore(d)
	}
	p.dispatch()
}

// returned counts a delivery that an ask had got and its worker does not get. p.mu is
// locked.
func (q *ask) returned() {
	if q.worker != nil {
		q.worker.held--
	}
	if q.alone {
		q.setAlone(false)
	}
}

// setAlone says whether the worker of an ask gets nothing else, since it is about to get a
// suspect. p.mu is locked.
func (q *ask) setAlone(alone bool) {
	q.alone = alone
	if q.worker != nil {
		q.worker.alone = alone
	}
}

// open makes the executions of deliveries. Those that have none are treated as
// [Pool.open] does.
func (r *Leases) open(q *ask, got []*delivery) (all []*execution) {
	p := r.p
	size := 0
	for i, d := range got {
		if size > jobs.MaxAskBytes {
			r.giveUp(q, got[i:])
			break
		}
		job, v := p.begin(d)
		var x *execution
		if v == runs {
			x = r.enter(q, d, job, len(got) == 1)
		}
		if x == nil {
			p.mu.Lock()
			q.returned()
			p.dispatch() // it may have filled a gate
			p.mu.Unlock()
			continue
		}
		size += len(job.Payload) + len(job.Checkpoint)
		all = append(all, x)
	}
	return all
}

// enter makes the execution of a job, unless it has ended meanwhile, or is a suspect that
// has to wait.
func (r *Leases) enter(q *ask, d *delivery, job *jobs.Job, only bool) *execution {
	p := r.p
	alone := p.suspects.alone(job)
	p.mu.Lock()
	if alone && !q.alone && (!only || q.worker != nil && q.worker.held > 1) {
		defer p.mu.Unlock()
		if p.stopping || d.lane.typ.removed() {
			p.release(d)
		} else {
			r.park(d)
		}
		return nil
	}
	if alone {
		q.setAlone(true)
	}
	p.mu.Unlock()
	x := r.execution(d, job, q.Worker)
	x.lease.worker, x.lease.alone = q.worker, alone
	if x.enter() {
		return x
	}
	p.dismiss(d)
	return nil
}

// execution makes an execution of a worker elsewhere. It keeps neither payload nor
// checkpoint, since many may live for long.
func (r *Leases) execution(d *delivery, job *jobs.Job, worker string) *execution {
	light := *job
	light.Payload, light.Checkpoint = nil, nil
	x := newExecution(r.p, d, &light)
	x.away.Store(true)
	x.lease = &lease{node: nodeOf(worker), span: r.p.span(d.typ), member: !d.typ.Remote && jobs.OfMember(worker)}
	x.task.Begin(&light, x.attempt, x)
	return x
}

// span is how long a lease of a job of this type lasts.
func (p *Pool) span(t *jobs.Type) time.Duration { return cmp.Or(t.Lease, p.o.Lease) }

// leave lets the worker of a lease get others again. The pool's lock is held.
func (l *lease) leave() {
	if l.worker != nil && l.alone {
		l.worker.alone = false
	}
}

// commit records the starts of executions and waits for their commit, at most for a
// while. It returns the jobs as committed, in any order.
func (r *Leases) commit(all []*execution) []*jobs.Job {
	if len(all) == 0 {
		return nil
	}
	w := r.p.awaited.begin(all...)
	for _, x := range all {
		r.p.o.Recorder.Record(x.StartEvent())
	}
	t := time.NewTimer(resendAfter)
	defer t.Stop()
	select {
	case <-w.done:
	case <-t.C:
	case <-r.closed:
	}
	return r.p.awaited.forget(w)
}

// hand begins the leases of executions whose start is committed. The others go back to
// the queue.
func (r *Leases) hand(ctx context.Context, q *ask, all []*execution, committed []*jobs.Job) (leases []jobs.Lease) {
	p := r.p
	for _, x := range all {
		i := slices.IndexFunc(committed, func(j *jobs.Job) bool { return x.name().Of(j) && j.Status == jobs.Processing })
		if i < 0 {
			r.withdraw(q, x)
			continue
		}
		x.bound()
		p.mu.Lock()
		alive := x.over.Load() == 0
		if alive {
			r.leases.register(x)
			r.leases.begin(x, time.Now())
		}
		p.mu.Unlock()
		if !alive { // it was cancelled meanwhile, which has ended it
			continue
		}
		x.watch()
		leases = append(leases, jobs.Lease{
			Token: x.lease.token, Span: x.lease.span, Fence: int64(x.started),
			Deadline: jobs.TimeOf(x.task.Until), Attempt: x.attempt, Trace: x.AttemptTrace(), Job: committed[i],
		})
	}
	if ctx.Err() != nil { // nobody hears of them
		for i := range leases {
			_, _ = r.end(leases[i].Token, jobs.Result{}, &releasedError{"its worker was gone before it got the job"})
		}
		return nil
	}
	return leases
}

// withdraw ends an execution that its worker has not heard of.
func (r *Leases) withdraw(q *ask, x *execution) {
	if !x.over.CompareAndSwap(0, endedHere) {
		return // it has ended as one that was cancelled
	}
	p := r.p
	p.mu.Lock()
	q.returned()
	p.mu.Unlock()
	if x.ended.Load() != nil {
		p.dismiss(x.d)
	} else {
		p.giveBack(x.d, 0)
	}
	p.mu.Lock()
	p.dispatch()
	p.mu.Unlock()
}

// ended ends the lease of an execution whose outcome is being recorded. p.mu is locked.
func (r *Leases) ended(x *execution) {
	if w := x.lease.worker; w != nil {
		w.held--
	}
	x.lease.leave()
	r.leases.end(x)
}
