package pool

import (
	"crypto/subtle"
	"time"

	"jobstream/jobs"
)

// lease is the part of an execution whose worker is elsewhere. The pool's lock guards
// what changes.
type lease struct {
	token  string
	worker *remoteWorker // nil: it has no name
	node   string        // the name in events
	member bool          // its worker is a member of the cluster, and the type is not remote
	span   time.Duration // without a beat
	beat   spot          // in leases.lines, while it lives
	alone  bool          // its worker gets nothing else
	dead   bool          // it ends, whatever its worker says
	stored chan struct{} // closed when its end is committed
	record *jobs.Job     // with that
}

// lostError ends an execution whose lease is over. It uses up no attempt.
type lostError struct{ why string }

func (e *lostError) Error() string { return e.why }

// releasedError ends an execution that its worker gives back. It uses up no attempt.
type releasedError struct{ reason string }

func (e *releasedError) Error() string { return e.reason }

// leases are the executions of workers elsewhere, until their end is committed.
//
// The pool's lock guards it.
type leases struct {
	key   jobs.LeaseKey
	byKey map[uint64]*execution // by the key of the job
	// lines have those that live by the last beat, one line for each span. So only the
	// silent ones are looked at.
	lines  map[time.Duration]*line
	living int
	looked time.Time // when silent ones were looked for
}

func (l *leases) init(key jobs.LeaseKey) {
	l.key, l.byKey, l.lines = key, make(map[uint64]*execution), make(map[time.Duration]*line)
}

// register makes the token of an execution known.
func (l *leases) register(x *execution) {
	x.lease.stored = make(chan struct{})
	x.lease.token = l.key.Token(x.name())
	x.d.remote = x
	l.byKey[x.job.Key] = x
}

// begin begins the lease of an execution that is registered, and whose worker is
// elsewhere from now on.
func (l *leases) begin(x *execution, now time.Time) {
	if l.lines[x.lease.span] == nil {
		l.lines[x.lease.span] = &line{}
	}
	l.living++
	l.renew(x, now)
}

// renew is a beat. An execution that still runs here needs none.
func (l *leases) renew(x *execution, now time.Time) {
	if !x.away.Load() {
		return
	}
	l.lines[x.lease.span].append(&x.lease.beat, x.d, now)
}

// end ends a lease. Its execution stays known until its end is committed.
func (l *leases) end(x *execution) {
	x.lease.dead = true
	if x.lease.beat.of != nil {
		l.lines[x.lease.span].remove(&x.lease.beat)
		l.living--
	}
}

// forget drops an execution whose end is committed.
func (l *leases) forget(x *execution) {
	if l.byKey[x.job.Key] == x {
		delete(l.byKey, x.job.Key)
		close(x.lease.stored)
	}
}

// committed keeps the records with the ends of executions.
func (l *leases) committed(c *jobs.Commit) {
	for i := 0; i < len(c.Changes) && len(l.byKey) > 0; i++ {
		if j := c.Changes[i].After; j != nil && j.Status != jobs.Processing {
			if x := l.byKey[j.Key]; x != nil {
				x.lease.record = j
			}
		}
	}
}

// find is the execution of a token that has not ended for good; nil if there is none. A
// token that is equal to a known one needs no check of its signature.
func (l *leases) find(key uint64, token string) *execution {
	x := l.byKey[key]
	if x == nil || subtle.ConstantTimeCompare([]byte(x.lease.token), []byte(token)) != 1 {
		return nil
	}
	return x
}

// stalled is the time between two looks after which this process counts as stopped
// meanwhile: beats may wait to be read.
const stalled = 5 * time.Second

// silent returns those whose worker was silent for too long, once.
func (l *leases) silent(now time.Time) (all []*execution) {
	late := !l.looked.IsZero() && now.Sub(l.looked) > stalled
	l.looked = now
	for span, line := range l.lines {
		if line.first == nil {
			delete(l.lines, span)
			continue
		}
		if late {
			line.touch(now)
		}
		line.stale(now, span, func(d *delivery) {
			if x := d.exec; !x.lease.dead {
				x.lease.dead = true
				all = append(all, x)
			}
		})
	}
	return all
}

// name is the execution in tokens.
func (x *execution) name() jobs.Execution {
	return jobs.Execution{Key: x.job.Key, Started: x.started, Run: x.job.Run, Attempt: x.attempt}
}
