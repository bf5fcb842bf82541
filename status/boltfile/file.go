package boltfile

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"jobstream/jobs"
	"jobstream/status/boltfile/journal"
)

// ErrDamaged says that the content of the tracker's file is not what was written: the
// disk is bad, or somebody changed the file.
var ErrDamaged = errors.New("the tracker's file is damaged")

// ErrLocked says that another process has the tracker open: a second server on one data
// folder.
var ErrLocked = errors.New("the data folder is in use by another process")

// ErrClosed ends calls that wait for a tracker when that stops.
var ErrClosed error = &jobs.Error{Kind: jobs.ShuttingDown, Detail: "the tracker is closed", RetryAfter: 5 * time.Second}

// File is a bbolt file that returns an error if it is damaged. bbolt itself panics when
// it finds nonsense, and faults when it follows a wrong number out of the file.
type File struct {
	open  atomic.Pointer[handle]
	path  string
	done  bool // the last commit was that of a clean stop
	found int  // the last commit, if the file was as a clean stop had left it; else 0
	log   *slog.Logger
	trace sync.Once

	replaced sync.WaitGroup // files that were replaced, and are being closed
}

// handle is the open file; see [File.Replace].
type handle struct {
	*bbolt.DB
	journal *journal.Journal // nil if there is none: bbolt syncs by itself
	info    os.FileInfo
}

// Options say how a file is opened.
type Options struct {
	Path        string
	Existing    bool          // it must be there, with something in it
	LockTimeout time.Duration // how long to wait for another process to close it
	Unsynced    bool          // a power cut may take anything: for tests of something else
	Logger      *slog.Logger
}

// Open opens a file, or makes one. It fails with [ErrDamaged] if the file makes no sense,
// and with [ErrLocked] if another process has it open.
func Open(o Options) (*File, error) {
	db, err := open(o)
	if err != nil {
		return nil, opening(o.Path, err)
	}
	return db, nil
}

// opening explains an error of opening the file.
func opening(path string, err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("%w: %s is locked; is another jobstream running on it?", ErrLocked, path)
	case errors.Is(err, ErrDamaged):
		return err // it names the file
	}
	return fmt.Errorf("open the tracker %s: %w", path, err)
}

func open(o Options) (db *File, err error) {
	path := o.Path
	db = &File{path: path, log: o.Logger}
	if o.Existing {
		if info, err := os.Stat(path); err != nil || info.Size() == 0 {
			return nil, errors.Join(fmt.Errorf("the tracker's file %s has been removed; put the data folder back, or restart jobstream to begin with what is there now", path), err)
		}
	}
	if err := journal.Recover(path, journalOf(path), o.LockTimeout, o.Logger); err != nil {
		return nil, db.unreadable(err)
	}
	if err := db.check(o.LockTimeout); err != nil {
		return nil, err
	}
	before, _ := os.Stat(path) // nil if there is none yet
	now := &handle{}
	err = db.guard(func() (err error) {
		now.DB, err = bbolt.Open(path, 0o640, &bbolt.Options{
			Timeout:      o.LockTimeout,
			FreelistType: bbolt.FreelistMapType,
			// The list of free pages is written by the last commit of a clean stop
			// only, see UpdateLast. After a crash a scan finds them.
			NoFreelistSync: true,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				if o.Existing {
					flag &^= os.O_CREATE
				}
				return os.OpenFile(name, flag, mode)
			},
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	// The file may have been compacted during the wait for the lock. Then the locked
	// one has no name any more.
	now.info, err = os.Stat(path)
	if err != nil || before != nil && !os.SameFile(before, now.info) {
		return nil, errors.Join(bolterrors.ErrTimeout, now.Close())
	}
	if err := db.forgetIntact(); err != nil {
		return nil, errors.Join(err, now.Close())
	}
	db.open.Store(now)
	if o.Unsynced {
		now.NoSync = true
		return db, nil
	}
	if now.journal, _, err = journal.Attach(now.DB, journalOf(path)); err != nil {
		return nil, errors.Join(err, now.Close())
	}
	return db, nil
}

// journalOf is the path of the journal of the file at a path.
func journalOf(path string) string { return path + "-journal" }

// unreadable converts the journal's error for damage to that of this package.
func (db *File) unreadable(err error) error {
	if errors.Is(err, journal.ErrDamaged) {
		return db.damaged(err)
	}
	return err
}

// Close brings everything to disk and closes the file.
func (db *File) Close() error {
	db.replaced.Wait()
	now := db.open.Load()
	err := now.closeJournal()
	if err == nil && (db.done || db.untouched()) {
		if err := db.noteIntact(); err != nil { // it only saves time
			db.log.Warn("the next start will read the whole tracker", "error", err)
		}
	}
	return errors.Join(err, now.Close())
}

// closeJournal brings everything to disk. Nothing can be written any more.
func (h *handle) closeJournal() error {
	if h.journal == nil {
		return nil
	}
	return h.journal.Close()
}

// untouched says that the file is as a clean stop before has left it.
func (db *File) untouched() (same bool) {
	if db.found == 0 {
		return false
	}
	err := db.view(func(tx *bbolt.Tx) error { same = tx.ID() == db.found; return nil })
	return same && err == nil && db.Present() == nil
}

// Syncs counts the fsyncs since the file was opened.
func (db *File) Syncs() (n uint64, err error) {
	if j := db.open.Load().journal; j != nil {
		return j.Syncs(), nil
	}
	err = db.view(func(tx *bbolt.Tx) error {
		n = 2 * uint64(tx.ID()) // bbolt numbers its commits, and syncs twice in each
		return nil
	})
	return n, err
}

// View calls f with a transaction that reads.
func (db *File) View(f func(*Tx) error) error {
	return db.view(func(tx *bbolt.Tx) error { return f(&Tx{tx: tx}) })
}

func (db *File) view(f func(*bbolt.Tx) error) error {
	return db.with(func(now *handle) error { return now.View(f) })
}

// with calls f with the open file, once more if that has been replaced just before.
func (db *File) with(f func(*handle) error) error {
	for {
		now := db.open.Load()
		err := db.guard(func() error { return f(now) })
		if !errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
			return err
		}
		if db.open.Load() == now {
			return ErrClosed
		}
	}
}

// Update calls f with a transaction that writes, and commits it unless f fails. There is
// one at a time.
func (db *File) Update(f func(*Tx) error) error {
	return db.with(func(now *handle) error {
		return now.Update(func(tx *bbolt.Tx) error {
			if db.open.Load() != now { // it was replaced while this waited for its turn
				return bolterrors.ErrDatabaseNotOpen
			}
			return f(&Tx{tx: tx})
		})
	})
}

// Present is nil while the tracker's file is where it was opened. A file that was
// removed or replaced still takes every commit, and loses it at the end of the process.
func (db *File) Present() error {
	now := db.open.Load()
	switch there, err := journal.InPlace(db.path, now.info); {
	case err != nil:
		return fmt.Errorf("the tracker's file cannot be looked at: %w", err)
	case !there:
		return fmt.Errorf("the tracker's file %s has been removed or replaced while it was in use; put the data folder back, or restart jobstream to begin with what is there now", db.path)
	case now.journal != nil:
		return now.journal.Present()
	}
	return nil
}

// guard runs f, and returns an error for a panic in it: [ErrDamaged] if the file caused
// it, else one that admits a bug.
func (db *File) guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			if ours(p) {
				err = panicOf(p)
			} else {
				err = db.damaged(p)
			}
			// One trace is enough for the curious: f may be tried again and again.
			db.trace.Do(func() {
				db.log.Error("a transaction of the tracker broke", "error", err, "stack", string(debug.Stack()))
			})
		}
	}()
	return f()
}

func (db *File) damaged(found any) error {
	text := strings.Join(strings.Fields(fmt.Sprint(found)), " ")
	return fmt.Errorf("%w: %s (%s); stop the server and restore the file from a backup, or move it away: "+
		"then the next start makes a new one from what the streams still have", ErrDamaged, db.path, text)
}

// check walks over the whole file. bbolt also reads all of it when it opens a file, in
// a goroutine whose panics nobody can catch. A file in the exact state of a clean stop
// needs neither.
func (db *File) check(timeout time.Duration) error {
	info, err := os.Stat(db.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil // a new one
	}
	if err != nil {
		return err
	}
	return db.guard(func() error {
		found, err := bbolt.Open(db.path, 0, &bbolt.Options{Timeout: timeout, ReadOnly: true})
		if errors.Is(err, bolterrors.ErrInvalid) || errors.Is(err, bolterrors.ErrVersionMismatch) || errors.Is(err, bolterrors.ErrChecksum) {
			return db.damaged(err)
		}
		if err != nil {
			return err
		}
		defer func() { _ = found.Close() }()
		return found.View(func(tx *bbolt.Tx) error {
			// bbolt would use the missing free pages, and read the memory behind the
			// file.
			if info.Size() < tx.Size() {
				return db.damaged(fmt.Sprintf("it has %d bytes and should have %d", info.Size(), tx.Size()))
			}
			file, err := os.Open(db.path)
			if err != nil {
				return err
			}
			defer func() { _ = file.Close() }()
			if db.intact(file, info, tx) {
				db.found = tx.ID()
				return nil
			}
			walk := walkOf(file, tx)
			if err := walk.all(uint64(tx.Cursor().Bucket().Root()), uint64(tx.ID())); err != nil {
				return db.damaged(err)
			}
			return nil
		})
	})
}
