package status

import (
	"io"

	"jobstream/jobs/replica"
)

// Replica is the tracker as one of several that a log keeps equal; it is a
// [replica.Tracker]. It follows from the beginning.
type Replica struct{ s *Store }

var _ replica.Tracker = (*Replica)(nil)

// Replica makes the tracker one of several. That comes before the first change. A tracker
// whose replica is not asked for is alone, and a change then takes it out of the log.
func (s *Store) Replica() *Replica {
	r := &Replica{s}
	r.Follow()
	if err := removeFresh(s.freshPath()); err != nil { // it takes space, and the next one replaces it
		s.o.Logger.Warn("what an interrupted installation has left cannot be removed", "error", err)
	}
	return r
}

// Position is that of the last commit in the log; zero if it is not there.
func (r *Replica) Position() replica.Position { return r.s.share.position() }

// Apply commits what other nodes have changed; see [replica.Tracker].
func (r *Replica) Apply(bodies [][]byte, at replica.Position) error { return r.s.apply(bodies, at) }

// Lead says that this node changes the tracker from now on. [Projector.Run] may be called
// then, and commands are done.
func (r *Replica) Lead(seal replica.Seal) {
	r.s.renew()
	r.s.share.setPart(seal, false)
	r.s.inbox.open()
}

// Format is the latest that this version reads; see [replica.Tracker].
func (r *Replica) Format() replica.Format { return r.s.share.formats().most }

// Written is the latest format that the file and the log may have.
func (r *Replica) Written() replica.Format { return r.s.share.formats().now }

// Raise lets transactions of this node have a format; see [replica.Tracker].
func (r *Replica) Raise(to replica.Format) {
	s := &r.s.share
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := &s.format; to > max(f.now, f.allowed) && to <= f.most {
		f.allowed = to
		r.s.o.Logger.Info("all nodes read a later format, which is written from now on", "format", to, "before", f.now)
	}
}

// Resume prepares a tracker that leads for another Run, after one that has ended with an
// error of its source.
func (r *Replica) Resume() { r.s.inbox.open() }

// Follow says that it does no longer. Run must have ended. A command fails until this node
// leads again.
func (r *Replica) Follow() {
	r.s.share.setPart(nil, true)
	r.s.inbox.close()
	r.s.renew()
}

// Install replaces the tracker by a copy of another node's, see [Replica.Snapshot]. Those
// who read it go on meanwhile. Nobody is told what has changed by that.
func (r *Replica) Install(from io.Reader) error { return r.s.install(from) }

// Snapshot calls f with a copy of the file as it is after some commit. Commits go on, but
// what they change makes the file grow meanwhile.
func (r *Replica) Snapshot(f func(size int64, whole io.WriterTo) error) error {
	return r.s.Snapshot(func(s *Snapshot) error { return f(s.Size, s) })
}
