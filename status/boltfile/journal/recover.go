package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	bolterrors "go.etcd.io/bbolt/errors"
)

// ErrDamaged says that the journal lacks commits that bbolt's file needs: the disk is
// bad, or somebody changed the journal.
var ErrDamaged = errors.New("the tracker's journal is damaged")

// Recover restores bbolt's file to its last commit, from the journal of a process that
// did not stop cleanly, and removes the journal. Without a journal it does nothing. It
// fails with bbolt's ErrTimeout if another process has the database open, and with
// [ErrDamaged]. It may be interrupted and repeated.
//
// A journal that does not belong to the present file is removed without effect: the
// file was deleted, or replaced by a backup.
func Recover(db, path string, timeout time.Duration, log *slog.Logger) error {
	return recoverFile(db, path, timeout, areaSize, log)
}

// recoverFile is Recover with areas of any size.
func recoverFile(db, path string, timeout time.Duration, size int64, log *slog.Logger) (err error) {
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
	defer func() { err = errors.Join(err, target.Close()) }() // that also unlocks it
	if err := lock(target, timeout); err != nil {
		return err
	}
	// This comes after the lock: its last owner may have removed the journal.
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := redo(diskFile{target}, f, size, log.With("journal", path)); err != nil {
		return err
	}
	return os.Remove(path)
}

// redo writes the journal's pages to bbolt's file, if it belongs to that.
func redo(target disk, f io.ReaderAt, size int64, log *slog.Logger) error {
	found := read(f, size)
	if len(found) == 0 {
		return nil
	}
	newest := found[len(found)-1]
	todo, err := between(found, newest.checkpoint, newest.lsn)
	if err == nil && stray(f, size, newest) {
		err = fmt.Errorf("%w: there are commits behind %d, but that is not whole", ErrDamaged, newest.lsn+1)
	}
	// This comes first: a backup may replace the file without a look at its journal.
	page := pageSize(found)
	if page > 0 && !belongs(found, target, page) {
		log.Warn("the tracker's file is not the one that this journal was written for; the file is taken as it is")
		return nil
	}
	if err != nil || len(todo) == 0 {
		return err
	}
	for _, r := range todo {
		if err := r.apply(target.WriteAt); err != nil {
			return fmt.Errorf("write the journal's commits to the tracker's file: %w", err)
		}
	}
	if err := lengthen(target, int64(newest.after.pages())*page); err != nil { //nolint:gosec // a file is not that long
		return err
	}
	return target.Sync()
}

// lengthen makes a file at least so long. Free pages at its end are in no record, but
// bbolt expects them.
func lengthen(target disk, size int64) error {
	last := make([]byte, 1)
	if size == 0 || readFull(target, last, size-1) {
		return nil
	}
	_, err := target.WriteAt([]byte{0}, size-1)
	return err
}

// pageSize is the page size of bbolt's file; 0 if no record has pages.
func pageSize(found []record) int64 {
	for _, r := range found {
		if n := len(r.spans); n > 0 {
			return int64(r.spans[n-1].length)
		}
	}
	return 0
}

// belongs says whether the records are those of a bbolt file: its newest meta is one of
// theirs, or the one before them. A power cut during the write of a meta page leaves an
// invalid one.
func belongs(found []record, target io.ReaderAt, page int64) bool {
	last := make([]byte, 1)
	if !readFull(target, last, 2*page-1) {
		return false // somebody has emptied the file
	}
	newest, whole := latest(target, page)
	return !whole || slices.ContainsFunc(found, func(r record) bool { return r.before == newest || r.after == newest })
}

// read reads the records of a journal, in order.
func read(f io.ReaderAt, size int64) []record {
	old, young := readArea(f, 0, size), readArea(f, 1, size)
	if len(young) == 0 || len(old) > 0 && old[0].lsn > young[0].lsn {
		old, young = young, old
	}
	if len(young) == 0 {
		return nil
	}
	// A record whose sync failed may be there nevertheless, and again in the area that
	// was begun after it.
	old = slices.DeleteFunc(old, func(r record) bool { return r.lsn >= young[0].lsn })
	return append(old, young...)
}

// readArea reads the records of an area, up to the first place without one or with an
// older one.
func readArea(f io.ReaderAt, area, size int64) (found []record) {
	for at, end := area*size, (area+1)*size; ; {
		r, ok := readRecord(f, at, end)
		if n := len(found); !ok || n > 0 && (r.salt != found[0].salt || r.lsn != found[n-1].lsn+1) {
			return found
		}
		found, at = append(found, r), at+r.size()
	}
}

// between chooses the records with pages after one LSN and up to another.
func between(found []record, after, upTo uint64) (todo []record, err error) {
	want := after
	for _, r := range found {
		if r.lsn <= after || r.lsn > upTo {
			continue
		}
		if want++; r.lsn != want {
			break
		}
		if len(r.spans) > 0 {
			todo = append(todo, r)
		}
	}
	if want != upTo {
		return nil, fmt.Errorf("%w: the commits %d to %d should be there, and are not", ErrDamaged, want, upTo)
	}
	return todo, nil
}

// stray says whether there is a whole record younger than the newest one in its place.
// A record is begun only when the one before it is on disk. So the one between them has
// been lost.
func stray(f io.ReaderAt, size int64, newest record) bool {
	head := make([]byte, spansStart)
	for at := int64(0); at < 2*size && readFull(f, head, at); at += blockSize {
		if binary.LittleEndian.Uint64(head) != magic || binary.LittleEndian.Uint64(head[16:]) <= newest.lsn || binary.LittleEndian.Uint64(head[48:]) != newest.salt {
			continue
		}
		if _, ok := readRecord(f, at, roundUp(at+1, size)); ok {
			return true
		}
	}
	return false
}

// errLocked is bbolt's error for a locked file.
var errLocked = bolterrors.ErrTimeout
