package status

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/record"
)

// budget is how much of the records a reader may still look at.
type budget struct {
	records int
	bytes   int // of records and payloads
}

func (b *budget) spent() bool { return b.records <= 0 || b.bytes <= 0 }

// bounds are those of a search.
type bounds struct {
	call  budget // for all of it
	piece budget // for one read transaction, so that none keeps old pages alive for long
}

var (
	searchPiece = budget{records: 2048, bytes: 8 << 20}
	// searchBounds let a call take some 10 ms if records are small and in memory, and
	// some 100 ms if they are large. They count records rather than time, so the same
	// call finds the same jobs. A piece bounds the memory of a list.
	searchBounds = bounds{call: budget{records: 20_000, bytes: 64 << 20}, piece: budget{records: 2048, bytes: 1 << 20}}
)

// Search yields a page of jobs, one after the other, until yield says that there is no
// room for its argument. The first job must always find room. Indexes answer for
// statuses, types and tags, so only the returned records are read. With any other filter
// it looks at no more than 20,000 records or 64 MiB of them. Then it returns with a
// cursor to go on, possibly without a job.
//
// A cursor that was not made for this order gives a [*jobs.Error]. The end of ctx ends
// the search with its cause. After an error the cursor goes on behind the last yielded
// job.
func (q *Queries) Search(ctx context.Context, p jobs.Page, yield func(*jobs.Job) bool) (jobs.Listing, error) {
	return q.search(ctx, p, searchBounds, yield)
}

func (q *Queries) search(ctx context.Context, p jobs.Page, within bounds, yield func(*jobs.Job) bool) (l jobs.Listing, err error) {
	limit := p.Limit
	if limit == 0 {
		limit = jobs.DefaultLimit
	}
	if p.Order != jobs.ByCreation {
		return q.searchByMoment(ctx, p, limit, within, yield)
	}
	key := uint64(0)
	if p.Cursor != "" {
		var ok bool
		if key, ok = parseCursor(p.Cursor, p.Asc); !ok {
			return l, badCursor()
		}
	}
	match := newMatcher(&p.Filter)
	if !match.mayRead() {
		within.call = budget{math.MaxInt, math.MaxInt} // the limit is bound enough
	}
	left, taken := within.call, 0
	full := false
	for {
		if ctx.Err() != nil {
			return l, context.Cause(ctx)
		}
		piece := budget{min(left.records, within.piece.records), min(left.bytes, within.piece.bytes)}
		rest := piece
		found, next, err := q.piece(match, key, p.Asc, limit-taken, &rest)
		if err != nil {
			return l, err
		}
		left.records -= piece.records - rest.records
		left.bytes -= piece.bytes - rest.bytes
		for _, j := range found {
			if full = !yield(j); full {
				break
			}
			taken++
			key = j.Key
			l.Next = makeCursor(key, p.Asc) // if there is an error behind it
		}
		if full {
			break
		}
		if key = next; key == 0 || taken == limit || left.spent() {
			break
		}
	}
	if l.Next = ""; key != 0 {
		l.Next = makeCursor(key, p.Asc)
	}
	l.Scanned = within.call.records - left.records
	l.ShowScanned = match.scans || key != 0 && taken < limit && !full
	return l, nil
}

func badCursor() error {
	return jobs.Invalid("query/cursor", "is not a cursor of this list in this order; take next_cursor of the page before")
}

// matcher decides by encoded records what no index knows.
type matcher struct {
	filter  *jobs.Filter
	err     jobs.Needle
	payload jobs.Needle
	query   jobs.Needle
	scans   bool
	light   bool // the payloads that are kept apart are not wanted
}

func newMatcher(f *jobs.Filter) *matcher {
	return &matcher{filter: f, err: jobs.NewNeedle(f.Error), payload: jobs.NewNeedle(f.Payload), query: jobs.NewNeedle(f.Query), scans: f.Scans()}
}

// mayRead says whether the records of some chunks may have to be read.
func (m *matcher) mayRead() bool {
	return m.scans || m.filter.CreatedAfter != 0 || m.filter.CreatedBefore != 0
}

// reads says whether the records of a chunk have to be read. inside says that all of its
// jobs were created in the filter's range.
func (m *matcher) reads(inside bool) bool { return m.scans || !inside }

// chooses says whether the filter may choose a job, by all but its indexed attributes.
// payload gives a payload that is kept apart.
func (m *matcher) chooses(g *record.Glance, payload func() []byte) bool {
	f := m.filter
	if !f.MatchPriority(g.Priority) || !f.MatchTimes(g.Status, g.Created, g.Started, g.Ended) {
		return false
	}
	if f.Error != "" && !m.err.In(g.Error) && !g.InErrors(&m.err) {
		return false
	}
	if f.Payload == "" && f.Query == "" {
		return true
	}
	// A query that is an id or a seq has found its jobs before, see named.
	if f.Query != "" && (m.query.In(g.Type) || m.query.In(g.Error) || g.InTags(&m.query) || g.InErrors(&m.query)) {
		if f.Payload == "" {
			return true
		}
	} else if f.Query != "" && !m.inPayload(&m.query, g, payload) {
		return false
	}
	return f.Payload == "" || m.inPayload(&m.payload, g, payload)
}

func (m *matcher) inPayload(text *jobs.Needle, g *record.Glance, apart func() []byte) bool {
	if g.Apart {
		return text.In(apart())
	}
	return text.In(g.Payload)
}

// reading reads records within a budget. Neighbours in either direction are read
// fastest.
type reading struct {
	records  boltfile.Cursor
	payloads boltfile.Bucket
	left     *budget
	key      uint64 // of the present record; 0 = none
	record   []byte // encoded
	payload  []byte // if it is kept apart and has been read
}

func newReading(tx *boltfile.Tx, left *budget) *reading {
	return &reading{records: tx.Bucket(bucketJobs).Cursor(), payloads: tx.Bucket(bucketPayloads), left: left}
}

// to moves to the record with this key, and says whether there is one.
func (r *reading) to(key uint64) bool {
	var space [8]byte
	want := binary.BigEndian.AppendUint64(space[:0], key)
	var k, v []byte
	switch { // a step to the neighbour is cheaper than a way down the tree
	case r.key != 0 && key == r.key+1:
		k, v = r.records.Next()
	case r.key != 0 && key == r.key-1:
		k, v = r.records.Prev()
	}
	if !bytes.Equal(k, want) {
		k, v = r.records.Seek(want)
	}
	r.left.records--
	r.key, r.record, r.payload = 0, nil, nil
	if !bytes.Equal(k, want) {
		return false
	}
	r.key, r.record = key, v
	r.left.bytes -= len(v)
	return true
}

// apart is the payload of the present record, if it is kept apart.
func (r *reading) apart() []byte {
	if r.payload == nil {
		r.payload = r.payloads.Get(key8(r.key))
		r.left.bytes -= len(r.payload)
	}
	return r.payload
}

// damaged says which record could not be read.
func (r *reading) damaged(err error) error { return fmt.Errorf("record %d: %w", r.key, err) }

// look reads the present record at a glance, and says whether the filter may choose its
// job.
func (r *reading) look(match *matcher) (g record.Glance, chosen bool, err error) {
	if err := g.Read(r.record); err != nil {
		return g, false, r.damaged(err)
	}
	return g, match.chooses(&g, r.apart), nil
}

// moment is the moment by which lists order the job with this key. chosen is false if
// there is none, or the filter does not choose it.
func (r *reading) moment(key uint64, match *matcher) (at jobs.Time, chosen bool, err error) {
	if !r.to(key) {
		return 0, false, nil
	}
	g, chosen, err := r.look(match)
	switch {
	case err != nil || !chosen:
		return 0, false, err
	case g.Status.Ended():
		return g.Ended, true, nil
	case g.Status == jobs.Processing:
		return g.Started, true, nil
	}
	return g.Due, true, nil
}

// job is the job with this key, nil if there is none or the filter does not choose it.
// With look, the record is decoded only if a glance chooses it.
func (r *reading) job(key uint64, match *matcher, look bool) (*jobs.Job, error) {
	if !r.to(key) {
		return nil, nil
	}
	if look {
		if _, chosen, err := r.look(match); err != nil || !chosen {
			return nil, err
		}
	}
	j, apart, err := record.Decode(r.record)
	if err != nil {
		return nil, r.damaged(err)
	}
	if apart && !match.light {
		j.Payload = slices.Clone(r.apart())
	}
	if !match.filter.Match(j) {
		return nil, nil
	}
	return j, nil
}
