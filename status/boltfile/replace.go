package boltfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"jobstream/jobs/fsync"
	"jobstream/status/boltfile/journal"
)

// Replace puts a file, which was opened in the same folder, durably in the place of this
// one. Readers that have begun go on in the old one, and the next ones read the new one;
// nobody has to wait. Transactions that write wait until it is done. fresh belongs to db
// from then on, whatever comes of it. After an error this file has the same content as
// before, but it may be that nothing can be written to it any more.
func (db *File) Replace(fresh *File) error {
	old, now := db.open.Load(), fresh.open.Load()
	writers, err := old.Begin(true)
	if err != nil {
		return errors.Join(fmt.Errorf("replace the tracker %s: %w", db.path, err), fresh.Close())
	}
	if err := db.replace(old, now, fresh.path); err != nil {
		return errors.Join(fmt.Errorf("replace the tracker %s: %w", db.path, err), writers.Rollback(), fresh.Close())
	}
	db.open.Store(now)
	db.done, db.found = false, 0
	db.replaced.Go(func() {
		// Close waits for readers, which may be slow.
		if err := errors.Join(writers.Rollback(), old.Close()); err != nil {
			db.log.Warn("the tracker's file that was replaced could not be closed", "error", err)
		}
	})
	return nil
}

// replace gives the name and the place of the journal to another open file. At any moment
// there is a whole file with the name, and no journal but its own.
func (db *File) replace(old, now *handle, path string) error {
	if err := now.closeJournal(); err != nil {
		return err
	}
	if err := old.closeJournal(); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err == nil {
		err = now.attach(db.path)
	}
	if err == nil {
		err = os.Rename(path, db.path)
	}
	if err != nil {
		return err
	}
	now.info = info
	// The next commit would make that durable, too.
	if err := fsync.Dir(filepath.Dir(db.path)); err != nil {
		db.log.Warn("the folder of the tracker could not be synced", "error", err)
	}
	return nil
}

// attach puts a journal under a file that had one before, for the name at a path.
func (h *handle) attach(path string) (err error) {
	if h.journal == nil {
		return nil
	}
	h.journal, _, err = journal.Attach(h.DB, journalOf(path))
	return err
}
