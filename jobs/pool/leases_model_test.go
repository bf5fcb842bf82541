package pool_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"jobstream/jobs"
)

// TestLeasesModel plays workers, users, restarts and the clock at random against the
// pool, with a restart possible between any two steps. Its rules are those that a worker
// relies on: nobody else has the job of a living lease, whatever a late worker reports is
// refused, and nothing is forgotten. A failure prints its script; rapid prints the seed.
func TestLeasesModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// The script is drawn before the bubble is entered; see TestPoolModel.
		script := rapid.SliceOfN(rapid.Custom(drawLeaseStep), 1, 60).Draw(rt, "script")
		var wrong string
		synctest.Test(t, func(t *testing.T) { wrong = playLeases(t, script) })
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

func drawLeaseStep(t *rapid.T) step {
	s := step{What: rapid.SampledFrom([]string{
		"submit", "submit", "submit", "ask", "ask", "ask", "ask", "beat", "beat", "done", "done", "done", "fail", "release",
		"cancel", "retry", "delete", "pause", "cap", "end", "pass", "pass", "pass", "restart",
	}).Draw(t, "what")}
	s.N = rapid.IntRange(0, 1000).Draw(t, "which")
	switch s.What {
	case "submit":
		s.Lane = rapid.SampledFrom([]string{"x", "x", "y", "a"}).Draw(t, "type") + string('0'+rune(rapid.IntRange(1, 5).Draw(t, "priority")))
		s.N, s.M = rapid.IntRange(1, 3).Draw(t, "jobs"), max(rapid.IntRange(-4, 2).Draw(t, "key"), 0)
	case "ask":
		s.Lane = rapid.SampledFrom([]string{"x", "y", "xy"}).Draw(t, "types")
		s.N, s.M = rapid.IntRange(0, 2).Draw(t, "worker"), rapid.IntRange(1, 3).Draw(t, "most")
	case "release":
		s.M = rapid.IntRange(0, 1).Draw(t, "delay")
	case "pause", "cap":
		s.Lane = rapid.SampledFrom([]string{"x", "y"}).Draw(t, "type")
		s.N = rapid.IntRange(0, 2).Draw(t, "cap")
	case "pass":
		s.N = rapid.SampledFrom([]int{1, 150, 1500, 9000, 31_500, 70_000}).Draw(t, "ms")
	case "restart":
		s.Lane = rapid.SampledFrom([]string{"stop", "kill", "power cut"}).Draw(t, "how")
	}
	return s
}

// heldLease is a lease as its worker sees it.
type heldLease struct {
	jobs.Lease
	worker string
	until  time.Time // by the worker's clock
	over   bool      // it has ended, or the worker knows that it is lost
	ended  string    // how its worker has ended it
}

// asker is who waits for an answer.
type asker struct{ worker, types string }

type leaseModel struct {
	*rig
	all     []*heldLease // every lease that was ever given
	asks    map[chan answer]asker
	fences  map[jobs.ID]int64
	ended   map[string]int // "key run", how often
	caps    map[string]int
	paused  map[string]bool
	since   map[string]jobs.Time // when a type was paused the last time
	changed map[string]jobs.Time // when it was paused, resumed or resized the last time
	wrong   []string
	submits int
}

func (m *leaseModel) fail(format string, args ...any) {
	m.wrong = append(m.wrong, fmt.Sprintf(format, args...))
}

func playLeases(t *testing.T, script []step) string {
	r := newRig(t, rigOptions{workers: 1, maxLost: 4, types: []*jobs.Type{remote("x"), remote("y"), typ("a")}})
	m := &leaseModel{
		rig: r, asks: make(map[chan answer]asker), fences: make(map[jobs.ID]int64), ended: make(map[string]int),
		caps: make(map[string]int), paused: make(map[string]bool), since: make(map[string]jobs.Time), changed: make(map[string]jobs.Time),
	}
	defer r.shut()
	r.onCommit = m.committed
	for i, s := range script {
		m.do(s)
		if m.check(); len(m.wrong) > 0 {
			return fmt.Sprintf("step %d, %+v: %s", i, s, strings.Join(m.wrong, "; "))
		}
	}
	m.finale()
	return strings.Join(m.wrong, "; ")
}

// committed wants each run of a job to end once.
func (m *leaseModel) committed(c *jobs.Commit) {
	for j := range c.Ended() {
		name := fmt.Sprint(j.Key, " ", j.Run)
		if m.ended[name]++; m.ended[name] > 1 {
			m.fail("job %s has ended twice", name)
		}
	}
}

func (m *leaseModel) do(s step) {
	switch s.What {
	case "submit":
		for range s.N {
			m.submits++
			m.submitWith(s.Lane, func(msg *jobs.Message) {
				if s.M > 0 && s.Lane[0] != 'a' {
					msg.Terms = &jobs.Terms{ConcurrencyKey: fmt.Sprint("k", s.M)}
				}
			})
		}
	case "ask":
		worker := []string{"", "w-1", "w-2"}[s.N]
		m.asks[m.ask(worker, s.M, 20*time.Second, strings.Split(s.Lane, "")...)] = asker{worker, s.Lane}
	case "beat":
		m.beat([]string{"", "w-1", "w-2"}[s.N%3])
	case "done", "fail", "release":
		if len(m.all) > 0 {
			m.report(m.all[s.N%len(m.all)], s)
		}
	case "cancel", "retry", "delete":
		m.change1(s)
	case "pause":
		m.paused[s.Lane] = !m.paused[s.Lane]
		m.pool.SetPaused(s.Lane, m.paused[s.Lane])
		m.since[s.Lane], m.changed[s.Lane] = jobs.Now(), jobs.Now()
	case "cap":
		m.caps[s.Lane], m.changed[s.Lane] = s.N, jobs.Now()
		m.resize(&jobs.Resize{Types: map[string]int{s.Lane: s.N}})
	case "end":
		m.drain1()
	case "pass":
		pass(time.Duration(s.N) * time.Millisecond)
	case "restart":
		m.restart(s.Lane)
		m.settle()
		// Whoever beats or reports within a lease from now on goes on.
		for name, most := range m.caps {
			m.resize(&jobs.Resize{Types: map[string]int{name: most}})
		}
		for name, paused := range m.paused {
			m.pool.SetPaused(name, paused)
		}
	}
	m.settle()
}

// settle publishes what is due, and takes the answers to asks.
func (m *leaseModel) settle() {
	given := make(map[uint64]string)
	for range 3 {
		m.quiet()
		for _, j := range m.jobs() {
			if j.Place == jobs.Due && !j.Status.Ended() && j.DueAt <= jobs.Now() {
				m.publish(j.Key)
			}
		}
		for got := range m.asks {
			select {
			case a := <-got:
				for _, l := range a.leases {
					m.given(l, m.asks[got])
					given[l.Job.Key] = m.asks[got].types
				}
				if e, _ := jobs.AsError(a.err); a.err != nil && e.Kind != jobs.ShuttingDown {
					m.fail("an ask was refused: %v", a.err)
				}
				delete(m.asks, got)
			default:
			}
		}
	}
	m.quiet() // others may have been given at the same moment
	for key, types := range given {
		m.order(key, types)
	}
}

func (m *leaseModel) jobs() []*jobs.Job {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []*jobs.Job
	for _, j := range m.records {
		all = append(all, j)
	}
	slices.SortFunc(all, func(a, b *jobs.Job) int { return int(a.Key) - int(b.Key) })
	return all
}

// given is a new lease.
func (m *leaseModel) given(l jobs.Lease, by asker) {
	worker := by.worker
	for _, o := range m.all {
		if o.Job.ID == l.Job.ID && m.lives(o) {
			m.fail("job %d is leased to %q while %q has it", l.Job.Key, worker, o.worker)
		}
	}
	if l.Fence <= m.fences[l.Job.ID] {
		m.fail("job %d has the fence %d after %d", l.Job.Key, l.Fence, m.fences[l.Job.ID])
	}
	m.fences[l.Job.ID] = l.Fence
	if most := m.caps[l.Job.Type]; most > 0 && m.living(l.Job.Type) >= most {
		m.fail("job %d is leased beside %d others, at most %d may", l.Job.Key, m.living(l.Job.Type), most)
	}
	// A start that was under way when the type was paused goes on.
	if m.paused[l.Job.Type] && l.Fence > int64(m.since[l.Job.Type]) {
		m.fail("job %d of a paused type is leased, %s after the pause", l.Job.Key, time.Duration(l.Fence-int64(m.since[l.Job.Type])))
	}
	m.mu.Lock()
	j := m.find(l.Job.Key)
	m.mu.Unlock()
	if j == nil || int64(j.StartedAt) < l.Fence {
		m.fail("a lease was given before its start was stored")
	}
	m.all = append(m.all, &heldLease{Lease: l, worker: worker, until: jobs.Time(l.Fence).Std().Add(l.Span)})
}

// order wants nothing left behind that was before a job which was leased to an ask for
// some types.
func (m *leaseModel) order(key uint64, types string) {
	m.mu.Lock()
	j := m.find(key)
	m.mu.Unlock()
	if j == nil || m.suspect(j.ID) {
		return // a suspect whose turn has come waits for a worker that has nothing
	}
	for _, o := range m.jobs() {
		mine := o.Type == j.Type || strings.Contains(types, o.Type) && m.caps[o.Type] == 0 && !m.paused[o.Type]
		before := o.Priority < j.Priority || o.Type == j.Type && o.Priority == j.Priority && o.Key < j.Key && j.Lost == 0
		if mine && before && m.fresh(o) && max(o.CreatedAt, m.changed[o.Type]).Add(time.Second) < j.StartedAt {
			m.fail("job %d of %s is leased before job %d of %s", j.Key, j.Lane(), o.Key, o.Lane())
		}
	}
}

// lives says whether a worker may count on its lease.
func (m *leaseModel) lives(l *heldLease) bool { return !l.over && time.Now().Before(l.until) }

func (m *leaseModel) beat(worker string) {
	var tokens []string
	byToken := make(map[string]*heldLease)
	for _, l := range m.all {
		if l.worker == worker && !l.over {
			tokens = append(tokens, l.Token)
			byToken[l.Token] = l
		}
	}
	b, err := m.pool.Leases().Beat(m.t.Context(), worker, tokens)
	if err != nil {
		m.fail("beat: %v", err)
	}
	for _, token := range b.Lost {
		if l := byToken[token]; m.lives(l) {
			m.fail("job %d: a living lease is called lost", l.Job.Key)
		}
		byToken[token].over = true
	}
	for token := range b.Cancelled {
		byToken[token].over = true
	}
	for _, l := range byToken {
		if !l.over {
			l.until = time.Now().Add(l.Span)
			m.alone(l)
		}
	}
}

// alone wants a lease that was renewed to be the present one of its job.
func (m *leaseModel) alone(l *heldLease) {
	if m.fences[l.Job.ID] != l.Fence {
		m.fail("job %d: a lease with the fence %d was renewed after one with %d was given", l.Job.Key, l.Fence, m.fences[l.Job.ID])
	}
}

// report ends a lease, or one that has ended long ago.
func (m *leaseModel) report(l *heldLease, s step) {
	leases := m.pool.Leases()
	var e jobs.Ending
	switch s.What {
	case "done":
		e = leases.Done(m.t.Context(), []jobs.Done{{Token: l.Token, Result: json.RawMessage("1")}})[0]
	case "fail":
		e = leases.Fail(m.t.Context(), l.Token, &jobs.Failure{Error: "no"})
	case "release":
		e = leases.Release(m.t.Context(), l.Token, &jobs.GiveBack{Delay: time.Duration(s.M) * 5 * time.Second, Reason: "later"})
	}
	known, _ := jobs.AsError(e.Err)
	switch {
	case e.Err == nil && !e.Repeated:
		if l.over {
			m.fail("job %d: %s was accepted after the end of its lease", l.Job.Key, s.What)
		}
		m.alone(l)
		l.ended = s.What
	case e.Err == nil && l.ended != s.What:
		m.fail("job %d: %s counts as repeated after %q", l.Job.Key, s.What, l.ended)
	case e.Err == nil:
	case known.Kind == jobs.LeaseLost, known.Kind == jobs.NotFound:
		if m.lives(l) && (known.State == nil || known.State.Status != jobs.Cancelled) {
			m.fail("job %d: %s was refused for a living lease: %v", l.Job.Key, s.What, e.Err)
		}
	default:
		m.fail("%s: %v", s.What, e.Err)
	}
	l.over = true
}

// change1 changes a job by hand.
func (m *leaseModel) change1(s step) {
	all := m.jobs()
	if len(all) == 0 {
		return
	}
	j := all[s.N%len(all)]
	switch {
	case s.What == "cancel" && !j.Status.Ended():
		m.drop(j)
		m.change(j.Key, func(j *jobs.Job) { j.Cancel(jobs.Now(), "by hand") })
	case s.What == "retry" && (j.Status == jobs.Failed || j.Status == jobs.Cancelled):
		m.change(j.Key, func(j *jobs.Job) { j.Rerun(jobs.Now()) })
	case s.What == "delete" && j.Status.Ended():
		m.drop(j)
		m.mu.Lock()
		delete(m.records, j.Key)
		m.mu.Unlock()
	}
}

// drop ends what workers may count on for a job that was cancelled or deleted.
func (m *leaseModel) drop(j *jobs.Job) {
	for _, l := range m.all {
		if l.Job.ID == j.ID {
			l.over = true
		}
	}
}

func (m *leaseModel) drain1() {
	m.gate.mu.Lock()
	defer m.gate.mu.Unlock()
	for _, p := range m.gate.running {
		select {
		case p.end <- verdict{}:
		default:
		}
	}
}

// living counts the leases that the pool must count, too.
func (m *leaseModel) living(typ string) (n int) {
	for _, l := range m.all {
		if m.lives(l) && l.Job.Type == typ {
			n++
		}
	}
	return n
}

func (m *leaseModel) check() {
	for name, most := range m.caps {
		// Those that have it since before the cap was lowered may stay.
		if w := m.pool.Workers().Types[name]; most > 0 && w.Active < m.living(name) {
			m.fail("%d leases of %s live, and the pool counts %d", m.living(name), name, w.Active)
		}
	}
	m.idle()
}

// idle wants no ask to wait while there is something for it.
func (m *leaseModel) idle() {
	free := make(map[string]bool)
	workers := m.pool.Workers()
	for _, name := range []string{"x", "y"} {
		w := workers.Types[name]
		free[name] = !w.Paused && (w.Max == 0 || w.Active < w.Max)
	}
	for _, w := range m.pool.Leases().AtWork() {
		for _, a := range w.Work {
			if m.suspect(a.ID) {
				return // its worker gets nothing
			}
		}
	}
	var ready []uint64
	for _, j := range m.jobs() {
		if free[j.Type] && m.fresh(j) {
			ready = append(ready, j.Key)
		}
	}
	if len(ready) == 0 {
		return
	}
	pass(3500 * time.Millisecond) // expected ones, suspects, and lost ones are over by then
	m.settle()
	for got := range m.asks {
		_ = got
		m.stuck(ready)
		return
	}
}

// fresh says whether nothing has happened to a job yet, and no key keeps it.
func (m *leaseModel) fresh(j *jobs.Job) bool {
	return j.Status == jobs.Pending && j.Place == jobs.InQueue && j.Terms == nil && j.Lost == 0 && j.Run == 1 && j.Attempt == 0
}

func (m *leaseModel) suspect(id jobs.ID) bool {
	for _, j := range m.jobs() {
		if j.ID == id {
			return j.Lost >= 2
		}
	}
	return false
}

// stuck wants some ask for a type to have been served since a job of it was ready.
func (m *leaseModel) stuck(ready []uint64) {
	for _, key := range ready {
		m.mu.Lock()
		j := m.find(key)
		m.mu.Unlock()
		if j == nil || j.Status != jobs.Pending {
			continue
		}
		if w := m.pool.Waiting(j, noPlace); w.Reason == jobs.WaitStarting {
			m.fail("job %d does not start, though an ask waits for it", key)
		}
	}
}

// finale lets good workers finish everything.
func (m *leaseModel) finale() {
	clear(m.paused)
	clear(m.caps)
	for _, name := range []string{"x", "y", "a"} {
		m.pool.SetPaused(name, false)
		m.resize(&jobs.Resize{Types: map[string]int{name: 0}})
		m.changed[name] = jobs.Now()
	}
	for range 40 + 8*m.submits {
		open := 0
		for _, j := range m.jobs() {
			if !j.Status.Ended() {
				open++
			}
		}
		if open == 0 && len(m.left()) == 0 {
			break
		}
		for i, types := range [][]string{{"x"}, {"y"}} {
			worker := fmt.Sprint("good-", i)
			m.asks[m.ask(worker, 3, 5*time.Second, types...)] = asker{worker, types[0]}
		}
		pass(200 * time.Millisecond)
		m.drain1()
		m.settle()
		for _, l := range m.all {
			if strings.HasPrefix(l.worker, "good-") && !l.over {
				m.report(l, step{What: "done"})
			}
		}
		pass(5 * time.Second)
		m.settle()
	}
	for _, j := range m.jobs() {
		if !j.Status.Ended() {
			m.fail("in the end job %d is %s: %+v", j.Key, j.Status, m.pool.Waiting(j, noPlace))
		}
	}
	if n := m.left(); len(n) > 0 {
		m.fail("in the end the messages %v are left", n)
	}
	if n := m.pool.Living(); n != 0 {
		m.fail("in the end %d leases live", n)
	}
	for got := range m.asks {
		select {
		case <-got:
		case <-m.after(time.Minute):
			m.fail("an ask has no end")
		}
	}
}

func (m *leaseModel) after(d time.Duration) <-chan struct{} {
	ctx, cancel := context.WithTimeout(m.t.Context(), d)
	m.t.Cleanup(cancel)
	return ctx.Done()
}
