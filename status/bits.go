package status

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"go.etcd.io/bbolt"

	"jobstream/jobs"
)

// Jobs are found by attribute (a status, a type, a tag) through bitmaps: per
// attribute and chunk of 4096 neighbouring keys there is one value that says
// which of the keys have it. Neighbours change together, so a commit of thousands
// of jobs writes a handful of bitmaps where an entry per job and attribute would
// write thousands; and a filter is an AND of bitmaps.
const (
	chunkShift = 12
	chunkSize  = 1 << chunkShift
	chunkMask  = chunkSize - 1
)

func chunkOf(key uint64) uint32 { return uint32(key >> chunkShift) }

type bitmap [chunkSize / 64]uint64

func (m *bitmap) set(key uint64)   { m[key&chunkMask>>6] |= 1 << (key & 63) }
func (m *bitmap) clear(key uint64) { m[key&chunkMask>>6] &^= 1 << (key & 63) }
func (m *bitmap) and(o *bitmap) {
	for i := range m {
		m[i] &= o[i]
	}
}

func (m *bitmap) andNot(o *bitmap) {
	for i := range m {
		m[i] &^= o[i]
	}
}

func (m *bitmap) or(o *bitmap) {
	for i := range m {
		m[i] |= o[i]
	}
}

func (m *bitmap) count() (n int) {
	for _, w := range m {
		n += bits.OnesCount64(w)
	}
	return n
}

// each calls f with the keys of the set, ascending or descending, until f
// returns false; it reports whether it got to the end.
func (m *bitmap) each(chunk uint32, asc bool, f func(key uint64) bool) bool {
	base := uint64(chunk) << chunkShift
	for n := range m {
		i := n
		if !asc {
			i = len(m) - 1 - n
		}
		for w := m[i]; w != 0; {
			bit := bits.TrailingZeros64(w)
			if !asc {
				bit = 63 - bits.LeadingZeros64(w)
			}
			w &^= 1 << bit
			if !f(base + uint64(i)<<6 + uint64(bit)) {
				return false
			}
		}
	}
	return true
}

// The two encodings of a bitmap: all words, or a list of positions if that is
// shorter.
const (
	denseBits  = 1
	sparseBits = 2
)

func (m *bitmap) encode() []byte {
	n := m.count()
	if n*2 >= len(m)*8 {
		b := append(make([]byte, 0, 1+len(m)*8), denseBits)
		for _, w := range m {
			b = binary.LittleEndian.AppendUint64(b, w)
		}
		return b
	}
	b := append(make([]byte, 0, 1+n*2), sparseBits)
	m.each(0, true, func(key uint64) bool {
		b = binary.LittleEndian.AppendUint16(b, uint16(key))
		return true
	})
	return b
}

func (m *bitmap) decode(b []byte) error {
	*m = bitmap{}
	if len(b) == 0 {
		return nil
	}
	switch kind := b[0]; {
	case kind == denseBits && len(b) == 1+len(m)*8:
		for i := range m {
			m[i] = binary.LittleEndian.Uint64(b[1+i*8:])
		}
	case kind == sparseBits && len(b)%2 == 1:
		for b = b[1:]; len(b) > 0; b = b[2:] {
			m.set(uint64(binary.LittleEndian.Uint16(b)) & chunkMask)
		}
	default:
		return fmt.Errorf("damaged bitmap in the tracker (%d bytes)", len(b))
	}
	return nil
}

// An attribute's name is its kind and its value; NUL ends it in the key.
func statusAttr(s jobs.Status) string { return statusAttrs[s] }
func typeAttr(name string) string     { return "t" + name }
func tagAttr(tag string) string       { return "g" + tag }

// awayAttr is that of unfinished jobs whose message is not in JOBS.
const awayAttr = "a"

var statusAttrs = func() (a [jobs.NumStatus]string) {
	for i := range a {
		a[i] = "s" + jobs.Status(i).String()
	}
	return a
}()

func bitsKey(attr string, chunk uint32) []byte {
	b := make([]byte, 0, len(attr)+5)
	b = append(b, attr...)
	b = append(b, 0)
	return binary.BigEndian.AppendUint32(b, chunk)
}

// readBits gets one bitmap out of the bucket; a missing one is empty.
func readBits(bucket *bbolt.Bucket, attr string, chunk uint32, into *bitmap) error {
	return into.decode(bucket.Get(bitsKey(attr, chunk)))
}

type bitsID struct {
	attr  string
	chunk uint32
}

type cachedBits struct {
	m     bitmap
	id    bitsID
	dirty bool
}

// bitsCache holds the bitmaps that the projector is working on, decoded. It is
// only valid while every commit succeeds.
type bitsCache struct {
	m     map[bitsID]*cachedBits
	dirty []*cachedBits // since the last flush
}

// maxCachedBits bounds the cache: 4096 bitmaps are about 2 MiB.
const maxCachedBits = 4096

func (c *bitsCache) reset() { *c = bitsCache{m: make(map[bitsID]*cachedBits)} }

func (c *bitsCache) get(bucket *bbolt.Bucket, attr string, chunk uint32) (*cachedBits, error) {
	id := bitsID{attr, chunk}
	e, ok := c.m[id]
	if !ok {
		e = &cachedBits{id: id}
		if err := readBits(bucket, attr, chunk, &e.m); err != nil {
			return nil, err
		}
		c.m[id] = e
	}
	return e, nil
}

func (c *bitsCache) change(bucket *bbolt.Bucket, attr string, key uint64, on bool) error {
	e, err := c.get(bucket, attr, chunkOf(key))
	if err != nil {
		return err
	}
	if on {
		e.m.set(key)
	} else {
		e.m.clear(key)
	}
	if !e.dirty {
		e.dirty = true
		c.dirty = append(c.dirty, e)
	}
	return nil
}

// flush writes what has changed and forgets the rest if there is too much.
func (c *bitsCache) flush(bucket *bbolt.Bucket) error {
	for _, e := range c.dirty {
		key := bitsKey(e.id.attr, e.id.chunk)
		var err error
		if b := e.m.encode(); len(b) > 1 {
			err = bucket.Put(key, b)
		} else {
			err = bucket.Delete(key)
		}
		if err != nil {
			return err
		}
		e.dirty = false
	}
	c.dirty = c.dirty[:0]
	if len(c.m) > maxCachedBits {
		c.reset()
	}
	return nil
}
