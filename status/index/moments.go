package index

import (
	"bytes"
	"encoding/binary"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// Lists by a moment (the end of a job, its start, or when it is due) find jobs through
// attributes, too: one for each status and slot of time. Jobs that end together are
// mostly neighbours, so a commit of thousands of them writes a few bitmaps. Within a
// slot, records say the order.

// slotShift makes a slot 134 ms long.
const slotShift = 27

// Slot is the slot of a moment.
func Slot(at jobs.Time) uint64 { return uint64(max(at, 0)) >> slotShift }

// MaxSlot is behind all slots.
const MaxSlot = 1<<(64-slotShift) - 1

// momentPrefix begins the attributes of a status.
func momentPrefix(s jobs.Status) []byte { return []byte{'o', byte(s)} }

// momentKey is the length of their keys in the bucket: prefix, slot, NUL, chunk.
const momentKey = 2 + 8 + 1 + 4

// OfMoment is the attribute of the jobs with a status that have its moment, see
// [jobs.Job.Moment], in one slot; "" if there is none.
func OfMoment(j *jobs.Job) string {
	if j.Status == jobs.Pending || j.Status == 0 {
		return ""
	}
	return string(binary.BigEndian.AppendUint64(momentPrefix(j.Status), Slot(j.Moment())))
}

// Moments goes over the slots in which jobs with some statuses have their moments.
type Moments struct {
	Slot    uint64 // the present one
	asc     bool
	cursors []momentCursor
	begun   bool
}

// momentCursor stands on an entry of one status.
type momentCursor struct {
	c      boltfile.Cursor
	prefix []byte
	k, v   []byte // nil at the end
}

// NewMoments begins at a slot.
func NewMoments(bits boltfile.Bucket, statuses []jobs.Status, asc bool, from uint64) *Moments {
	m := &Moments{asc: asc, Slot: from}
	for _, s := range statuses {
		m.cursors = append(m.cursors, momentCursor{c: bits.Cursor(), prefix: momentPrefix(s)})
	}
	for i := range m.cursors {
		c := &m.cursors[i]
		at := binary.BigEndian.AppendUint64(bytes.Clone(c.prefix), from)
		if asc {
			c.set(c.c.Seek(at))
			continue
		}
		// The last entry of the slot, or the one before: none has a key as long as this.
		at = append(at, 1)
		if k, _ := c.c.Seek(at); k == nil {
			c.set(c.c.Last())
		} else {
			c.set(c.c.Prev())
		}
	}
	return m
}

// set makes an entry the present one. Other attributes begin where those of the status
// end.
func (c *momentCursor) set(k, v []byte) {
	if len(k) != momentKey || !bytes.HasPrefix(k, c.prefix) {
		k, v = nil, nil
	}
	c.k, c.v = k, v
}

func (c *momentCursor) slot() uint64 { return binary.BigEndian.Uint64(c.k[2:]) }

// Next goes to the first slot, and then to the following ones. Those that were not read
// by [Moments.Each] are read over.
func (m *Moments) Next() bool {
	if m.begun {
		_ = m.each(func(uint32, []byte) error { return nil })
	}
	m.begun = true
	found := false
	for i := range m.cursors {
		c := &m.cursors[i]
		if c.k == nil {
			continue
		}
		if s := c.slot(); !found || m.asc && s < m.Slot || !m.asc && s > m.Slot {
			m.Slot, found = s, true
		}
	}
	return found
}

// Each yields the bitmaps of the present slot, by chunk. A chunk may come several times.
func (m *Moments) Each(yield func(chunk uint32, set *Bitmap) error) error {
	return m.each(func(chunk uint32, raw []byte) error {
		var set Bitmap
		if err := set.decode(raw); err != nil {
			return err
		}
		return yield(chunk, &set)
	})
}

func (m *Moments) each(yield func(chunk uint32, raw []byte) error) error {
	for i := range m.cursors {
		c := &m.cursors[i]
		for c.k != nil && c.slot() == m.Slot {
			if err := yield(binary.BigEndian.Uint32(c.k[momentKey-4:]), c.v); err != nil {
				return err
			}
			if m.asc {
				c.set(c.c.Next())
			} else {
				c.set(c.c.Prev())
			}
		}
	}
	return nil
}

// Narrow narrows sets of jobs to those with a filter's attributes, chunk by chunk.
type Narrow struct {
	bits   boltfile.Bucket
	groups [][]string
	not    []string
	kept   map[uint32]*Bitmap
}

// maxNarrow bounds the bitmaps that a Narrow keeps. Neighbours in time are mostly in the
// same few chunks.
const maxNarrow = 64

// NewNarrow is for all attributes of a filter but the statuses.
func NewNarrow(bits boltfile.Bucket, filter *jobs.Filter) *Narrow {
	groups, not := groupsOf(filter)
	return &Narrow{bits: bits, groups: groups, not: not, kept: make(map[uint32]*Bitmap)}
}

// Apply removes the jobs of a chunk that lack an attribute.
func (n *Narrow) Apply(chunk uint32, set *Bitmap) error {
	mask := n.kept[chunk]
	if mask == nil {
		var err error
		if mask, err = n.mask(chunk); err != nil {
			return err
		}
		if len(n.kept) >= maxNarrow {
			clear(n.kept)
		}
		n.kept[chunk] = mask
	}
	set.And(mask)
	return nil
}

func (n *Narrow) mask(chunk uint32) (*Bitmap, error) {
	mask := &Bitmap{}
	for i := range mask {
		mask[i] = ^uint64(0)
	}
	for _, attrs := range n.groups {
		any, err := n.union(attrs, chunk)
		if err != nil {
			return nil, err
		}
		mask.And(any)
	}
	not, err := n.union(n.not, chunk)
	mask.AndNot(not)
	return mask, err
}

func (n *Narrow) union(attrs []string, chunk uint32) (*Bitmap, error) {
	all := &Bitmap{}
	for _, a := range attrs {
		var m Bitmap
		if err := Read(n.bits, a, chunk, &m); err != nil {
			return nil, err
		}
		all.Or(&m)
	}
	return all, nil
}

// Last is the highest key with an attribute.
func Last(bucket boltfile.Bucket, attr string) (key uint64, ok bool, err error) {
	prefix := append([]byte(attr), 0)
	c := bucket.Cursor()
	step := c.Prev
	if k, _ := c.Seek(append([]byte(attr), 1)); k == nil {
		step = c.Last
	}
	k, v := step()
	for bytes.HasPrefix(k, prefix) && len(k) != len(prefix)+4 {
		k, v = c.Prev()
	}
	if !bytes.HasPrefix(k, prefix) {
		return 0, false, nil
	}
	var m Bitmap
	if err := m.decode(v); err != nil {
		return 0, false, err
	}
	m.Each(binary.BigEndian.Uint32(k[len(prefix):]), false, func(at uint64) bool { key, ok = at, true; return false })
	return key, ok, nil
}
