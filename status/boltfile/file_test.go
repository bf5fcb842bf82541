package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

var quiet = slog.New(slog.DiscardHandler)

var things = []byte("things")

// opened opens a file. The end of the test closes it, unless the test has done so.
func opened(t *testing.T, path string) *File {
	t.Helper()
	f, err := Open(Options{Path: path, LockTimeout: time.Second, Logger: quiet})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// made is a new file with no content.
func made(t *testing.T) *File {
	t.Helper()
	return opened(t, filepath.Join(t.TempDir(), "status.db"))
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put commits a value for each of the keys.
func (db *File) put(t *testing.T, value []byte, keys ...string) {
	t.Helper()
	mustDo(t, db.Update(func(tx *Tx) error { return putIn(tx, value, keys...) }))
}

func putIn(tx *Tx, value []byte, keys ...string) error {
	err := tx.Create(things)
	b := tx.Bucket(things)
	for i := 0; i < len(keys) && err == nil; i++ {
		err = b.Put([]byte(keys[i]), value)
	}
	return err
}

// get is the value of a key, which must have one.
func (db *File) get(t *testing.T, key string) (value []byte) {
	t.Helper()
	mustDo(t, db.View(func(tx *Tx) error {
		value = bytes.Clone(tx.Bucket(things).Get([]byte(key)))
		return nil
	}))
	if value == nil {
		t.Fatalf("%s is not there", key)
	}
	return value
}

// cleanly closes a file as a clean stop does.
func (db *File) cleanly(t *testing.T) {
	t.Helper()
	mustDo(t, db.UpdateLast(func(*Tx) error { return nil }))
	mustDo(t, db.Close())
}

// Present notices whether the file is still the one that others would open.
func TestPresent(t *testing.T) {
	t.Parallel()
	db := made(t)
	if err := db.Present(); err != nil {
		t.Errorf("a file that is there: %v", err)
	}
	away := db.path + ".away"
	mustDo(t, os.Rename(db.path, away))
	if err := db.Present(); err == nil {
		t.Error("a file that is gone")
	}
	mustDo(t, os.WriteFile(db.path, []byte("another"), 0o600))
	if err := db.Present(); err == nil {
		t.Error("a file that is another")
	}
	mustDo(t, os.Rename(away, db.path))
	if err := db.Present(); err != nil {
		t.Errorf("a file that is back: %v", err)
	}
}

// Present also covers the journal, and a clean stop makes up for a missing one.
func TestJournalRemoved(t *testing.T) {
	t.Parallel()
	db := made(t)
	if db.open.Load().journal == nil {
		t.Skip("NOT TESTED: there are no journals on this system")
	}
	db.put(t, []byte("1"), "a")
	mustDo(t, os.Remove(journalOf(db.path)))
	if err := db.Present(); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("a journal that is gone: %v", err)
	}
	db.put(t, []byte("2"), "b")
	mustDo(t, db.Close())
	db = opened(t, db.path)
	if err := db.Present(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	db.get(t, "a")
	db.get(t, "b")
}

// There is a journal if bbolt has the fields that it needs; the pinned version has
// them.
func TestThereIsAJournal(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: journals on this system")
	}
	db := made(t)
	db.put(t, []byte("1"), "a")
	if _, err := os.Stat(journalOf(db.path)); err != nil {
		t.Errorf("an open file has no journal: %v", err)
	}
	mustDo(t, db.Close())
	if _, err := os.Stat(journalOf(db.path)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a clean stop leaves its journal: %v", err)
	}
}

// A compaction first replays a journal that a crash left.
func TestCompactAfterACrash(t *testing.T) {
	t.Parallel()
	db := made(t)
	db.put(t, []byte("1"), "a")
	db.put(t, []byte("2"), "b")
	crashed := filepath.Join(t.TempDir(), "status.db")
	copyFile(t, journalOf(db.path), journalOf(crashed))
	content, err := os.ReadFile(db.path)
	mustDo(t, err)
	clear(content[2*os.Getpagesize():]) // the state after a power cut during the last commit
	mustDo(t, os.WriteFile(crashed, content, 0o600))
	_, _, err = Compact(crashed, time.Second, quiet)
	mustDo(t, err)
	if _, err := os.Stat(journalOf(crashed)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the journal of the old file is there: %v", err)
	}
	again := opened(t, crashed)
	again.get(t, "a")
	again.get(t, "b")
}

// A file without its end is refused, even if only free pages are missing.
func TestShortFile(t *testing.T) {
	t.Parallel()
	db := made(t)
	db.put(t, make([]byte, 1<<20), "large")
	var size int64
	mustDo(t, db.View(func(tx *Tx) error { size = tx.Size(); return nil }))
	mustDo(t, db.Close())
	mustDo(t, os.Truncate(db.path, size-1))
	if again, err := Open(Options{Path: db.path, LockTimeout: time.Second, Logger: quiet}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("opened: %v, %v", again != nil, err)
	}
}

// A page that points to itself, as flipped bits can make it, is found before a cursor
// of bbolt follows it for ever.
func TestCheckFindsPagesInCircles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "status.db")
	plain, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	size := plain.Info().PageSize
	err = plain.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("many"))
		for i := uint64(0); err == nil && i < 5000; i++ {
			err = b.Put(binary.BigEndian.AppendUint64(nil, i), make([]byte, i%3*uint64(size)/2)) // some overflow their page
		}
		return err
	})
	if err := errors.Join(err, plain.Close()); err != nil {
		t.Fatal(err)
	}
	db := &File{path: path, log: quiet}
	if err := db.check(time.Second); err != nil {
		t.Fatalf("an undamaged file: %v", err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	mustDo(t, err)
	defer func() { _ = f.Close() }()
	put := func(id uint64, at int) {
		_, err := f.WriteAt(binary.NativeEndian.AppendUint64(nil, id), int64(at))
		mustDo(t, err)
	}
	checked := 0
	for at := 2 * size; at < len(good); at += size {
		if id := binary.NativeEndian.Uint64(good[at:]); id != uint64(at/size) || binary.NativeEndian.Uint16(good[at+8:]) != branchPage {
			continue
		}
		child := at + pageHead + 8 // the first one
		put(uint64(at/size), child)
		if err := db.check(time.Second); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "used twice") {
			t.Errorf("page %d points to itself: %v", at/size, err)
		}
		put(binary.NativeEndian.Uint64(good[child:]), child)
		checked++
	}
	if checked == 0 {
		t.Fatal("the file has no branch page")
	}
}
