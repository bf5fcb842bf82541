package status

import (
	"context"
	"slices"

	"jobstream/jobs"
	"jobstream/status/boltfile"
	"jobstream/status/index"
)

// Counts counts the jobs that filter chooses, by type and status, as of the last commit.
// The counters answer for types and statuses alone. Tags and a range of created_at are
// counted in bitmaps; records are read only in chunks at the ends of the range.
//
// A filter that scans ([jobs.Filter.Scans]) reads every record that the indexes leave.
// That takes about a second for a million. Jobs that come or change meanwhile may or may
// not be counted. The end of ctx ends the count with its cause.
func (q *Queries) Counts(ctx context.Context, filter jobs.Filter) (jobs.Counts, error) {
	if filter.Counted() {
		return q.countFigures(&filter), nil
	}
	return q.countWalk(ctx, &filter, searchPiece)
}

// countFigures sums the counters up.
func (q *Queries) countFigures(filter *jobs.Filter) (c jobs.Counts) {
	statuses, _ := index.Statuses(filter)
	for name, f := range q.Figures() {
		if len(filter.Types) > 0 && !slices.Contains(filter.Types, name) ||
			len(filter.Types) == 0 && !filter.Callbacks && name == jobs.CallbackType {
			continue
		}
		for _, st := range statuses {
			c.Add(name, st, f.Now[st])
		}
	}
	return c
}

// chunkCost is the cost of counting in a chunk's bitmaps, in records.
const chunkCost = 16

// countWalk counts chunk by chunk, a piece in each read transaction.
func (q *Queries) countWalk(ctx context.Context, filter *jobs.Filter, piece budget) (c jobs.Counts, err error) {
	if filter.Query != "" || len(filter.IDs) > 0 {
		err = q.Scan(ctx, *filter, func(j *jobs.Job) error { c.Add(j.ListedAs(), j.Status, 1); return nil })
		return c, err
	}
	t := tally{match: newMatcher(filter), counts: &c}
	for more := true; more; {
		if ctx.Err() != nil {
			return jobs.Counts{}, context.Cause(ctx)
		}
		err := q.db.View(func(tx *boltfile.Tx) (err error) {
			left := piece
			t.reading = newReading(tx, &left)
			t.breakdown = index.NewBreakdown(tx.Bucket(bucketBits), filter)
			more, err = t.piece(newWalk(tx, filter, true, t.from))
			return err
		})
		if err != nil {
			return jobs.Counts{}, err
		}
	}
	return c, nil
}

// tally is a count under way. Only counts and from outlive a read transaction.
type tally struct {
	*reading
	match     *matcher
	breakdown *index.Breakdown
	counts    *jobs.Counts
	from      uint64 // where to go on
}

// piece counts until the budget is used up. more says that jobs are left.
func (t *tally) piece(w *index.Walk) (more bool, err error) {
	for w.Next() {
		if t.left.spent() {
			t.from = index.FirstKey(w.Chunk)
			return true, nil
		}
		if more, err := t.chunk(w); more || err != nil {
			return more, err
		}
	}
	return false, nil
}

// chunk counts in the present chunk of w. more says that jobs are left in it.
func (t *tally) chunk(w *index.Walk) (more bool, err error) {
	all, err := w.Candidates()
	if err != nil {
		return false, err
	}
	if !t.match.reads(w.Inside()) {
		t.left.records -= chunkCost
		return false, t.breakdown.Count(w.Chunk, &all, t.counts)
	}
	done := all.Each(w.Chunk, true, func(key uint64) bool {
		if key < t.from {
			return true
		}
		if t.left.spent() {
			t.from = key
			return false
		}
		err = t.inRecord(key)
		return err == nil
	})
	return !done, err
}

// inRecord counts a job if its record says that the filter chooses it.
func (t *tally) inRecord(key uint64) error {
	if !t.to(key) {
		return nil
	}
	g, chosen, err := t.look(t.match)
	if chosen {
		t.counts.Add(string(g.Type), g.Status, 1)
	}
	return err
}
