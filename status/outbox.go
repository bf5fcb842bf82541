package status

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/record"
)

// The outbox makes notifications at least once. The transaction that ends jobs also
// stores their keys, under the number of its commit. Whoever notifies reads them from
// there, see [Outbox]. An entry is kept until its notifications have been stored for
// Options.OutboxAge, because their stream may lose its end in a power cut. After
// anything but a clean stop the whole outbox is notified again.
//
// An entry has no copies of the jobs. So a job that is about to run again leaves a copy
// of its end. So does a job that is deleted before its end was notified.

// Bounds of the outbox's work.
const (
	pieceJobs  = 1000    // that are read at once
	pieceBytes = 4 << 20 // of theirs, about
	dropMost   = 4096    // entries that a commit drops
	listMost   = 100_000 // ends that are not notified are listed; when there are more, each may be one
)

// ends are the entries and copies of the outbox, as a transaction sees and changes them.
type ends struct {
	entries, copies, copyAges boltfile.Bucket
	log                       boltfile.Bucket // see logEnded

	notified  uint64 // the number of the commit up to which notifications are stored
	droppable uint64 // up to which entries may leave the outbox
	silent    bool   // those that end have been notified already

	unnotified map[uint64]bool // see mayBeUnnotified; nil until somebody asks
}

func newEnds(tx *boltfile.Tx, in input) *ends {
	return &ends{
		entries: tx.Bucket(bucketOutbox), copies: tx.Bucket(bucketCopies), copyAges: tx.Bucket(bucketCopyAges),
		log: tx.Bucket(bucketEnded), notified: in.notified, droppable: in.outbox,
	}
}

// write stores which jobs end with a commit, in the outbox and in the log of ends, and
// drops old entries.
func (e *ends) write(c *jobs.Commit) error {
	if err := e.drop(); err != nil {
		return err
	}
	if e.silent {
		return nil
	}
	v := binary.BigEndian.AppendUint64(make([]byte, 0, 8+8*len(c.Changes)), uint64(c.At))
	keys := make([]uint64, 0, len(c.Changes))
	for j := range c.Ended() {
		if j.Type == jobs.CallbackType {
			continue // the end of a callback is no news
		}
		v = binary.BigEndian.AppendUint64(v, j.Key)
		keys = append(keys, j.Key)
	}
	if len(keys) == 0 {
		return nil
	}
	if err := e.entries.Put(key8(c.Number), v); err != nil {
		return err
	}
	return logEnded(e.log, c.Number, c.At, keys, maxEnded)
}

// drop deletes the entries that may leave the outbox, and the copies that no entry needs
// any more.
func (e *ends) drop() error {
	c := e.entries.Cursor()
	k, _ := c.First()
	for n := 0; k != nil && binary.BigEndian.Uint64(k) <= e.droppable && n < dropMost; n++ {
		if err := e.entries.Delete(k); err != nil {
			return err
		}
		k, _ = c.First()
	}
	oldest := uint64(math.MaxUint64)
	if k != nil {
		oldest = binary.BigEndian.Uint64(k)
	}
	c = e.copyAges.Cursor()
	for k, _ := c.First(); len(k) == 16 && binary.BigEndian.Uint64(k) <= oldest; k, _ = c.First() {
		if err := e.copies.Delete(slices.Concat(k[8:], k[:8])); err != nil {
			return err
		}
		if err := e.copyAges.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// keep keeps a copy of an ended job before the commit with this number changes or
// deletes it. The copy counts for entries of earlier commits, so an empty outbox needs
// none.
func (e *ends) keep(j *jobs.Job, number uint64) error {
	if k, _ := e.entries.Cursor().First(); k == nil {
		return nil
	}
	key := endKey(j.Key, number)
	if err := e.copyAges.Put(slices.Concat(key[8:], key[:8]), nil); err != nil {
		return err
	}
	return e.copies.Put(key, record.AppendWhole(nil, j))
}

// mayBeUnnotified says whether the end of a job may not have been notified yet. Deleting
// the job would lose such an end.
func (e *ends) mayBeUnnotified(key uint64) bool {
	if e.unnotified == nil {
		e.unnotified = make(map[uint64]bool)
		c := e.entries.Cursor()
		for k, v := c.Seek(key8(e.notified + 1)); k != nil && len(e.unnotified) <= listMost; k, v = c.Next() {
			for v = v[min(8, len(v)):]; len(v) >= 8; v = v[8:] {
				e.unnotified[binary.BigEndian.Uint64(v)] = true
			}
		}
	}
	return e.unnotified[key] || len(e.unnotified) > listMost
}

// endKey is the key of the copy that the commit with this number made of a job.
func endKey(key, number uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(make([]byte, 0, 16), key), number)
}

// Notifications knows how far the ends of jobs are notified, and so which entries may
// leave the outbox. Any goroutine may call its exported methods. The projector alone
// calls the others.
type Notifications struct {
	db      *boltfile.File
	commits *Commits
	age     time.Duration // see Options.OutboxAge

	notified atomic.Uint64 // the commit up to which notifications are stored
	keepAll  atomic.Bool   // nothing is dropped from the outbox at all

	// Only the projector uses these: the value of notified at the moment since, and the
	// one from a time age before that.
	since      time.Time
	young, old uint64
}

// droppable is the number of the commit up to which entries may leave the outbox.
func (n *Notifications) droppable(now time.Time) uint64 {
	if now.Sub(n.since) >= n.age {
		n.since, n.young, n.old = now, n.notified.Load(), n.young
	}
	if n.keepAll.Load() {
		return 0
	}
	return n.old
}

// outboxHasOld says whether anything may leave the outbox. Then an idle tracker makes a
// commit for it.
func (n *Notifications) outboxHasOld() (found bool) {
	old := n.droppable(time.Now())
	err := n.db.View(func(tx *boltfile.Tx) error {
		k, _ := tx.Bucket(bucketOutbox).Cursor().First()
		found = k != nil && binary.BigEndian.Uint64(k) <= old
		return nil
	})
	return err == nil && found
}

// KeepOutbox says whether all entries have to stay in the outbox, however old. The
// stream of notifications may then lose its end even though it has acknowledged it.
func (n *Notifications) KeepOutbox(keep bool) { n.keepAll.Store(keep) }

// Notified says that the notifications of all commits up to this one are stored.
func (n *Notifications) Notified(number uint64) {
	n.notified.Store(number)
	n.commits.wake()
}

// WaitNotified returns once the notifications up to the commit with this number are
// stored. The notifier must have been woken after that commit.
func (n *Notifications) WaitNotified(ctx context.Context, number uint64) error {
	return n.commits.until(ctx, "notifications to be stored", func() bool { return n.notified.Load() >= number })
}

// Unnotified is the number of ends in the outbox.
func (n *Notifications) Unnotified() (ends int, err error) {
	err = n.db.View(func(tx *boltfile.Tx) error {
		return tx.Bucket(bucketOutbox).ForEach(func(_, v []byte) error {
			ends += max(len(v)/8-1, 0)
			return nil
		})
	})
	return ends, err
}

// Behind is the number of ends whose notifications are not stored yet.
func (n *Notifications) Behind() (ends int, err error) {
	err = n.db.View(func(tx *boltfile.Tx) error {
		c := tx.Bucket(bucketOutbox).Cursor()
		for k, v := c.Seek(key8(n.notified.Load() + 1)); k != nil; k, v = c.Next() {
			ends += max(len(v)/8-1, 0)
		}
		return nil
	})
	return ends, err
}

// Outbox reads the ends to be notified, in the order of the commits and in pieces of a
// bounded size. One goroutine may use it.
type Outbox struct {
	n        *Notifications
	at, next outboxPlace
	older    bool // copies in the form of earlier versions were read
}

// outboxPlace is a place in the outbox: before the job with this index, in the first
// entry behind the number.
type outboxPlace struct {
	number uint64
	index  int
}

// Outbox returns a reader that begins with the first entry.
func (n *Notifications) Outbox() *Outbox { return &Outbox{n: n} }

// Read returns the next jobs that have ended, none if there are no more for now. It
// returns the same jobs until [Outbox.Stored] is called.
func (o *Outbox) Read() (ended []*jobs.Job, err error) {
	err = o.n.db.View(func(tx *boltfile.Tx) error {
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

// Stored says that the notifications of the jobs read last are stored.
func (o *Outbox) Stored() {
	o.older = true
	o.at = o.next
	o.n.Notified(o.at.number)
}

// readOutbox reads a piece of the outbox, and where the next one begins.
func readOutbox(tx *boltfile.Tx, at outboxPlace) (ended []*jobs.Job, next outboxPlace, err error) {
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
	// Commits without an end need no notification.
	if v := tx.Bucket(bucketMeta).Get(keyNumber); len(v) == 8 {
		at.number = max(at.number, binary.BigEndian.Uint64(v))
	}
	return ended, at, nil
}

// endReader reads jobs as they ended.
type endReader struct {
	records, payloads boltfile.Bucket
	copies            boltfile.Cursor
	copied            bool // there are some
}

func newEndReader(tx *boltfile.Tx) *endReader {
	r := &endReader{records: tx.Bucket(bucketJobs), payloads: tx.Bucket(bucketPayloads), copies: tx.Bucket(bucketCopies).Cursor()}
	k, _ := r.copies.First()
	r.copied = k != nil
	return r
}

// read gives a job as it ended with the commit of this number. That is the first copy
// made after it, or else the record.
func (r *endReader) read(key, number uint64) (*jobs.Job, error) {
	if r.copied {
		if k, v := r.copies.Seek(endKey(key, number+1)); bytes.HasPrefix(k, key8(key)) {
			return record.DecodeWhole(v)
		}
	}
	j, err := readJob(r.records, r.payloads, key)
	if j == nil || err != nil || !j.Status.Ended() {
		return nil, err
	}
	return j, nil
}

// olderCopies are the copies of ends left by a version without numbered commits.
func olderCopies(tx *boltfile.Tx) (ended []*jobs.Job, err error) {
	bucket := tx.Bucket(bucketEnds)
	if bucket.Missing() {
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
