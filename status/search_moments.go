package status

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"math"
	"slices"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/index"
)

// Lists by a moment go over the slots of index.Moments. The records of a slot's jobs say
// their order within it. A slot with a crowd of jobs is read in the order of their keys
// instead: jobs that many share a moment with, or a tenth of a second.

// A slot is crowded with more jobs than these. If texts are searched, a look at each job
// costs more.
const (
	crowd       = 4096
	crowdOfText = 256
)

// foundBytes is about how large the jobs may be that one transaction finds.
const foundBytes = 1 << 20

// spot is a place in a list by a moment: everything up to it has been yielded.
type spot struct {
	slot uint64
	at   jobs.Time // of the last job
	key  uint64    // of the last job; 0 = nothing of the slot yet
	full bool      // the slot is crowded, so the key alone counts
}

const spotSize = 1 + 8 + 8 + 8 + 1

// cursor is the spot as a cursor of a list.
func (s spot) cursor(order jobs.Order, asc bool) string {
	b := []byte{spotKind(order, asc)}
	b = binary.BigEndian.AppendUint64(b, s.slot)
	b = binary.BigEndian.AppendUint64(b, uint64(s.at))
	b = binary.BigEndian.AppendUint64(b, s.key)
	full := byte(0)
	if s.full {
		full = 1
	}
	return base64.RawURLEncoding.EncodeToString(append(b, full))
}

// spotKind begins the cursors of an order.
func spotKind(order jobs.Order, asc bool) byte {
	if asc {
		return 'A' + byte(order)
	}
	return 'D' + 16 + byte(order)
}

// parseSpot reads a cursor; "" is the start.
func parseSpot(c string, order jobs.Order, asc bool) (s spot, ok bool) {
	if c == "" {
		if !asc {
			s.slot = index.MaxSlot
		}
		return s, true
	}
	b, err := base64.RawURLEncoding.DecodeString(c)
	if err != nil || len(b) != spotSize || b[0] != spotKind(order, asc) {
		return s, false
	}
	s.slot, s.at = binary.BigEndian.Uint64(b[1:]), jobs.Time(binary.BigEndian.Uint64(b[9:]))
	s.key, s.full = binary.BigEndian.Uint64(b[17:]), b[25] == 1
	return s, true
}

// searchByMoment is search for an order by a moment. It always reads records, and at most
// as many as a search may.
func (q *Queries) searchByMoment(ctx context.Context, p jobs.Page, limit int, within bounds, yield func(*jobs.Job) bool) (l jobs.Listing, err error) {
	at, ok := parseSpot(p.Cursor, p.Order, p.Asc)
	if !ok {
		return l, badCursor()
	}
	filter := p.Filter
	filter.Statuses = p.Order.Statuses()
	if len(p.Statuses) > 0 {
		filter.Statuses = slices.DeleteFunc(filter.Statuses, func(s jobs.Status) bool { return !slices.Contains(p.Statuses, s) })
		if len(filter.Statuses) == 0 {
			return l, nil
		}
	}
	m := momentSearch{match: newMatcher(&filter), asc: p.Asc}
	left, taken := within.call, 0
	for more := true; more && taken < limit && !left.spent(); {
		if ctx.Err() != nil {
			return l, context.Cause(ctx)
		}
		piece := budget{min(left.records, within.piece.records), min(left.bytes, within.piece.bytes)}
		rest := piece
		var found []*jobs.Job
		var spots []spot
		err := q.db.View(func(tx *boltfile.Tx) (err error) {
			found, spots, more, err = m.piece(tx, &at, limit-taken, &rest)
			return err
		})
		if err != nil {
			return l, err
		}
		left.records -= piece.records - rest.records
		left.bytes -= piece.bytes - rest.bytes
		for i, j := range found {
			if !yield(j) {
				l.Scanned, l.ShowScanned = within.call.records-left.records, m.match.scans
				return l, nil
			}
			taken++
			l.Next = spots[i].cursor(p.Order, p.Asc)
		}
		if l.Next = ""; more {
			l.Next = at.cursor(p.Order, p.Asc)
		}
	}
	l.Scanned = within.call.records - left.records
	l.ShowScanned = m.match.scans || l.Next != "" && taken < limit
	return l, nil
}

// momentSearch is a search under way.
type momentSearch struct {
	match *matcher
	asc   bool
}

// piece reads the part of a list that fits into one transaction, from a spot on, which it
// moves. Each job found has a spot of its own. more says that there may be others.
func (m *momentSearch) piece(tx *boltfile.Tx, at *spot, limit int, left *budget) (found []*jobs.Job, spots []spot, more bool, err error) {
	r := newReading(tx, left)
	bits := tx.Bucket(bucketBits)
	keys, only, err := named(tx, m.match.filter)
	if err != nil {
		return nil, nil, false, err
	}
	match := m.match
	if only {
		rest := *match.filter
		rest.Query = ""
		match = newMatcher(&rest)
	}
	narrow := index.NewNarrow(bits, m.match.filter)
	slots := index.NewMoments(bits, m.match.filter.Statuses, m.asc, at.slot)
	size, looked := 0, false
	for slots.Next() {
		if slots.Slot != at.slot {
			*at = spot{slot: slots.Slot}
			if left.spent() || len(found) == limit {
				return found, spots, true, nil
			}
		}
		candidates, err := m.candidates(slots, narrow, left)
		if err != nil {
			return nil, nil, false, err
		}
		if only {
			candidates = slices.DeleteFunc(candidates, func(c dated) bool { _, in := slices.BinarySearch(keys, c.key); return !in })
		}
		at.full = at.full || at.key == 0 && (len(candidates) > crowd || match.scans && len(candidates) > crowdOfText)
		if !at.full {
			if candidates, err = timed(r, match, candidates); err != nil {
				return nil, nil, false, err
			}
		}
		m.sort(candidates)
		for _, c := range candidates {
			if at.key != 0 && m.order(c, dated{at.at, at.key}) <= 0 {
				continue
			}
			if len(found) == limit || len(found) > 0 && size >= foundBytes || at.full && looked && left.spent() {
				return found, spots, true, nil
			}
			j, err := r.job(c.key, match, true)
			if err != nil {
				return nil, nil, false, err
			}
			at.at, at.key, looked = c.at, c.key, true
			if j != nil {
				size += weight(j)
				found, spots = append(found, j), append(spots, *at)
			}
		}
		at.at, at.key = m.last() // of the slot
	}
	return found, spots, false, nil
}

// dated is a job at its moment; 0 in a crowd.
type dated struct {
	at  jobs.Time
	key uint64
}

func (m *momentSearch) order(a, b dated) int {
	n := cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.key, b.key))
	if !m.asc {
		return -n
	}
	return n
}

func (m *momentSearch) sort(all []dated) { slices.SortFunc(all, m.order) }

// last is behind all jobs of a slot.
func (m *momentSearch) last() (jobs.Time, uint64) {
	if m.asc {
		return math.MaxInt64, math.MaxUint64
	}
	return -1, 1
}

// entryCost is the cost of looking at a bitmap of a slot, in records.
const entryCost = 1

// candidates are the jobs of the present slot with the filter's attributes.
func (m *momentSearch) candidates(slots *index.Moments, narrow *index.Narrow, left *budget) (all []dated, err error) {
	err = slots.Each(func(chunk uint32, set *index.Bitmap) error {
		left.records -= entryCost
		if err := narrow.Apply(chunk, set); err != nil {
			return err
		}
		set.Each(chunk, true, func(key uint64) bool {
			all = append(all, dated{key: key})
			return true
		})
		return nil
	})
	return all, err
}

// timed are those of the candidates that a filter may choose, with their moments.
func timed(r *reading, match *matcher, candidates []dated) (all []dated, err error) {
	all = candidates[:0]
	slices.SortFunc(candidates, func(a, b dated) int { return cmp.Compare(a.key, b.key) })
	for _, c := range candidates {
		at, chosen, err := r.moment(c.key, match)
		if err != nil {
			return nil, err
		}
		if chosen {
			all = append(all, dated{at, c.key})
		}
	}
	return all, nil
}
