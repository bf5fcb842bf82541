package status

import (
	"sync"

	"jobstream/jobs"
)

// recentJobs keeps unfinished jobs decoded, by the sequence of their present
// message, so that the way from submission to the end of a job needs no read of
// the file. It is bounded, and only what is small is kept.
type recentJobs struct {
	mu sync.RWMutex
	m  map[uint64]*jobs.Job
}

const maxRecent = 1 << 16

func (r *recentJobs) init() { r.m = make(map[uint64]*jobs.Job) }

func (r *recentJobs) get(seq uint64) *jobs.Job {
	r.mu.RLock()
	j := r.m[seq]
	r.mu.RUnlock()
	return j
}

// update takes over what a commit has made true.
func (r *recentJobs) update(changed []*work) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range changed {
		if w.old != nil && w.old.Seq != w.job.Seq {
			delete(r.m, w.old.Seq)
		}
		_, had := r.m[w.job.Seq]
		switch {
		case !inQueue(w.job) || len(w.job.Payload) > inlinePayload || len(w.job.Result) > inlinePayload:
			delete(r.m, w.job.Seq)
		case had || len(r.m) < maxRecent:
			r.m[w.job.Seq] = w.job
		}
	}
}
