package status

import (
	"encoding/binary"
	"log/slog"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/index"
	"jobstream/status/record"
)

// indexVersion is that of the attributes which the indexes have of each job. A file of an
// earlier one gets those of its jobs when it is opened.
const indexVersion = 1

// How much one transaction of reindex reads.
const (
	reindexRecords = 20_000
	reindexBytes   = 32 << 20
)

// reindex adds the attributes that an earlier version did not have. The key of the next
// job is stored with each step, so it goes on where it was interrupted.
func reindex(db *boltfile.File, log *slog.Logger) error {
	told := false
	for more := true; more; {
		err := db.Update(func(tx *boltfile.Tx) (err error) {
			meta := tx.Bucket(bucketMeta)
			state := meta.Get(keyIndexes)
			if len(state) > 0 && state[0] >= indexVersion && len(state) == 1 {
				more = false
				return nil
			}
			from := uint64(0)
			if len(state) == 9 && state[0] == indexVersion {
				from = binary.BigEndian.Uint64(state[1:])
			}
			next, err := reindexPiece(tx, from)
			if err != nil {
				return err
			}
			if next == 0 {
				more = false
				return meta.Put(keyIndexes, []byte{indexVersion})
			}
			return meta.Put(keyIndexes, append([]byte{indexVersion}, key8(next)...))
		})
		if err != nil {
			return err
		}
		if more && !told {
			told = true
			log.Info("the jobs of an earlier version are indexed once; this takes some seconds per million")
		}
	}
	return nil
}

// reindexPiece indexes some jobs from a key on. next is the key of those that follow; 0 =
// there are none.
func reindexPiece(tx *boltfile.Tx, from uint64) (next uint64, err error) {
	var cache index.Cache
	cache.Reset()
	x := newIndexes(tx, &cache, nil)
	c := tx.Bucket(bucketJobs).Cursor()
	n, size := 0, 0
	k, raw := c.Seek(key8(from))
	for ; k != nil && n < reindexRecords && size < reindexBytes; k, raw = c.Next() {
		j, _, err := record.Decode(raw)
		if err != nil {
			return 0, err
		}
		if err := x.late(j); err != nil {
			return 0, err
		}
		n++
		size += len(raw)
	}
	if k != nil {
		next = binary.BigEndian.Uint64(k)
	}
	return next, x.write()
}

// late marks the attributes of a job that the first versions did not have.
func (x *indexes) late(j *jobs.Job) error {
	if err := x.markTerms(j, true); err != nil {
		return err
	}
	if err := x.failed(j, true); err != nil {
		return err
	}
	if j.Priority != jobs.DefaultPriority {
		if err := x.mark(index.OfPriority(j.Priority), j, true); err != nil {
			return err
		}
	}
	if at := index.OfMoment(j); at != "" {
		return x.mark(at, j, true)
	}
	return nil
}
