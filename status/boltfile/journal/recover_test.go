package journal

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// left has the files of a process that was killed after some commits.
type left struct {
	path, journal string
	empty, last   []byte // bbolt's file before the commits, and after them
	records       []byte
	is            content
}

func killed(t tb, dir string) (l left) {
	t.Helper()
	l.path, l.is = filepath.Join(dir, "db"), make(content)
	l.journal = l.path + "-journal"
	db := openBolt(t, l.path, 0)
	var err error
	l.empty, err = os.ReadFile(l.path)
	do(t, err)
	j, _, err := Attach(db, l.journal)
	do(t, err)
	if j == nil {
		return l
	}
	for i := range 5 {
		ch := []change{{bucket: "b", key: fmt.Sprint(i), value: fmt.Sprint(i)}}
		do(t, db.Update(func(tx *bbolt.Tx) error { return apply(tx, ch) }))
		l.is = l.is.with(ch)
	}
	l.last, err = os.ReadFile(l.path)
	do(t, err)
	l.records = make([]byte, 200<<10)
	f, err := os.Open(l.journal)
	do(t, err)
	_, err = f.ReadAt(l.records, 0)
	do(t, errors.Join(err, f.Close(), j.Close(), db.Close()))
	do(t, os.WriteFile(l.path, l.empty, 0o600))
	do(t, os.WriteFile(l.journal, l.records, 0o600))
	return l
}

func (l *left) recover() error { return Recover(l.path, l.journal, time.Second, quiet) }

// holds checks the content of the file, and that there is no journal.
func (l *left) holds(t *testing.T, want content) {
	t.Helper()
	if _, err := os.Stat(l.journal); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the journal: %v", err)
	}
	db := openBolt(t, l.path, 0)
	defer func() { do(t, db.Close()) }()
	do(t, db.View(func(tx *bbolt.Tx) error {
		got, err := contentOf(tx)
		if !maps.Equal(got, want) {
			t.Errorf("%s, want %s", brief(got), brief(want))
		}
		return errors.Join(err, whole(tx))
	}))
}

// No commit has reached bbolt's file: the journal has them all.
func TestRecover(t *testing.T) {
	l := killed(t, t.TempDir())
	if !supported {
		t.Skip("NOT TESTED, journals: not on this system")
	}
	do(t, l.recover())
	l.holds(t, l.is)
	do(t, l.recover()) // there is nothing left to do
	l.holds(t, l.is)
}

// A journal applies only to its own file.
func TestRecoverOtherFile(t *testing.T) {
	if !supported {
		t.Skip("NOT TESTED, journals: not on this system")
	}
	another := func(l *left) content {
		do(t, os.Remove(l.path))
		db := openBolt(t, l.path, 0)
		for range 9 {
			do(t, db.Update(func(tx *bbolt.Tx) error { return apply(tx, []change{{bucket: "other", key: "k", value: "v"}}) }))
		}
		do(t, db.Close())
		return content{"other": "", "other/k": "v"}
	}
	for name, replace := range map[string]func(l *left) content{
		"gone":    func(l *left) content { do(t, os.Remove(l.path)); return content{} },
		"emptied": func(l *left) content { do(t, os.WriteFile(l.path, nil, 0o600)); return content{} },
		"another": another,
		"another, and the journal damaged": func(l *left) content {
			is := another(l)
			flip(l, 2)
			return is
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := killed(t, t.TempDir())
			want := replace(&l)
			do(t, l.recover())
			l.holds(t, want)
		})
	}
}

// flip changes a bit of the n-th record.
func flip(l *left, n int) {
	found := read(bytes.NewReader(l.records), areaSize)
	at := int64(0)
	for _, r := range found[:n] {
		at += r.size()
	}
	l.records[at+blockSize+1] ^= 1
	if err := os.WriteFile(l.journal, l.records, 0o600); err != nil {
		panic(err)
	}
}

// A damaged record in the middle was whole once, because later ones exist.
func TestRecoverDamaged(t *testing.T) {
	if !supported {
		t.Skip("NOT TESTED, journals: not on this system")
	}
	l := killed(t, t.TempDir())
	flip(&l, 2)
	if err := l.recover(); !errors.Is(err, ErrDamaged) {
		t.Fatalf("%v, want ErrDamaged", err)
	}
	if b, err := os.ReadFile(l.path); err != nil || !bytes.Equal(b, l.empty) {
		t.Errorf("the file has changed: %v", err)
	}
	if _, err := os.Stat(l.journal); err != nil {
		t.Errorf("the journal is gone: %v", err)
	}
}

// While another process has the file open, neither it nor the journal is touched.
func TestRecoverLocked(t *testing.T) {
	if !supported {
		t.Skip("NOT TESTED, journals: not on this system")
	}
	l := killed(t, t.TempDir())
	db := openBolt(t, l.path, 0)
	if err := Recover(l.path, l.journal, time.Millisecond, quiet); !errors.Is(err, bolterrors.ErrTimeout) {
		t.Errorf("%v, want ErrTimeout", err)
	}
	if _, _, err := Attach(db, l.journal); !errors.Is(err, bolterrors.ErrTimeout) {
		t.Errorf("Attach beside a journal that was left: %v, want ErrTimeout", err)
	}
	do(t, db.Close())
	do(t, l.recover())
	l.holds(t, l.is)
}

// No content of a journal makes the reader panic, and the records that it returns are
// consistent.
func FuzzRead(f *testing.F) {
	const size = 40 << 10
	l := killed(f, f.TempDir())
	f.Add([]byte(nil), uint32(0), byte(0))
	f.Add(l.records, uint32(70), byte(1))
	f.Add(l.records[:30000], uint32(40), byte(255))
	f.Fuzz(func(t *testing.T, b []byte, at uint32, x byte) {
		b = bytes.Clone(b)
		if len(b) > 0 {
			b[int(at)%len(b)] ^= x
		}
		found := read(bytes.NewReader(b), size)
		for i, r := range found {
			n := 0
			for _, s := range r.spans {
				n += s.length
			}
			if n != len(r.pages) || i > 0 && r.lsn <= found[i-1].lsn {
				t.Errorf("record %d: %d bytes in spans, %d in pages, LSN %d", i, n, len(r.pages), r.lsn)
			}
		}
		path := filepath.Join(t.TempDir(), "db")
		do(t, os.WriteFile(path, l.empty, 0o600))
		do(t, os.WriteFile(path+"-journal", b, 0o600))
		if err := recoverFile(path, path+"-journal", time.Second, size, quiet); err != nil && !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
	})
}

// A commit with the journal, and one without.
func BenchmarkCommit(b *testing.B) {
	for _, keys := range []int{1, 1000} {
		for _, with := range []bool{false, true} {
			b.Run(fmt.Sprintf("keys=%d/journal=%t", keys, with), func(b *testing.B) {
				b.ReportAllocs()
				path := filepath.Join(b.TempDir(), "db")
				db := openBolt(b, path, 0)
				defer func() { do(b, db.Close()) }()
				if with {
					j, _, err := Attach(db, path+"-journal")
					do(b, err)
					if j != nil {
						defer func() { do(b, j.Close()) }()
					}
				}
				n, value := 0, make([]byte, 200)
				for b.Loop() {
					do(b, db.Update(func(tx *bbolt.Tx) error {
						bucket, err := tx.CreateBucketIfNotExists([]byte("b"))
						for range keys {
							if n++; err == nil {
								err = bucket.Put(fmt.Appendf(nil, "%08d", n), value)
							}
						}
						return err
					}))
				}
			})
		}
	}
}
