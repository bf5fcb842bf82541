package status

import (
	"encoding/binary"
	"io"
	"log/slog"
	"time"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// Snapshot is the tracker as it is after one of its commits. From a copy of it a start
// makes the streams anew.
type Snapshot struct {
	Positions jobs.Positions
	Node      string // its name; "" if it has none yet
	// Clean says that the server has stopped cleanly, and not started again: the streams
	// have nothing that the tracker lacks.
	Clean bool
	Size  int64 // bytes of a copy
	// WriterTo writes a copy. It need not look at the journal: whatever a transaction sees
	// has been written to the file before, only not synced.
	io.WriterTo
}

// Snapshot calls f with a snapshot, which ends with that call. Commits go on, but what
// they change makes the file grow meanwhile. So f should be fast.
func (s *Store) Snapshot(f func(*Snapshot) error) error { return snapshot(s.db, f) }

func snapshot(db *boltfile.File, f func(*Snapshot) error) error {
	return db.View(func(tx *boltfile.Tx) error {
		s := &Snapshot{Size: tx.Size(), WriterTo: tx}
		if meta := tx.Bucket(bucketMeta); !meta.Missing() { // else it has just been made
			if v := meta.Get(keyPositions); len(v) == 16 {
				s.Positions = jobs.Positions{Jobs: binary.BigEndian.Uint64(v), Status: binary.BigEndian.Uint64(v[8:])}
			}
			s.Node, s.Clean = string(meta.Get(keyNode)), meta.Get(keyClean) != nil
		}
		return f(s)
	})
}

// Stopped is the tracker of a server that does not run.
type Stopped struct {
	*Queries // what needs nothing of the last commit in memory: Job, Input, Schedules
	db       *boltfile.File
}

// OpenStopped opens the tracker at path, which must exist. No server can start on it
// before [Stopped.Close]. If one runs, the error is [boltfile.ErrLocked].
func OpenStopped(path string, log *slog.Logger) (*Stopped, error) {
	db, err := boltfile.Open(boltfile.Options{Path: path, Existing: true, LockTimeout: time.Second, Logger: log})
	if err != nil {
		return nil, err
	}
	return &Stopped{&Queries{db: db, latest: newLatest()}, db}, nil
}

// Snapshot calls f with a snapshot; see [Store.Snapshot].
func (s *Stopped) Snapshot(f func(*Snapshot) error) error { return snapshot(s.db, f) }

// Close lets a server start on it again. The file is as it was.
func (s *Stopped) Close() error { return s.db.Close() }
