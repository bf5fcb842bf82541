package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

var quiet = slog.New(slog.DiscardHandler)

// content is the content of a database: bucket and key → value.
type content map[string]string

// tb is the common part of *testing.T, *testing.B and *rapid.T.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

func do(t tb, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

func contentOf(tx *bbolt.Tx) (content, error) {
	c := make(content)
	err := tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		c[string(name)] = ""
		return b.ForEach(func(k, v []byte) error {
			c[string(name)+"/"+string(k)] = string(v)
			return nil
		})
	})
	return c, err
}

// change is one step of a transaction.
type change struct {
	bucket, key, value string
	remove             bool
}

func (c content) with(changes []change) content {
	c = maps.Clone(c)
	for _, ch := range changes {
		c[ch.bucket] = ""
		if k := ch.bucket + "/" + ch.key; ch.remove {
			delete(c, k)
		} else {
			c[k] = ch.value
		}
	}
	return c
}

func apply(tx *bbolt.Tx, changes []change) error {
	for _, ch := range changes {
		b, err := tx.CreateBucketIfNotExists([]byte(ch.bucket))
		if err == nil && ch.remove {
			err = b.Delete([]byte(ch.key))
		} else if err == nil {
			err = b.Put([]byte(ch.key), []byte(ch.value))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// whole is bbolt's own check.
func whole(tx *bbolt.Tx) (err error) {
	for e := range tx.Check() {
		err = errors.Join(err, e)
	}
	return err
}

// room is how much of a file bbolt maps at once. With so much it never has to wait for
// readers.
const room = 64 << 20

func openBolt(t tb, path string, pageSize int) *bbolt.DB {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		NoFreelistSync: true, FreelistType: bbolt.FreelistArrayType, InitialMmapSize: room, PageSize: pageSize, Timeout: time.Second,
	})
	do(t, err)
	db.AllocSize = 64 << 10 // the steps by which the file grows
	return db
}

// reader is an open transaction, and the content that it must see until its end.
type reader struct {
	tx   *bbolt.Tx
	sees content
}

// machine is a process that commits on a faulty disk, and the content that must be
// there.
type machine struct {
	rt      *rapid.T
	dir     string
	path    string
	size    int64 // of an area
	power   *power
	db      *bbolt.DB
	j       *Journal
	target  *faulty
	file    *faulty // the journal
	is      content
	could   []content // of the commits that failed since the last one that did not
	readers []reader
	n       int
	stats   *counts
}

// counts show whether the test reached its cases.
type counts struct {
	commits, failed, cuts, redone, turns, notes, large, mended, interrupted int
}

func (m *machine) start() {
	m.db = openBolt(m.rt, m.path, 0)
	f, err := os.OpenFile(m.path, os.O_RDWR, 0)
	do(m.rt, err)
	safe, err := os.ReadFile(m.path)
	do(m.rt, err)
	m.target, m.file = &faulty{power: m.power, f: f, safe: safe, held: true}, nil
	m.j = attach(m.db, m.path+"-journal", m.target, func(path string) (disk, error) {
		f, err := create(path)
		if err == nil {
			m.file = &faulty{power: m.power, f: f.(diskFile).File}
			f = m.file
		}
		return f, err
	}, m.size)
}

// run runs f, and ends checkpoints when it waits for one.
func (m *machine) run(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	for {
		synctest.Wait()
		select {
		case err := <-done:
			return err
		default:
			m.power.open()
		}
	}
}

// images are the contents of both files.
type images struct {
	db, journal []byte
	journals    bool // there is one
}

// moment is both files at a moment.
type moment struct {
	db, journal snapshot
	journals    bool
}

// freeze must be called with the lock of the disk held.
func (m *machine) freeze() (at moment, err error) {
	at.db, err = m.target.snap()
	if err == nil && m.file != nil {
		at.journals = true
		at.journal, err = m.file.snap()
	}
	return at, err
}

// commit draws a transaction and commits it. It also looks at the state that a power
// cut in the middle of it leaves.
func (m *machine) commit() {
	var changes []change
	huge := false
	for range rapid.IntRange(1, 6).Draw(m.rt, "changes") {
		m.n++
		length := rapid.SampledFrom([]int{0, 10, 100, 3000, 9000, 20000}).Draw(m.rt, "length")
		if rapid.IntRange(0, 60).Draw(m.rt, "huge") == 60 {
			length, huge = int(m.size), true
		}
		changes = append(changes, change{
			bucket: fmt.Sprintf("b%d", rapid.IntRange(0, 3).Draw(m.rt, "bucket")),
			key:    fmt.Sprintf("k%d", rapid.IntRange(0, 15).Draw(m.rt, "key")),
			value:  strings.Repeat(fmt.Sprintf("%d.", m.n), length/2),
			remove: rapid.IntRange(0, 3).Draw(m.rt, "remove") == 0,
		})
	}
	would := m.is.with(changes)
	// The failures of this commit, by the numbers of its writes and syncs.
	faults := make(map[int]bool)
	if rapid.IntRange(0, 3).Draw(m.rt, "faults") == 0 {
		for range rapid.IntRange(1, 3).Draw(m.rt, "how many") {
			faults[rapid.IntRange(0, 12).Draw(m.rt, "fault")] = true
		}
	}
	badSync := rapid.IntRange(0, 4).Draw(m.rt, "checkpoint fails") == 4
	op, cutAt := 0, rapid.IntRange(0, 20).Draw(m.rt, "cut at")
	var at moment
	frozen := false
	m.power.mu.Lock()
	m.power.fails = func(d *faulty, sync bool) bool { op++; return faults[op-1] || badSync && sync && d == m.target }
	m.power.watch = func() {
		if op == cutAt && !frozen {
			var err error
			if at, err = m.freeze(); err != nil {
				panic(err)
			}
			frozen = true
		}
	}
	m.power.mu.Unlock()
	failed, active, lsn := m.j.failed, m.j.areas.active, m.j.lsn
	err := m.run(func() error { return m.db.Update(func(tx *bbolt.Tx) error { return apply(tx, changes) }) })
	m.power.mu.Lock()
	m.power.fails, m.power.watch = func(*faulty, bool) bool { return false }, func() {}
	m.power.mu.Unlock()

	m.stats.commits++
	if failed && !m.j.failed {
		m.stats.mended++
	}
	if active != m.j.areas.active {
		m.stats.turns++
	}
	if err == nil && m.j.lsn > lsn+1 {
		m.stats.notes++
	}
	if frozen {
		m.check(at, append([]content{m.is, would}, m.could...))
	}
	if err == nil {
		m.is, m.could = would, nil
		if huge {
			m.stats.large++
		}
	} else {
		if !errors.Is(err, errFaulty) {
			m.rt.Fatalf("a commit on a faulty disk: %v", err)
		}
		m.stats.failed++
		m.could = append(m.could, would)
	}
	m.look()
}

// look compares the process's view with the expected content.
func (m *machine) look() {
	m.rt.Helper()
	do(m.rt, m.db.View(func(tx *bbolt.Tx) error {
		m.compare(tx, m.is)
		return whole(tx)
	}))
	for _, r := range m.readers {
		m.compare(r.tx, r.sees)
	}
}

func (m *machine) compare(tx *bbolt.Tx, want content) {
	m.rt.Helper()
	got, err := contentOf(tx)
	do(m.rt, err)
	if !maps.Equal(got, want) {
		m.rt.Fatalf("%s\nwant %s", brief(got), brief(want))
	}
}

func brief(c content) string {
	short := make(map[string]string)
	for k, v := range c {
		short[k] = fmt.Sprintf("%.8s(%d)", v, len(v))
	}
	return fmt.Sprint(short)
}

// check cuts the power at a moment, recovers, and looks for one of several contents. It
// returns that and the files.
func (m *machine) check(at moment, allowed []content) (content, images) {
	m.rt.Helper()
	m.stats.cuts++
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(m.rt, "cut"), 2))
	var left images
	if rapid.IntRange(0, 4).Draw(m.rt, "kill only") == 0 {
		left = images{at.db.shown, at.journal.shown, at.journals}
	} else {
		left = images{at.db.cut(rng, rapid.Bool().Draw(m.rt, "grown")), at.journal.cut(rng, false), at.journals}
	}
	return m.recovered(left, allowed), left
}

// recovered recovers the files, perhaps with an interruption or two, and finds out
// which of the contents they have. The files are m.dir's image and image-journal.
func (m *machine) recovered(left images, allowed []content) content {
	m.rt.Helper()
	path := filepath.Join(m.dir, "image")
	journal := path + "-journal"
	for range rapid.IntRange(0, 2).Draw(m.rt, "interruptions") {
		if !left.journals {
			break
		}
		left = m.interrupted(path, left)
	}
	do(m.rt, os.WriteFile(path, left.db, 0o600))
	if left.journals {
		do(m.rt, os.WriteFile(journal, left.journal, 0o600))
		m.stats.redone++
	}
	do(m.rt, recoverFile(path, journal, time.Second, m.size, quiet))
	if _, err := os.Stat(journal); !errors.Is(err, os.ErrNotExist) {
		m.rt.Fatalf("after the recovery the journal is there: %v", err)
	}
	if left.journals && rapid.IntRange(0, 4).Draw(m.rt, "unlink lost") == 0 {
		do(m.rt, os.WriteFile(journal, left.journal, 0o600))
		do(m.rt, recoverFile(path, journal, time.Second, m.size, quiet))
	}
	return m.one(path, allowed)
}

// one opens a file that needs no journal, and returns which of the contents it has.
func (m *machine) one(path string, allowed []content) (found content) {
	m.rt.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second}) // so a broken file breaks here, not in a goroutine of bbolt's
	do(m.rt, err)
	defer func() { do(m.rt, db.Close()) }()
	do(m.rt, db.View(func(tx *bbolt.Tx) error {
		got, err := contentOf(tx)
		for _, c := range allowed {
			if maps.Equal(got, c) {
				found = c
				return errors.Join(err, whole(tx))
			}
		}
		m.rt.Fatalf("after the power cut there is\n%s\nwant %s\nor one of %d others", brief(got), brief(allowed[0]), len(allowed)-1)
		return err
	}))
	return found
}

// interrupted recovers until a power cut at a write or sync, and returns the files:
// without the journal, if it was done.
func (m *machine) interrupted(path string, left images) images {
	m.rt.Helper()
	m.stats.interrupted++
	do(m.rt, os.WriteFile(path, left.db, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	do(m.rt, err)
	p := newPower(rapid.Uint64().Draw(m.rt, "interruption"))
	d := &faulty{power: p, f: f, safe: append([]byte(nil), left.db...)}
	n := rapid.IntRange(0, 60).Draw(m.rt, "at")
	p.fails = func(*faulty, bool) bool { n--; return n < 0 }
	err = redo(d, newImage(left.journal), m.size, quiet)
	left.journals = err != nil
	if err != nil && !errors.Is(err, errFaulty) {
		m.rt.Fatalf("interrupted: %v", err)
	}
	s, err := d.snap()
	do(m.rt, err)
	do(m.rt, d.Close())
	left.db = s.cut(p.rng, rapid.Bool().Draw(m.rt, "grown"))
	return left
}

// die cuts the power and starts again.
func (m *machine) die() {
	m.power.mu.Lock()
	at, err := m.freeze()
	m.power.mu.Unlock()
	do(m.rt, err)
	is, left := m.check(at, append([]content{m.is}, m.could...))
	m.abandon()
	do(m.rt, os.WriteFile(m.path, left.db, 0o600))
	if left.journals {
		do(m.rt, os.WriteFile(m.path+"-journal", left.journal, 0o600))
	}
	do(m.rt, recoverFile(m.path, m.path+"-journal", time.Second, m.size, quiet))
	m.is, m.could = is, nil
	m.start()
}

// abandon ends the process without a clean stop.
func (m *machine) abandon() {
	for _, r := range m.readers {
		do(m.rt, r.tx.Rollback())
	}
	m.readers = nil
	if m.j.running != nil {
		m.power.open()
		synctest.Wait()
	}
	do(m.rt, m.db.Close())
	do(m.rt, m.target.Close())
	if m.file != nil {
		do(m.rt, m.file.Close())
		do(m.rt, os.Remove(m.path+"-journal"))
	}
	do(m.rt, os.Remove(m.path))
}

// stop closes the journal, perhaps on a faulty disk, and starts again.
func (m *machine) stop() {
	for _, r := range m.readers {
		do(m.rt, r.tx.Rollback())
	}
	m.readers = nil
	op, fault := 0, rapid.IntRange(0, 9).Draw(m.rt, "fault")
	m.power.mu.Lock()
	m.power.fails = func(*faulty, bool) bool { op++; return op-1 == fault }
	var journal []byte
	if m.file != nil {
		s, err := m.file.snap()
		do(m.rt, err)
		journal = s.shown
	}
	m.power.mu.Unlock()
	err := m.run(m.j.Close)
	m.power.mu.Lock()
	m.power.fails = func(*faulty, bool) bool { return false }
	alone := m.target.safe
	m.power.mu.Unlock()
	if uerr := m.db.Update(func(*bbolt.Tx) error { return nil }); !errors.Is(uerr, os.ErrClosed) {
		m.rt.Fatalf("a commit after Close: %v", uerr)
	}
	do(m.rt, m.db.Close())
	_, missing := os.Stat(m.path + "-journal")
	switch {
	case err == nil:
		if !errors.Is(missing, os.ErrNotExist) {
			m.rt.Fatalf("a clean stop leaves the journal: %v", missing)
		}
		// The file is complete by itself, and a journal whose removal was lost does no
		// harm.
		path := filepath.Join(m.dir, "image")
		do(m.rt, os.WriteFile(path, alone, 0o600))
		m.one(path, []content{m.is})
		if journal != nil && rapid.Bool().Draw(m.rt, "unlink lost") {
			is := m.recovered(images{alone, journal, true}, append([]content{m.is}, m.could...))
			do(m.rt, os.WriteFile(m.path+"-journal", journal, 0o600))
			m.is = is
		}
	case !errors.Is(err, errFaulty) || missing != nil:
		m.rt.Fatalf("Close: %v, and the journal: %v", err, missing)
	default:
		m.is = m.recovered(images{m.shown(m.path), m.shown(m.path + "-journal"), true}, append([]content{m.is}, m.could...))
	}
	m.could = nil
	do(m.rt, recoverFile(m.path, m.path+"-journal", time.Second, m.size, quiet))
	m.start()
	m.look()
}

func (m *machine) shown(path string) []byte {
	b, err := os.ReadFile(path)
	do(m.rt, err)
	return b
}

// Every acknowledged commit is there after a power cut at any moment, and no commit is
// there by half; even if the disk failed before.
func TestPowerCut(t *testing.T) {
	var stats counts
	dir := t.TempDir()
	round := 0
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ rapid.TB }{t}, func(rt *rapid.T) { // without the Deadline, which a bubble does not have
			time.Sleep(200 * time.Millisecond) // for rapid's own time limit, which stands still here
			round++
			m := &machine{rt: rt, dir: filepath.Join(dir, fmt.Sprint(round)), is: make(content), stats: &stats}
			do(rt, os.Mkdir(m.dir, 0o700))
			defer func() { _ = os.RemoveAll(m.dir) }()
			m.path = filepath.Join(m.dir, "db")
			page := rapid.SampledFrom([]int{4096, 4096, 16384}).Draw(rt, "page")
			m.size = int64(rapid.SampledFrom([]int{12, 20, 40}).Draw(rt, "area") * page)
			m.power = newPower(rapid.Uint64().Draw(rt, "seed"))
			do(rt, openBolt(rt, m.path, page).Close())
			m.start()
			for range rapid.IntRange(10, 60).Draw(rt, "steps") {
				switch rapid.IntRange(0, 23).Draw(rt, "step") {
				case 0:
					m.die()
				case 1:
					m.stop()
				case 2, 3:
					tx, err := m.db.Begin(false)
					do(rt, err)
					m.readers = append(m.readers, reader{tx, m.is})
				case 4, 5:
					if n := len(m.readers); n > 0 {
						do(rt, m.readers[n-1].tx.Rollback())
						m.readers = m.readers[:n-1]
					}
				case 6, 7, 8:
					m.power.open() // a checkpoint ends
					synctest.Wait()
				case 9:
					time.Sleep(haste) // by the bubble's clock: an area that is full soon makes the next one larger
				default:
					m.commit()
				}
			}
			m.die()
			m.abandon()
		})
	})
	t.Logf("%+v", stats)
}
