package status

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/index"
)

// These are the parts of a start around [Projector.Run]. Each says whether Run must be
// running.

// Clean is the mark of a clean stop: the ends of the streams. A start that finds the
// streams like this needs no repair.
type Clean struct {
	Jobs   uint64 `json:"jobs"`   // last sequence of JOBS
	Status uint64 `json:"status"` // last sequence of STATUS
}

// RemoveClean removes the mark of a clean stop, if there is one, and returns it. The
// removal is on disk when it returns, so any crash from then on counts as one. boot
// identifies the present run of the operating system, "" if it is unknown. sameBoot says
// that the last start was in the same run. Then everything written since can be read,
// synced or not.
func (s *Store) RemoveClean(boot string) (mark Clean, ok, sameBoot bool, err error) {
	err = s.db.Update(func(tx *boltfile.Tx) error {
		meta := tx.Bucket(bucketMeta)
		sameBoot = boot != "" && string(meta.Get(keyBoot)) == boot
		if err := meta.Put(keyBoot, []byte(boot)); err != nil {
			return err
		}
		v := meta.Get(keyClean)
		if v == nil {
			return nil
		}
		ok = json.Unmarshal(v, &mark) == nil
		return meta.Delete(keyClean)
	})
	return mark, ok && err == nil, sameBoot, err
}

// HighestKey is the highest key of a record that is a sequence in JOBS, 0 if there is none.
func (q *Queries) HighestKey() (key uint64, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		c := tx.Bucket(bucketJobs).Cursor()
		k, _ := c.Seek(key8(callbackKeys))
		if k == nil {
			k, _ = c.Last()
		} else {
			k, _ = c.Prev()
		}
		if k != nil {
			key = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return key, err
}

// MarkClean leaves the mark. Run must have ended, and everything else must have stopped.
// It also empties the outbox, and ends a rebuild, since everything in the streams is
// folded by then. One of several trackers gets the mark alone.
func (s *Store) MarkClean(mark Clean) error {
	v, err := json.Marshal(mark)
	if err != nil {
		return err
	}
	return s.db.UpdateLast(func(tx *boltfile.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if !s.share.alone() {
			return meta.Put(keyClean, v)
		}
		if err := tx.Drop(bucketOutbox, bucketCopies, bucketCopyAges, bucketEnds); err != nil {
			return err
		}
		return errors.Join(meta.Delete(keyRebuild), meta.Put(keyClean, v))
	})
}

// Running are the keys of the processing jobs.
func (q *Queries) Running() (keys []uint64, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		return index.EachChunk(tx.Bucket(bucketBits), index.OfStatus(jobs.Processing), func(chunk uint32, m *index.Bitmap) error {
			m.Each(chunk, true, func(key uint64) bool { keys = append(keys, key); return true })
			return nil
		})
	})
	return keys, err
}

// Unfinished calls f with all unfinished jobs whose message has to be in JOBS. They come
// in order of their keys, a bounded number at a time. It may be called while Run runs.
func (q *Queries) Unfinished(ctx context.Context, f func([]*jobs.Job) error) error {
	filter := jobs.Filter{Statuses: []jobs.Status{jobs.Pending, jobs.Processing, jobs.Retrying}, Callbacks: true}
	var some []*jobs.Job
	size := 0
	flush := func() error {
		if len(some) == 0 {
			return nil
		}
		err := f(some)
		clear(some) // they may be large
		some, size = some[:0], 0
		return err
	}
	err := q.Scan(ctx, filter, func(j *jobs.Job) error {
		if !inQueue(j) {
			return nil
		}
		some = append(some, j)
		size += len(j.Payload)
		if len(some) < scanBatch && size < searchPiece.bytes {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// Queued calls f with the lane and sequence of every unfinished job whose message has to
// be in JOBS. It reads no payload that is kept apart.
func (q *Queries) Queued(ctx context.Context, f func(jobs.Lane, uint64)) error {
	match := newMatcher(&jobs.Filter{Statuses: []jobs.Status{jobs.Pending, jobs.Processing, jobs.Retrying}, Callbacks: true})
	match.light = true
	for after := uint64(0); ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		left := searchPiece
		found, next, err := q.piece(match, after, true, scanBatch, &left)
		if err != nil {
			return err
		}
		for _, j := range found {
			if inQueue(j) {
				f(j.Lane(), j.Seq)
			}
		}
		if after = next; next == 0 {
			return nil
		}
	}
}

// Node returns the name of this data folder in everything that it publishes. The first
// call makes it of fallback.
func (s *Store) Node(fallback string) (name string, err error) {
	err = s.db.Update(func(tx *boltfile.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if v := meta.Get(keyNode); v != nil {
			name = string(v)
			return nil
		}
		name = fallback
		return meta.Put(keyNode, []byte(name))
	})
	return name, err
}

// LeaseKey returns the key that signs the tokens of leases. The first call makes it.
func (s *Store) LeaseKey() (key jobs.LeaseKey, err error) {
	read := func(tx *boltfile.Tx) error {
		key = bytes.Clone(tx.Bucket(bucketMeta).Get(keyLeases))
		return nil
	}
	if err := s.db.View(read); len(key) > 0 || err != nil {
		return key, err
	}
	err = s.change(func(tx *boltfile.Tx) (*jobs.Commit, error) {
		if err := read(tx); len(key) > 0 || err != nil {
			return nil, err
		}
		key = jobs.NewLeaseKey()
		return nil, tx.Bucket(bucketMeta).Put(keyLeases, key)
	})
	return key, err
}

// Ended lists ended jobs for deletion; see [jobs.Cleaner].
func (q *Queries) Ended(ctx context.Context, before jobs.Time, statuses []jobs.Status, after uint64, limit int) (found []*jobs.Job, next uint64, err error) {
	if len(statuses) == 0 {
		statuses = []jobs.Status{jobs.Completed, jobs.Failed, jobs.Cancelled}
	}
	for _, st := range statuses {
		if !st.Ended() {
			return nil, 0, fmt.Errorf("%s jobs have not ended", st)
		}
	}
	// A job that ended before a moment was also created before it. So whole chunks of
	// newer jobs are passed over.
	filter := jobs.Filter{Statuses: statuses, CreatedBefore: before, Callbacks: true}
	for len(found) < limit {
		var some []*jobs.Job
		some, next, err = q.page(filter, after, true, limit-len(found))
		if err != nil {
			return nil, 0, err
		}
		for _, j := range some {
			if j.EndedAt < before {
				found = append(found, j)
			}
		}
		if after = next; next == 0 {
			break
		}
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
	}
	return found, next, nil
}
