package status

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"jobstream/jobs"
	"jobstream/status/record"
)

// The outbox makes notifications at least once: the keys of the jobs that ended stand in
// the same transaction as their end, under the number of the commit. Whoever notifies
// reads them there, see [Outbox]. An entry is kept until its notifications have been
// stored in their stream for Options.OutboxAge, because the end of that stream may go
// back in a power cut. After anything but a clean stop all of it is notified again.
//
// An entry has no copies of the jobs. So a job that is to run again leaves a copy of how it
// ended, and so does one that is deleted before that was notified.

// Bounds of the outbox's work.
const (
	pieceJobs  = 1000    // that are read at once
	pieceBytes = 4 << 20 // of theirs, about
	dropMost   = 4096    // entries that a commit drops
	listMost   = 100_000 // ends that are not notified are listed; when there are more, each may be one
)

// writeOutbox stores which jobs end with this transaction, and drops what may go.
func (f *fold) writeOutbox() error {
	bucket := f.tx.Bucket(bucketOutbox)
	if err := f.dropEntries(bucket); err != nil {
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

// dropEntries drops the entries that the fold's input lets go, and copies of ends that no
// entry needs any more.
func (f *fold) dropEntries(bucket *bbolt.Bucket) error {
	c := bucket.Cursor()
	k, _ := c.First()
	for n := 0; k != nil && binary.BigEndian.Uint64(k) <= f.in.outbox && n < dropMost; n++ {
		if err := bucket.Delete(k); err != nil {
			return err
		}
		k, _ = c.First()
	}
	oldest := uint64(math.MaxUint64)
	if k != nil {
		oldest = binary.BigEndian.Uint64(k)
	}
	ages, copies := f.tx.Bucket(bucketCopyAges), f.tx.Bucket(bucketCopies)
	c = ages.Cursor()
	for k, _ := c.First(); len(k) == 16 && binary.BigEndian.Uint64(k) <= oldest; k, _ = c.First() {
		if err := copies.Delete(slices.Concat(k[8:], k[:8])); err != nil {
			return err
		}
		if err := ages.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// keepEnd keeps a copy of an ended job that is about to run again or to be deleted, if
// anything stands in the outbox. The copy counts for entries of earlier commits.
func (f *fold) keepEnd(j *jobs.Job) error {
	if k, _ := f.tx.Bucket(bucketOutbox).Cursor().First(); k == nil {
		return nil
	}
	key := endKey(j.Key, f.s.number.Load()+1)
	if err := f.tx.Bucket(bucketCopyAges).Put(slices.Concat(key[8:], key[:8]), nil); err != nil {
		return err
	}
	copied := record.Append(make([]byte, 4), j)
	binary.BigEndian.PutUint32(copied, uint32(len(copied)-4)) //nolint:gosec // a few MiB
	if len(j.Payload) > record.InlinePayload {
		copied = append(copied, j.Payload...)
	}
	return f.tx.Bucket(bucketCopies).Put(key, copied)
}

// unnotifiedEnd says whether a job may have ended and not been notified, so that deleting it
// would lose that.
func (f *fold) unnotifiedEnd(key uint64) bool {
	if f.unnotified == nil {
		f.unnotified = make(map[uint64]bool)
		c := f.tx.Bucket(bucketOutbox).Cursor()
		for k, v := c.Seek(key8(f.in.notified + 1)); k != nil && len(f.unnotified) <= listMost; k, v = c.Next() {
			for v = v[min(8, len(v)):]; len(v) >= 8; v = v[8:] {
				f.unnotified[binary.BigEndian.Uint64(v)] = true
			}
		}
	}
	return f.unnotified[key] || len(f.unnotified) > listMost
}

// endKey is the key of the copy that the commit with this number made of a job.
func endKey(key, number uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(make([]byte, 0, 16), key), number)
}

func readEnd(v []byte) (*jobs.Job, error) {
	if len(v) < 4 || int(binary.BigEndian.Uint32(v)) > len(v)-4 {
		return nil, record.ErrDamaged
	}
	n := 4 + int(binary.BigEndian.Uint32(v))
	j, apart, err := record.Decode(v[4:n])
	if apart {
		j.Payload = bytes.Clone(v[n:])
	}
	return j, err
}

// aging says what has been notified for long enough to leave the outbox. Only the
// projector uses it.
type aging struct {
	since      time.Time
	young, old uint64 // notified at since, and Options.OutboxAge before
}

// droppable is the number of the commit up to which entries may leave the outbox.
func (s *Store) droppable(now time.Time) uint64 {
	if now.Sub(s.aging.since) >= s.o.OutboxAge {
		s.aging = aging{since: now, young: s.notified.Load(), old: s.aging.young}
	}
	if s.keepAll.Load() {
		return 0
	}
	return s.aging.old
}

// outboxHasOld says whether there is anything to drop from the outbox, so that an
// idle tracker gets a commit for it.
func (s *Store) outboxHasOld() (found bool) {
	old := s.droppable(time.Now())
	err := s.db.View(func(tx *bbolt.Tx) error {
		k, _ := tx.Bucket(bucketOutbox).Cursor().First()
		found = k != nil && binary.BigEndian.Uint64(k) <= old
		return nil
	})
	return err == nil && found
}

// KeepOutbox says whether everything has to stay in the outbox, however old: the
// stream of notifications may lose its end though it has acknowledged it.
func (s *Store) KeepOutbox(keep bool) { s.keepAll.Store(keep) }

// Notified says that the notifications of all commits up to this one are stored.
func (s *Store) Notified(number uint64) {
	s.notified.Store(number)
	s.wake()
}

// WaitNotified returns once the notifications of all that is committed now are stored.
// Whoever notifies must have been woken after that commit.
func (s *Store) WaitNotified(ctx context.Context, number uint64) error {
	return s.until(ctx, "notifications to be stored", func() bool { return s.notified.Load() >= number })
}

// Number is that of the last commit that changed something, see [jobs.Commit].
func (s *Store) Number() uint64 { return s.number.Load() }

// Unnotified is the number of ends in the outbox.
func (s *Store) Unnotified() (ends int, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketOutbox).ForEach(func(_, v []byte) error {
			ends += max(len(v)/8-1, 0)
			return nil
		})
	})
	return ends, err
}

// Outbox reads what there is to notify of, in the order of the commits and in pieces of a
// bounded size. It is for one goroutine.
type Outbox struct {
	s        *Store
	at, next outboxPlace
	older    bool // copies in the form of earlier versions were read
}

// outboxPlace is a place in the outbox: before the job with this index of the first entry
// behind the number.
type outboxPlace struct {
	number uint64
	index  int
}

// Outbox is a reader that begins with the first entry there is.
func (s *Store) Outbox() *Outbox { return &Outbox{s: s} }

// Read returns the next jobs that have ended, none if there are no more for now. Until
// [Outbox.Stored] it returns the same ones.
func (o *Outbox) Read() (ended []*jobs.Job, err error) {
	err = o.s.db.View(func(tx *bbolt.Tx) error {
		if !o.older {
			if ended, err = olderCopies(tx); len(ended) > 0 || err != nil {
				o.next = o.at
				return err
			}
		}
		ended, o.next, err = readOutbox(tx, o.at)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	return ended, nil
}

// Stored says that the notifications of what was read last are stored.
func (o *Outbox) Stored() {
	o.older = true
	o.at = o.next
	o.s.Notified(o.at.number)
}

// readOutbox reads a piece of the outbox, and where the next one begins.
func readOutbox(tx *bbolt.Tx, at outboxPlace) (ended []*jobs.Job, next outboxPlace, err error) {
	r := newEndReader(tx)
	size := 0
	c := tx.Bucket(bucketOutbox).Cursor()
	for k, v := c.Seek(key8(at.number + 1)); k != nil; k, v = c.Next() {
		number := binary.BigEndian.Uint64(k)
		keys := v[min(8*(1+at.index), len(v)):]
		for ; len(keys) >= 8; keys = keys[8:] {
			if len(ended) == pieceJobs || size >= pieceBytes {
				return ended, at, nil
			}
			j, err := r.read(binary.BigEndian.Uint64(keys), number)
			if err != nil {
				return nil, at, err
			}
			at.index++
			if j != nil {
				ended = append(ended, j)
				size += j.SizeHint()
			}
		}
		at = outboxPlace{number: number}
	}
	// What commits of no end have done needs no notification.
	if v := tx.Bucket(bucketMeta).Get(keyNumber); len(v) == 8 {
		at.number = max(at.number, binary.BigEndian.Uint64(v))
	}
	return ended, at, nil
}

// endReader reads jobs as they ended.
type endReader struct {
	records, payloads *bbolt.Bucket
	copies            *bbolt.Cursor // nil if there are none
}

func newEndReader(tx *bbolt.Tx) *endReader {
	r := &endReader{records: tx.Bucket(bucketJobs), payloads: tx.Bucket(bucketPayloads), copies: tx.Bucket(bucketCopies).Cursor()}
	if k, _ := r.copies.First(); k == nil {
		r.copies = nil
	}
	return r
}

// read gives a job as it ended with the commit of this number: what was copied first after
// that, or else the record.
func (r *endReader) read(key, number uint64) (*jobs.Job, error) {
	if r.copies != nil {
		if k, v := r.copies.Seek(endKey(key, number+1)); bytes.HasPrefix(k, key8(key)) {
			return readEnd(v)
		}
	}
	j, err := readJob(r.records, r.payloads, key)
	if j == nil || err != nil || !j.Status.Ended() {
		return nil, err
	}
	return j, nil
}

// olderCopies are the copies of ends that a version before numbered commits has left.
func olderCopies(tx *bbolt.Tx) (ended []*jobs.Job, err error) {
	bucket := tx.Bucket(bucketEnds)
	if bucket == nil {
		return nil, nil
	}
	err = bucket.ForEach(func(_, v []byte) error {
		j, apart, err := record.Decode(v)
		if err != nil {
			return err
		}
		if apart {
			j.Payload = bytes.Clone(tx.Bucket(bucketPayloads).Get(key8(j.Key)))
		}
		ended = append(ended, j)
		return nil
	})
	return ended, err
}
