package boltfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// freshOf is a file beside another one, in which a has a value.
func freshOf(t *testing.T, db *File, value string) *File {
	t.Helper()
	fresh, err := Open(Options{Path: db.path + ".new", LockTimeout: time.Second, Logger: quiet})
	mustDo(t, err)
	fresh.room(t)
	fresh.put(t, []byte(value), "a")
	return fresh
}

// room makes so much room in the file that no commit has to wait for readers, as growing
// would.
func (db *File) room(t *testing.T) {
	t.Helper()
	db.put(t, make([]byte, 4<<20), "room")
	db.put(t, nil, "room")
}

// A file is replaced again and again under those who read and write it. Nobody gets an
// error. Who has begun to read goes on in the old one, and what is written is in the new
// one, also after a crash.
func TestReplace(t *testing.T) {
	t.Parallel()
	db := made(t)
	db.room(t)
	db.put(t, []byte("0"), "a")
	stop, ended := make(chan struct{}), make(chan error, 2)
	for range 2 {
		go func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					ended <- nil
					return
				default:
				}
				err := db.View(func(tx *Tx) error {
					if tx.Bucket(things).Get([]byte("a")) == nil {
						return errors.New("a is not there")
					}
					return nil
				})
				if err == nil {
					err = db.Update(func(tx *Tx) error { return putIn(tx, []byte("1"), "written") })
				}
				if err != nil {
					ended <- err
					return
				}
			}
		}()
	}
	for n := 1; n <= 5; n++ {
		slow, begun := make(chan []byte), make(chan struct{})
		go func() {
			_ = db.View(func(tx *Tx) error {
				close(begun)
				<-slow
				slow <- bytes.Clone(tx.Bucket(things).Get([]byte("a")))
				return nil
			})
		}()
		<-begun
		mustDo(t, db.Replace(freshOf(t, db, fmt.Sprint(n))))
		if got := db.get(t, "a"); string(got) != fmt.Sprint(n) {
			t.Fatalf("after %d replacements a is %s", n, got)
		}
		slow <- nil
		if got := <-slow; string(got) != fmt.Sprint(n-1) {
			t.Errorf("a reader that had begun before replacement %d reads %s", n, got)
		}
		mustDo(t, db.Present())
		if isThere(t, db.path+".new") || isThere(t, journalOf(db.path+".new")) {
			t.Error("something was left of the new file")
		}
	}
	close(stop)
	mustDo(t, errors.Join(<-ended, <-ended))
	db.put(t, []byte("last"), "b")

	crashed := filepath.Join(t.TempDir(), "status.db") // as after a power cut: the file may be old, the journal is not
	copyFile(t, db.path, crashed)
	copyFile(t, journalOf(db.path), journalOf(crashed))
	again := opened(t, crashed)
	if got := again.get(t, "b"); string(got) != "last" {
		t.Errorf("after a crash b is %s", got)
	}
	db.cleanly(t)
	if got := opened(t, db.path).get(t, "a"); string(got) != "5" {
		t.Errorf("after a clean stop a is %s", got)
	}
}

// A file that cannot be replaced stays as it was.
func TestReplaceFails(t *testing.T) {
	t.Parallel()
	db := made(t)
	db.put(t, []byte("0"), "a")
	fresh := freshOf(t, db, "1")
	mustDo(t, os.Remove(fresh.path))
	if err := db.Replace(fresh); err == nil {
		t.Error("a file without a name has replaced another one")
	}
	if got := db.get(t, "a"); string(got) != "0" {
		t.Errorf("a is %s", got)
	}
	mustDo(t, db.Close())
	if got := opened(t, db.path).get(t, "a"); string(got) != "0" {
		t.Errorf("after a restart a is %s", got)
	}
}
