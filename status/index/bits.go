package index

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"jobstream/jobs"
	"jobstream/status/boltfile"
)

// Jobs are found by attribute (a status, a type, a tag) through bitmaps. Each attribute
// and chunk of 4096 neighbouring keys has one value with the keys that have it.
// Neighbours change together, so a commit of thousands of jobs writes a few bitmaps.
// With an entry per job and attribute it would write thousands. A filter is an AND of
// bitmaps.
const (
	chunkShift = 12
	// ChunkSize is the number of keys in a chunk.
	ChunkSize = 1 << chunkShift
	chunkMask = ChunkSize - 1
	// MaxKey is the highest key that a job can have.
	MaxKey = 1<<(32+chunkShift) - 1
)

// Chunk is the chunk of a key.
func Chunk(key uint64) uint32 { return uint32(key >> chunkShift) }

// FirstKey is the first key of a chunk.
func FirstKey(chunk uint32) uint64 { return uint64(chunk) << chunkShift }

// Bitmap is a set of the keys of one chunk.
type Bitmap [ChunkSize / 64]uint64

// Set adds a key.
func (m *Bitmap) Set(key uint64) { m[key&chunkMask>>6] |= 1 << (key & 63) }

// Clear removes a key.
func (m *Bitmap) Clear(key uint64) { m[key&chunkMask>>6] &^= 1 << (key & 63) }

// Has says whether a key is in the set.
func (m *Bitmap) Has(key uint64) bool { return m[key&chunkMask>>6]&(1<<(key&63)) != 0 }

// And keeps the keys that are in o, too.
func (m *Bitmap) And(o *Bitmap) {
	for i := range m {
		m[i] &= o[i]
	}
}

// AndNot removes the keys that are in o.
func (m *Bitmap) AndNot(o *Bitmap) {
	for i := range m {
		m[i] &^= o[i]
	}
}

// Or adds the keys of o.
func (m *Bitmap) Or(o *Bitmap) {
	for i := range m {
		m[i] |= o[i]
	}
}

// Count is the number of keys.
func (m *Bitmap) Count() (n int) {
	for _, w := range m {
		n += bits.OnesCount64(w)
	}
	return n
}

// Each calls f with the keys of the set, ascending or descending, until f returns
// false. It reports whether it reached the end.
func (m *Bitmap) Each(chunk uint32, asc bool, f func(key uint64) bool) bool {
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

// The two encodings of a bitmap: all words, or the list of positions if that is
// shorter.
const (
	denseBits  = 1
	sparseBits = 2
)

func (m *Bitmap) encode() []byte {
	n := m.Count()
	if n*2 >= len(m)*8 {
		b := append(make([]byte, 0, 1+len(m)*8), denseBits)
		for _, w := range m {
			b = binary.LittleEndian.AppendUint64(b, w)
		}
		return b
	}
	b := append(make([]byte, 0, 1+n*2), sparseBits)
	m.Each(0, true, func(key uint64) bool {
		b = binary.LittleEndian.AppendUint16(b, uint16(key))
		return true
	})
	return b
}

func (m *Bitmap) decode(b []byte) error {
	*m = Bitmap{}
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
			m.Set(uint64(binary.LittleEndian.Uint16(b)) & chunkMask)
		}
	default:
		return fmt.Errorf("damaged bitmap in the tracker (%d bytes)", len(b))
	}
	return nil
}

// The name of an attribute is its kind and its value. NUL ends it in the key.

// OfStatus is the attribute of jobs with a status.
func OfStatus(s jobs.Status) string { return statusAttrs[s] }

// OfType is the attribute of jobs that are listed under a type.
func OfType(name string) string { return "t" + name }

// OfTag is the attribute of jobs with a tag.
func OfTag(tag string) string { return "g" + tag }

// OfFailure is the attribute of failed jobs with a fingerprint.
func OfFailure(fingerprint string) string { return "f" + fingerprint }

// OfSchedule is the attribute of jobs that a schedule has made.
func OfSchedule(name string) string { return "c" + name }

// OfConcurrencyKey is the attribute of jobs with a concurrency key.
func OfConcurrencyKey(key string) string { return "k" + key }

// OfUniqueKey is the attribute of jobs with a unique key, ended ones too.
func OfUniqueKey(key string) string { return "u" + key }

// Away is the attribute of unfinished jobs whose message is not in JOBS.
const Away = "a"

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

// Read reads one bitmap from the bucket; a missing one is empty.
func Read(bucket boltfile.Bucket, attr string, chunk uint32, into *Bitmap) error {
	return into.decode(bucket.Get(bitsKey(attr, chunk)))
}

type bitsID struct {
	attr  string
	chunk uint32
}

type cached struct {
	m     Bitmap
	id    bitsID
	dirty bool
}

// Cache holds the projector's working bitmaps, decoded. It is valid only while every
// commit succeeds.
type Cache struct {
	m     map[bitsID]*cached
	dirty []*cached // since the last flush
}

// maxCached bounds the cache: 4096 bitmaps are about 2 MiB.
const maxCached = 4096

// Reset empties the cache.
func (c *Cache) Reset() { *c = Cache{m: make(map[bitsID]*cached)} }

func (c *Cache) get(bucket boltfile.Bucket, attr string, chunk uint32) (*cached, error) {
	id := bitsID{attr, chunk}
	e, ok := c.m[id]
	if !ok {
		e = &cached{id: id}
		if err := Read(bucket, attr, chunk, &e.m); err != nil {
			return nil, err
		}
		c.m[id] = e
	}
	return e, nil
}

// Change sets whether a job has an attribute.
func (c *Cache) Change(bucket boltfile.Bucket, attr string, key uint64, on bool) error {
	e, err := c.get(bucket, attr, Chunk(key))
	if err != nil {
		return err
	}
	if on {
		e.m.Set(key)
	} else {
		e.m.Clear(key)
	}
	if !e.dirty {
		e.dirty = true
		c.dirty = append(c.dirty, e)
	}
	return nil
}

// Flush writes the changed bitmaps, and empties the cache if it is too large.
func (c *Cache) Flush(bucket boltfile.Bucket) error {
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
	if len(c.m) > maxCached {
		c.Reset()
	}
	return nil
}
