package status

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"go.etcd.io/bbolt"

	"jobstream/jobs"
)

// The outbox makes notifications at least once: the keys of the jobs that ended
// stand in the same transaction as their end. An entry is kept until its
// notifications are stored in their stream and for Options.OutboxAge longer,
// because the end of that stream may go back in a power cut. After anything but
// a clean stop all of it is published again.

// writeOutbox stores which jobs end with this transaction, and drops what is
// old enough.
func (f *fold) writeOutbox() error {
	bucket := f.tx.Bucket(bucketOutbox)
	if err := f.trimOutbox(bucket); err != nil {
		return err
	}
	if err := f.trimEnds(bucket); err != nil {
		return err
	}
	if f.silent {
		return nil
	}
	v := binary.BigEndian.AppendUint64(make([]byte, 0, 8+8*len(f.out.Changes)), uint64(f.out.At))
	for j := range f.out.Ended() {
		v = binary.BigEndian.AppendUint64(v, j.Key)
	}
	if len(v) == 8 {
		return nil
	}
	return bucket.Put(key8(f.out.Number), v)
}

func (f *fold) trimOutbox(bucket *bbolt.Bucket) error {
	c := bucket.Cursor()
	for k, v := c.First(); k != nil; k, v = c.First() {
		if binary.BigEndian.Uint64(k) > f.in.notified || len(v) < 8 {
			return nil
		}
		age := f.in.now.Sub(jobs.Time(binary.BigEndian.Uint64(v)))
		if age >= 0 && age < f.in.outboxAge {
			return nil
		}
		if err := bucket.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// keepEnd keeps a copy of an ended job that is about to run again: the outbox has
// only its key, and its end may have to be notified of once more.
func (f *fold) keepEnd(j *jobs.Job) error {
	return f.tx.Bucket(bucketEnds).Put(momentKey(f.in.now, j.Key), appendRecord(nil, j))
}

// trimEnds drops the copies of ends that the outbox has no more.
func (f *fold) trimEnds(outbox *bbolt.Bucket) error {
	ends := f.tx.Bucket(bucketEnds).Cursor()
	k, _ := ends.First()
	if k == nil {
		return nil
	}
	oldest := jobs.Time(math.MaxInt64)
	if _, v := outbox.Cursor().First(); len(v) >= 8 {
		oldest = jobs.Time(binary.BigEndian.Uint64(v))
	}
	for ; len(k) == 16; k, _ = ends.First() {
		if at, _ := splitMoment(k); at >= oldest {
			break
		}
		if err := ends.Delete(); err != nil {
			return err
		}
	}
	return nil
}

// readEnds are all copies of ends.
func readEnds(tx *bbolt.Tx) (ended []*jobs.Job, err error) {
	payloads := tx.Bucket(bucketPayloads)
	err = tx.Bucket(bucketEnds).ForEach(func(_, v []byte) error {
		j, apart, err := decodeRecord(v)
		if err != nil {
			return fmt.Errorf("outbox: %w", err)
		}
		if apart {
			j.Payload = slices.Clone(payloads.Get(key8(j.Key)))
		}
		ended = append(ended, j)
		return nil
	})
	return ended, err
}

// outboxDue says whether there is anything to drop from the outbox, so that an
// idle tracker gets a commit for it.
func (s *Store) outboxDue() (due bool) {
	if int64(jobs.Now()) < s.heldUntil.Load() || s.held.Load() {
		return false
	}
	err := s.db.View(func(tx *bbolt.Tx) error {
		k, v := tx.Bucket(bucketOutbox).Cursor().First()
		due = k != nil && len(v) >= 8 && binary.BigEndian.Uint64(k) <= s.notified.Load() &&
			jobs.Now().Sub(jobs.Time(binary.BigEndian.Uint64(v))) >= s.o.OutboxAge
		return nil
	})
	return err == nil && due
}

// HoldOutbox says whether everything has to stay in the outbox, however old: the
// stream of notifications may lose its end though it has acknowledged it.
func (s *Store) HoldOutbox(hold bool) { s.held.Store(hold) }

// Outbox calls f with the jobs of every entry, oldest first: those whose
// notifications may be missing after a crash. f returns nil once they are
// stored: entries of before the crash are dropped only when all of them have
// been, and Options.OutboxAge later.
func (s *Store) Outbox(f func(ended []*jobs.Job) error) error {
	var again []*jobs.Job // those that have run again since
	err := s.db.View(func(tx *bbolt.Tx) (err error) {
		again, err = readEnds(tx)
		return err
	})
	if err == nil && len(again) > 0 {
		err = f(again)
	}
	if err != nil {
		return err
	}
	for after := uint64(0); ; {
		var ended []*jobs.Job
		err := s.db.View(func(tx *bbolt.Tx) error {
			k, v := tx.Bucket(bucketOutbox).Cursor().Seek(key8(after + 1))
			if k == nil {
				return errDone
			}
			after = binary.BigEndian.Uint64(k)
			if len(v) < 8 {
				return nil
			}
			records, payloads := tx.Bucket(bucketJobs), tx.Bucket(bucketPayloads)
			for v = v[8:]; len(v) >= 8; v = v[8:] {
				j, err := readJob(records, payloads, binary.BigEndian.Uint64(v))
				if err != nil {
					return fmt.Errorf("outbox: %w", err)
				}
				if j != nil && j.Status.Ended() {
					ended = append(ended, j)
				}
			}
			return nil
		})
		if errors.Is(err, errDone) {
			s.heldUntil.CompareAndSwap(math.MaxInt64, int64(jobs.Now().Add(s.o.OutboxAge)))
			return nil
		}
		if err == nil && len(ended) > 0 {
			err = f(ended)
		}
		if err != nil {
			return err
		}
	}
}

// errDone ends a walk.
var errDone = errors.New("done")
