package status

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/record"
)

// The agenda says when something has to happen to a job. A job is due when its message
// has to be published again. A limit is the moment at which a job must have started or
// ended. The entries follow from the records and change with them, in one transaction.

// inQueue says whether the job's message has to be in JOBS.
func inQueue(j *jobs.Job) bool { return j.Place == jobs.InQueue && !j.Status.Ended() }

// special says whether a job can have entries in the agenda, or a unique key.
func special(j *jobs.Job) bool { return j != nil && (j.Terms != nil || j.Place != jobs.InQueue) }

// The due index has three parts, distinguished by the first byte.
const (
	dueCallback   = 'c' // callbacks, which have an agenda of their own
	dueUnfinished = 'u' // jobs that count as unfinished already
	dueScheduled  = 's' // jobs that wait while the queue is full
)

// dueKey is the key of the job in the due index. It is nil if the job has no entry
// there.
func dueKey(j *jobs.Job) []byte {
	if j == nil || j.Place != jobs.Due || j.Status.Ended() {
		return nil
	}
	part := byte(dueUnfinished)
	switch {
	case j.Type == jobs.CallbackType:
		part = dueCallback
	case j.Status == jobs.Scheduled:
		part = dueScheduled
	}
	return append([]byte{part}, momentKey(j.DueAt, j.Key)...)
}

// updateAgenda brings the entries of a job up to date.
func updateAgenda(tx *boltfile.Tx, old, j *jobs.Job) error {
	due := tx.Bucket(bucketDue)
	if was, is := dueKey(old), dueKey(j); !bytes.Equal(was, is) {
		if was != nil {
			if err := due.Delete(was); err != nil {
				return err
			}
		}
		if is != nil {
			if err := due.Put(is, nil); err != nil {
				return err
			}
		}
	}
	return updateLimit(tx.Bucket(bucketLimits), old, j)
}

func updateLimit(limits boltfile.Bucket, old, j *jobs.Job) error {
	was, is := jobs.Time(0), j.LimitAt()
	if old != nil {
		was = old.LimitAt()
	}
	if was == is {
		return nil
	}
	if was != 0 {
		if err := limits.Delete(momentKey(was, j.Key)); err != nil {
			return err
		}
	}
	if is == 0 {
		return nil
	}
	return limits.Put(momentKey(is, j.Key), nil)
}

// momentKey sorts by the moment, then by the job.
func momentKey(at jobs.Time, key uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(make([]byte, 0, 16), uint64(at)), key)
}

func splitMoment(k []byte) (at jobs.Time, key uint64) {
	return jobs.Time(binary.BigEndian.Uint64(k)), binary.BigEndian.Uint64(k[8:])
}

// Due lists jobs that are to be published; see [jobs.Agenda].
func (q *Queries) Due(now jobs.Time, limit, scheduled int) (due []*jobs.Job, next jobs.Time, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		for _, part := range []byte{dueUnfinished, dueScheduled} {
			most := limit - len(due)
			if part == dueScheduled {
				most = min(most, scheduled)
			}
			some, err := duePart(tx, part, now, most)
			if err != nil {
				return err
			}
			due = append(due, some...)
			if at := dueAfter(tx, part, now); next == 0 || at != 0 && at < next {
				next = at
			}
		}
		return nil
	})
	return due, next, err
}

// duePart reads up to limit jobs of one part of the index that are due by now.
func duePart(tx *boltfile.Tx, part byte, now jobs.Time, limit int) (due []*jobs.Job, err error) {
	records := tx.Bucket(bucketJobs)
	c := tx.Bucket(bucketDue).Cursor()
	for k, _ := c.Seek([]byte{part}); len(k) == 17 && k[0] == part && len(due) < limit; k, _ = c.Next() {
		at, key := splitMoment(k[1:])
		if at > now {
			break
		}
		raw := records.Get(key8(key))
		if raw == nil {
			continue
		}
		j, _, err := record.Decode(raw)
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", key, err)
		}
		due = append(due, j)
	}
	return due, nil
}

// Whole gives a job of Due with its payload; see [jobs.Agenda].
func (q *Queries) Whole(j *jobs.Job) (whole *jobs.Job, err error) {
	if len(j.Payload) > 0 {
		return j, nil
	}
	err = q.db.View(func(tx *boltfile.Tx) error {
		whole, err = readJob(tx.Bucket(bucketJobs), tx.Bucket(bucketPayloads), j.Key)
		return err
	})
	return whole, err
}

// dueAfter is the first moment after now in one part of the index, 0 if there is none.
func dueAfter(tx *boltfile.Tx, part byte, now jobs.Time) jobs.Time {
	k, _ := tx.Bucket(bucketDue).Cursor().Seek(append([]byte{part}, momentKey(now+1, 0)...))
	if len(k) != 17 || k[0] != part {
		return 0
	}
	at, _ := splitMoment(k[1:])
	return at
}

// overdueBatch is how many jobs Overdue lists at most.
const overdueBatch = 4096

// startGrace is how long the tracker waits for the event of a start before the expiry.
// No worker starts a job after its expiry.
const startGrace = 250 * time.Millisecond

// mayHaveStarted says whether a job that would expire at a moment may have started
// before. The event of that start may not be committed yet.
func mayHaveStarted(j *jobs.Job, at jobs.Time) bool {
	return inQueue(j) && j.Attempt == 0 && at == j.Terms.ExpiresAt
}

// Overdue lists jobs whose limit has passed; see [jobs.Agenda].
func (q *Queries) Overdue(now jobs.Time) (keys []uint64, next jobs.Time, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		records := tx.Bucket(bucketJobs)
		c := tx.Bucket(bucketLimits).Cursor()
		for k, _ := c.First(); len(k) == 16; k, _ = c.Next() {
			at, key := splitMoment(k)
			if at > now || len(keys) == overdueBatch {
				if next == 0 || at < next {
					next = at
				}
				return nil
			}
			j, _, err := record.Decode(records.Get(key8(key)))
			if err != nil {
				return err
			}
			switch over := at.Add(startGrace); {
			case j.Status == jobs.Processing: // its worker looks after that
			case mayHaveStarted(j, at) && now < over:
				if next == 0 || over < next {
					next = over
				}
			default:
				keys = append(keys, key)
			}
		}
		return nil
	})
	return keys, next, err
}
