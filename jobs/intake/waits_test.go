package intake

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobstream/jobs"
)

// ending is a job that somebody waits for.
type ending struct {
	*Waits
	mu     sync.Mutex
	status jobs.Status
	gone   bool
	err    error
	looks  int
	during func() // what happens right after a look
}

func (e *ending) find() (*jobs.Job, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.looks++
	j := &jobs.Job{ID: jobs.ID{1}, Status: e.status}
	if e.during != nil {
		f := e.during
		e.during = nil
		e.mu.Unlock()
		f()
		e.mu.Lock()
	}
	if e.gone {
		return nil, e.err
	}
	return j, e.err
}

// set makes the job's status known as a commit does.
func (e *ending) set(s jobs.Status) {
	e.mu.Lock()
	e.status = s
	j := &jobs.Job{ID: jobs.ID{1}, Status: s}
	e.mu.Unlock()
	if s.Ended() {
		e.Committed(&jobs.Commit{Changes: []jobs.Change{{After: &jobs.Job{ID: jobs.ID{2}, Status: s}}, {After: j}}})
	} else {
		e.Committed(&jobs.Commit{Changes: []jobs.Change{{After: j}}})
	}
}

// left is how much is still kept for those that wait.
func (e *ending) left() int {
	e.Waits.mu.Lock()
	defer e.Waits.mu.Unlock()
	return len(e.waiting)
}

func TestWaits(t *testing.T) {
	for name, tt := range map[string]struct {
		first jobs.Status
		do    func(e *ending, cancel context.CancelFunc)
		want  jobs.Status
		after time.Duration
	}{
		"ended already": {jobs.Completed, func(*ending, context.CancelFunc) {}, jobs.Completed, 0},
		"ends":          {jobs.Pending, func(e *ending, _ context.CancelFunc) { e.set(jobs.Failed) }, jobs.Failed, 0},
		"ends after something": {jobs.Pending, func(e *ending, _ context.CancelFunc) {
			e.set(jobs.Pending)
			time.Sleep(time.Second) // by the bubble's clock, like all of these
			e.set(jobs.Cancelled)
		}, jobs.Cancelled, time.Second},
		"the caller goes":  {jobs.Pending, func(_ *ending, cancel context.CancelFunc) { time.Sleep(time.Minute); cancel() }, jobs.Pending, time.Minute},
		"the server stops": {jobs.Processing, func(e *ending, _ context.CancelFunc) { time.Sleep(time.Minute); e.Close(); e.Close() }, jobs.Processing, time.Minute},
		"runs again before a look": {jobs.Processing, func(e *ending, _ context.CancelFunc) {
			e.set(jobs.Failed)
			e.mu.Lock()
			e.status = jobs.Pending // by the time of the look somebody has retried it
			e.mu.Unlock()
			time.Sleep(time.Second)
			e.set(jobs.Completed)
		}, jobs.Completed, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &ending{Waits: NewWaits(), status: tt.first}
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				begin := time.Now()
				type result struct {
					j   *jobs.Job
					err error
				}
				done := make(chan result, 3)
				for range 3 {
					go func() {
						j, err := e.Wait(ctx, jobs.ID{1}, Ended, e.find)
						done <- result{j, err}
					}()
				}
				synctest.Wait()
				tt.do(e, cancel)
				for range 3 {
					if r := <-done; r.err != nil || r.j.Status != tt.want {
						t.Errorf("%+v, %v; want %s", r.j, r.err, tt.want)
					}
				}
				if took := time.Since(begin); took != tt.after {
					t.Errorf("it took %s, want %s", took, tt.after)
				}
				if n := e.left(); n != 0 {
					t.Errorf("%d entries are left", n)
				}
			})
		})
	}
}

// The end of a job that comes between the look and the waiting is not missed.
func TestWaitsMissNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ending{Waits: NewWaits(), status: jobs.Pending}
		e.during = func() { e.set(jobs.Completed) }
		j, err := e.Wait(t.Context(), jobs.ID{1}, Ended, func() (*jobs.Job, error) {
			j, err := e.find()
			if e.looks == 1 {
				j.Status = jobs.Pending // as it was when the look began
			}
			return j, err
		})
		if err != nil || j.Status != jobs.Completed || e.looks != 2 {
			t.Errorf("%+v, %v after %d looks", j, err, e.looks)
		}
	})
}

// Nothing to wait for, or no way to look, ends the waiting; so does a stop that
// came before it.
func TestWaitsGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("a damaged page")
		e := &ending{Waits: NewWaits(), status: jobs.Pending, err: broken}
		if _, err := e.Wait(t.Context(), jobs.ID{1}, Ended, e.find); !errors.Is(err, broken) {
			t.Error(err)
		}
		e.err, e.gone = nil, true
		if j, err := e.Wait(t.Context(), jobs.ID{1}, Ended, e.find); j != nil || err != nil {
			t.Errorf("%+v, %v", j, err)
		}
		e.gone = false
		e.Close()
		if j, err := e.Wait(t.Context(), jobs.ID{1}, Ended, e.find); err != nil || j.Status != jobs.Pending {
			t.Errorf("%+v, %v", j, err)
		}
		if n := e.left(); n != 0 {
			t.Errorf("%d entries are left", n)
		}
	})
}
