package pool_test

import (
	"testing"
	"time"

	"jobstream/jobs"
)

// A worker that has looked a job up starts it only as it is after a change.
func TestPin(t *testing.T) {
	tests := map[string]struct {
		change func(*jobs.Job)
		moved  bool
		begun  string
	}{
		"content":  {change: func(j *jobs.Job) { j.Tags = []string{"new"} }, begun: "a3/1"},
		"priority": {change: func(j *jobs.Job) { j.Priority, j.Place = 1, jobs.Due }, moved: true, begun: "a1/2"},
		"moment": {change: func(j *jobs.Job) {
			if _, err := j.Revise(&jobs.Revise{Stamp: jobs.By("x"), RunAt: jobs.Now().Add(time.Hour)}); err != nil {
				panic(err)
			}
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inRig(t, rigOptions{}, func(r *rig) {
				r.mu.Lock()
				r.onFind = func(seq uint64) {
					r.mu.Lock()
					r.onFind = nil
					id := r.find(seq).ID
					r.mu.Unlock()
					release, ok := r.pool.Pin(id)
					if !ok {
						t.Error("a job that was only looked up runs")
						return
					}
					if _, twice := r.pool.Pin(id); twice {
						t.Error("two change it at the same time")
					}
					r.change(seq, tt.change)
					release()
				}
				r.mu.Unlock()
				r.submit("a3")
				r.quiet()
				if tt.moved {
					r.publish(1)
				}
				pass(2 * time.Second)
				r.want("begun", r.begun(), tt.begun)
				if tt.begun == "" {
					r.change(1, func(j *jobs.Job) { j.Cancel(jobs.Now(), "enough") })
					return
				}
				r.gate.mu.Lock()
				for _, p := range r.gate.running {
					if name == "content" && len(p.task.Job.Tags) != 1 {
						t.Error("it runs as it was before")
					}
				}
				r.gate.mu.Unlock()
				if _, ok := r.pool.Pin(r.job(1).ID); ok {
					t.Error("a running job can be changed")
				}
				r.drain()
			})
		})
	}
}

// A delivery that comes while its job is pinned waits.
func TestPinKeepsFromStarting(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.pool.SetPaused("a", true)
		r.submit("a3")
		r.quiet()
		release, ok := r.pool.Pin(r.job(1).ID)
		r.pool.SetPaused("a", false)
		pass(5 * time.Second)
		r.want("running while it is pinned", r.running(), "")
		if !ok {
			t.Error("a waiting job cannot be pinned")
		}
		release()
		pass(time.Second)
		r.want("running", r.running(), "1")
		r.drain()
	})
}

// The tracker does not know yet how an attempt has ended: until it does, the job still
// looks like one that waits, and must not be changed, or it would run again.
func TestPinAfterTheEnd(t *testing.T) {
	inRig(t, rigOptions{}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		r.hold(true)
		r.finish(1)
		r.quiet()
		if _, ok := r.pool.Pin(r.job(1).ID); ok {
			t.Error("a job can be changed whose outcome is on its way")
		}
		r.hold(false)
		r.quiet()
		if release, ok := r.pool.Pin(r.job(1).ID); !ok {
			t.Error("a job stays pinned by an attempt that is over")
		} else {
			release()
		}
		r.want("begun", r.begun(), "a3/1")
	})
}

// A suspect that waits for others keeps its claim when it is changed.
func TestPinOfAParkedSuspect(t *testing.T) {
	inRig(t, rigOptions{workers: 4}, func(r *rig) {
		r.preset("a3", func(j *jobs.Job) { j.Lost = 2 })
		r.quiet()
		r.preset("a3", func(j *jobs.Job) { j.Lost = 2 })
		r.quiet()
		release, ok := r.pool.Pin(r.job(2).ID)
		if !ok {
			t.Fatal("a suspect that waits cannot be changed")
		}
		r.change(2, func(j *jobs.Job) { j.Tags = []string{"new"} })
		release()
		r.finish(1)
		r.want("then", r.running(), "2")
		if tags := r.passage(2).task.Job.Tags; len(tags) != 1 {
			t.Errorf("it runs with the tags %v", tags)
		}
		r.finish(2)
		r.want("begun", r.begun(), "a3/1 a3/2")
	})
}
