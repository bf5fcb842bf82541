package pool

import (
	"context"
	"fmt"
	"iter"
	"jobstream/jobs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
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

type poolType struct {
	*jobs.Type
	gates gates
	pause *pauseGate // one of them
	cap   *capGate   // one of them
}

// lane is what the pool knows of one queue.
type lane struct {
	jobs.Lane
	typ       *poolType
	index     int         // in its row
	buf       []*delivery // delivered, waiting for a worker
	asked     int         // pulled, not yet delivered
	most      int         // of both, see prefetch
	extra     int         // of that, what is beyond the lane's share
	refilled  time.Time
	committed uint64 // highest sequence of this lane that the tracker has committed
	delivered uint64 // highest sequence delivered, or given up on
	expected  time.Time
	early     bool // it is in Pool.early
}

// delivery is one that this process has a lease on.
type delivery struct {
	jobs.Delivery
	lane       *lane
	id         jobs.ID     // of its job, once that is a worker's
	inLeases   spot        // in Pool.leases
	exec       *execution  // while an attempt runs
	outcome    *jobs.Event // set when the attempt has ended
	inOutcomes spot        // in Pool.outcomes, once there is one
	asOf       uint64      // Pool.surprises when a worker took it
	inside     bool        // it has entered the gates of its type
	token      time.Time   // when it took one from its type's rate
	letOut     bool        // it is a suspect whose turn has come
	keyed      bool        // its job shares a concurrency key
	key        string      // that it is counted under, "" = none
	ended      *jobs.Job   // its job, if that ended before the attempt began
}

type startWait struct {
	startedAt jobs.Time
	done      chan struct{}
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

func (p *Pool) renew(now time.Time) {
	var refs []string
	var again []*jobs.Event
	p.mu.Lock()
	p.leases.stale(now, p.o.Lease/3, func(d *delivery) { refs = append(refs, d.Ref) })
	p.outcomes.stale(now, resendAfter, func(d *delivery) { again = append(again, d.outcome) })
	for _, l := range p.lanes {
		p.refill(l) // for those whose request the queue did not take
	}
	p.mu.Unlock()
	for _, ref := range refs {
		p.check("renew a lease", p.o.Queue.Extend(ref))
	}
	for _, e := range again {
		p.o.Recorder.Record(e)
	}
}

// wakeLate gives back once more what should have come again by now, and forgets what
// nobody needs any more.
func (p *Pool) wakeLate(now time.Time) {
	p.mu.Lock()
	late := p.asleep.late(now)
	p.mu.Unlock()
	var needless []*sleeper
	for _, e := range late {
		if p.away(e.seq) {
			needless = append(needless, e)
			continue
		}
		p.check("give back", p.o.Queue.Nak(e.ref, 0))
	}
	if len(needless) == 0 {
		return
	}
	p.mu.Lock()
	for _, e := range needless {
		p.asleep.forget(e.seq)
	}
	p.mu.Unlock()
}

// nak gives a delivery back, to come again after delay.
func (p *Pool) nak(d *delivery, delay time.Duration) {
	p.mu.Lock()
	p.asleep.remember(d, delay)
	p.mu.Unlock()
	p.check("give back", p.o.Queue.Nak(d.Ref, delay))
}

// check logs what the queue could not do. Nothing is lost by it: a lease that
// is not renewed or given back ends by itself.
func (p *Pool) check(what string, err error) {
	if err != nil {
		p.o.Logger.Warn("the queue did not take a request; the lease will run out instead", "request", what, "error", err)
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

// settle gives the queue its answer, now that the outcome is durable. A job that
// waits without a message is published again when its time has come.
func (p *Pool) settle(d *delivery) {
	switch k := d.outcome.Kind; {
	case k == jobs.KindRetrying && !(d.keyed && p.away(d.Seq)), k == jobs.KindSnoozed && !p.away(d.Seq):
		p.nak(d, max(d.outcome.Due.Sub(jobs.Now()), 0))
	case k == jobs.KindReleased:
		p.nak(d, 0)
	default:
		p.check("acknowledge", p.o.Queue.Ack(d.Delivery))
	}
}

// away says whether the message seq is not needed any more. If in doubt it is:
// looking at it again costs little.
func (p *Pool) away(seq uint64) bool {
	j, err := p.o.Tracker.Find(seq)
	return err == nil && !needs(j, seq)
}

// needs says whether j waits for the message seq to be delivered.
func needs(j *jobs.Job, seq uint64) bool {
	return j != nil && j.Seq == seq && j.Place == jobs.InQueue && !j.Status.Ended()
}

// dispatch gives free workers something to do. p.mu is held.
func (p *Pool) dispatch() {
	for !p.stopping && (p.running < p.scale.size || p.grow()) {
		d := p.pick()
		if d == nil {
			return
		}
		if p.resting > 0 {
			p.resting--
			p.next <- d // one of them is there, or about to be
		} else {
			go p.work(d)
		}
	}
}

// advance takes note of how far the tracker has committed JOBS, and has pick look at
// the lanes that waited for it. p.mu is held.
func (p *Pool) advance(position uint64) {
	if position <= p.position {
		return
	}
	p.position = position
	for _, l := range p.early {
		l.early = false
		p.enliven(l)
	}
	clear(p.early)
	p.early = p.early[:0]
}

// passOver has pick pass over a lane until the tracker's position has moved on: what was
// delivered first is not committed. p.mu is held.
func (p *Pool) passOver(l *lane) {
	p.lively[l.Priority].remove(l.index)
	if !l.early {
		l.early = true
		p.early = append(p.early, l)
	}
}

// enliven has pick look at a lane that has something for it now. p.mu is held.
func (p *Pool) enliven(l *lane) { p.lively[l.Priority].include(l.index) }

// ready says whether the lane has something for a worker. p.mu is held.
func (p *Pool) ready(l *lane) bool { return len(l.buf) > 0 && l.buf[0].Seq <= p.position }

// open says whether the gates of the lane's type let a job pass now. If time will, and
// the lane has one, the pool wakes for that. p.mu is held.
func (p *Pool) open(l *lane) bool {
	ok, at := l.typ.gates.open()
	if !ok && !at.IsZero() && p.ready(l) {
		p.wake.set(at)
	}
	return ok
}

// pick takes the delivery that is to run next and a worker's place for it, nil
// if there is none. It leaves out the lanes that had nothing when it last looked:
// of a hundred most have nothing, and it is called several times per job. p.mu is
// held.
func (p *Pool) pick() *delivery {
	if p.congested() {
		return nil // a commit dispatches again
	}
	for pr := jobs.HighestPriority; pr <= jobs.LowestPriority; pr++ {
		d, coming := p.pickFrom(pr, p.cursor[pr], len(p.rows[pr]))
		if d == nil {
			var more bool
			d, more = p.pickFrom(pr, 0, p.cursor[pr])
			coming = coming || more
		}
		if d != nil || coming {
			return d
		}
	}
	return nil
}

// pickFrom is pick for the lanes of a row from at on and before end. It also
// says whether something of theirs must come. p.mu is held.
func (p *Pool) pickFrom(pr jobs.Priority, at, end int) (d *delivery, coming bool) {
	row, lively := p.rows[pr], p.lively[pr]
	for n := lively.next(at, end); n < end; n = lively.next(n+1, end) {
		l := row[n]
		switch {
		case len(l.buf) == 0 && l.committed <= l.delivered:
			lively.remove(n)
		case len(l.buf) > 0 && !p.ready(l):
			p.passOver(l)
		case !p.open(l):
		case p.ready(l):
			if p.cursor[pr] = n + 1; n+1 == len(row) {
				p.cursor[pr] = 0
			}
			return p.occupy(l), false
		default:
			p.expect(l) // it has committed what was not delivered
			coming = true
		}
	}
	return nil, coming
}

// occupy takes the lane's first delivery and a worker's place for it. p.mu is
// held.
func (p *Pool) occupy(l *lane) *delivery {
	d := l.pop()
	p.running++
	d.asOf = p.surprises
	l.typ.gates.enter(d)
	p.refill(l)
	return d
}

// pop removes the first delivery.
func (l *lane) pop() *delivery {
	d := l.buf[0]
	l.buf[0] = nil
	if len(l.buf) > 1 {
		l.buf = l.buf[1:]
	} else {
		l.buf = l.buf[:0] // else the next delivery would need memory for its place
	}
	return d
}

// congested says whether so many outcomes wait for their commit that nothing
// more may start. p.mu is held.
func (p *Pool) congested() bool {
	return p.unsettled.count >= p.o.MaxUnsettled || p.unsettled.bytes >= unsettledBytes
}

// expect takes note that a committed job of the lane is on its way here, so that a
// lesser lane must wait for it. p.mu is held.
func (p *Pool) expect(l *lane) {
	if !l.expected.IsZero() {
		return
	}
	l.expected = time.Now()
	if !p.waiting { // else one that waits longer is due first
		p.waiting = true
		p.giveUp.Reset(expectFor)
	}
}

// stopExpecting gives up on deliveries that did not come: their messages were
// deleted, or another process has them.
func (p *Pool) stopExpecting() {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := expectFor
	p.waiting = false
	for _, l := range p.lanes {
		if l.expected.IsZero() {
			continue
		}
		if left := expectFor - time.Since(l.expected); left > 0 {
			next = min(next, left)
			p.waiting = true
			continue
		}
		l.delivered = max(l.delivered, l.committed)
		l.expected = time.Time{}
	}
	if p.waiting {
		p.giveUp.Reset(next)
	}
	p.dispatch()
}

// Bounds of how much a lane holds in advance: enough for the workers while more
// comes. Each delivery held has a lease to renew, so slow jobs are not fetched early. A lane that uses up half of what it may hold within quickly asks for twice as
// much the next time: fewer requests and fewer wake-ups, each for more jobs.
const (
	minPrefetch     = 16
	maxPrefetch     = 512
	maxPrefetchFast = 2048
	quickly         = 10 * time.Millisecond
	// All lanes together hold no more than sharedPrefetch, which each has its share of,
	// however many they are, but one at least; and extraPrefetch, which goes to those that
	// are quick. The broker drops a connection that has too many bytes before it, too.
	sharedPrefetch = 4096
	extraPrefetch  = 4096
)

// arrived counts n deliveries that have come, or will not.
func (l *lane) arrived(n int) { l.asked -= min(n, l.asked) }

// prefetch is how much a lane that is refilled now may hold or be waiting for. It has so
// many, and spare is how many it may have beyond the least.
func (l *lane) prefetch(least, have, spare int, now time.Time) int {
	switch took := now.Sub(l.refilled); {
	case took > 10*quickly:
		l.most = have // about half, unless it had nothing to do
	case took < quickly:
		l.most *= 2
	}
	l.most = min(max(l.most, least), maxPrefetchFast, least+max(spare, 0))
	l.refilled = now
	return l.most
}

// refill asks for more when a lane's store runs low. p.mu is held.
func (p *Pool) refill(l *lane) {
	if !p.started || p.stopping {
		return
	}
	workers := min(p.scale.max, l.typ.gates.width())
	if workers <= 0 {
		return
	}
	least := min(max(2*workers, minPrefetch), maxPrefetch, p.share)
	have := l.asked + len(l.buf)
	if have > max(l.most, least)/2 {
		return
	}
	p.extra -= l.extra
	most := l.prefetch(least, have, extraPrefetch-p.extra, time.Now())
	l.extra = most - least
	p.extra += l.extra
	if most <= have { // the pool was made smaller
		return
	}
	if err := p.o.Queue.Pull(l.Lane, most-have); err != nil {
		p.o.Logger.Warn("cannot ask the queue for jobs", "lane", l.String(), "error", err)
		return
	}
	l.asked += most - have
}

// mostResting is how many goroutines without work are kept: a new one would have to
// grow its stack again.
const mostResting = 128

// work is a worker: it runs deliveries until there is none for it, and none comes
// that it is to rest for.
func (p *Pool) work(d *delivery) {
	for d != nil {
		if !p.attempt(d) {
			return // its place was given up while the handler hung
		}
		p.mu.Lock()
		d = p.leave()
		rest := d == nil && !p.stopping && p.resting < mostResting
		if rest {
			p.resting++
		}
		p.mu.Unlock()
		if rest {
			d = <-p.next
		}
	}
}

// leave frees a worker's place and takes the next delivery for it, if there is
// one. p.mu is held.
func (p *Pool) leave() *delivery {
	p.running--
	if p.stopping {
		p.idle.Broadcast()
		return nil
	}
	if p.running >= p.scale.size {
		return nil
	}
	return p.pick()
}

// drop ends a held delivery without running it.
func (p *Pool) drop(d *delivery) {
	p.mu.Lock()
	p.forget(d)
	if p.stopping {
		p.idle.Broadcast()
	}
	p.mu.Unlock()
}

// forget takes a delivery out. p.mu is held.
func (p *Pool) forget(d *delivery) {
	if d.inside {
		p.vacate(d, time.Now())
	}
	if d.outcome != nil {
		p.unsettled.count--
		p.unsettled.bytes -= d.outcome.Size()
	}
	delete(p.leased, d.Seq)
	p.leases.remove(&d.inLeases)
	p.outcomes.remove(&d.inOutcomes)
	if p.begun[d.id] == d {
		delete(p.begun, d.id)
	}
}

// vacate ends what a delivery counts for in the gates of its type and in the meter.
// p.mu is held.
func (p *Pool) vacate(d *delivery, now time.Time) {
	d.lane.typ.gates.leave(d, d.exec != nil)
	if d.exec != nil {
		p.meter.leave(d.exec.begun, now)
		d.exec = nil
	}
}

// putBack lets a delivery wait in its lane again that a worker has taken. p.mu is
// held.
func (p *Pool) putBack(d *delivery) {
	if p.stopping { // nobody would take it out again
		p.release(d)
		return
	}
	p.vacate(d, time.Now())
	l := d.lane
	at := 0 // others may have been put back just now
	for at < len(l.buf) && l.buf[at].Seq < d.Seq {
		at++
	}
	l.buf = slices.Insert(l.buf, at, d)
	p.enliven(l)
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

// Stop ends taking jobs, gives back what has not started, and waits for what
// runs until ctx ends. Handlers that are still at it then have their context
// cancelled with [jobs.ErrShutdown]; their jobs go back to the queue and use up no
// attempt. Stop returns when the tracker has committed all that, so the
// projector must run on meanwhile; the error says what did not get that far.
func (p *Pool) Stop(ctx context.Context) error {
	p.halt()
	p.await(ctx, func() bool { return p.running == 0 })
	p.kill()
	settled, cancel := context.WithTimeout(context.Background(), 2*p.longestGrace()+resendAfter)
	defer cancel()
	p.await(settled, func() bool { return p.running == 0 && len(p.leased) == 0 })
	return p.closed()
}

// Break is Stop where nothing can be stored any more: handlers have their context
// cancelled at once, and it returns when they have, or have been given up. Whatever
// they have done, the tracker may still have their jobs as running.
func (p *Pool) Break() {
	p.halt()
	p.kill()
	ended, cancel := context.WithTimeout(context.Background(), 2*p.longestGrace())
	defer cancel()
	p.await(ended, func() bool { return p.running == 0 })
	_ = p.closed() // of course something is not stored
}

// longestGrace is the time after which every handler has returned or is given up.
func (p *Pool) longestGrace() time.Duration {
	longest := jobs.DefaultGrace
	for _, t := range p.types {
		longest = max(longest, t.GraceOrDefault())
	}
	return longest
}

// halt begins nothing more and gives back what has not started.
func (p *Pool) halt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopping {
		close(p.next)
	}
	p.stopping = true
	for _, l := range p.lanes {
		for _, d := range l.buf {
			p.release(d)
		}
		l.buf = nil
	}
	for _, w := range p.suspects.parked {
		p.release(w.d)
	}
	p.suspects.parked = nil
}

// closed stops the clocks, and says what was not stored.
func (p *Pool) closed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.giveUp.Stop()
	p.wake.stop()
	p.limits.stop()
	if p.running > 0 || len(p.leased) > 0 {
		return fmt.Errorf("%d jobs still run and %d outcomes are not stored; they will run again", p.running, len(p.leased)-p.running)
	}
	return nil
}

// release gives back a delivery that has not started. p.mu is held.
func (p *Pool) release(d *delivery) {
	p.forget(d)
	p.check("give back", p.o.Queue.Nak(d.Ref, 0))
}

// kill tells all handlers to stop.
func (p *Pool) kill() {
	p.mu.Lock()
	p.killed = true
	var left []*execution
	for _, d := range p.leased {
		if d.exec != nil {
			left = append(left, d.exec)
		}
	}
	p.mu.Unlock()
	for _, x := range left {
		x.interrupt(jobs.ErrShutdown)
	}
}

// await waits until done, which is called with p.mu held, or ctx ends.
func (p *Pool) await(ctx context.Context, done func() bool) {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		p.idle.Broadcast()
		p.mu.Unlock()
	})
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for !done() && ctx.Err() == nil {
		p.idle.Wait()
	}
}
