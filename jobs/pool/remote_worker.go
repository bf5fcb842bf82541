package pool

import (
	"time"

	"jobstream/jobs"
)

// remoteWorker is what is known of a worker elsewhere by its name. Nothing but the list of
// workers depends on it, except that a suspect is leased to a worker that has nothing
// else.
type remoteWorker struct {
	name  string
	types []string  // for which it asked the last time
	seen  jobs.Time // its last call
	held  int       // jobs that it has, or is about to get
	asks  int       // that wait
	alone bool      // it has a suspect
	// drained says that it gets nothing more until it has nothing, and then a suspect.
	drained bool
}

// remoteWorkers are the workers by name. The pool's lock guards it.
type remoteWorkers struct{ byName map[string]*remoteWorker }

func (w *remoteWorkers) init() { w.byName = make(map[string]*remoteWorker) }

const (
	// forgetWorker is the silence after which a worker without a job is forgotten.
	forgetWorker = 10 * time.Minute
	// maxWorkers bounds how many without a job are known.
	maxWorkers = jobs.MaxAsks
)

// seen finds a worker or makes it known. It is nil for the name "", and if too many are
// known.
func (w *remoteWorkers) seen(name string, now jobs.Time) *remoteWorker {
	if name == "" {
		return nil
	}
	r := w.byName[name]
	if r == nil {
		if len(w.byName) >= maxWorkers {
			return nil
		}
		r = &remoteWorker{name: name}
		w.byName[name] = r
	}
	r.seen = now
	return r
}

// idle says whether nothing refers to the worker.
func (r *remoteWorker) idle() bool { return r.held == 0 && r.asks == 0 && !r.drained }

// forget forgets those that were silent for long and have nothing.
func (w *remoteWorkers) forget(now jobs.Time) {
	for name, r := range w.byName {
		if r.idle() && now.Sub(r.seen) > forgetWorker {
			delete(w.byName, name)
		}
	}
}
