package schedule

import (
	"container/heap"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"jobstream/jobs"
)

// RunnerOptions are the parts of a [Runner].
type RunnerOptions struct {
	Store  Store
	Submit Submit
	// Ended says whether a job has ended. An unknown job counts as ended.
	Ended  func(ctx context.Context, id jobs.ID) (bool, error)
	Now    func() jobs.Time // nil = jobs.Now
	Logger *slog.Logger     // nil = silence
}

// Runner fires schedules when they are due.
type Runner struct {
	o       RunnerOptions
	changed chan struct{} // has a place for one

	mu    sync.Mutex
	names map[string]bool // since the last look of the loop
	last  jobs.Time       // the last look at the clock
	since jobs.Time       // see Moment.Since
}

// The runner looks at the clock at least this often, because the wall clock may jump. A
// longer pause counts as a gap: the process was stopped, the machine slept, or the
// clock was put forward.
const (
	lookEvery = time.Second
	gap       = 5 * time.Second
)

// The waits between tries after a temporary failure.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = time.Second
	warnEvery  = 30 // tries
)

// NewRunner makes a runner.
func NewRunner(o RunnerOptions) *Runner {
	if o.Now == nil {
		o.Now = jobs.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Runner{o: o, changed: make(chan struct{}, 1), names: make(map[string]bool)}
}

// Changed notifies the runner that a schedule was made, changed or removed. It never
// blocks.
func (r *Runner) Changed(name string) {
	r.mu.Lock()
	r.names[name] = true
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default: // the loop is going to look anyway
	}
}

// slot is the loop's state of one schedule.
type slot struct {
	name  string
	next  jobs.Time // the next look; 0 = not before a change
	place int       // in the line; -1 = not there
	busy  bool      // a goroutine looks at it
	dirty bool      // it has changed since that look began
}

// line is a heap of slots, by their next look.
type line []*slot

func (l line) Len() int           { return len(l) }
func (l line) Less(i, k int) bool { return l[i].next < l[k].next }

func (l line) Swap(i, k int) {
	l[i], l[k] = l[k], l[i]
	l[i].place, l[k].place = i, k
}

// Push is called by package heap only.
func (l *line) Push(x any) {
	s := x.(*slot)
	s.place = len(*l)
	*l = append(*l, s)
}

// Pop is called by package heap only.
func (l *line) Pop() any {
	last := len(*l) - 1
	s := (*l)[last]
	(*l)[last], *l = nil, (*l)[:last]
	s.place = -1
	return s
}

// report is the result of a look at one schedule.
type report struct {
	name string
	next jobs.Time
	gone bool // the schedule has been removed
}

// Run fires schedules until ctx ends. It gives up fires that are under way then; the
// next Run finds out which got in. An error means that the store cannot be read.
func (r *Runner) Run(ctx context.Context) error {
	now := r.o.Now()
	r.mu.Lock()
	r.last, r.since = now, now
	r.mu.Unlock()
	all, err := r.o.Store.Schedules(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of ctx is its normal end
		}
		return err
	}
	l := loop{r: r, slots: make(map[string]*slot, len(all)), since: now, reports: make(chan report)}
	for _, e := range all {
		l.lookAt(e.Name, now)
	}
	defer l.looks.Wait()
	return l.run(ctx)
}

// loop is one Run.
type loop struct {
	r       *Runner
	slots   map[string]*slot
	line    line
	since   jobs.Time // as of the last start
	reports chan report
	looks   sync.WaitGroup
}

func (l *loop) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	set, stop := jobs.WatchClock()
	defer stop()
	for {
		timer.Reset(l.start(ctx))
		select {
		case <-timer.C:
		case <-set:
		case <-l.r.changed:
			l.lookAtAll(l.r.popNames())
		case rep := <-l.reports:
			l.process(rep)
		case <-ctx.Done():
			return nil
		}
	}
}

// start begins to look at all schedules whose moment has come. It returns the time
// until the next one.
func (l *loop) start(ctx context.Context) time.Duration {
	m := l.r.moment()
	if m.Since != l.since { // the clock has jumped, so the next time may be another
		l.since = m.Since
		for name := range l.slots {
			l.lookAt(name, m.Now)
		}
	}
	now := m.Now
	for len(l.line) > 0 && l.line[0].next <= now {
		s := heap.Pop(&l.line).(*slot)
		s.busy = true
		l.looks.Go(func() {
			select {
			case l.reports <- l.r.look(ctx, s.name):
			case <-ctx.Done():
			}
		})
	}
	if len(l.line) == 0 {
		return lookEvery
	}
	return min(lookEvery, l.line[0].next.Sub(now))
}

// lookAtAll begins a look at schedules that have changed.
func (l *loop) lookAtAll(names map[string]bool) {
	now := l.r.o.Now()
	for name := range names {
		l.lookAt(name, now)
	}
}

// lookAt sets the next look at a schedule; 0 = not before a change. A look under way
// has to be repeated.
func (l *loop) lookAt(name string, at jobs.Time) {
	s := l.slots[name]
	if s == nil {
		s = &slot{name: name, place: -1}
		l.slots[name] = s
	}
	s.next, s.dirty = at, s.busy
	switch {
	case s.busy:
	case s.place < 0 && at != 0:
		heap.Push(&l.line, s)
	case s.place >= 0 && at != 0:
		heap.Fix(&l.line, s.place)
	case s.place >= 0:
		heap.Remove(&l.line, s.place)
	}
}

// process deals with a report of a worker.
func (l *loop) process(rep report) {
	s := l.slots[rep.name]
	s.busy = false
	switch {
	case s.dirty: // the report may be out of date
		l.lookAt(s.name, s.next)
	case rep.gone:
		delete(l.slots, s.name)
	default:
		l.lookAt(s.name, rep.next)
	}
}

func (r *Runner) popNames() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := r.names
	r.names = make(map[string]bool)
	return names
}

// moment reads the clock and detects jumps.
func (r *Runner) moment() Moment {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.o.Now()
	switch {
	case now.Sub(r.last) > gap:
		r.o.Logger.Info("the clock has jumped forward, or the process stood still: schedules catch up",
			"from", r.last.String(), "to", now.String())
		r.since = now
	case now < r.since:
		r.o.Logger.Info("the clock was put back: no time of a schedule is fired twice",
			"from", r.last.String(), "to", now.String())
		r.since = now
	}
	r.last = now
	return Moment{Now: now, Since: r.since}
}

// look works on one schedule until it has to wait.
func (r *Runner) look(ctx context.Context, name string) report {
	retry := firstRetry
	for tries := 0; ; tries++ {
		rep, err := r.work(ctx, name)
		if err == nil || ctx.Err() != nil {
			return rep
		}
		level := slog.LevelDebug
		if tries%warnEvery == 0 {
			level = slog.LevelWarn
		}
		r.o.Logger.Log(ctx, level, "a schedule cannot fire at the moment; it is tried again",
			"schedule", name, "in", retry, "error", err)
		select {
		case <-time.After(retry):
			retry = min(2*retry, lastRetry)
		case <-ctx.Done():
			return rep
		}
	}
}

// work fires or skips every time of one schedule that has come. After an error it has
// to be called again. It reads the schedule anew for each time, since that may have
// been changed, paused or removed.
func (r *Runner) work(ctx context.Context, name string) (report, error) {
	for {
		e, err := r.o.Store.Schedule(ctx, name)
		switch {
		case err != nil:
			return report{name: name}, err
		case e == nil:
			return report{name: name, gone: true}, nil
		}
		d, err := r.decide(ctx, e)
		if err != nil {
			return report{name: name}, err
		}
		if d.Deed == Wait {
			return report{name: name, next: d.At}, nil
		}
		if err := r.do(ctx, e, d); err != nil {
			return report{name: name}, err
		}
	}
}

// decide is [Decide] for now.
func (r *Runner) decide(ctx context.Context, e *Entry) (Decision, error) {
	p, err := e.Plan()
	if err != nil {
		r.o.Logger.Error("a stored schedule makes no sense any more and does not fire; replace it", "schedule", e.Name, "error", err)
		return Decision{}, nil
	}
	m := r.moment()
	d := Decide(p, e, m)
	if d.Deed != Fire || e.Overlap != Skip || e.LastJob == (jobs.ID{}) {
		return d, nil
	}
	ended, err := r.o.Ended(ctx, e.LastJob)
	m.Busy = !ended
	return Decide(p, e, m), err
}

// do fires a time or lets it pass.
func (r *Runner) do(ctx context.Context, e *Entry, d Decision) error {
	if d.Deed == Pass {
		r.o.Logger.Debug("a schedule's time passes: its last job has not ended",
			"schedule", e.Name, "time", d.At.String(), "last_job", e.LastJob)
		return r.note(ctx, Dealt{Name: e.Name, Time: d.At, Skipped: true})
	}
	j, _, err := r.o.Submit(ctx, e.Message(d.At))
	if hopeless(err) {
		r.o.Logger.Error("a schedule's job cannot be made; its time passes", "schedule", e.Name, "time", d.At.String(), "error", err)
		return r.note(ctx, Dealt{Name: e.Name, Time: d.At})
	}
	if err != nil {
		return err
	}
	// The transaction that stored the job has recorded this already, unless the job
	// existed before or failed at once.
	if e, err = r.o.Store.Schedule(ctx, e.Name); err != nil || e == nil || e.Done >= d.At {
		return err
	}
	return r.note(ctx, Dealt{Name: e.Name, Time: d.At, Job: j.ID, MadeAt: j.CreatedAt})
}

// note makes sure that a time is recorded as dealt with.
func (r *Runner) note(ctx context.Context, c Dealt) error {
	c.Stamp = jobs.Stamp{Actor: "schedule", At: r.o.Now()}
	_, err := do(ctx, r.o.Store, c)
	return err
}

// hopeless says whether another try would give the same error.
func hopeless(err error) bool {
	var e *jobs.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Kind {
	case jobs.PayloadTooLarge, jobs.InvalidRequest, jobs.UnknownType:
		return true
	}
	return false
}
