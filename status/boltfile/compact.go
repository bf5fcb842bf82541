package boltfile

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"jobstream/jobs/fsync"
)

// compactBatch is how many bytes one transaction of a compaction copies.
const compactBatch = 8 << 20

// Compact rewrites the tracker's file without the space of deleted records, which bbolt
// reuses but never frees. No other process may have the file open ([ErrLocked]). It
// needs as much free space as the result. It may be interrupted: the old file stays
// until the new one is complete and on disk. It returns the sizes in bytes.
func Compact(path string, lockTimeout time.Duration, log *slog.Logger) (before, after int64, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	old, err := Open(Options{Path: path, LockTimeout: lockTimeout, Logger: log})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, old.Close()) }()
	fresh := path + ".compact"
	if err := copyTo(fresh, old.open.Load().DB, info.Mode().Perm()); err != nil {
		return 0, 0, errors.Join(fmt.Errorf("compact %s: %w", path, err), removeIfThere(fresh))
	}
	smaller, err := os.Stat(fresh)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err == nil {
		err = fsync.Dir(filepath.Dir(path))
	}
	if err != nil {
		return 0, 0, err
	}
	return info.Size(), smaller.Size(), nil
}

// copyTo writes the content of old to a new file, completely and synced.
func copyTo(path string, old *bbolt.DB, mode os.FileMode) (err error) {
	if err := removeIfThere(path); err != nil {
		return err // of an earlier try
	}
	fresh, err := bbolt.Open(path, mode, &bbolt.Options{NoFreelistSync: true, NoSync: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fresh.Close()) }()
	if err := bbolt.Compact(fresh, old, compactBatch); err != nil {
		return err
	}
	return fresh.Sync()
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
