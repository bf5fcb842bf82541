package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	bolterrors "go.etcd.io/bbolt/errors"
)

// ErrDamaged says that commits are missing in the journal which bbolt's file needs:
// a bad disk, or somebody changed it.
var ErrDamaged = errors.New("the tracker's journal is damaged")

// Recover brings bbolt's file to where its last commit left it, from the journal
// of a process that did not stop cleanly, and removes the journal. Without one it
// does nothing. It fails with bbolt's ErrTimeout if another process has the
// database open, and with [ErrDamaged]. It may be interrupted and done again.
//
// A journal that does not belong to the file as it is now is removed and changes
// nothing: the file was deleted, or replaced by a backup.
func Recover(db, path string, timeout time.Duration, log *slog.Logger) (err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	target, err := os.OpenFile(db, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		log.Warn("the tracker's file is gone; what its journal holds is of no use without it, and is removed", "journal", path)
		return os.Remove(path)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }() // which also unlocks it
	if err := lock(target, timeout); err != nil {
		return err
	}
	// Only now: whoever had the lock may have removed it.
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := redo(target, f, log); err != nil {
		return err
	}
	return os.Remove(path)
}

// redo writes what the journal holds to bbolt's file, if it belongs to it.
func redo(target, f *os.File, log *slog.Logger) error {
	todo, err := since(f)
	if err != nil || len(todo) == 0 {
		return err
	}
	page := todo[0].spans[len(todo[0].spans)-1].length
	if !belongs(todo, target, int64(page)) {
		log.Warn("the tracker's file is not the one that this journal was written for; the file is taken as it is", "journal", f.Name())
		return nil
	}
	for _, r := range todo {
		if err := r.apply(target.WriteAt); err != nil {
			return fmt.Errorf("write the journal's commits to the tracker's file: %w", err)
		}
	}
	return target.Sync()
}

// belongs says whether a bbolt file is one that the records were meant for: its
// newest meta is one of theirs, or the one before them. A power cut in the middle of
// writing a meta page leaves one that is not valid.
func belongs(todo []record, target io.ReaderAt, pageSize int64) bool {
	newest, whole := latest(target, pageSize)
	if !whole || newest == todo[0].before {
		return true
	}
	for _, r := range todo {
		if r.after == newest {
			return true
		}
	}
	return false
}

// errLocked is what bbolt says of a locked file.
var errLocked = bolterrors.ErrTimeout
