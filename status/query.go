package status

import (
	"context"
	"encoding/base64"
	"encoding/binary"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/index"
)

// Queries answers from the file as of the last commit, and from the jobs kept in memory.
// Any goroutine may use it.
type Queries struct {
	db     *boltfile.File
	latest *Latest
}

// Find returns the job whose present message in JOBS is or was seq, nil if there
// is none. The job is shared and must not be changed.
func (q *Queries) Find(seq uint64) (j *jobs.Job, err error) {
	if j = q.latest.recent.get(seq); j != nil {
		return j, nil
	}
	if j, err = q.prefetch(seq); j != nil || err != nil {
		return j, err
	}
	return q.JobBySeq(context.Background(), seq)
}

// JobBySeq is [Queries.Find] for lookups. It reads the file even if the job is kept in
// memory. After a commit the memory is a moment behind the file. So a lookup by sequence
// could otherwise show an older state than one by id before it.
func (q *Queries) JobBySeq(_ context.Context, seq uint64) (j *jobs.Job, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		records, payloads := tx.Bucket(bucketJobs), tx.Bucket(bucketPayloads)
		if j, err = readJob(records, payloads, seq); j != nil || err != nil {
			return err
		}
		if v := tx.Bucket(bucketMoved).Get(key8(seq)); v != nil {
			j, err = readJob(records, payloads, binary.BigEndian.Uint64(v))
		}
		return err
	})
	return j, err
}

// Job returns the job with this id, nil if there is none.
func (q *Queries) Job(_ context.Context, id jobs.ID) (j *jobs.Job, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		if v := tx.Bucket(bucketIDs).Get(id[:]); v != nil {
			j, err = readJob(tx.Bucket(bucketJobs), tx.Bucket(bucketPayloads), binary.BigEndian.Uint64(v))
		}
		return err
	})
	return j, err
}

// A cursor consists of the order and the last key of a page.
func makeCursor(key uint64, asc bool) string {
	b := []byte{'d'}
	if asc {
		b[0] = 'a'
	}
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(b, key))
}

func parseCursor(c string, asc bool) (uint64, bool) {
	b, err := base64.RawURLEncoding.DecodeString(c)
	if err != nil || len(b) != 9 || b[0] != 'a' && b[0] != 'd' || (b[0] == 'a') != asc {
		return 0, false
	}
	key := binary.BigEndian.Uint64(b[1:])
	return key, key != 0
}

// scanBatch is how many jobs one read transaction of a long walk takes.
const scanBatch = 512

// Scan walks over jobs; see [jobs.History].
func (q *Queries) Scan(ctx context.Context, filter jobs.Filter, yield func(*jobs.Job) error) error {
	for after := uint64(0); ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		found, next, err := q.page(filter, after, true, scanBatch)
		if err != nil {
			return err
		}
		for _, j := range found {
			if err := yield(j); err != nil {
				return err
			}
		}
		if after = next; next == 0 {
			return nil
		}
	}
}

// page returns up to limit jobs beyond the key from (0 = from the start). next is the
// last key looked at, 0 if there is nothing beyond. It reads one piece of the records,
// so it may find fewer jobs although there are more.
func (q *Queries) page(filter jobs.Filter, from uint64, asc bool, limit int) (found []*jobs.Job, next uint64, err error) {
	left := searchPiece
	return q.piece(newMatcher(&filter), from, asc, limit, &left)
}

// piece reads the part of a list that fits into one transaction; see page. It ends when
// the budget, which it reduces, is used up.
func (q *Queries) piece(match *matcher, from uint64, asc bool, limit int, left *budget) (found []*jobs.Job, next uint64, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		r := newReading(tx, left)
		if keys, only, bad := named(tx, match.filter); only {
			if bad == nil {
				found, next, bad = among(r, match, keys, from, asc, limit)
			}
			return bad
		}
		w := newWalk(tx, match.filter, asc, from)
		for w.Next() {
			m, err := w.Candidates()
			if err != nil {
				return err
			}
			looks := match.reads(w.Inside())
			var bad error
			more := m.Each(w.Chunk, asc, func(key uint64) bool {
				if from != 0 && (asc && key <= from || !asc && key >= from) {
					return true
				}
				if len(found) == limit || left.spent() {
					return false
				}
				var j *jobs.Job
				if j, bad = r.job(key, match, looks); bad != nil {
					return false
				}
				if j != nil {
					found = append(found, j)
				}
				next = key
				return true
			})
			if bad != nil || !more {
				return bad
			}
		}
		next = 0
		return nil
	})
	return found, next, err
}

// Count counts jobs; see [jobs.History].
func (q *Queries) Count(filter jobs.Filter) (n int, err error) {
	err = q.db.View(func(tx *boltfile.Tx) error {
		for w := newWalk(tx, &filter, true, 0); w.Next(); {
			m, err := w.Candidates()
			if err != nil {
				return err
			}
			n += m.Count()
		}
		return nil
	})
	return n, err
}

// Position is the place of a job in its lane: 1 is next. It is counted from bitmaps by
// the keys of the jobs. So a job that was put into the queue again after others counts
// where it was at first. It is 0 for a job that does not wait in a lane.
func (q *Queries) Position(j *jobs.Job) (n int, err error) {
	if j.Status != jobs.Pending || !inQueue(j) {
		return 0, nil
	}
	err = q.db.View(func(tx *boltfile.Tx) error {
		n, err = index.Position(tx.Bucket(bucketBits), j)
		return err
	})
	return n, err
}

// newWalk is a walk over the chunks in which a filter may choose jobs.
func newWalk(tx *boltfile.Tx, filter *jobs.Filter, asc bool, from uint64) *index.Walk {
	return index.NewWalk(tx.Bucket(bucketBits), tx.Bucket(bucketTimes), filter, asc, from)
}
