package pool_test

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"jobstream/jobs"
)

// purge takes messages out of the queue, as a trim does: they never come again.
func (r *rig) purge(seqs ...uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, seq := range seqs {
		r.remove(seq)
	}
}

// TestSleepersThatNeverCome: a delivery that was given back need not come again.
// When its job has ended, has another message or is gone meanwhile, the message is
// trimmed, and nobody waits for it any more.
func TestSleepersThatNeverCome(t *testing.T) {
	for name, end := range map[string]func(r *rig, seq uint64){
		"cancelled": func(r *rig, seq uint64) {
			r.change(seq, func(j *jobs.Job) { j.Cancel(jobs.Now(), "in bulk") })
			r.purge(seq)
			if seq == 50 {
				r.want("waited for after half of them", strconv.Itoa(r.pool.Asleep()), "50")
			}
		},
		"published again": func(r *rig, seq uint64) {
			r.purge(seq)
			r.publish(seq)
		},
		"deleted": func(r *rig, seq uint64) {
			r.purge(seq)
			r.mu.Lock()
			delete(r.records, seq)
			r.mu.Unlock()
		},
	} {
		t.Run(name, func(t *testing.T) {
			typ := typ("a")
			typ.Backoff = jobs.Backoff{Kind: jobs.Constant, Base: time.Minute}
			inRig(t, rigOptions{types: []*jobs.Type{typ}, workers: 100}, func(r *rig) {
				first := r.submit(many(100, "a3")...)
				r.quiet()
				for seq := first; seq < first+100; seq++ {
					r.passage(seq).end <- verdict{err: errors.New("not now")}
				}
				r.quiet()
				r.want("waited for", strconv.Itoa(r.pool.Asleep()), "100")
				for seq := first; seq < first+100; seq++ {
					end(r, seq)
				}
				r.quiet()
				pass(2 * time.Minute)
				r.drain()
				pass(2 * time.Minute)
				r.said()
				r.want("waited for at the end", strconv.Itoa(r.pool.Asleep()), "0")
				pass(time.Hour)
				r.want("given back after that", r.said(), "")
			})
		})
	}
}
