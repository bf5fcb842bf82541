package boltfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"jobstream/jobs"
)

// A clean stop leaves a note beside the tracker's file, from which the next start sees
// that nobody has touched the file since, and then reads no page that it does not
// need. The note has the inode, its size, the moment of its last change, which nobody
// can set back, the number of the last commit, and a checksum of the list of free
// pages: bbolt overwrites what that says. The start removes it before it
// writes, so a crash leaves none; and everything that is not exactly as the note says
// (a copy of the folder, a file put back, an older jobstream in between) is walked
// over, see [File.check].

// intactOf is where the note about the file at a path is.
func intactOf(path string) string { return path + "-intact" }

// clockTries is how often a note is tried, a millisecond apart: longer than the clock
// of any usual file system takes to move on.
const clockTries = 100

// UpdateLast is Update for the commit before Close. It leaves bbolt's list of free pages in
// the file, for else the next start has to read all pages to find it.
func (db *File) UpdateLast(f func(*bbolt.Tx) error) error {
	err := db.Update(func(tx *bbolt.Tx) error {
		db.NoFreelistSync = false
		return f(tx)
	})
	db.done = err == nil
	return err
}

// noteIntact leaves the note. All of the file must be on disk, and still locked. Where
// the clock does not move on it leaves nothing.
func (db *File) noteIntact() error {
	if _, _, ok := identity(db.opened); !ok {
		return nil
	}
	err := db.View(func(tx *bbolt.Tx) error {
		file, err := os.Open(db.path)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		for range clockTries {
			if noted, err := db.tryNote(file, tx); noted || err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
		}
		return removeIfThere(intactOf(db.path))
	})
	if err != nil {
		return errors.Join(err, removeIfThere(intactOf(db.path)))
	}
	return nil
}

// tryNote leaves the note if a change from now on shows: one within the same tick of
// the file system's clock would not. A file just written shows that clock.
func (db *File) tryNote(file *os.File, tx *bbolt.Tx) (bool, error) {
	note := intactOf(db.path)
	if err := os.WriteFile(note, []byte("\n"), 0o640); err != nil {
		return false, err
	}
	clock, err := os.Stat(note)
	if err != nil {
		return false, err
	}
	info, err := file.Stat()
	if err != nil || !os.SameFile(info, db.opened) {
		return false, err
	}
	_, now, _ := identity(clock)
	if _, changed, _ := identity(info); changed >= now {
		return false, nil
	}
	text, err := noteOf(file, info, tx)
	if err == nil {
		err = os.WriteFile(note, []byte(text), 0o640)
	}
	return err == nil, err
}

// intact says whether the note says that this is the file that a clean stop left.
func (db *File) intact(file *os.File, info os.FileInfo, tx *bbolt.Tx) bool {
	note, err := os.ReadFile(intactOf(db.path))
	if err != nil || len(note) == 0 {
		return false
	}
	text, err := noteOf(file, info, tx)
	return err == nil && string(note) == text
}

// noteOf is what the note says if this is the file; "" if it cannot say it.
func noteOf(file *os.File, info os.FileInfo, tx *bbolt.Tx) (string, error) {
	text, _, ok := identity(info)
	if !ok {
		return "", nil
	}
	sum, err := walkOf(file, tx).freeSum(uint64(tx.ID()))
	return fmt.Sprintf("%s commit %d free %08x\n", text, tx.ID(), sum), err
}

// walkOf is a walk over a file as a transaction sees it.
func walkOf(file *os.File, tx *bbolt.Tx) *pageWalk {
	size := tx.DB().Info().PageSize
	return newPageWalk(file, size, uint64(tx.Size())/uint64(size))
}

// forgetIntact removes the note, durably.
func (db *File) forgetIntact() error {
	err := os.Remove(intactOf(db.path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = jobs.SyncDir(filepath.Dir(db.path))
	}
	if err != nil {
		return fmt.Errorf("remove the note of the last stop: %w", err)
	}
	return nil
}
