package status

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"math"

	"go.etcd.io/bbolt"

	"jobstream/jobs"
)

// Find returns the job whose present message in JOBS is or was seq, nil if there
// is none. The job is shared and must not be changed.
func (s *Store) Find(seq uint64) (j *jobs.Job, err error) {
	if j = s.recent.get(seq); j != nil {
		return j, nil
	}
	err = s.db.View(func(tx *bbolt.Tx) error {
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
func (s *Store) Job(_ context.Context, id jobs.ID) (j *jobs.Job, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(bucketIDs).Get(id[:]); v != nil {
			j, err = readJob(tx.Bucket(bucketJobs), tx.Bucket(bucketPayloads), binary.BigEndian.Uint64(v))
		}
		return err
	})
	return j, err
}

// JobBySeq returns the job that a message in JOBS became, nil if there is none.
func (s *Store) JobBySeq(_ context.Context, seq uint64) (*jobs.Job, error) { return s.Find(seq) }

// List returns a page of jobs and the cursor of the next one, "" if there is
// none. A cursor that List did not make for this order gives an *[jobs.Error].
func (s *Store) List(_ context.Context, p jobs.Page) (found []*jobs.Job, next string, err error) {
	limit := p.Limit
	if limit == 0 {
		limit = jobs.DefaultLimit
	}
	from := uint64(0)
	if p.Cursor != "" {
		var ok bool
		if from, ok = parseCursor(p.Cursor, p.Asc); !ok {
			return nil, "", jobs.Invalid("query/cursor", "is not a cursor of this list in this order; take next_cursor of the page before")
		}
	}
	found, key, err := s.page(p.Filter, from, p.Asc, limit)
	if key != 0 {
		next = makeCursor(key, p.Asc)
	}
	return found, next, err
}

// A cursor is the order and the last key of a page.
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

// scanBatch is how many records one read transaction of a long walk takes, so
// that none keeps old pages alive for long.
const scanBatch = 512

// Scan walks over jobs; see [jobs.History].
func (s *Store) Scan(ctx context.Context, filter jobs.Filter, yield func(*jobs.Job) error) error {
	for after := uint64(0); ; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		found, next, err := s.page(filter, after, true, scanBatch)
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

// page returns up to limit jobs beyond the key from (0 = from the start), and
// the last key looked at, 0 if there is nothing beyond.
func (s *Store) page(filter jobs.Filter, from uint64, asc bool, limit int) (found []*jobs.Job, next uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		q := newQuery(tx, filter, asc)
		chunk, ok := q.first(from)
		for ; ok; chunk, ok = q.after() {
			var m bitmap
			if err := q.candidates(chunk, &m); err != nil {
				return err
			}
			var bad error
			more := m.each(chunk, asc, func(key uint64) bool {
				if from != 0 && (asc && key <= from || !asc && key >= from) {
					return true
				}
				if len(found) == limit {
					return false
				}
				var j *jobs.Job
				if j, bad = readJob(q.records, q.payloads, key); bad != nil {
					return false
				}
				if j != nil && filter.Match(j) {
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
func (s *Store) Count(filter jobs.Filter) (n int, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		q := newQuery(tx, filter, true)
		for chunk, ok := q.first(0); ok; chunk, ok = q.after() {
			var m bitmap
			if err := q.candidates(chunk, &m); err != nil {
				return err
			}
			n += m.count()
		}
		return nil
	})
	return n, err
}

// query evaluates a filter chunk by chunk.
type query struct {
	filter   jobs.Filter
	asc      bool
	records  *bbolt.Bucket
	payloads *bbolt.Bucket
	bits     *bbolt.Bucket
	spans    *bbolt.Bucket
	cursor   *bbolt.Cursor // over spans: every chunk that has or had jobs
	groups   [][]string    // attributes: one of each group must hold
}

func newQuery(tx *bbolt.Tx, filter jobs.Filter, asc bool) *query {
	q := &query{
		filter: filter, asc: asc,
		records: tx.Bucket(bucketJobs), payloads: tx.Bucket(bucketPayloads),
		bits: tx.Bucket(bucketBits), spans: tx.Bucket(bucketTimes),
	}
	q.cursor = q.spans.Cursor()
	var group []string
	for _, st := range filter.Statuses {
		group = append(group, statusAttr(st))
	}
	if len(group) == 0 {
		// Every job has a status, so all of them together are all jobs.
		for st := jobs.Scheduled; int(st) < jobs.NumStatus; st++ {
			group = append(group, statusAttr(st))
		}
	}
	q.groups = append(q.groups, group)
	if len(filter.Types) > 0 {
		q.groups = append(q.groups, attrs(filter.Types, typeAttr))
	}
	if len(filter.Tags) > 0 {
		q.groups = append(q.groups, attrs(filter.Tags, tagAttr))
	}
	return q
}

func attrs(names []string, attr func(string) string) (out []string) {
	for _, n := range names {
		out = append(out, attr(n))
	}
	return out
}

// first is the chunk to begin with: that of the key from, or the outermost one.
func (q *query) first(from uint64) (uint32, bool) {
	var k []byte
	switch {
	case q.asc:
		k, _ = q.cursor.Seek(binary.BigEndian.AppendUint32(nil, chunkOf(from)))
	case from == 0:
		k, _ = q.cursor.Last()
	default:
		want := binary.BigEndian.AppendUint32(nil, chunkOf(from))
		k, _ = q.cursor.Seek(want)
		if k == nil {
			k, _ = q.cursor.Last()
		} else if !bytes.Equal(k, want) {
			k, _ = q.cursor.Prev()
		}
	}
	return chunkKey(k)
}

func (q *query) after() (uint32, bool) {
	var k []byte
	if q.asc {
		k, _ = q.cursor.Next()
	} else {
		k, _ = q.cursor.Prev()
	}
	return chunkKey(k)
}

func chunkKey(k []byte) (uint32, bool) {
	if len(k) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(k), true
}

// candidates are the keys of a chunk that the filter may choose.
func (q *query) candidates(chunk uint32, into *bitmap) error {
	if sp, ok := getSpan(q.spans, chunk); ok {
		before := q.filter.CreatedBefore
		if before == 0 {
			before = math.MaxInt64
		}
		if sp.to < q.filter.CreatedAfter || sp.from >= before {
			*into = bitmap{}
			return nil
		}
	}
	for i, group := range q.groups {
		var any, one bitmap
		for _, attr := range group {
			if err := readBits(q.bits, attr, chunk, &one); err != nil {
				return err
			}
			any.or(&one)
		}
		if i == 0 {
			*into = any
		} else {
			into.and(&any)
		}
	}
	return nil
}

// eachChunk walks over all bitmaps of an attribute, in order.
func eachChunk(bucket *bbolt.Bucket, attr string, f func(chunk uint32, m *bitmap) error) error {
	prefix := append([]byte(attr), 0)
	c := bucket.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if len(k) != len(prefix)+4 {
			continue
		}
		var m bitmap
		if err := m.decode(v); err != nil {
			return err
		}
		if err := f(binary.BigEndian.Uint32(k[len(prefix):]), &m); err != nil {
			return err
		}
	}
	return nil
}
