package pool_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"jobstream/jobs"
)

// TestPoolModel drives the pool at random and compares its choices with simple rules.
// No bound is exceeded, and the better priority comes first. A lane keeps its order,
// and types alternate. A job that may run does.
func TestPoolModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// The script is drawn before the bubble is entered: rapid ends a run by a
		// panic, which must not cross it.
		least := rapid.IntRange(0, 2).Draw(rt, "min")
		share := rapid.IntRange(0, 2).Draw(rt, "share")
		script := rapid.SliceOfN(rapid.Custom(drawStep), 1, 80).Draw(rt, "script")
		var wrong string
		synctest.Test(t, func(t *testing.T) { wrong = play(t, least, share, script) })
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

// step is one event. It decides what the numbers mean.
type step struct {
	What string
	Lane string
	N, M int
}

func drawStep(t *rapid.T) step {
	s := step{What: rapid.SampledFrom([]string{
		"submit", "submit", "submit", "submit", "submit", "end", "end", "end", "cancel", "revise", "revise", "pause", "resize", "cap", "min", "types", "pass", "pass",
	}).Draw(t, "what")}
	switch s.What {
	case "submit":
		s.Lane = rapid.SampledFrom([]string{"a", "b", "r"}).Draw(t, "type") + string('0'+rune(rapid.IntRange(1, 5).Draw(t, "priority")))
		s.N = rapid.IntRange(1, 4).Draw(t, "jobs")
		s.M = max(rapid.IntRange(-4, 2).Draw(t, "key"), 0)
	case "end", "cancel", "revise":
		s.M = rapid.IntRange(1, 5).Draw(t, "priority")
		s.N = rapid.IntRange(0, 1000).Draw(t, "which")
	case "types":
		s.Lane = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "type")
	case "pause", "cap":
		s.Lane = rapid.SampledFrom([]string{"a", "b", "r"}).Draw(t, "type")
		s.N = rapid.IntRange(0, 3).Draw(t, "cap")
	case "resize":
		s.N = rapid.IntRange(1, 7).Draw(t, "workers")
	case "min":
		s.N = rapid.IntRange(0, 3).Draw(t, "min")
	case "pass":
		s.N = rapid.SampledFrom([]int{1, 37, 100, 600, 3000, 20_000}).Draw(t, "ms")
	}
	return s
}

// The settings of the three types: a and b bound their keys, r its rate.
const (
	modelBurst = 2
	modelEvery = 200 * time.Millisecond
)

func modelTypes() []*jobs.Type {
	b := typ("b")
	b.MaxWorkers, b.ConcurrencyPerKey = 2, 2
	return []*jobs.Type{typ("a"), b, limited("r", "5/s", modelBurst)}
}

// modelJob is a job as the model sees it.
type modelJob struct {
	seq       uint64
	typ       string
	priority  int
	key       string
	begun     time.Time
	running   bool
	over      bool
	cancelled bool
}

type model struct {
	*rig
	jobs   []*modelJob // in the order of submission
	paused map[string]bool
	gone   map[string]bool // removed
	caps   map[string]int
	min    int
	max    int
	seen   int         // of gate.order
	starts []time.Time // of r
	// passed counts turns. It has the lanes that had something to run at the end of the
	// last step and have had no turn since. Its values are the types of the same
	// priority that had one.
	passed map[string]map[string]int
	// odd are lanes that had jobs which take a turn and do not run: cancelled ones
	// and those whose key is taken.
	odd   map[string]bool
	wrong []string
}

func (m *model) fail(format string, args ...any) {
	m.wrong = append(m.wrong, fmt.Sprintf(format, args...))
}

// play plays a script and says what was wrong, "" if nothing.
func play(t *testing.T, least, share int, script []step) string {
	r := newRig(t, rigOptions{workers: 5, min: least, share: share, types: modelTypes()})
	defer r.shut()
	m := &model{rig: r, paused: make(map[string]bool), gone: make(map[string]bool), caps: map[string]int{"b": 2}, min: least, max: 5, passed: make(map[string]map[string]int), odd: make(map[string]bool)}
	for i, s := range script {
		m.do(s)
		if m.check(s); len(m.wrong) > 0 {
			return fmt.Sprintf("step %d, %+v: %s", i, s, strings.Join(m.wrong, "; "))
		}
	}
	m.finale()
	return strings.Join(m.wrong, "; ")
}

func (m *model) do(s step) {
	switch s.What {
	case "submit":
		for range s.N {
			j := &modelJob{typ: s.Lane[:1], priority: int(s.Lane[1] - '0')}
			if s.M > 0 && j.typ != "r" {
				j.key = fmt.Sprint("k", s.M)
				m.odd[s.Lane] = true
			}
			j.seq = m.submitWith(s.Lane, func(msg *jobs.Message) {
				if j.key != "" {
					msg.Terms = &jobs.Terms{ConcurrencyKey: j.key}
				}
			})
			m.jobs = append(m.jobs, j)
		}
	case "end":
		if all := m.those(func(j *modelJob) bool { return j.running }); len(all) > 0 {
			j := all[s.N%len(all)]
			j.running, j.over = false, true
			m.passage(j.seq).end <- verdict{}
		}
	case "cancel":
		// A waiting job of r takes a token for the moment in which it is dropped,
		// which this model knows nothing of.
		all := m.those(func(j *modelJob) bool { return !j.over && (j.typ != "r" || j.running) })
		if len(all) > 0 {
			j := all[s.N%len(all)]
			m.odd[j.lane()] = m.odd[j.lane()] || !j.running
			j.running, j.over, j.cancelled = false, true, true
			m.cancel(j.seq, "by hand")
		}
	case "revise":
		all := m.those(func(j *modelJob) bool { return !j.over && j.key == "" && j.typ != "r" && !m.gone[j.typ] })
		if len(all) > 0 {
			m.revise(all[s.N%len(all)], s.M)
		}
	case "types":
		m.gone[s.Lane] = !m.gone[s.Lane]
		m.retype()
	case "pause", "cap":
		m.hold(s)
	case "resize":
		m.max, m.min = s.N, min(m.min, s.N)
		m.resize(&jobs.Resize{MaxWorkers: &s.N})
	case "min":
		m.min = min(s.N, m.max)
		m.resize(&jobs.Resize{MinWorkers: &m.min})
	case "pass":
		pass(time.Duration(s.N) * time.Millisecond)
	}
	m.quiet()
}

// revise moves a job that waits into another lane, behind all others there.
func (m *model) revise(j *modelJob, priority int) {
	release, ok := m.pool.Pin(m.job(j.seq).ID)
	if ok == j.running {
		m.fail("job %d can be kept from starting: %v", j.seq, ok)
	}
	if !ok {
		return
	}
	m.change(j.seq, func(r *jobs.Job) { r.Priority, r.Place = jobs.Priority(priority), jobs.Due })
	release()
	m.odd[j.lane()] = true // its old message takes a turn there
	j.priority = priority
	j.seq = m.publish(j.seq)
	m.jobs = append(slices.DeleteFunc(m.jobs, func(o *modelJob) bool { return o == j }), j)
}

// hold pauses or bounds a type, unless it is removed.
func (m *model) hold(s step) {
	switch {
	case m.gone[s.Lane]:
	case s.What == "pause":
		m.paused[s.Lane] = !m.paused[s.Lane]
		m.pool.SetPaused(s.Lane, m.paused[s.Lane])
	default:
		m.caps[s.Lane] = s.N
		m.resize(&jobs.Resize{Types: map[string]int{s.Lane: s.N}})
	}
}

// retype gives the pool the types that are not removed, defined anew but for r.
func (m *model) retype() {
	var types []*jobs.Type
	for _, t := range modelTypes() {
		if t.Name == "r" {
			t = m.reg.Lookup("r")
		}
		if !m.gone[t.Name] {
			types = append(types, t)
		}
	}
	m.setTypes(m.paused, types...)
	for name, w := range m.pool.Workers().Types {
		m.caps[name] = w.Max // one that was set by hand may have stayed
	}
}

// held says whether nothing of a type starts.
func (m *model) held(typ string) bool { return m.paused[typ] || m.gone[typ] }

func (m *model) those(is func(*modelJob) bool) (all []*modelJob) {
	for _, j := range m.jobs {
		if is(j) {
			all = append(all, j)
		}
	}
	return all
}

func (m *model) count(is func(*modelJob) bool) int { return len(m.those(is)) }

func (m *model) atWork(typ string) int {
	return m.count(func(j *modelJob) bool { return j.running && (typ == "" || j.typ == typ) })
}

func (j *modelJob) lane() string { return fmt.Sprint(j.typ, j.priority) }

func (j *modelJob) waits() bool { return !j.running && !j.over }

// tokens says whether one more job of r might have started at a moment. Even with it,
// no span of time before has more starts than burst and rate allow.
func (m *model) tokens(at time.Time) bool {
	starts := slices.DeleteFunc(slices.Clone(m.starts), at.Before)
	for i, from := range starts {
		if len(starts)-i+1 > modelBurst+int(at.Sub(from)/modelEvery) {
			return false
		}
	}
	return true
}

// mightRun says whether a job that waits might have run at some moment, but for
// the number of workers and its type's bound. Those with a key may be on their way
// back to the queue.
func (m *model) mightRun(j *modelJob, at time.Time) bool {
	return j.waits() && j.key == "" && !m.held(j.typ) && (j.typ != "r" || m.tokens(at))
}

func (m *model) mayRun(j *modelJob) bool { return m.mightRun(j, time.Now()) }

func (m *model) full(typ string) bool { return m.caps[typ] > 0 && m.atWork(typ) >= m.caps[typ] }

// begunNow takes what has begun in this step into the model.
func (m *model) begunNow() (all []*modelJob) {
	m.gate.mu.Lock()
	defer m.gate.mu.Unlock()
	for ; m.seen < len(m.gate.order); m.seen++ {
		var seq uint64
		_, text, _ := strings.Cut(m.gate.order[m.seen], "/")
		if _, err := fmt.Sscan(text, &seq); err != nil {
			panic(err)
		}
		i := slices.IndexFunc(m.jobs, func(j *modelJob) bool { return j.seq == seq })
		j := m.jobs[i]
		if !j.waits() {
			m.fail("job %d has begun though it is running or over", seq)
		}
		j.running, j.begun = true, m.gate.at[m.seen]
		if j.typ == "r" {
			m.starts = append(m.starts, j.begun)
		}
		all = append(all, j)
	}
	return all
}

func (m *model) check(s step) {
	begun := m.begunNow()
	w := m.pool.Workers()
	m.checkBounds(begun, w)
	if s.What == "types" { // the deliveries of one that is back come in any order
		clear(m.passed)
	} else {
		m.checkOrder(begun)
		m.checkTurns(begun)
	}
	if got, want := m.running(), m.running2(); got != want {
		m.fail("%q run, want %q", got, want)
	}
	var idle []uint64 // they could run
	for _, j := range m.those(m.mayRun) {
		if !m.full(j.typ) {
			idle = append(idle, j.seq)
		}
	}
	if len(idle) > 0 && m.atWork("") < w.Size {
		m.fail("%d of %d workers run, and %v do not start", m.atWork(""), w.Size, idle)
	}
	if len(idle) > 0 && s.What == "pass" && s.N >= 600 && w.Size < m.max {
		m.fail("%v do not start, and there are only %d workers of %d", idle, w.Size, m.max)
	}
}

// running2 are those that should run, as rig.running has them.
func (m *model) running2() string {
	var s []string
	for _, j := range m.those(func(j *modelJob) bool { return j.running }) {
		s = append(s, fmt.Sprint(j.seq))
	}
	return strings.Join(s, " ")
}

func (m *model) checkBounds(begun []*modelJob, w jobs.Workers) {
	if w.Max != m.max || w.Min != m.min || w.Size > w.Max || w.Size < w.Min || w.Min == 0 && w.Size != w.Max {
		m.fail("%d workers, %d to %d; the bounds are %d and %d", w.Size, w.Min, w.Max, m.min, m.max)
	}
	if n := m.atWork(""); n != w.Active || len(begun) > 0 && n > w.Size {
		m.fail("%d run of %d, the pool says %d", n, w.Size, w.Active)
	}
	for _, j := range begun {
		if m.held(j.typ) {
			m.fail("job %d of a paused or removed type has begun", j.seq)
		}
		if m.caps[j.typ] > 0 && m.atWork(j.typ) > m.caps[j.typ] {
			m.fail("%d of %s run, at most %d may", m.atWork(j.typ), j.typ, m.caps[j.typ])
		}
		most := map[string]int{"a": 1, "b": 2}[j.typ]
		if n := m.count(func(o *modelJob) bool { return o.running && o.typ == j.typ && o.key == j.key }); j.key != "" && n > most {
			m.fail("%d of %s run with the key %s, at most %d may", n, j.typ, j.key, most)
		}
	}
	for i := range m.starts {
		for k := i; k < len(m.starts); k++ {
			if span := m.starts[k].Sub(m.starts[i]); k-i+1 > modelBurst+int(span/modelEvery) {
				m.fail("%d of r have started in %s", k-i+1, span)
			}
		}
	}
}

// checkOrder wants nothing left behind that was before what has begun.
func (m *model) checkOrder(begun []*modelJob) {
	for _, j := range begun {
		for _, o := range m.jobs {
			switch {
			case !o.waits() || o.key != "" || m.held(o.typ):
			case o.typ == j.typ && (o.priority < j.priority || o.priority == j.priority && o.seq < j.seq && j.key == ""):
				m.fail("job %d of %s has begun before job %d of %s", j.seq, j.lane(), o.seq, o.lane())
			case o.priority < j.priority && m.mightRun(o, j.begun) && !m.full(o.typ):
				m.fail("job %d of %s has begun, and job %d of %s has not", j.seq, j.lane(), o.seq, o.lane())
			}
		}
	}
}

// checkTurns wants that no type has two turns while another one with the same
// priority waits for its first.
func (m *model) checkTurns(begun []*modelJob) {
	for lane := range m.passed {
		typ := lane[:1]
		mine := func(j *modelJob) bool { return j.typ == typ } // it may have been at its bound or without a token
		if m.odd[lane] || m.held(typ) || m.full(typ) || slices.ContainsFunc(begun, mine) {
			delete(m.passed, lane)
		}
	}
	for lane, turns := range m.passed {
		for _, j := range begun {
			if j.lane()[1:] == lane[1:] {
				if turns[j.typ]++; turns[j.typ] > 1 {
					m.fail("%s has had %d turns while %s waits", j.lane(), turns[j.typ], lane)
				}
			}
		}
	}
	waiting := make(map[string]bool)
	for _, j := range m.those(m.mayRun) {
		if !m.full(j.typ) && !m.odd[j.lane()] {
			waiting[j.lane()] = true
			if m.passed[j.lane()] == nil {
				m.passed[j.lane()] = make(map[string]int)
			}
		}
	}
	for lane := range m.passed {
		if !waiting[lane] {
			delete(m.passed, lane)
		}
	}
}

// finale lets everything run to its end: nothing is forgotten.
func (m *model) finale() {
	clear(m.gone)
	m.retype()
	for _, name := range []string{"a", "b", "r"} {
		m.pool.SetPaused(name, false)
	}
	m.quiet()
	for range 10 * (len(m.jobs) + 1) {
		if m.count(func(j *modelJob) bool { return !j.over }) == 0 && len(m.left()) == 0 {
			break
		}
		m.begunNow()
		for _, j := range m.those(func(j *modelJob) bool { return j.running }) {
			j.running, j.over = false, true
			m.passage(j.seq).end <- verdict{}
		}
		pass(250 * time.Millisecond)
	}
	for _, j := range m.jobs {
		want := jobs.Completed
		if j.cancelled {
			want = jobs.Cancelled
		}
		if got := m.job(j.seq).Status; got != want {
			m.fail("in the end job %d is %s, want %s", j.seq, got, want)
		}
	}
	if n := len(m.left()); n > 0 {
		m.fail("in the end %d messages are left", n)
	}
}
