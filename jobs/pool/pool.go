package pool

import (
	"context"
	"iter"
	"log/slog"
	"maps"
	"sync"
	"time"

	"jobstream/jobs"
)

// Pool runs jobs: a bounded number of workers over all types that take from the
// lane with the lowest priority number that has something, and from the types
// within one number in turn.
//
// A delivery is run only after the tracker has committed its job, and it is
// looked up there: what has ended in the meantime is acknowledged and skipped.
// When an attempt ends its worker is free at once; the delivery is settled when
// the tracker has committed the outcome ([Pool.Committed]).
type Pool struct {
	o Options

	mu        sync.Mutex
	idle      sync.Cond // signalled when a worker or a delivery goes
	types     map[string]*poolType
	lanes     map[jobs.Lane]*lane
	share     int                              // what each of them may hold in advance at least
	extra     int                              // what they may beyond that, together
	rows      [jobs.LowestPriority + 1][]*lane // by priority
	cursor    [jobs.LowestPriority + 1]int     // where the search in a row begins
	lively    [jobs.LowestPriority + 1]laneSet // who in a row may have something; see pick
	early     []*lane                          // who has nothing before position has moved on
	leased    map[uint64]*delivery             // by sequence
	leases    line                             // all of them, by when their lease was renewed
	outcomes  line                             // those whose outcome was recorded, by when
	begun     map[jobs.ID]*delivery            // those of them whose job is a worker's
	scale     scale
	running   int
	resting   int            // goroutines of workers that wait for next
	next      chan *delivery // closed by Stop
	meter     meter
	wake      alarm // ends the wait for a token, or to grow
	limits    alarm // rings when an attempt's time is over
	asleep    sleepers
	unsettled struct{ count, bytes int } // outcomes that are not committed
	suspects  suspects
	surprises uint64 // jobs that have ended without a worker here
	position  uint64
	started   bool
	stopping  bool
	killed    bool        // handlers are told to stop
	giveUp    *time.Timer // ends the wait for a delivery that should have come
	waiting   bool        // giveUp is set
	awaited   map[uint64]*startWait
}

// Options are what a Pool needs.
type Options struct {
	Queue      jobs.Queue
	Tracker    jobs.Tracker
	Recorder   *Recorder
	Registry   *jobs.Registry
	MaxWorkers int
	// MinWorkers lets the size of the pool follow the load: it is between MinWorkers
	// and MaxWorkers. 0 = it is MaxWorkers.
	MinWorkers int
	// Paused names the types that start nothing at first, see [Pool.SetPaused].
	Paused  map[string]bool
	Lease   time.Duration // of a delivery; renewed at a third of it
	MaxLost int           // see [jobs.Job.Lose]
	Node    string        // stands in events
	// SurvivorsUpTo is the sequence in JOBS up to which messages were there when a
	// process died, 0 for none. One of their jobs may be what killed it.
	SurvivorsUpTo uint64
	// MaxUnsettled is how many outcomes may wait for their commit before no more
	// jobs are started, so that a tracker that cannot commit does not fill the
	// memory; 0 = 16,384. Their results are bounded, too, at 64 MiB.
	MaxUnsettled int
	Logger       *slog.Logger
}

// Times of the pool's housekeeping.
const (
	// expectFor is how long a free worker waits for a delivery of a better lane
	// that the tracker says must come, before it takes one of a lesser lane.
	expectFor = 100 * time.Millisecond
	// resendAfter is how long the commit of an outcome may take before it is
	// recorded again.
	resendAfter = 5 * time.Second

	defaultUnsettled = 16 << 10
	unsettledBytes   = 64 << 20
)

// New makes a pool for these lanes. It does nothing before [Pool.Start].
// Lanes of types that the registry does not know are never served.
func New(o Options, lanes []jobs.Lane) *Pool {
	p := &Pool{
		o: o, types: make(map[string]*poolType), lanes: make(map[jobs.Lane]*lane),
		leased: make(map[uint64]*delivery), begun: make(map[jobs.ID]*delivery), awaited: make(map[uint64]*startWait),
	}
	p.idle.L = &p.mu
	p.next = make(chan *delivery, mostResting)
	if p.o.MaxUnsettled <= 0 {
		p.o.MaxUnsettled = defaultUnsettled
	}
	p.asleep.init()
	for _, l := range lanes {
		t := o.Registry.Lookup(l.Type)
		if t == nil {
			continue
		}
		pt := p.types[l.Type]
		if pt == nil {
			pt = newPoolType(t, o.Paused[t.Name])
			p.types[l.Type] = pt
		}
		ln := &lane{Lane: l, typ: pt, index: len(p.rows[l.Priority])}
		p.lanes[l] = ln
		p.rows[l.Priority] = append(p.rows[l.Priority], ln)
	}
	p.share = max(sharedPrefetch/max(len(p.lanes), 1), 1)
	for i, row := range p.rows {
		p.lively[i] = makeLaneSet(len(row))
	}
	p.giveUp = time.AfterFunc(time.Hour, p.stopExpecting)
	p.giveUp.Stop()
	p.wake.init(p.awake)
	p.limits.init(p.overdue)
	now := time.Now()
	p.scale.init(o.MinWorkers, o.MaxWorkers)
	p.meter.init(p.scale.size, now)
	return p
}

// Start begins to pull. position is the tracker's in JOBS; last is the last
// sequence there, up to which any lane may hold something.
func (p *Pool) Start(position, last uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started = true
	p.advance(position)
	for _, l := range p.lanes {
		l.committed = max(l.committed, last)
		p.enliven(l)
		p.refill(l)
	}
}

// Run renews leases, sends outcomes again that nobody has heard of, and asks
// again where the queue did not take a request, until ctx ends.
func (p *Pool) Run(ctx context.Context) error {
	tick := time.NewTicker(min(p.o.Lease/6, time.Second))
	defer tick.Stop()
	wake := time.NewTicker(lateAfter)
	defer wake.Stop()
	for {
		select {
		case now := <-tick.C:
			p.renew(now)
			p.rescale(now)
		case now := <-wake.C:
			p.wakeLate(now)
		case <-ctx.Done():
			return nil
		}
	}
}

// Deliver takes a delivery; see [jobs.Receiver].
func (p *Pool) Deliver(got jobs.Delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lanes[got.Lane]
	if l == nil {
		return
	}
	l.arrived(1)
	l.delivered = max(l.delivered, got.Seq)
	l.expected = time.Time{}
	p.asleep.forget(got.Seq)
	if d := p.leased[got.Seq]; d != nil {
		// Delivered again though it is here: its lease ran out because this process
		// was stopped or too slow. It stays the same delivery.
		d.Ref = got.Ref
		p.leases.append(&d.inLeases, d, time.Now())
		return
	}
	if p.stopping {
		p.check("give back", p.o.Queue.Nak(got.Ref, 0))
		return
	}
	d := &delivery{Delivery: got, lane: l}
	p.leased[got.Seq] = d
	p.leases.append(&d.inLeases, d, time.Now())
	l.buf = append(l.buf, d)
	p.enliven(l)
	p.dispatch()
}

// PullEnded hears that a request ran out; see [jobs.Receiver].
func (p *Pool) PullEnded(l jobs.Lane, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ln := p.lanes[l]; ln != nil {
		ln.arrived(n)
		p.refill(ln)
	}
}

// Committed takes what a commit made true: it settles deliveries and wakes
// workers.
func (p *Pool) Committed(c *jobs.Commit) {
	p.mu.Lock()
	p.advance(c.Positions.Jobs)
	for j := range c.Submitted() {
		if l := p.lanes[j.Lane()]; l != nil && !j.Status.Ended() && j.Place == jobs.InQueue {
			l.committed = max(l.committed, j.Seq)
			p.enliven(l)
		}
	}
	void := p.overtaken(c.Ended())
	var settle []*delivery
	for i := range c.Outcomes {
		e := &c.Outcomes[i]
		d := p.leased[e.Seq]
		if d != nil && d.outcome != nil && d.outcome.Attempt == e.Attempt && d.outcome.Kind == e.Kind && d.outcome.StartedAt == e.StartedAt {
			p.forget(d)
			settle = append(settle, d)
		}
	}
	p.dispatch()
	var awaited map[uint64]*startWait
	if len(p.awaited) > 0 {
		awaited = maps.Clone(p.awaited)
	}
	if p.stopping {
		p.idle.Broadcast()
	}
	p.mu.Unlock()
	p.checkAwaited(awaited)
	for _, x := range void {
		x.interrupt(causeOf(x.ended.Load()))
	}
	for _, d := range settle {
		p.settle(d)
	}
}

// overtaken takes note of jobs that have ended, and returns the executions of
// those whose worker here is still at it: what it says does not count any more.
// It comes before what is settled is forgotten. p.mu is held.
func (p *Pool) overtaken(ended iter.Seq[*jobs.Job]) (void []*execution) {
	for j := range ended {
		p.asleep.forget(j.Seq)
		d := p.leased[j.Seq]
		if d == nil || d.id != j.ID {
			d = p.begun[j.ID] // it may run under an earlier message
		}
		switch {
		case d == nil:
			p.surprises++ // a worker may have looked it up just before
		case d.outcome != nil: // it ended here
		case d.exec == nil:
			d.ended = j
		case d.exec.job.Run == j.Run:
			d.exec.ended.Store(j)
			void = append(void, d.exec)
		}
	}
	return void
}

// SetPaused pauses a type, or lets it go on. Nothing of a paused type starts;
// what runs goes on. A type that the pool has no lanes of is passed over. The
// pool keeps that in memory only.
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
			l.expected = time.Time{} // the wait for a delivery is over, or begins now
			p.refill(l)
		}
	}
	p.unpark() // one of the type may have been let out, and held up others
	p.dispatch()
}

// Resize changes the bounds of the number of workers, and the caps of types; it
// takes effect at once. Running jobs are never stopped by it. Types that the pool
// has no lanes of are passed over; see [jobs.Registry.CheckResize]. A lower bound above
// the upper one is an [*jobs.Error], and then nothing changes; but a new upper bound
// alone takes the lower one with it.
func (p *Pool) Resize(r *jobs.Resize) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.scale.bounds(r); err != nil {
		return err
	}
	p.meter.resize(p.scale.size, time.Now())
	for name, n := range r.Types {
		if pt := p.types[name]; pt != nil {
			pt.cap.most = n
		}
	}
	for _, l := range p.lanes {
		p.refill(l)
	}
	p.dispatch()
	return nil
}

// Workers returns the present figures.
func (p *Pool) Workers() jobs.Workers {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, utilisation := p.meter.used(time.Now())
	w := jobs.Workers{
		Active: p.running, Size: p.scale.size, Min: p.scale.min, Max: p.scale.max, Utilisation: utilisation,
		Types: make(map[string]jobs.TypeWorkers, len(p.types)),
	}
	for name, t := range p.types {
		if !t.Internal {
			w.Types[name] = jobs.TypeWorkers{
				Active: t.cap.inside, Max: t.cap.most, Paused: t.pause.paused, Rate: t.Rate, ConcurrencyPerKey: t.ConcurrencyPerKey,
			}
		}
	}
	return w
}
