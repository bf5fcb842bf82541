package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

func needsNotes(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: notes of clean stops on this system")
	}
}

func isThere(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// marked is a value that lies in pages of its own, and can be found there.
func marked(n int) []byte {
	return []byte(`here is value ` + string(rune('a'+n)) + strings.Repeat("x", 3*os.Getpagesize()))
}

// stopped makes a file that has been closed cleanly, with some marked values.
func stopped(t *testing.T) (path string) {
	t.Helper()
	db := made(t)
	for n := range 12 {
		db.put(t, marked(n), string(rune('a'+n)))
	}
	db.cleanly(t)
	return db.path
}

// rot turns the page of a marked value into one that is none of bbolt's.
func rot(t *testing.T, path string, n int) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size, page := os.Getpagesize(), 0
	plain, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true})
	if err != nil {
		t.Fatal(err)
	}
	err = plain.View(func(tx *bbolt.Tx) error {
		for id := 2; page == 0; {
			p, err := tx.Page(id)
			if err != nil || p == nil {
				return errors.Join(errors.New("the value is in no page that is used"), err)
			}
			next := id + 1
			if p.Type != "free" {
				next += p.OverflowCount
			}
			if p.Type == "leaf" && bytes.Contains(content[id*size:next*size], marked(n)[:15]) {
				page = id
			}
			id = next
		}
		return nil
	})
	if err := errors.Join(err, plain.Close()); err != nil {
		t.Fatal(err)
	}
	clear(content[page*size : page*size+pageHead])
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(content, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// A start after a clean stop reads only the pages that it needs. Neither the walk nor
// bbolt's scan for free pages, which fails at a rotten page, comes across one. Rot
// changes no times; here the note is adapted.
func TestCleanStopNeedsNoWalk(t *testing.T) {
	t.Parallel()
	needsNotes(t)
	path := stopped(t)
	note, err := os.ReadFile(intactOf(path))
	if err != nil {
		t.Fatal(err)
	}
	rot(t, path, 6)
	refused(t, path) // it was changed after the stop
	makeFit(t, path, note)
	db := opened(t, path)
	if isThere(t, intactOf(path)) {
		t.Error("an open file has the note of a clean stop")
	}
	db.get(t, "a")
	err = db.View(func(tx *Tx) error { tx.Bucket(things).Get([]byte("g")); return nil })
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("the value in the page that has rotted: %v", err)
	}
	db.get(t, "l")
}

// makeFit adapts the note of a stop to the present file, except for the content.
func makeFit(t *testing.T, path string, note []byte) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	now, _, _ := identity(info)
	was, rest, _ := strings.Cut(string(note), " commit ")
	if was == now {
		t.Fatal("the change does not show in the file's times")
	}
	if err := os.WriteFile(intactOf(path), []byte(now+" commit "+rest), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A rotten list of free pages is found, since bbolt would overwrite used pages.
func TestFreeListHasAChecksum(t *testing.T) {
	t.Parallel()
	needsNotes(t)
	path := stopped(t)
	note, err := os.ReadFile(intactOf(path))
	if err != nil {
		t.Fatal(err)
	}
	var list, used, commit uint64
	plain, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true})
	if err == nil {
		err = plain.View(func(tx *bbolt.Tx) (err error) {
			used, commit = uint64(tx.Cursor().Bucket().Root()), uint64(tx.ID())
			return nil
		})
		err = errors.Join(err, plain.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	size := os.Getpagesize()
	list, err = newPageWalk(f, size, 0).freeList(commit)
	if err == nil {
		_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, used), int64(list)*int64(size)+pageHead)
	}
	if err != nil {
		t.Fatal(err)
	}
	makeFit(t, path, note)
	refused(t, path)
}

// Any difference from the state of a clean stop means a walk. A stop that is not clean
// leaves no note.
func TestWalkedUnlessIntact(t *testing.T) {
	t.Parallel()
	needsNotes(t)
	t.Run("no note, as of an older jobstream", func(t *testing.T) {
		path := stopped(t)
		mustDo(t, os.Remove(intactOf(path)))
		rot(t, path, 6)
		refused(t, path)
	})
	t.Run("times put back", func(t *testing.T) {
		path := stopped(t)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		rot(t, path, 6)
		if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
		refused(t, path)
	})
	t.Run("a copy", func(t *testing.T) {
		path, to := stopped(t), filepath.Join(t.TempDir(), "status.db")
		rot(t, path, 6)
		for _, from := range []string{path, intactOf(path)} {
			content, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(strings.Replace(from, path, to, 1), content, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		refused(t, to)
	})
	t.Run("a killed process", func(t *testing.T) {
		path, to := stopped(t), filepath.Join(t.TempDir(), "status.db")
		opened(t, path).put(t, []byte("1"), "20")
		if isThere(t, intactOf(path)) {
			t.Error("there is a note while it is written to")
		}
		copyFile(t, path, to)
		copyFile(t, journalOf(path), journalOf(to))
		rot(t, to, 6)
		refused(t, to)
	})
	t.Run("a compaction", func(t *testing.T) {
		path := stopped(t)
		if _, _, err := Compact(path, time.Second, quiet); err != nil {
			t.Fatal(err)
		}
		if isThere(t, intactOf(path)) {
			t.Error("there is a note of the file before")
		}
		db := opened(t, path)
		db.get(t, "b")
		db.cleanly(t)
		if !isThere(t, intactOf(path)) {
			t.Error("the next clean stop leaves no note")
		}
	})
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, path string) {
	t.Helper()
	db, err := Open(Options{Path: path, LockTimeout: time.Second, Logger: quiet})
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("opened: %v, %v", db != nil, err)
	}
	if db != nil {
		_ = db.Close()
	}
}

// The list of free pages stays correct stop after stop, for pages that were freed,
// reused, or held the list before.
func TestFreeListOverStops(t *testing.T) {
	t.Parallel()
	needsNotes(t)
	db := made(t)
	for round := range 8 {
		var old []string
		for i := range 5 { // commits, of ten values each
			mustDo(t, db.Update(func(tx *Tx) (err error) {
				for n := 10 * i; n < 10*i+10; n++ {
					err = errors.Join(err, putIn(tx, marked(n%3), fmt.Sprint(round, n)))
					if n%3 > 0 {
						old = append(old, fmt.Sprint(round-1, n))
					}
				}
				return err
			}))
		}
		mustDo(t, db.Update(func(tx *Tx) (err error) {
			for _, key := range old {
				err = errors.Join(err, tx.Bucket(things).Delete([]byte(key)))
			}
			return err
		}))
		db.cleanly(t)
		if !isThere(t, intactOf(db.path)) {
			t.Fatal("a clean stop has left no note")
		}
		walkAndCheck(t, db.path)
		db = opened(t, db.path)
	}
}

// walkAndCheck checks a file with our walk and with bbolt's own check, which also finds
// pages that are neither used nor free.
func walkAndCheck(t *testing.T, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "status.db")
	if err := os.WriteFile(other, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&File{path: other, log: quiet}).check(time.Second); err != nil {
		t.Error(err)
	}
	plain, err := bbolt.Open(other, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true})
	if err != nil {
		t.Fatal(err)
	}
	err = plain.View(func(tx *bbolt.Tx) (all error) {
		for err := range tx.Check() {
			all = errors.Join(all, err)
		}
		return all
	})
	if err := errors.Join(err, plain.Close()); err != nil {
		t.Error(err)
	}
}

// The walk also checks the list of free pages, since bbolt overwrites them.
func TestCheckFindsFalseFreePages(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "status.db")
	plain, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	size := plain.Info().PageSize
	const large = manyFree + 4000 // more than a page's count can express
	err = plain.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("b"))
		return errors.Join(err, b.Put([]byte("large"), make([]byte, large*size)), b.Put([]byte("small"), []byte("1")))
	})
	if err == nil {
		err = plain.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("b")).Delete([]byte("large")) })
	}
	var list, used, pages uint64
	if err == nil {
		err = plain.View(func(tx *bbolt.Tx) error {
			used, pages = uint64(tx.Cursor().Bucket().Root()), uint64(tx.Size())/uint64(size)
			return nil
		})
	}
	if err := errors.Join(err, plain.Close()); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	order := binary.NativeEndian
	word := func(at uint64) uint64 {
		b := make([]byte, 8)
		if _, err := f.ReadAt(b, int64(at)); err != nil {
			t.Fatal(err)
		}
		return order.Uint64(b)
	}
	put := func(at, v uint64) {
		if _, err := f.WriteAt(order.AppendUint64(nil, v), int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	meta := uint64(0)
	if word(uint64(size)+metaCommit) > word(metaCommit) {
		meta = uint64(size)
	}
	list = word(meta+metaFree) * uint64(size)
	ids := list + pageHead
	if n := word(ids); n < large {
		t.Fatalf("%d pages are free", n)
	}
	db := &File{path: path, log: quiet}
	if err := db.check(time.Second); err != nil {
		t.Fatalf("an undamaged file: %v", err)
	}
	for _, bad := range []struct {
		name   string
		at, to uint64
		says   string
	}{
		{"a used page", ids + 800, used, "used"},
		{"the list itself", ids + 800, list / uint64(size), "used"},
		{"a page twice", ids + 800, word(ids + 808), "once more"},
		{"a meta page", ids + 8, 1, "is free, of pages"},
		{"a page outside", ids + 8*large, pages, "is free, of pages"},
		{"more pages than there are", ids, 1 << 62, "lists"},
		{"another kind of page", list + 8, leafPage, "flags"},
		{"another page", list, 3, "says that it is page"},
	} {
		was := word(bad.at)
		put(bad.at, bad.to)
		if err := db.check(time.Second); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), bad.says) {
			t.Errorf("%s: %v", bad.name, err)
		}
		put(bad.at, was)
	}
	if err := db.check(time.Second); err != nil {
		t.Errorf("undamaged once more: %v", err)
	}
}
