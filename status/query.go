package status

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"jobstream/jobs"
)

// Find returns the job whose present message in JOBS is or was seq, nil if there
// is none. The job is shared and must not be changed.
func (s *Store) Find(seq uint64) (j *jobs.Job, err error) {
	if j = s.recent.get(seq); j != nil {
		return j, nil
	}
	if j, err = s.ahead(seq); j != nil || err != nil {
		return j, err
	}
	return s.JobBySeq(context.Background(), seq)
}

// JobBySeq is [Store.Find] for lookups: it reads the file even of jobs that are
// kept in memory. That is a moment behind the file after a commit, so that a
// lookup by the sequence could show less than one by the id has shown before.
func (s *Store) JobBySeq(_ context.Context, seq uint64) (j *jobs.Job, err error) {
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

// scanBatch is how many jobs one read transaction of a long walk takes.
const scanBatch = 512

// Scan walks over jobs; see [jobs.History].
func (s *Store) Scan(ctx context.Context, filter jobs.Filter, yield func(*jobs.Job) error) error {
	for after := uint64(0); ; {
		if ctx.Err() != nil {
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
// the last key looked at, 0 if there is nothing beyond. It reads one piece of
// the records, so it may find fewer jobs although there are more.
func (s *Store) page(filter jobs.Filter, from uint64, asc bool, limit int) (found []*jobs.Job, next uint64, err error) {
	left := searchPiece
	return s.piece(newMatcher(&filter), from, asc, limit, &left)
}

// piece is a part of a list that one transaction reads: see page. It ends when
// budget is used up, which it reduces.
func (s *Store) piece(match *matcher, from uint64, asc bool, limit int, left *budget) (found []*jobs.Job, next uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		r := newReading(tx, left)
		w := newWalk(tx, match.filter, asc, from)
		for w.next() {
			m, err := w.candidates()
			if err != nil {
				return err
			}
			looks := match.reads(w.inside())
			var bad error
			more := m.each(w.chunk, asc, func(key uint64) bool {
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
func (s *Store) Count(filter jobs.Filter) (n int, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		for w := newWalk(tx, &filter, true, 0); w.next(); {
			m, err := w.candidates()
			if err != nil {
				return err
			}
			n += m.count()
		}
		return nil
	})
	return n, err
}

// walk goes over the chunks in which a filter may choose jobs. Chunks without
// such jobs are passed over without being looked at: of every attribute only the
// bitmaps that exist are visited.
type walk struct {
	filter *jobs.Filter
	asc    bool
	groups []union // one attribute of each must hold
	spans  *bbolt.Bucket

	from  uint32 // where to look for the next chunk
	end   bool
	chunk uint32 // the present one
	span  span   // of the present one; zero if it has none
}

// newWalk begins at the chunk of the key from, or at the outermost one if it is
// 0.
func newWalk(tx *bbolt.Tx, filter *jobs.Filter, asc bool, from uint64) *walk {
	w := &walk{filter: filter, asc: asc, spans: tx.Bucket(bucketTimes)}
	switch {
	case from>>chunkShift > math.MaxUint32 || from == 0 && !asc:
		w.from = math.MaxUint32
	default:
		w.from = chunkOf(from)
	}
	bits := tx.Bucket(bucketBits)
	statuses, all := statusesOf(filter)
	w.end = len(statuses) == 0
	if len(filter.Types) > 0 {
		w.groups = append(w.groups, newUnion(bits, attrs(filter.Types, typeAttr)))
	}
	if len(filter.Tags) > 0 {
		w.groups = append(w.groups, newUnion(bits, attrs(filter.Tags, tagAttr)))
	}
	// Every job has a status, so all of them together narrow nothing; they stand
	// for all jobs if there is nothing else.
	if !all || len(w.groups) == 0 {
		w.groups = append(w.groups, newUnion(bits, attrs(statuses, statusAttr)))
	}
	return w
}

// statusesOf are the statuses that a filter leaves; all says that these are all
// there are.
func statusesOf(filter *jobs.Filter) (left []jobs.Status, all bool) {
	for st := jobs.Scheduled; int(st) < jobs.NumStatus; st++ {
		if (len(filter.Statuses) == 0 || slices.Contains(filter.Statuses, st)) && (st.Ended() || !filter.WantsEnd()) {
			left = append(left, st)
		}
	}
	return left, len(left) == jobs.NumStatus-1
}

func attrs[T any](values []T, attr func(T) string) (out []string) {
	for _, v := range values {
		if a := attr(v); !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// next goes to the next chunk where every group has a bitmap and whose times
// don't rule it out.
func (w *walk) next() bool {
	for !w.end {
		at, ok := w.meet()
		if !ok {
			w.end = true
			return false
		}
		w.chunk = at
		if w.asc {
			w.from = at + 1
			w.end = at == math.MaxUint32
		} else {
			w.from = at - 1
			w.end = at == 0
		}
		w.span, _ = getSpan(w.spans, at)
		if !w.outside() {
			return true
		}
	}
	return false
}

// meet moves all groups to the first chunk from w.from on that all of them
// have.
func (w *walk) meet() (at uint32, ok bool) {
	at = w.from
	for moved := true; moved; {
		moved = false
		for i := range w.groups {
			c, ok := w.groups[i].to(at, w.asc)
			if !ok {
				return 0, false
			}
			if c != at {
				at, moved = c, true
			}
		}
	}
	return at, true
}

// clockSlack is by how much a clock may have been set back between a job's
// making and its start or end, which are after it otherwise.
const clockSlack = jobs.Time(time.Minute)

// outside says whether no job of the chunk can be in the filter's times.
func (w *walk) outside() bool {
	f := w.filter
	if w.span == (span{}) {
		return false
	}
	return w.span.to < f.CreatedAfter ||
		f.CreatedBefore != 0 && w.span.from >= f.CreatedBefore ||
		f.StartedBefore != 0 && w.span.from-clockSlack >= f.StartedBefore ||
		f.EndedBefore != 0 && w.span.from-clockSlack >= f.EndedBefore
}

// inside says whether all jobs of the chunk were created in the filter's range.
func (w *walk) inside() bool {
	f := w.filter
	if f.CreatedAfter == 0 && f.CreatedBefore == 0 {
		return true
	}
	return w.span != (span{}) && w.span.from >= f.CreatedAfter && (f.CreatedBefore == 0 || w.span.to < f.CreatedBefore)
}

// candidates are the keys of the present chunk that have the filter's
// attributes.
func (w *walk) candidates() (m bitmap, err error) {
	for i := range w.groups {
		var any bitmap
		if err := w.groups[i].read(w.chunk, &any); err != nil {
			return m, err
		}
		if i == 0 {
			m = any
		} else {
			m.and(&any)
		}
	}
	return m, nil
}

// union is a set of attributes, one of which must hold.
type union []track

func newUnion(bits *bbolt.Bucket, attrs []string) union {
	u := make(union, len(attrs))
	for i, a := range attrs {
		u[i] = track{attr: a, prefix: append([]byte(a), 0), c: bits.Cursor()}
	}
	return u
}

// to goes to the first chunk from at on for which one of the attributes has a
// bitmap.
func (u union) to(at uint32, asc bool) (first uint32, ok bool) {
	for i := range u {
		t := &u[i]
		t.to(at, asc)
		if !t.end && (!ok || asc && t.chunk < first || !asc && t.chunk > first) {
			first, ok = t.chunk, true
		}
	}
	return first, ok
}

// read adds all that have one of the attributes, in the chunk where the union
// is.
func (u union) read(chunk uint32, into *bitmap) error {
	for i := range u {
		m, err := u[i].read(chunk)
		if err != nil {
			return err
		}
		if m != nil {
			into.or(m)
		}
	}
	return nil
}

// track goes over the bitmaps of one attribute, in one direction.
type track struct {
	attr   string
	prefix []byte // of its keys
	c      *bbolt.Cursor
	placed bool
	end    bool   // there is nothing more
	chunk  uint32 // where it is
	value  []byte // the bitmap there, encoded
	m      bitmap // and decoded, once read
	fresh  bool   // m is of this chunk
}

// to goes to the first bitmap from the chunk at on.
func (t *track) to(at uint32, asc bool) {
	step := t.c.Next
	if !asc {
		step = t.c.Prev
	}
	there := func() bool { return t.end || t.placed && (asc && t.chunk >= at || !asc && t.chunk <= at) }
	if there() {
		return
	}
	if t.placed { // the next one is the likeliest
		k, v := step()
		if t.take(k, v, step); there() {
			return
		}
	}
	want := binary.BigEndian.AppendUint32(bytes.Clone(t.prefix), at)
	k, v := t.c.Seek(want)
	if !asc && k == nil {
		k, v = t.c.Last()
	} else if !asc && !bytes.Equal(k, want) {
		k, v = t.c.Prev()
	}
	t.take(k, v, step)
}

// take makes an entry the present one. Keys of another attribute whose name
// begins with this one's are stepped over.
func (t *track) take(k, v []byte, step func() ([]byte, []byte)) {
	for bytes.HasPrefix(k, t.prefix) && len(k) != len(t.prefix)+4 {
		k, v = step()
	}
	t.placed, t.fresh = true, false
	if t.end = !bytes.HasPrefix(k, t.prefix); !t.end {
		t.chunk, t.value = binary.BigEndian.Uint32(k[len(t.prefix):]), v
	}
}

// read is the bitmap of a chunk, nil if the track is not there.
func (t *track) read(chunk uint32) (*bitmap, error) {
	if t.end || t.chunk != chunk {
		return nil, nil
	}
	if !t.fresh {
		if err := t.m.decode(t.value); err != nil {
			return nil, err
		}
		t.fresh = true
	}
	return &t.m, nil
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
