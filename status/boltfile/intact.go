package boltfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"jobstream/jobs/fsync"
)

// A clean stop leaves a note beside the tracker's file. It shows the next start that
// nobody has touched the file since, so that the start reads only the pages that it
// needs. The note has the file's inode and size, the moment of its last change, which
// nobody can set back, and the number of the last commit. It also has a checksum of the
// list of free pages, because bbolt overwrites those.
//
// The start removes the note before it writes, so a crash leaves none. After any
// difference (a copy of the folder, a restored file, an older jobstream in between) the
// start walks over all pages, see [File.check].

// Files are the paths of a file and of what may stand beside it.
func Files(path string) []string { return []string{journalOf(path), intactOf(path), path} }

// intactOf is the path of the note about the file at a path.
func intactOf(path string) string { return path + "-intact" }

// clockTries is how often a note is tried, a millisecond apart. That is longer than a
// tick of the clock of any usual file system.
const clockTries = 100

// UpdateLast is Update for the commit before Close. It writes bbolt's list of free
// pages into the file; without it the next start has to read all pages to find them.
func (db *File) UpdateLast(f func(*Tx) error) error {
	err := db.Update(func(tx *Tx) error {
		db.open.Load().NoFreelistSync = false
		return f(tx)
	})
	db.done = err == nil
	return err
}

// noteIntact writes the note. The whole file must be on disk, and still locked. If the
// clock does not move on, it writes nothing.
func (db *File) noteIntact() error {
	if _, _, ok := identity(db.open.Load().info); !ok {
		return nil
	}
	err := db.view(func(tx *bbolt.Tx) error {
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

// tryNote writes the note if later changes will be visible. A change within the same
// tick of the file system's clock would not be. A file that has just been written shows
// that clock.
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
	if err != nil || !os.SameFile(info, db.open.Load().info) {
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

// intact says whether the note describes this file, as a clean stop left it.
func (db *File) intact(file *os.File, info os.FileInfo, tx *bbolt.Tx) bool {
	note, err := os.ReadFile(intactOf(db.path))
	if err != nil || len(note) == 0 {
		return false
	}
	text, err := noteOf(file, info, tx)
	return err == nil && string(note) == text
}

// noteOf is the note for this file; "" if there cannot be one.
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
		err = fsync.Dir(filepath.Dir(db.path))
	}
	if err != nil {
		return fmt.Errorf("remove the note of the last stop: %w", err)
	}
	return nil
}
