package client

import (
	"context"
	"errors"
	"slices"
	"time"

	"jobstream/jobs"
)

// ahead are the jobs that have come before there is room for them, so that short ones need
// not wait for the next ask. They are as many as begin within a moment at the pace of the
// last ones; of long jobs that is none.
//
// The worker's lock guards it.
type ahead struct {
	running int           // handlers
	pace    time.Duration // of a handler, about the mean of the last ones; 0 = none has ended
	asking  time.Duration // of an ask for jobs that are there, likewise
	waiting []*task       // in the order in which they came
	stuck   bool          // one has waited for too long, and no handler has ended since
}

const (
	// What jobs that come ahead may wait, at the pace of the last ones: the time of two asks,
	// within these bounds.
	leastAhead = 50 * time.Millisecond
	mostAhead  = 250 * time.Millisecond
	// manyAhead bounds their number, as a multiple of the jobs that run at a time.
	manyAhead = 10
	// aheadLimit is after how long a job goes back, if those before it take longer.
	aheadLimit = time.Second
	// meanSpan is over about how many spans a mean is.
	meanSpan = 16
)

// room is how many jobs may come, where so many run at a time.
func (a *ahead) room(most int) int {
	room := most - a.running - len(a.waiting)
	if a.pace == 0 || a.stuck {
		return max(room, 0)
	}
	wait := min(max(2*a.asking, leastAhead), mostAhead)
	return room + min(int(wait*time.Duration(most)/max(a.pace, time.Microsecond)), manyAhead*most)
}

// asked counts an ask that took so long, of which the answer had all the jobs that were
// asked for.
func (a *ahead) asked(took time.Duration) { a.asking = mean(a.asking, took) }

// mean is about the mean of the last spans, one more of which is next.
func mean(now, next time.Duration) time.Duration {
	if now == 0 {
		return max(next, 1)
	}
	return max(now+(next-now)/meanSpan, 1)
}

// ended counts a handler that took so long.
func (a *ahead) ended(took time.Duration) {
	a.running--
	a.stuck = false
	a.pace = mean(a.pace, took)
}

// arrive begins a task, now or as soon as there is room. w.mu is locked.
func (w *worker) arrive(t *task) {
	a := &w.ahead
	if a.running < w.most() && len(a.waiting) == 0 {
		w.start(t)
		return
	}
	a.waiting = append(a.waiting, t)
	t.idle = time.AfterFunc(aheadLimit, func() { w.drop(t) })
}

// start begins the handler of a task. w.mu is locked.
func (w *worker) start(t *task) {
	w.ahead.running++
	w.runs.Go(t.run)
}

// left begins what waits for a handler that has returned after so long.
func (w *worker) left(took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := &w.ahead
	a.ended(took)
	for len(a.waiting) > 0 && a.running < w.most() {
		t := a.waiting[0]
		a.waiting = a.waiting[1:]
		t.idle.Stop()
		w.start(t)
	}
	wake(w.free)
}

// errBusy is why a job goes back that has waited for others.
var errBusy = errors.New("its worker has been busy with others")

// drop gives a task back that has waited for too long.
func (w *worker) drop(t *task) {
	w.mu.Lock()
	i := slices.Index(w.ahead.waiting, t)
	if i >= 0 {
		w.ahead.waiting = slices.Delete(w.ahead.waiting, i, i+1)
		w.ahead.stuck = true
		w.runs.Add(1)
	}
	w.mu.Unlock()
	if i >= 0 {
		defer w.runs.Done()
		t.undo(errBusy)
	}
}

// giveBackAll gives back what has not begun.
func (w *worker) giveBackAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.ahead.waiting {
		t.idle.Stop()
		w.runs.Go(func() { t.undo(jobs.ErrShutdown) })
	}
	w.ahead.waiting = nil
}

// undo gives the job of a task back that has not begun.
func (t *task) undo(why error) {
	t.cancel(why)
	t.task.End()
	if !t.gone.Load() {
		verb, body := t.ending(verdict{err: context.Cause(t.ctx)})
		_, err := t.w.tell("worker."+verb, body)
		t.reported(verb, err)
	}
	t.forget()
}
