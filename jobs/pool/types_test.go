package pool_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"jobstream/jobs"
	"jobstream/jobs/pool"
)

// setTypes exchanges the types of the rig as a node does: it opens the lanes of new
// types anew, exchanges pool and registry, and closes the lanes of removed ones.
func (r *rig) setTypes(paused map[string]bool, types ...*jobs.Type) {
	for _, t := range types {
		if t.Handler == nil && !t.Remote {
			t.Handler = r.gate
		}
		if r.reg.Lookup(t.Name) == nil {
			r.openLanes(t.Name)
		}
	}
	was := r.reg.Types()
	r.pool.SetTypes(types, paused)
	r.reg.Replace(types...)
	for _, t := range was {
		if r.reg.Lookup(t.Name) == nil {
			r.closeLanes(t.Name)
		}
	}
}

// closeLanes forgets requests and deliveries of a type, as the broker does when its
// consumers are deleted.
func (q *memQueue) closeLanes(typ string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for l := range q.pulled {
		if l.Type == typ {
			delete(q.pulled, l)
		}
	}
	for l := range q.ready {
		if l.Type == typ {
			delete(q.ready, l)
		}
	}
	for seq, timer := range q.out {
		if q.messages[seq].Type == typ {
			timer.Stop()
			delete(q.out, seq)
		}
	}
}

// openLanes makes all messages of a type ready, in order.
func (q *memQueue) openLanes(typ string) {
	q.closeLanes(typ)
	q.mu.Lock()
	defer q.mu.Unlock()
	for seq, m := range q.messages {
		if m.Type == typ {
			l := jobs.Lane{Type: typ, Priority: m.Priority}
			q.ready[l] = append(q.ready[l], seq)
			slices.Sort(q.ready[l])
		}
	}
}

// waits is the reason why a job waits.
func (r *rig) waits(seq uint64) *jobs.Waiting {
	r.t.Helper()
	w := r.pool.Waiting(r.job(seq), pool.Queueing{})
	if w == nil {
		r.t.Fatalf("job %d does not wait", seq)
	}
	return w
}

func TestTypeIsIntroduced(t *testing.T) {
	a, n, p := typ("a"), typ("n"), typ("p")
	inRig(t, rigOptions{workers: 3, types: []*jobs.Type{a, n, p}}, func(r *rig) {
		r.setTypes(nil, a)
		r.submit("a3", "n3", "p1")
		r.quiet()
		r.want("before", r.running(), "1")
		r.want("why", r.waits(2).Detail, `the type "n" is not configured`)
		r.setTypes(map[string]bool{"p": true, "a": true}, a, n, p)
		r.quiet()
		r.want("then", r.running(), "1 2")
		r.want("the new one is paused", r.waits(3).Reason, jobs.WaitTypePaused)
		r.pool.SetPaused("p", false)
		r.submit("n1", "n1")
		r.quiet()
		r.want("as many as workers", r.running(), "1 2 3")
		r.drain()
		if n := len(r.left()); n != 0 {
			t.Errorf("%d messages are left", n)
		}
	})
}

// TestTypeIsRemoved: what runs ends as it began, and what waits waits until the type is
// back. Nothing of it runs twice.
func TestTypeIsRemoved(t *testing.T) {
	a, b := typ("a"), typ("b")
	b.MaxWorkers = 1
	inRig(t, rigOptions{workers: 2, types: []*jobs.Type{a, b}}, func(r *rig) {
		r.submit("b1", "b1", "b1", "a3")
		r.quiet()
		r.want("before", r.running(), "1 4")
		r.setTypes(nil, a)
		r.quiet()
		r.want("what runs goes on", r.running(), "1 4")
		r.want("what waits", r.waits(2).Detail, `the type "b" is not configured`)
		if _, there := r.pool.Workers().Types["b"]; there {
			t.Error("the pool still shows the type")
		}
		r.setTypes(map[string]bool{"b": true}, a, b)
		r.quiet()
		r.want("it comes back while one still runs, and paused", r.waits(2).Reason, jobs.WaitTypePaused)
		r.pool.SetPaused("b", false)
		r.quiet()
		r.want("its bound counts the old one", r.running(), "1 4")
		r.setTypes(nil, a)
		r.finish(1)
		r.want("it ends without its type", r.job(1).Status.String(), "completed")
		r.setTypes(nil, a)
		if n := r.pool.TypesHeld(); n != 1 {
			t.Errorf("the pool remembers %d types", n)
		}
		pass(10 * time.Minute)
		r.want("nothing of it starts", r.running(), "4")
		r.setTypes(nil, a, b)
		r.quiet()
		r.want("it is back", r.running(), "2 4")
		r.drain()
		begun := strings.Fields(r.begun())
		slices.Sort(begun)
		r.want("each began once", strings.Join(begun, " "), "a3/4 b1/1 b1/2 b1/3")
		if n := len(r.left()); n != 0 {
			t.Errorf("%d messages are left", n)
		}
	})
}

// TestRemovedDuringLookup: a worker has a delivery and looks its job up while the type
// goes, and perhaps comes back.
func TestRemovedDuringLookup(t *testing.T) {
	for _, back := range []bool{false, true} {
		for _, lost := range []int{0, 1, 3} {
			t.Run(fmt.Sprint(back, lost), func(t *testing.T) {
				a, b := typ("a"), typ("b")
				inRig(t, rigOptions{workers: 1, types: []*jobs.Type{a, b}}, func(r *rig) {
					once := true
					r.onFind = func(seq uint64) {
						if seq != 1 || !once {
							return
						}
						once = false
						r.setTypes(nil, a)
						if back {
							r.setTypes(nil, a, b)
						}
					}
					r.preset("b1", func(j *jobs.Job) { j.Lost = lost })
					r.submit("a5")
					r.quiet()
					if want := map[bool]string{false: "2", true: "1"}[back]; r.running() != want {
						t.Errorf("%s runs, want %s", r.running(), want)
					}
					r.drain()
					r.setTypes(nil, a, b)
					r.quiet()
					r.drain()
					if n := len(r.left()); n != 0 {
						t.Errorf("%d messages are left", n)
					}
					if n := strings.Count(r.begun(), "b1/1"); n != 1 {
						t.Errorf("it began %d times", n)
					}
				})
			})
		}
	}
}

// TestSuspectIsRemoved: a job that waits for another suspect is not forgotten.
func TestSuspectIsRemoved(t *testing.T) {
	a, b := typ("a"), typ("b")
	inRig(t, rigOptions{workers: 2, types: []*jobs.Type{a, b}}, func(r *rig) {
		for _, l := range []string{"a1", "b2"} {
			r.preset(l, func(j *jobs.Job) { j.Lost = 3 })
			r.quiet()
		}
		r.want("one at a time", r.running(), "1")
		r.setTypes(nil, a)
		r.finish(1)
		r.want("nothing of it starts", r.running(), "")
		r.setTypes(nil, a, b)
		r.quiet()
		r.want("it is back", r.running(), "2")
		r.drain()
	})
}

// TestDefinitionIsExchanged: an attempt keeps the definition with which it began, in
// everything; the next attempt has the new one.
func TestDefinitionIsExchanged(t *testing.T) {
	a := typ("a")
	a.Backoff = jobs.Backoff{Kind: jobs.Constant, Base: time.Second}
	inRig(t, rigOptions{workers: 3, types: []*jobs.Type{a}}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		next := *a
		next.Timeout, next.Backoff.Base = time.Minute, time.Hour
		next.Handler = jobs.HandlerFunc(r.gate.Handle)
		r.setTypes(nil, &next)
		pass(30 * time.Minute)
		r.want("its old timeout", r.running(), "1")
		r.end(verdict{err: fmt.Errorf("first")}, 1)
		pass(2 * time.Second)
		r.want("its old backoff", r.running(), "1")
		pass(time.Minute)
		r.want("its new timeout", r.running(), "")
		r.want("its new backoff", r.job(1).DueAt.Sub(r.job(1).UpdatedAt).String(), time.Hour.String())
	})
}

// TestBoundsAreExchanged: each bound of a type has effect at once, and those who are
// inside count.
func TestBoundsAreExchanged(t *testing.T) {
	a := typ("a")
	a.MaxWorkers = 1
	inRig(t, rigOptions{workers: 10, types: []*jobs.Type{a}}, func(r *rig) {
		with := func(change func(*jobs.Type)) {
			n := *r.reg.Lookup("a")
			change(&n)
			r.setTypes(nil, &n)
			r.quiet()
		}
		r.submit("a3", "a3", "a3", "a3", "a3", "a3", "a3", "a3")
		r.quiet()
		r.want("one", r.running(), "1")
		with(func(n *jobs.Type) { n.MaxWorkers = 3 })
		r.want("three", r.running(), "1 2 3")
		r.resize(&jobs.Resize{Types: map[string]int{"a": 4}})
		with(func(n *jobs.Type) { n.Timeout = 2 * time.Hour })
		r.want("a bound that was set by hand stays", r.running(), "1 2 3 4")
		with(func(n *jobs.Type) { n.MaxWorkers = 2 })
		r.finish(1, 2)
		r.want("two", r.running(), "3 4")
		with(func(n *jobs.Type) { n.MaxWorkers, n.Rate = 0, limited("a", "1/m", 0).Rate })
		r.want("none, but by rate", r.running(), "3 4 5")
		with(func(n *jobs.Type) { n.Timeout = time.Hour })
		r.want("an equal rate is the same", r.running(), "3 4 5")
		with(func(n *jobs.Type) { n.Rate = limited("a", "1/s", 0).Rate })
		pass(time.Second)
		r.want("a faster rate", r.running(), "3 4 5 6")
		with(func(n *jobs.Type) { n.Rate = jobs.Rate{} })
		r.want("no rate", r.running(), "3 4 5 6 7 8")
		r.drain()
	})
}

// TestTypesOfStoppingPool: a stopping pool keeps its types, so its end waits for them.
func TestTypesOfStoppingPool(t *testing.T) {
	a := typ("a")
	a.Grace = time.Hour
	inRig(t, rigOptions{types: []*jobs.Type{a}}, func(r *rig) {
		r.submit("a3")
		r.quiet()
		stopped := make(chan error, 1)
		go func() { stopped <- r.pool.Stop(context.Background()) }()
		r.quiet()
		r.setTypes(nil, typ("b"))
		r.submit("b1")
		r.quiet()
		r.want("nothing new starts", r.running(), "1")
		r.finish(1)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}
