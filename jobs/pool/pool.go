package pool

import (
	"context"
	"iter"
	"log/slog"
	"sync"
	"time"

	"jobstream/jobs"
)

// Pool runs jobs: a bounded number of workers over all types. A free worker gets the
// next delivery of the best priority. The types of one priority are served one after
// the other.
//
// A delivery runs only after the tracker has committed its job. The job is looked up
// there. If it has ended meanwhile, the delivery is acknowledged and skipped. The end
// of an attempt frees its worker at once. The delivery is settled when the tracker has
// committed the outcome ([Pool.Committed]).
//
// One lock guards everything that changes. The state is in parts with a file each,
// which know neither the pool nor one another. The pool's methods connect them.
type Pool struct {
	o       Options
	types   map[string]*poolType
	lanes   map[jobs.Lane]*lane
	awaited awaited

	mu       sync.Mutex
	idle     sync.Cond // signalled when a worker or a delivery goes
	supply   supply    // the deliveries from the queue
	choice   choice    // which of them runs next
	crew     crew      // the workers
	claims   claims    // the running jobs
	suspects suspects  // jobs that may have killed a process
	outcomes outcomes  // the ended attempts
	remote   *Leases   // the side for workers elsewhere
	begun    time.Time
	stopping bool
}

// Options are the parts and settings of a Pool.
type Options struct {
	Queue      jobs.Queue
	Tracker    jobs.Tracker
	Recorder   *Recorder
	Registry   *jobs.Registry
	MaxWorkers int
	// MinWorkers makes the size of the pool follow the load, between MinWorkers and
	// MaxWorkers. 0 = always MaxWorkers.
	MinWorkers int
	// Paused are the types that are paused at first, see [Pool.SetPaused].
	Paused  map[string]bool
	Lease   time.Duration // of a delivery; renewed at a third of it
	MaxLost int           // see [jobs.Job.Lose]
	// LeaseKey signs the tokens of leases; nil = a new one, so that no token outlives the
	// pool.
	LeaseKey jobs.LeaseKey
	// Running are jobs of remote types that were processing when the last pool of the
	// tracker ended. Their workers have them still.
	Running iter.Seq[*jobs.Job]
	// Revoked is called when an execution has ended without its worker, which has a name;
	// nil: it learns that from its next beat.
	Revoked func(worker, token, reason string)
	Node    string // for events
	// Trace returns where an attempt is in a trace, for those to whom it speaks; nil =
	// where the job is.
	Trace func(j *jobs.Job, started jobs.Time) jobs.Trace
	// SurvivorsUpTo is the last sequence of JOBS when a process died; 0 for none. One
	// of the jobs up to it may have killed that process.
	SurvivorsUpTo uint64
	// MaxUnsettled bounds the outcomes that wait for their commit; beyond it no jobs
	// start. So a tracker that cannot commit does not fill the memory. 0 = 16,384.
	// Their results are also bounded, at 64 MiB.
	MaxUnsettled int
	// Resend is how long the commit of an event may take before it is recorded again;
	// 0 = 5 s. In a cluster an event is lost when its stream moves to another server.
	Resend    time.Duration
	Artifacts jobs.Artifacts // nil: handlers can leave no files
	Inputs    Inputs         // nil: jobs have none
	Logs      jobs.Logs      // nil: entries of jobs' logs are lost
	Logger    *slog.Logger
}

// New makes a pool for these lanes. It does nothing before [Pool.Start]. It never
// serves lanes of unknown types.
func New(o Options, lanes []jobs.Lane) *Pool {
	p := &Pool{o: o, types: make(map[string]*poolType), lanes: make(map[jobs.Lane]*lane), begun: time.Now()}
	p.idle.L = &p.mu
	if o.LeaseKey == nil {
		p.o.LeaseKey = jobs.NewLeaseKey()
	}
	p.remote = newLeases(p, p.o.LeaseKey)
	for _, l := range lanes {
		t := o.Registry.Lookup(l.Type)
		if t == nil {
			continue
		}
		if p.types[l.Type] == nil {
			p.types[l.Type] = newPoolType(t, o.Paused[t.Name])
		}
		p.lanes[l] = &lane{Lane: l, typ: p.types[l.Type]}
	}
	p.supply.init(&o)
	p.arrange()
	p.choice.wake.init(p.awake)
	p.choice.missing.init(p.stopExpecting)
	p.crew.init(o.MinWorkers, o.MaxWorkers)
	p.claims.deliveries, p.claims.pinned = make(map[jobs.ID]*delivery), make(map[jobs.ID]bool)
	p.claims.limits.init(p.overdue)
	p.awaited.init()
	p.suspects.maxLost = o.MaxLost
	p.outcomes.init(o.MaxUnsettled, o.Resend)
	if o.Running != nil {
		p.adopt(o.Running)
	}
	return p
}

// Start begins to pull. position is the tracker's in JOBS. last is the last sequence
// there, up to which any lane may have messages.
func (p *Pool) Start(position, last uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.supply.open = true
	p.choice.advance(position)
	for _, l := range p.lanes {
		l.committed = max(l.committed, last)
		p.choice.revive(l)
		p.supply.refill(l)
	}
}

// Run renews leases, resends outcomes without a commit, and repeats requests that the
// queue did not take, until ctx ends. Then nothing is committed any more.
func (p *Pool) Run(ctx context.Context) error {
	tick := time.NewTicker(min(p.o.Lease/6, time.Second, p.outcomes.resend))
	defer tick.Stop()
	wake := time.NewTicker(lateAfter)
	defer wake.Stop()
	defer close(p.remote.closed)
	for {
		select {
		case now := <-tick.C:
			p.keep(now)
			p.remote.keep(now)
		case now := <-wake.C:
			p.wakeLate(now)
		case <-ctx.Done():
			return nil
		}
	}
}

// keep renews leases and repeats unanswered messages.
func (p *Pool) keep(now time.Time) {
	p.mu.Lock()
	stale := p.supply.stale(now)
	again := p.outcomes.stale(now)
	for _, l := range p.lanes {
		p.supply.refill(l) // for those whose request the queue did not take
	}
	p.crew.rescale(now)
	p.mu.Unlock()
	for _, ref := range stale {
		p.supply.renew(ref)
	}
	for _, e := range again {
		p.o.Recorder.Record(e)
	}
}

// Deliver hands the pool a delivery; see [jobs.Receiver].
func (p *Pool) Deliver(got jobs.Delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lanes[got.Lane]
	if l == nil { // its type was removed
		return
	}
	l.arrived(1)
	l.delivered = max(l.delivered, got.Seq)
	l.expected = time.Time{}
	switch d := p.supply.lend(got, l); {
	case d == nil:
	case p.stopping:
		p.release(d)
	case l.typ.unwanted:
		p.putBack(d)
	default:
		p.choice.append(d)
		p.dispatch()
	}
}

// PullEnded asks again for deliveries that will not come; see [jobs.Receiver].
func (p *Pool) PullEnded(l jobs.Lane, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ln := p.lanes[l]; ln != nil {
		ln.arrived(n)
		p.supply.refill(ln)
	}
}

// Committed is a listener of commits. It settles the deliveries of committed outcomes,
// and starts jobs that may run now.
func (p *Pool) Committed(c *jobs.Commit) {
	p.mu.Lock()
	p.choice.advance(c.Positions.Jobs)
	for j := range c.Submitted() {
		if l := p.lanes[j.Lane()]; l != nil && !j.Status.Ended() && j.Place == jobs.InQueue {
			l.committed = max(l.committed, j.Seq)
			p.choice.revive(l)
		}
	}
	var void []*execution
	for j := range c.Ended() { // before any delivery is forgotten
		p.supply.asleep.forget(j.Seq)
		if x := p.claims.ended(j); x != nil {
			void = append(void, x)
		}
	}
	p.remote.leases.committed(c)
	done := p.durable(c)
	p.dispatch()
	if p.stopping {
		p.idle.Broadcast()
	}
	p.mu.Unlock()
	p.awaited.check(c)
	for _, x := range void {
		x.interrupt(causeOf(x.ended.Load()))
	}
	for _, d := range done {
		p.settle(d)
	}
}

// durable forgets the deliveries of committed outcomes, and returns them. p.mu is
// locked.
func (p *Pool) durable(c *jobs.Commit) (done []*delivery) {
	for i := range c.Outcomes {
		e := &c.Outcomes[i]
		if d := p.supply.leased[e.Seq]; d != nil && d.ends(e) {
			p.forget(d)
			if d.remote != nil {
				p.remote.leases.forget(d.remote)
			}
			done = append(done, d)
		}
	}
	return done
}

// SetPaused pauses or resumes a type. No job of a paused type starts; running ones go
// on. A type without lanes in the pool is ignored. The pool stores that in memory only.
func (p *Pool) SetPaused(typ string, paused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.types[typ]
	if t == nil || t.pause.paused == paused {
		return
	}
	t.pause.paused = paused
	for _, l := range p.lanes {
		if l.typ == t {
			l.expected = time.Time{} // the wait for a delivery ends, or begins now
			p.supply.refill(l)
		}
	}
	p.unpark() // one of the type may have been let out and stopped others
	p.dispatch()
}

// PauseAll pauses or resumes the whole pool. While it is paused no job starts; running
// ones go on. The pool stores that in memory only.
func (p *Pool) PauseAll(paused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.choice.paused == paused {
		return
	}
	p.choice.paused = paused
	for _, l := range p.lanes {
		l.expected = time.Time{} // the wait for a delivery ends, or begins now
	}
	p.dispatch()
}

// Resize changes the bounds of workers and the caps of types, at once. It never stops
// running jobs. It ignores types without lanes in the pool; see
// [jobs.Registry.CheckResize]. A lower bound above the upper one is an [*jobs.Error]
// and changes nothing. A new upper bound alone lowers the lower one if need be.
func (p *Pool) Resize(r *jobs.Resize) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.crew.scale.bounds(r); err != nil {
		return err
	}
	p.crew.meter.resize(p.crew.scale.size, time.Now())
	p.supply.workers = p.crew.scale.max
	for name, n := range r.Types {
		if pt := p.types[name]; pt != nil {
			pt.cap.most = n
		}
	}
	for _, l := range p.lanes {
		p.supply.refill(l)
	}
	p.dispatch()
	return nil
}

// Workers returns the present figures.
func (p *Pool) Workers() jobs.Workers {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, utilisation := p.crew.meter.used(time.Now())
	s := &p.crew.scale
	w := jobs.Workers{
		Active: p.crew.running, Size: s.size, Min: s.min, Max: s.max, Paused: p.choice.paused, Utilisation: utilisation,
		Types: make(map[string]jobs.TypeWorkers, len(p.types)),
	}
	for _, x := range p.remote.leases.byKey {
		if x.lease.member && !x.lease.dead {
			w.Leased++
		}
	}
	for name, t := range p.types {
		if !t.Internal && !t.removed() {
			w.Types[name] = jobs.TypeWorkers{
				Active: t.cap.inside, Max: t.cap.most, Paused: t.pause.paused, Rate: t.Rate, ConcurrencyPerKey: t.ConcurrencyPerKey,
			}
		}
	}
	return w
}
