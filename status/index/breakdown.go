package index

import (
	"bytes"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// Breakdown counts sets of jobs by type and status.
type Breakdown struct{ types, statuses union }

// NewBreakdown is a Breakdown of the types and statuses that a filter allows.
func NewBreakdown(bits boltfile.Bucket, filter *jobs.Filter) *Breakdown {
	names := attrs(filter.Types, OfType)
	if len(names) == 0 {
		// Each type's bitmaps are neighbours: from one type's first to the next type's.
		kind := []byte(OfType(""))
		c := bits.Cursor()
		for k, _ := c.Seek(kind); bytes.HasPrefix(k, kind) && len(k) > 5; {
			name := bytes.Clone(k[:len(k)-5]) // without NUL and chunk
			names = append(names, string(name))
			k, _ = c.Seek(append(name, 1))
		}
	}
	left, _ := Statuses(filter)
	return &Breakdown{newUnion(bits, names), newUnion(bits, attrs(left, OfStatus))}
}

// Count adds a set of jobs in a chunk to counts. Chunks come in ascending order.
func (b *Breakdown) Count(chunk uint32, all *Bitmap, counts *jobs.Counts) error {
	b.types.to(chunk, true)
	b.statuses.to(chunk, true)
	for i := range b.types {
		typed, err := b.types[i].read(chunk)
		if err != nil {
			return err
		}
		if typed == nil {
			continue
		}
		of := *all
		of.And(typed)
		if err := b.byStatus(chunk, b.types[i].attr[1:], &of, counts); err != nil {
			return err
		}
	}
	return nil
}

// byStatus counts a set of jobs of one type.
func (b *Breakdown) byStatus(chunk uint32, typ string, of *Bitmap, counts *jobs.Counts) error {
	for i := range b.statuses {
		m, err := b.statuses[i].read(chunk)
		if err != nil {
			return err
		}
		if m == nil {
			continue
		}
		both := *of
		both.And(m)
		st, _ := jobs.ParseStatus(b.statuses[i].attr[1:])
		counts.Add(typ, st, both.Count())
	}
	return nil
}
