package pool

import (
	"maps"
	"sync"
	"time"

	"jobstream/jobs"
)

// starts are the attempts that begin only when their start is committed. It has its own
// lock.
type starts struct {
	tracker jobs.Tracker

	mu      sync.Mutex
	waiting map[uint64]*startWait // by message
}

type startWait struct {
	startedAt jobs.Time
	done      chan struct{}
}

func (s *starts) init(t jobs.Tracker) {
	s.tracker, s.waiting = t, make(map[uint64]*startWait)
}

// record records the start of an attempt and waits for its commit, at most for a while
// and until the attempt is interrupted. It says whether the commit has come.
func (s *starts) record(x *execution) bool {
	w := &startWait{startedAt: x.started, done: make(chan struct{})}
	seq := x.d.Seq
	s.mu.Lock()
	s.waiting[seq] = w
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiting, seq)
		s.mu.Unlock()
	}()
	x.p.o.Recorder.Record(x.StartEvent())
	t := time.NewTimer(resendAfter)
	defer t.Stop()
	select {
	case <-w.done:
		return true
	case <-t.C:
	case <-x.ctx.Done():
	}
	return false
}

// check lets those attempts begin whose start is committed. It may have to read the
// tracker's file, so no lock is held meanwhile.
func (s *starts) check() {
	for seq, w := range s.all() {
		j, err := s.tracker.Find(seq)
		if err != nil || j == nil || j.Status != jobs.Processing || j.StartedAt < w.startedAt {
			continue
		}
		s.mu.Lock()
		if s.waiting[seq] == w { // or it has begun, or was given up
			close(w.done)
			delete(s.waiting, seq)
		}
		s.mu.Unlock()
	}
}

func (s *starts) all() map[uint64]*startWait {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return nil
	}
	return maps.Clone(s.waiting)
}
