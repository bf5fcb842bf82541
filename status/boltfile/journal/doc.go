// Package journal makes the commits of a bbolt file durable with one fsync of a
// file that is only written to from front to back.
//
// bbolt by itself syncs twice per commit, first the pages, which lie all over its
// file, then the meta page that makes them valid. Here a commit's pages and its
// meta page are written to the journal as one record, and that is synced. Only then
// do they go to bbolt's file, which the system may write when it likes. If the
// power goes, that file is a mixture of old and new pages, and [Recover] writes the
// records' pages to it once more, in order: then it is as the last commit left it.
//
// The journal has two areas that take turns. When one is full the other is used,
// and bbolt's file is synced meanwhile, a checkpoint, after which the full one is
// free again. A clean stop leaves no journal.
//
// Where to start: [Attach] puts a journal under an open database, journal.go has
// what a commit does, record.go the format, recover.go the way back. The method is
// that of redo logs; SQLite's rollback and write-ahead journals are relatives.
package journal
