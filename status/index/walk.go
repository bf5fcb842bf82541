package index

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// Walk goes over the chunks in which a filter may choose jobs. It skips chunks without
// such jobs unread, since it visits only existing bitmaps of each attribute.
type Walk struct {
	filter *jobs.Filter
	asc    bool
	groups []union // an attribute of each must hold
	not    union   // none of these may hold
	spans  boltfile.Bucket

	from  uint32 // the start of the search for the next chunk
	end   bool
	Chunk uint32 // the present one
	span  Span   // of the present one; zero if it has none
}

// NewWalk begins at the chunk of the key from, or at the outermost one if from is 0.
func NewWalk(bits, times boltfile.Bucket, filter *jobs.Filter, asc bool, from uint64) *Walk {
	w := &Walk{filter: filter, asc: asc, spans: times}
	switch {
	case from>>chunkShift > math.MaxUint32 || from == 0 && !asc:
		w.from = math.MaxUint32
	default:
		w.from = Chunk(from)
	}
	statuses, all := Statuses(filter)
	w.end = len(statuses) == 0
	groups, not := groupsOf(filter)
	w.not = newUnion(bits, not)
	for _, g := range groups {
		w.groups = append(w.groups, newUnion(bits, g))
	}
	// Every job has a status, so all statuses together narrow nothing. They stand for
	// all jobs if there is no other attribute.
	if !all || len(w.groups) == 0 {
		w.groups = append(w.groups, newUnion(bits, attrs(statuses, OfStatus)))
	}
	return w
}

// groupsOf are the attributes that a filter demands, but for statuses: one of each group,
// and none of not.
func groupsOf(filter *jobs.Filter) (groups [][]string, not []string) {
	if len(filter.Types) == 0 && !filter.Callbacks {
		not = []string{OfType(jobs.CallbackType)}
	}
	for _, g := range [...][]string{
		attrs(filter.Types, OfType), attrs(filter.Tags, OfTag), attrs(filter.Fingerprints, OfFailure),
		attrs(filter.Schedules, OfSchedule), attrs(filter.ConcurrencyKeys, OfConcurrencyKey), attrs(filter.UniqueKeys, OfUniqueKey),
	} {
		if len(g) > 0 {
			groups = append(groups, g)
		}
	}
	return groups, not
}

// Statuses are the statuses that a filter allows. all says that these are all statuses.
func Statuses(filter *jobs.Filter) (left []jobs.Status, all bool) {
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

// Next goes to the next chunk in which every group has a bitmap, and which the times do
// not rule out.
func (w *Walk) Next() bool {
	for !w.end {
		at, ok := w.meet()
		if !ok {
			w.end = true
			return false
		}
		w.Chunk = at
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

// meet moves all groups to the first common chunk at or behind w.from.
func (w *Walk) meet() (at uint32, ok bool) {
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

// clockSlack is how far a clock may have been set back between a job's submission and
// its start or end. Otherwise these are later.
const clockSlack = jobs.Time(time.Minute)

// outside says whether no job of the chunk can be in the filter's times.
func (w *Walk) outside() bool {
	f := w.filter
	if w.span == (Span{}) {
		return false
	}
	return w.span.to < f.CreatedAfter ||
		f.CreatedBefore != 0 && w.span.from >= f.CreatedBefore ||
		f.StartedBefore != 0 && w.span.from-clockSlack >= f.StartedBefore ||
		f.EndedBefore != 0 && w.span.from-clockSlack >= f.EndedBefore
}

// Inside says whether all jobs of the chunk were created in the filter's range.
func (w *Walk) Inside() bool {
	f := w.filter
	if f.CreatedAfter == 0 && f.CreatedBefore == 0 {
		return true
	}
	return w.span != (Span{}) && w.span.from >= f.CreatedAfter && (f.CreatedBefore == 0 || w.span.to < f.CreatedBefore)
}

// Candidates are the keys of the present chunk with the filter's attributes.
func (w *Walk) Candidates() (m Bitmap, err error) {
	for i := range w.groups {
		var any Bitmap
		if err := w.groups[i].read(w.Chunk, &any); err != nil {
			return m, err
		}
		if i == 0 {
			m = any
		} else {
			m.And(&any)
		}
	}
	var not Bitmap
	w.not.to(w.Chunk, w.asc)
	if err := w.not.read(w.Chunk, &not); err != nil {
		return m, err
	}
	m.AndNot(&not)
	return m, nil
}

// union is a set of attributes, one of which must hold.
type union []track

func newUnion(bits boltfile.Bucket, attrs []string) union {
	u := make(union, len(attrs))
	for i, a := range attrs {
		u[i] = track{attr: a, prefix: append([]byte(a), 0), c: bits.Cursor()}
	}
	return u
}

// to goes to the first chunk, from at on, for which an attribute has a bitmap.
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

// read adds the jobs of the present chunk that have one of the attributes.
func (u union) read(chunk uint32, into *Bitmap) error {
	for i := range u {
		m, err := u[i].read(chunk)
		if err != nil {
			return err
		}
		if m != nil {
			into.Or(m)
		}
	}
	return nil
}

// track goes over the bitmaps of one attribute, in one direction.
type track struct {
	attr   string
	prefix []byte // of the attribute's keys
	c      boltfile.Cursor
	placed bool
	end    bool   // there are no more
	chunk  uint32 // the present one
	value  []byte // its bitmap, encoded
	m      Bitmap // the same, once decoded
	fresh  bool   // m is the present chunk's
}

// to goes to the first bitmap, from the chunk at on.
func (t *track) to(at uint32, asc bool) {
	step := t.c.Next
	if !asc {
		step = t.c.Prev
	}
	there := func() bool { return t.end || t.placed && (asc && t.chunk >= at || !asc && t.chunk <= at) }
	if there() {
		return
	}
	if t.placed { // the next one is the most likely
		k, v := step()
		if t.moveTo(k, v, step); there() {
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
	t.moveTo(k, v, step)
}

// moveTo makes an entry the present one. It skips keys of other attributes whose names
// begin with this one's.
func (t *track) moveTo(k, v []byte, step func() ([]byte, []byte)) {
	for bytes.HasPrefix(k, t.prefix) && len(k) != len(t.prefix)+4 {
		k, v = step()
	}
	t.placed, t.fresh = true, false
	if t.end = !bytes.HasPrefix(k, t.prefix); !t.end {
		t.chunk, t.value = binary.BigEndian.Uint32(k[len(t.prefix):]), v
	}
}

// read is the bitmap of a chunk; nil if the track is elsewhere.
func (t *track) read(chunk uint32) (*Bitmap, error) {
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

// EachChunk walks over all bitmaps of an attribute, in order.
func EachChunk(bucket boltfile.Bucket, attr string, f func(chunk uint32, m *Bitmap) error) error {
	prefix := append([]byte(attr), 0)
	c := bucket.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if len(k) != len(prefix)+4 {
			continue
		}
		var m Bitmap
		if err := m.decode(v); err != nil {
			return err
		}
		if err := f(binary.BigEndian.Uint32(k[len(prefix):]), &m); err != nil {
			return err
		}
	}
	return nil
}
