package status

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// The log of ends says which jobs ended with which commit, so that whoever has seen the
// changes up to one commit can ask what has ended since. Unlike the outbox it has nothing
// to do with notifications, stays after a clean stop, and keeps no copies: a reader gets
// the jobs as they are now.
//
// An entry is the moment of the commit and the keys of its jobs: sorted, each as the
// distance from the one before, which takes a byte or two. The entry 0 is the floor, the
// last commit before the log. The sequence of the bucket is the number of ends in it.

// Bounds of the log of ends.
const (
	maxEnded = 2_000_000 // ends
	endedAge = 72 * time.Hour
)

// endedFill is how full a page of the log is when it is split: its keys only grow.
const endedFill = 0.95

// endedFloor is the key of the entry that says where the log begins.
var endedFloor = key8(0)

// prepareEnded begins the log of a file that has none behind its last commit.
func prepareEnded(tx *boltfile.Tx) error {
	log := tx.Bucket(bucketEnded)
	if log.Get(endedFloor) != nil {
		return nil
	}
	floor := uint64(0)
	if v := tx.Bucket(bucketMeta).Get(keyNumber); len(v) == 8 {
		floor = binary.BigEndian.Uint64(v)
	}
	return log.Put(endedFloor, endedHead(floor, 0))
}

// endedHead is the value of the floor: a commit and its moment.
func endedHead(number uint64, at jobs.Time) []byte {
	return binary.BigEndian.AppendUint64(key8(number), uint64(at))
}

// logEnded adds the jobs that ended with a commit, and drops what is old or beyond most
// ends. It sorts keys.
func logEnded(log boltfile.Bucket, number uint64, at jobs.Time, keys []uint64, most uint64) error {
	slices.Sort(keys)
	v := binary.BigEndian.AppendUint64(make([]byte, 0, 8+2*len(keys)), uint64(at))
	last := uint64(0)
	for _, key := range keys {
		v = binary.AppendUvarint(v, key-last)
		last = key
	}
	log.Fill(endedFill)
	if err := log.Put(key8(number), v); err != nil {
		return err
	}
	count := log.Sequence() + uint64(len(keys))
	c := log.Cursor()
	var floor []byte
	for n := 0; n < dropMost; n++ {
		k, v := c.Seek(key8(1))
		if k == nil || len(v) < 8 || count <= most && jobs.Time(binary.BigEndian.Uint64(v)) >= at.Add(-endedAge) {
			break
		}
		floor = slices.Concat(k, v[:8])
		count -= min(count, uint64(endsIn(v)))
		if err := log.Delete(k); err != nil {
			return err
		}
	}
	if floor != nil {
		if err := log.Put(endedFloor, floor); err != nil {
			return err
		}
	}
	return log.SetSequence(count)
}

// endsIn is the number of jobs in an entry: the last byte of each has no high bit.
func endsIn(v []byte) (n int) {
	for _, b := range v[8:] {
		if b < 0x80 {
			n++
		}
	}
	return n
}

// EndedSince reads the log of ends from a place on, up to most jobs of about size bytes;
// see [jobs.Ends].
func (q *Queries) EndedSince(from jobs.EndedPlace, most, size int) (p jobs.Ends, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		r := endedReader{ends: &p, most: most, size: size, records: tx.Bucket(bucketJobs), payloads: tx.Bucket(bucketPayloads)}
		log := tx.Bucket(bucketEnded)
		if v := log.Get(endedFloor); len(v) == 16 {
			p.Floor, p.FloorAt = binary.BigEndian.Uint64(v), jobs.Time(binary.BigEndian.Uint64(v[8:])) //nolint:gosec // a moment
		}
		if v := tx.Bucket(bucketMeta).Get(keyNumber); len(v) == 8 {
			p.Number = binary.BigEndian.Uint64(v)
		}
		p.Next = from
		c := log.Cursor()
		for k, v := c.Seek(key8(max(from.Number, 1))); k != nil; k, v = c.Next() {
			if full, err := r.read(binary.BigEndian.Uint64(k), v[min(8, len(v)):]); full || err != nil {
				return err
			}
		}
		p.Whole = true
		return nil
	})
	if err != nil {
		return jobs.Ends{}, fmt.Errorf("read the log of ends: %w", err)
	}
	return p, nil
}

// endedReader fills ends with the jobs of entries.
type endedReader struct {
	ends              *jobs.Ends
	most, size        int // what it has room for
	records, payloads boltfile.Bucket
}

// read reads the rest of an entry. full means that there is no room for all of it.
func (r *endedReader) read(number uint64, keys []byte) (full bool, err error) {
	p := r.ends
	if number != p.Next.Number {
		p.Next = jobs.EndedPlace{Number: number}
	}
	key := uint64(0)
	for index := 0; len(keys) > 0; index++ {
		distance, n := binary.Uvarint(keys)
		if n <= 0 {
			return false, fmt.Errorf("the entry of commit %d makes no sense", number)
		}
		key, keys = key+distance, keys[n:]
		if index < p.Next.Index {
			continue
		}
		if len(p.Jobs) == r.most || r.size <= 0 {
			return true, nil
		}
		j, err := readJob(r.records, r.payloads, key)
		if err != nil {
			return false, err
		}
		p.Next.Index++
		if j != nil {
			p.Jobs = append(p.Jobs, jobs.EndedJob{Number: number, Job: j})
			r.size -= j.SizeHint()
		}
	}
	p.Next = jobs.EndedPlace{Number: number + 1}
	return false, nil
}
