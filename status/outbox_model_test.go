package status

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobstream/jobs"
)

// anEnd is how a job has ended once.
type anEnd struct {
	key    uint64
	run    int
	status jobs.Status
}

// outboxModel knows which ends have still to be notified.
type outboxModel struct {
	*tracker
	reader *Outbox
	next   uint64 // sequence of JOBS
	clock  int
	alive  []uint64         // keys of unfinished jobs
	ended  []uint64         // and of those that have ended
	owed   map[anEnd]bool   // ends that have not been notified
	again  map[anEnd]uint64 // ends that are notified again after a crash, and their commits
}

func (m *outboxModel) now() jobs.Time {
	m.clock++
	return epoch.Add(seconds(1000 + m.clock))
}

func (m *outboxModel) committed(c *jobs.Commit) {
	for j := range c.Ended() {
		e := anEnd{j.Key, j.Run, j.Status}
		m.owed[e], m.again[e] = true, c.Number
		m.ended = append(m.ended, j.Key)
		m.alive = slices.DeleteFunc(m.alive, func(key uint64) bool { return key == j.Key })
	}
}

// notify reads a piece, and says whether there was any.
func (m *outboxModel) notify() bool {
	some, err := m.reader.Read()
	m.must(err)
	m.reader.Stored()
	for _, j := range some {
		delete(m.owed, anEnd{j.Key, j.Run, j.Status})
	}
	return len(some) > 0
}

func (m *outboxModel) hearAll(t *rapid.T) {
	for m.notify() {
	}
	if len(m.owed) > 0 {
		t.Fatalf("not notified: %v", m.owed)
	}
}

func (m *outboxModel) restart() {
	m.reopen()
	m.reader = m.Outbox()
}

func (m *outboxModel) submit(*rapid.T) {
	m.receives(message(m.next))
	m.alive = append(m.alive, m.next)
	m.next++
}

func (m *outboxModel) end(t *rapid.T) {
	var events []jobs.Event
	for _, key := range someOf(t, m.alive) {
		kind := rapid.SampledFrom([]jobs.Kind{jobs.KindFailed, jobs.KindCompleted}).Draw(t, "kind")
		events = append(events, of(kind, m.find(key), m.now()))
	}
	m.committed(m.folds(nil, events...))
}

func (m *outboxModel) cancel(t *rapid.T) {
	_, c := m.cancels(someOf(t, m.alive)...)
	m.committed(c)
}

func (m *outboxModel) retry(t *rapid.T) {
	changed, _, _ := m.retries(someOf(t, m.ended)...)
	m.ended = slices.DeleteFunc(m.ended, func(key uint64) bool { return slices.Contains(changed, key) })
	m.alive = append(m.alive, changed...)
	for _, again := range m.released(m.now(), m.next) {
		m.receives(again)
		m.next++
	}
}

func (m *outboxModel) remove(t *rapid.T) {
	gone := someOf(t, m.ended)
	if n := m.deletes(gone...); n != len(gone) {
		t.Fatalf("%d of %d deleted", n, len(gone))
	}
	m.ended = slices.DeleteFunc(m.ended, func(key uint64) bool { return slices.Contains(gone, key) })
	for e, number := range m.again { // what was notified before it was deleted is not notified again
		if slices.Contains(gone, e.key) && number <= m.notified.Load() {
			delete(m.again, e)
		}
	}
}

// age lets the entries go that were notified when it was called last.
func (m *outboxModel) age(*rapid.T) {
	m.since, m.young, m.old = time.Now(), m.notified.Load(), m.young
	m.folds(nil)
}

func (m *outboxModel) crash(*rapid.T) {
	for e, number := range m.again {
		if number > m.old {
			m.owed[e] = true
		} else {
			delete(m.again, e)
		}
	}
	m.restart()
}

func (m *outboxModel) cleanStop(t *rapid.T) {
	m.hearAll(t)
	m.must(m.MarkClean(Clean{}))
	clear(m.again)
	m.restart()
}

// someOf draws at least one of the keys.
func someOf(t *rapid.T, keys []uint64) []uint64 {
	if len(keys) == 0 {
		t.Skip("there are none")
	}
	return slices.Clone(rapid.Permutation(keys).Draw(t, "keys")[:rapid.IntRange(1, len(keys)).Draw(t, "number")])
}

// Each end is notified, whatever becomes of its job and whenever the process dies. After
// a crash it is notified once more, unless it was stored for long enough.
func TestOutboxModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		m := &outboxModel{
			tracker: open(rt, Options{Path: filepath.Join(t.TempDir(), "status.db"), Registry: termTypes}),
			next:    1, owed: make(map[anEnd]bool), again: make(map[anEnd]uint64),
		}
		defer func() { m.stop() }()
		m.endsRebuild()
		m.reader = m.Outbox()
		rt.Repeat(map[string]func(*rapid.T){
			"submit": m.submit, "end": m.end, "cancel": m.cancel, "retry": m.retry, "delete": m.remove,
			"notify": func(*rapid.T) { m.notify() }, "age": m.age, "crash": m.crash, "clean stop": m.cleanStop,
		})
		m.hearAll(rt)
	})
}
