package pool

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"jobstream/jobs"
)

// unwantedAfter is the time without an ask after which nothing is fetched for a type.
const unwantedAfter = time.Minute

// keep ends the leases of silent workers, and gives back what was fetched for types that
// nobody asks for.
func (r *Leases) keep(now time.Time) {
	p := r.p
	p.mu.Lock()
	silent := r.leases.silent(now)
	for _, t := range p.types {
		if t.Remote && t.asks == 0 && !t.unwanted && now.Sub(t.asked) > unwantedAfter {
			t.unwanted = true
			r.clear(t)
		}
		if !t.Remote && t.asks == 0 && len(r.parked) > 0 && now.Sub(t.asked) > unwantedAfter {
			for _, d := range r.clearParked(t) { // no member asks for it any more
				r.p.putBack(d)
			}
		}
	}
	r.drain()
	r.asks.drop()
	r.workers.forget(jobs.Now())
	p.mu.Unlock()
	for _, x := range silent {
		x.revoke(&lostError{fmt.Sprintf("the worker %s was silent for %s", x.lease.node, x.lease.span)})
	}
}

// clear gives back the deliveries of a type that have not started. p.mu is locked.
func (r *Leases) clear(t *poolType) {
	for _, l := range r.p.lanes {
		if l.typ == t {
			for len(l.buf) > 0 {
				r.p.putBack(l.pop())
			}
		}
	}
	for _, d := range r.clearParked(t) {
		r.p.putBack(d)
	}
}

// putBack gives back a delivery that nobody wants now. When somebody asks, it is expected
// again. p.mu is locked.
func (p *Pool) putBack(d *delivery) {
	l := d.lane
	l.delivered = min(l.delivered, d.Seq-1)
	p.choice.revive(l)
	p.release(d)
}

// clearParked removes the parked suspects of a type, of all types if t is nil. p.mu is
// locked.
func (r *Leases) clearParked(t *poolType) (all []*delivery) {
	for i := len(r.parked) - 1; i >= 0; i-- {
		if d := r.parked[i].d; t == nil || d.lane.typ == t {
			all = append(all, d)
			r.dropParked(i)
		}
	}
	return all
}

// drain sees to it that there is a worker for each parked suspect that gets nothing else
// until it has nothing: one that still asks. p.mu is locked.
func (r *Leases) drain() {
	for i := range r.parked {
		w := &r.parked[i]
		if w.by != nil && w.by.asks > 0 {
			continue
		}
		if w.by != nil {
			w.by.drained, w.by = false, nil
		}
		for _, s := range r.asks.order {
			if q := s.first(); q != nil && q.worker != nil && s.has(w.d.lane.typ) {
				w.by, q.worker.drained = q.worker, true
				break
			}
		}
	}
}

// isParked says whether a suspect waits for a worker. p.mu is locked.
func (r *Leases) isParked(id jobs.ID) bool {
	return slices.ContainsFunc(r.parked, func(w parkedRemote) bool { return w.d.id == id })
}

// unasked says for how long nobody has asked for a type. p.mu is locked.
func (r *Leases) unasked(t *poolType) string {
	now := time.Now()
	if t.asked.IsZero() {
		return "since the server started, " + briefly(now.Sub(r.p.begun)) + " ago"
	}
	return "for " + briefly(now.Sub(t.asked))
}

// briefly is a span of time in its two largest units.
func briefly(d time.Duration) string {
	switch {
	case d >= time.Hour:
		d = d.Truncate(time.Minute)
	default:
		d = d.Truncate(time.Second)
	}
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// revoke ends an execution whatever its worker says, and has it told.
func (x *execution) revoke(why error) {
	if !x.end(jobs.Result{}, why) || x.p.o.Revoked == nil || x.lease.token == "" || x.lease.worker == nil {
		return
	}
	reason := why.Error()
	if ended := x.ended.Load(); ended != nil {
		reason = ended.Error
	}
	x.p.o.Revoked(x.lease.worker.name, x.lease.token, reason)
}

// halt ends all asks, and gives back the parked suspects. p.mu is locked.
func (r *Leases) halt() {
	if !r.isHalted() {
		close(r.halted)
	}
	for _, d := range r.clearParked(nil) {
		r.p.release(d)
	}
}

// retype follows a change of the pool's types. Leases of a type that the server runs
// itself from now on are returned; they end at once. p.mu is locked.
func (r *Leases) retype() (lost []*execution) {
	for _, t := range r.p.types {
		t.asks = 0
	}
	for _, s := range r.asks.order {
		for i, t := range s.types {
			if now := r.p.types[t.Name]; now != nil {
				s.types[i] = now
			}
			s.types[i].asks += s.line.Len()
		}
		r.show(s)
	}
	for _, x := range r.leases.byKey {
		if t := x.d.lane.typ; x.away.Load() && !x.lease.dead && !t.removed() && !t.Remote && !t.HandsOver && !(x.lease.member && t.Anywhere()) {
			x.lease.dead = true
			lost = append(lost, x)
		}
	}
	return lost
}

// adopt takes over the executions that workers elsewhere had when the last process ended.
// Each gets a whole lease, and an attempt that has timed out meanwhile as long: its worker
// may have finished it, and is waiting to say so. The messages of their jobs will be
// delivered again, and are theirs then.
func (p *Pool) adopt(running iter.Seq[*jobs.Job]) {
	now := time.Now()
	for j := range running {
		l := p.lanes[j.Lane()]
		if l == nil || !l.typ.Remote && !l.typ.HandsOver && !jobs.OfMember(j.Node) {
			continue
		}
		d := &delivery{Delivery: jobs.Delivery{Lane: l.Lane, Seq: j.Seq}, lane: l, typ: l.typ.Type, id: j.ID, keyed: j.Keyed()}
		p.supply.leased[j.Seq] = d
		p.claims.deliveries[j.ID] = d
		l.typ.gates.adopt(d, j)
		x := p.remote.execution(d, j, j.Node)
		x.attempt, x.started = j.Attempt, j.StartedAt
		x.lease.alone = p.suspects.alone(j)
		if files := j.Files(); len(files) > 0 {
			x.filed.Store(true)
			for i := range files {
				_, _ = x.task.Leave(&files[i]) // they were left before
			}
		}
		if w := p.remote.workers.seen(p.named(j.Node), jobs.Now()); w != nil {
			x.lease.worker = w
			w.held++
			w.alone = w.alone || x.lease.alone
		}
		d.exec = x
		p.remote.leases.register(x)
		p.remote.leases.begin(x, now)
		x.bound()
		x.until = now.Add(max(x.timeout-jobs.Now().Sub(x.started), x.lease.span))
		x.task.Until = x.until
		p.claims.limits.set(x.until)
	}
}

// named is the name of a worker by the node of its execution; "" if it had none.
func (p *Pool) named(node string) string {
	if node == unnamed || node == p.o.Node {
		return ""
	}
	return node
}
