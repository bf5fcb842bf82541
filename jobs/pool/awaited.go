package pool

import (
	"sync"

	"jobstream/jobs"
)

// awaited are the commits that somebody waits for: those of starts that have to be on
// disk before their attempt begins, and of files that were reported. It has its own lock.
type awaited struct {
	mu      sync.Mutex
	waiting map[uint64][]sight // by key
}

// sight is what a commit has to show of one job.
type sight struct {
	of    *await
	x     *execution // it has begun, or ended
	files int        // it has so many files, or has ended
}

// await waits for the commits of one or more jobs.
type await struct {
	keys []uint64
	left int           // of them; guarded by awaited.mu
	seen []*jobs.Job   // what the commits have shown, for those that are not left
	done chan struct{} // closed when none is left
}

func (a *awaited) init() { a.waiting = make(map[uint64][]sight) }

// begin waits for the starts of executions.
func (a *awaited) begin(all ...*execution) *await { return a.expect(0, all...) }

// expect waits until each of the executions has so many files. The caller records that
// afterwards.
func (a *awaited) expect(files int, all ...*execution) *await {
	w := &await{keys: make([]uint64, 0, len(all)), left: len(all), done: make(chan struct{})}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range all {
		w.keys = append(w.keys, x.job.Key)
		a.waiting[x.job.Key] = append(a.waiting[x.job.Key], sight{w, x, files})
	}
	return w
}

// forget ends a wait, and returns what the commits have shown.
func (a *awaited) forget(w *await) []*jobs.Job {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w.left > 0 {
		for _, key := range w.keys {
			a.keep(key, func(s *sight) bool { return s.of != w })
		}
	}
	return w.seen
}

// keep keeps those sights of a job. a.mu is locked.
func (a *awaited) keep(key uint64, which func(*sight) bool) {
	all := a.waiting[key]
	kept := all[:0]
	for i := range all {
		if which(&all[i]) {
			kept = append(kept, all[i])
		}
	}
	if len(kept) == 0 {
		delete(a.waiting, key)
	} else {
		a.waiting[key] = kept
	}
}

// check looks for them in a commit.
func (a *awaited) check(c *jobs.Commit) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := 0; i < len(c.Changes) && len(a.waiting) > 0; i++ {
		j := c.Changes[i].After
		if j == nil || a.waiting[j.Key] == nil {
			continue
		}
		a.keep(j.Key, func(s *sight) bool {
			if !s.in(j) {
				return true
			}
			s.of.seen = append(s.of.seen, j)
			if s.of.left--; s.of.left == 0 {
				close(s.of.done)
			}
			return false
		})
	}
}

// in says whether a record shows it.
func (s *sight) in(j *jobs.Job) bool {
	return j.Status.Ended() || j.StartedAt > s.x.started ||
		j.StartedAt == s.x.started && (j.Status != jobs.Processing || len(j.Files()) >= s.files)
}
