// Package journal makes the commits of a bbolt file durable with one fsync of a file
// that is written from front to back.
//
// bbolt itself syncs twice per commit: first the pages, which lie all over its file,
// then the meta page that makes them valid. Here the pages and the meta page of a
// commit are one record in the journal, which is written and synced. Only then do they
// go to bbolt's file, which the system may write when it likes. After a power cut that
// file is a mixture of old and new pages. [Recover] then writes the records' pages to
// it once more, in order, which restores the last commit.
//
// The journal has two areas that take turns. When one is full, the other is used.
// Meanwhile bbolt's file is synced (a checkpoint), and then the full area is free
// again. A clean stop leaves no journal.
//
// Five rules keep this sound:
//
//   - Nothing goes to bbolt's file before its record is on disk. Else a power cut could
//     leave a meta page without its pages.
//   - The record of a commit that failed after its sync is erased before the next one,
//     because bbolt uses its pages for something else.
//   - A failed checkpoint is made up for by writing its pages again, because the system
//     takes pages for clean after a failed fsync.
//   - A journal is used only for its own file: the newest meta page there must be one
//     that the journal knows. So the database can be deleted or replaced by a backup,
//     even after a crash.
//   - Readers do not wait for the disk. bbolt holds the lock on its meta pages while it
//     writes one, and the journal releases it while it waits.
//
// Where to start: [Attach] puts a journal under an open database, journal.go has the
// steps of a commit, record.go the format, recover.go the way back. The method is that
// of redo logs. SQLite's rollback and write-ahead journals are relatives.
package journal
